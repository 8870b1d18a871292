//! Reading grants, joined with what the log's erasable table says of their people.

use sqlx::{AssertSqlSafe, Row as _};

use super::stop::StoredCode;
use super::{Db, StoreError, json, on_db};

/// A grant as stored, with the disclosures of the entry that issued it.
#[derive(Debug, Clone)]
pub struct GrantRecord {
    /// Its id.
    pub id: String,
    /// The entry that issued it, globally.
    pub idx: i64,
    /// Its token.
    pub jti: String,
    /// Its client.
    pub client: String,
    /// The key.
    pub kid: String,
    /// Audiences as a JSON array.
    pub aud: String,
    /// Scopes, space-separated.
    pub scope: String,
    /// `verified` or `asserted`.
    pub assurance: String,
    /// Issued at, microseconds.
    pub iat_us: i64,
    /// Ends at, microseconds.
    pub exp_us: i64,
    /// Asked for at, microseconds.
    pub created_at_us: i64,
    /// Last changed at, microseconds.
    pub updated_at_us: i64,
    /// Redeemed at, microseconds.
    pub accepted_at_us: Option<i64>,
    /// Revoked at, microseconds.
    pub revoked_at_us: Option<i64>,
    /// The grant it was delegated from.
    pub parent: Option<String>,
    /// JSON array of disclosures, unless erased.
    pub disclosures: Option<String>,
    /// Its row of `approval`, where it has one.
    pub approval: Option<ApprovalRecord>,
}

/// What a grant's row of `approval` says.
#[derive(Debug, Clone)]
pub struct ApprovalRecord {
    /// The word.
    pub state: String,
    /// When the request lapses, microseconds.
    pub lapses_us: i64,
    /// The lifetime asked for.
    pub lifetime_seconds: i64,
    /// What stands for the asker.
    pub asker_tag: Option<String>,
}

/// A handoff code with its grant.
#[derive(Debug, Clone)]
pub struct Handoff {
    /// The code.
    pub code: StoredCode,
    /// Its grant.
    pub grant: GrantRecord,
}

/// What has been asked for and not released: no token of it exists.
const NOT_RELEASED: &str = "EXISTS (SELECT 1 FROM approval a WHERE a.grant_id = g.id \
     AND a.state IN ('waiting', 'approved', 'refused'))";

/// Which grants, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Neither redeemed nor revoked.
    Pending,
    /// Redeemed, not revoked.
    Accepted,
    /// Revoked.
    Revoked,
    /// Neither revoked nor ended.
    Active,
    /// Ended without having been revoked.
    Expired,
}

impl State {
    /// The condition on `g`; `now` is a parameter or a number.
    fn sql(self, now: &str) -> String {
        match self {
            Self::Pending => "g.accepted_at_us IS NULL AND g.revoked_at_us IS NULL".into(),
            Self::Accepted => "g.accepted_at_us IS NOT NULL AND g.revoked_at_us IS NULL".into(),
            Self::Revoked => "g.revoked_at_us IS NOT NULL".into(),
            Self::Active => {
                format!("g.revoked_at_us IS NULL AND g.exp_us > {now} AND NOT {NOT_RELEASED}")
            }
            Self::Expired => format!("g.revoked_at_us IS NULL AND g.exp_us <= {now}"),
        }
    }

    /// For a search over entries: only those that issued a grant in this state.
    #[must_use]
    pub fn of_entry(state: Option<Self>, now_us: i64) -> String {
        let state = state.map_or_else(|| "TRUE".into(), |state| state.sql(&now_us.to_string()));
        format!(" AND EXISTS (SELECT 1 FROM actor_grant g WHERE g.idx = d.idx AND {state})")
    }
}

const DISCLOSURES: &str = "(SELECT p.disclosures FROM audit_private p WHERE p.idx = g.idx)";

fn columns(disclosures: &str) -> String {
    format!(
        "g.id, g.idx, g.jti, g.client, g.kid, g.aud, g.scope, g.assurance, g.iat_us, g.exp_us, g.created_at_us, \
         g.updated_at_us, g.accepted_at_us, g.revoked_at_us, g.parent, {disclosures}, a.state, a.lapses_us, \
         a.lifetime_seconds, a.asker_tag"
    )
}

const FROM: &str = "FROM actor_grant g LEFT JOIN approval a ON a.grant_id = g.id";

/// The same on both databases, in the order of [`columns`].
macro_rules! read_from {
    ($($row:ty),+) => {$(
        impl sqlx::FromRow<'_, $row> for GrantRecord {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let state: Option<String> = row.try_get(16)?;
                let approval = match state {
                    None => None,
                    Some(state) => Some(ApprovalRecord {
                        state,
                        lapses_us: row.try_get(17)?,
                        lifetime_seconds: row.try_get(18)?,
                        asker_tag: row.try_get(19)?,
                    }),
                };
                Ok(Self {
                    id: row.try_get(0)?,
                    idx: row.try_get(1)?,
                    jti: row.try_get(2)?,
                    client: row.try_get(3)?,
                    kid: row.try_get(4)?,
                    aud: row.try_get(5)?,
                    scope: row.try_get(6)?,
                    assurance: row.try_get(7)?,
                    iat_us: row.try_get(8)?,
                    exp_us: row.try_get(9)?,
                    created_at_us: row.try_get(10)?,
                    updated_at_us: row.try_get(11)?,
                    accepted_at_us: row.try_get(12)?,
                    revoked_at_us: row.try_get(13)?,
                    parent: row.try_get(14)?,
                    disclosures: row.try_get(15)?,
                    approval,
                })
            }
        }

        impl sqlx::FromRow<'_, $row> for Handoff {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let grant = GrantRecord::from_row(row)?;
                let code = StoredCode {
                    grant_id: grant.id.clone(),
                    code_hash: row.try_get(20)?,
                    redeem_client: row.try_get(21)?,
                    code_challenge: row.try_get(22)?,
                    sealed: row.try_get(23)?,
                    exp_us: row.try_get(24)?,
                    keep_until_us: row.try_get(25)?,
                    used_idx: row.try_get(26)?,
                };
                Ok(Self { code, grant })
            }
        }
    )+};
}
read_from!(sqlx::sqlite::SqliteRow, sqlx::postgres::PgRow);

/// The grant `id`.
///
/// # Errors
/// The database could not be asked.
pub async fn grant(db: &Db, id: &str) -> Result<Option<GrantRecord>, StoreError> {
    let sql = format!("SELECT {} {FROM} WHERE g.id = $1", columns(DISCLOSURES));
    Ok(on_db!(db, read(pool) => sqlx::query_as(AssertSqlSafe(sql)).bind(id).fetch_optional(pool).await)?)
}

/// The handoff codes that are found by one of `hashes`, used or not, with their grants, in no order. What the log's
/// erasable table says of their people is not read: it stands in what is sealed with the code, too.
///
/// # Errors
/// The database could not be asked.
pub async fn handoffs(db: &Db, hashes: &[&str]) -> Result<Vec<Handoff>, StoreError> {
    let sql = format!(
        "SELECT {}, h.code_hash, h.redeem_client, h.code_challenge, h.sealed, h.exp_us, h.keep_until_us, \
         h.used_idx {FROM} JOIN handoff_code h ON h.grant_id = g.id WHERE h.code_hash {}",
        columns("NULL"),
        db.in_list(1, "text")
    );
    Ok(on_db!(
        db,
        read(pool) => sqlx::query_as(AssertSqlSafe(sql)).bind(json(&hashes)).fetch_all(pool).await
    )?)
}

/// Up to `limit` grants issued in `[low, high)`, newest first.
///
/// # Errors
/// The database could not be asked.
pub async fn newest_grants(
    db: &Db,
    (low, high): (i64, i64),
    client: Option<&str>,
    state: Option<(State, i64)>,
    limit: i64,
) -> Result<Vec<GrantRecord>, StoreError> {
    let mut sql = format!("SELECT {} {FROM} WHERE g.idx >= $1 AND g.idx < $2", columns(DISCLOSURES));
    if client.is_some() {
        sql.push_str(" AND g.client = $4");
    }
    if let Some((state, _)) = state {
        let now = if client.is_some() { "$5" } else { "$4" };
        sql.push_str(" AND ");
        sql.push_str(&state.sql(now));
    }
    sql.push_str(" ORDER BY g.idx DESC LIMIT $3");
    Ok(on_db!(
        db,
        read(pool) => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(low).bind(high).bind(limit);
            if let Some(client) = client {
                query = query.bind(client);
            }
            if let Some((State::Active | State::Expired, now_us)) = state {
                query = query.bind(now_us);
            }
            query.fetch_all(pool).await
        }
    )?)
}

/// The grants issued at `positions`, newest first.
///
/// # Errors
/// The database could not be asked.
pub async fn grants_at(db: &Db, positions: &[i64]) -> Result<Vec<GrantRecord>, StoreError> {
    let (columns, listed) = (columns(DISCLOSURES), db.in_list(1, "bigint"));
    let sql = format!("SELECT {columns} {FROM} WHERE g.idx {listed} ORDER BY g.idx DESC");
    Ok(on_db!(
        db,
        read(pool) => sqlx::query_as(AssertSqlSafe(sql)).bind(json(&positions)).fetch_all(pool).await
    )?)
}
