//! The append's transaction: lock, head, conditions, insert, commit; the same steps on both databases.
//!
//! Only the lock differs, and the bulk inserts, which stand in `insert`.

use std::fmt::Display;
use std::sync::LazyLock;

use futures_util::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::{
    AssertSqlSafe, Connection as _, Database, Either, Executor as _, FromRow as _, PgConnection, PgPool,
    Pool, Postgres, Row as _,
};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::stop::{COVERS, CutOff, CutOffRow};
use super::{BUCKET_BITS, Db, List, StoreError, json};
use crate::server::log::body::Encoded;

/// Entries of one epoch; a new epoch begins at the next multiple.
pub const EPOCH_SPAN: i64 = 1 << 40;

/// Serialises appends of all replicas; released by commit, rollback or the end of the session.
const POSTGRES_BEGIN: &str = "BEGIN; SELECT pg_advisory_xact_lock(7594319276342)";

/// SQLite: the lock and all that a batch of mints or redeems asks under it, in one text: each statement by itself is a way to
/// SQLite's thread and back, and five of them took longer than their work.
const SQLITE_ASK: &str = "BEGIN IMMEDIATE;
    SELECT h.size, h.root, h.frontier, h.t_us, h.signature, (SELECT root FROM audit_head WHERE size = $1), NULL
    FROM (SELECT 1) LEFT JOIN (SELECT size, root, frontier, t_us, signature FROM audit_head ORDER BY size DESC LIMIT 1) h;
    SELECT id FROM client WHERE disabled_at_us IS NULL AND id IN (SELECT value FROM json_each($2));
    SELECT kind, target, until_iat, hold_until_us FROM cutoff WHERE target IN (SELECT value FROM json_each($3))";

static SQLITE_BEGIN: LazyLock<String> = LazyLock::new(|| {
    let list = |parameter| List { sqlite: true, parameter, cast: "text" };
    format!("{SQLITE_ASK}; {}", standing_sql(&list(4), &list(5)))
});

/// Those of `grants` that exist and are neither revoked in their row nor covered by a cut-off that nobody has written
/// into it yet; and those of `codes` (by their grants) that were not used. Whether their end has come is not asked: the
/// record's time is not known yet.
pub(super) fn standing_sql(grants: &impl Display, codes: &impl Display) -> String {
    format!(
        "SELECT 0, id, exp_us FROM actor_grant WHERE revoked_at_us IS NULL AND id {grants} \
         AND NOT EXISTS (SELECT 1 FROM cutoff c WHERE {COVERS}) \
         UNION ALL SELECT 1, grant_id, exp_us FROM handoff_code WHERE used_idx IS NULL AND grant_id {codes}"
    )
}

/// The newest head as stored.
#[derive(Debug, Clone)]
pub struct StoredHead {
    /// Global position after its last entry.
    pub size: i64,
    /// The root.
    pub root: Vec<u8>,
    /// The complete subtrees, concatenated.
    pub frontier: Vec<u8>,
    /// The time of its entries, microseconds.
    pub t_us: i64,
    /// The log's key over it; `None`: nobody's.
    pub signature: Option<Vec<u8>>,
}

/// Where the log stands, read under its lock.
#[derive(Debug)]
pub struct LastHead {
    /// The newest head; `None` when nothing was ever recorded.
    pub head: Option<StoredHead>,
    /// The root of the head this process saw committed last; `None` when there is no such head.
    pub root_at_floor: Option<Vec<u8>>,
    /// The database server's own time, microseconds, where it has one.
    pub database_us: Option<i64>,
}

type HeadRow = (
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
);

impl From<HeadRow> for LastHead {
    fn from((size, root, frontier, t_us, signature, root_at_floor, database_us): HeadRow) -> Self {
        let head = match (size, root, frontier, t_us) {
            (Some(size), Some(root), Some(frontier), Some(t_us)) => {
                Some(StoredHead { size, root, frontier, t_us, signature })
            }
            _ => None,
        };
        Self { head, root_at_floor, database_us }
    }
}

/// What a batch asks first.
#[derive(Debug)]
pub struct Opening<'b> {
    /// The global size of the head that this process saw committed last.
    pub floor: i64,
    /// Clients that have to exist and be active.
    pub clients: Vec<&'b str>,
    /// Whatever a cut-off or hold could name.
    pub targets: Vec<&'b str>,
    /// Grants that must not be over.
    pub grants: Vec<&'b str>,
    /// Grants whose handoff code must not be used.
    pub codes: Vec<&'b str>,
}

/// What it is answered, under the log's lock.
#[derive(Debug)]
pub struct Opened {
    /// Where the log stands.
    pub last: LastHead,
    /// Which of the clients exist and may call.
    pub active_clients: Vec<String>,
    /// The cut-offs of the targets, of every kind.
    pub cut_offs: Vec<CutOff>,
    /// What is not over, as far as anything but its end tells.
    pub standing: Vec<Standing>,
}

/// A grant or a handoff code that was neither ended nor used.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is the grant or its code.
    pub kind: StandingKind,
    /// The grant.
    pub grant: String,
    /// Its end, microseconds.
    pub exp_us: i64,
}

/// What stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandingKind {
    /// A grant.
    Grant,
    /// A code.
    Code,
}

/// 0 or 1, grant, end.
type StandingRow = (i32, String, i64);

impl From<StandingRow> for Standing {
    fn from((kind, grant, exp_us): StandingRow) -> Self {
        let kind = if kind == 0 { StandingKind::Grant } else { StandingKind::Code };
        Self { kind, grant, exp_us }
    }
}

/// Rows of one batch, all positions global.
#[derive(Debug)]
pub struct Batch<'b> {
    /// The head continued.
    pub prev: i64,
    /// The head made.
    pub head: StoredHead,
    /// The name of this process among replicas.
    pub replica: &'b str,
    /// The entries, contiguous from `prev`.
    pub entries: Vec<Encoded>,
    /// Complete subtrees of 256^level leaves.
    pub subtrees: Vec<(i64, i64, [u8; 32])>,
    /// Grants that come into being.
    pub grants: Vec<StoredGrant>,
}

/// A row of `audit_private` without its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPrivate {
    /// JSON array of disclosures.
    pub disclosures: String,
    /// Actor's id.
    pub actor: Option<String>,
    /// Actor's issuer.
    pub actor_iss: Option<String>,
    /// Target's id.
    pub subject: Option<String>,
    /// Ticket.
    pub ticket: Option<String>,
}

/// A row of `actor_grant` as it is made.
#[derive(Debug)]
pub struct StoredGrant {
    /// The entry that issued it.
    pub idx: i64,
    /// Its id.
    pub id: String,
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
    pub assurance: &'static str,
    /// Issued at, microseconds.
    pub iat_us: i64,
    /// Ends at, microseconds.
    pub exp_us: i64,
    /// Asked for at, microseconds.
    pub created_at_us: i64,
    /// The grant it was delegated from.
    pub parent: Option<String>,
}

/// The connection appends go through: one at a time, thrown away after any error.
#[derive(Debug)]
pub enum Writer {
    /// Taken from the pool of one for a few batches, so that others can write in between.
    Sqlite(SqlitePool, Option<PoolConnection<Sqlite>>),
    /// Kept: its session settings and prepared statements cost a round trip each.
    Postgres(PgPool, Option<PoolConnection<Postgres>>),
}

/// An append in progress, holding the log's lock. It ends by [`Tx::commit`] or [`Tx::rollback`]; whoever fails before that
/// throws the connection away ([`Writer::discard`]), and it leaves no trace.
#[derive(Debug)]
pub enum Tx<'w> {
    /// After `BEGIN IMMEDIATE`; whoever does not come to an end throws the connection away.
    Sqlite(&'w mut SqliteConnection),
    /// The advisory lock.
    Postgres(Transaction<'w, Postgres>),
}

macro_rules! on_tx {
    ($tx:expr, ($conn:ident) => $body:expr) => {
        match $tx {
            Tx::Sqlite(tx) => {
                let $conn: &mut sqlx::SqliteConnection = &mut **tx;
                $body
            }
            Tx::Postgres(tx) => {
                let $conn: &mut sqlx::PgConnection = &mut *tx;
                $body
            }
        }
    };
}
pub(super) use on_tx;

impl Writer {
    /// A writer on `db`.
    #[must_use]
    pub fn new(db: &Db) -> Self {
        match db {
            Db::Sqlite(db) => Self::Sqlite(db.writer().clone(), None),
            Db::Postgres(db) => Self::Postgres(db.pool().clone(), None),
        }
    }

    /// Takes the log's lock and asks.
    ///
    /// # Errors
    /// No connection, or the lock was not to be had in time. Whoever fails after this, or gives up, calls
    /// [`Self::discard`].
    pub async fn begin(&mut self, opening: &Opening<'_>) -> Result<(Tx<'_>, Opened), StoreError> {
        match self {
            Self::Sqlite(pool, conn) => {
                let conn = taken(pool, conn).await?;
                let opened = open_sqlite(conn, opening).await?;
                Ok((Tx::Sqlite(conn), opened))
            }
            Self::Postgres(pool, conn) => {
                let conn = taken(pool, conn).await?;
                let mut tx = conn.begin_with(POSTGRES_BEGIN).await?;
                let last = last_head(&mut tx, opening.floor).await?;
                let active_clients = active_clients(&mut tx, &opening.clients).await?;
                let standing = standing(&mut tx, &opening.grants, &opening.codes).await?;
                let mut tx = Tx::Postgres(tx);
                let cut_offs = tx.cut_offs(&opening.targets).await?;
                Ok((tx, Opened { last, active_clients, cut_offs, standing }))
            }
        }
    }

    /// After a commit: lets others write.
    pub fn rest(&mut self) {
        if let Self::Sqlite(_, conn) = self {
            *conn = None;
        }
    }

    /// After an error: throws the connection away, whose state nobody knows.
    pub async fn discard(&mut self) {
        let closed = match self {
            Self::Sqlite(_, conn) => match conn.take() {
                Some(conn) => conn.detach().close_hard().await,
                None => Ok(()),
            },
            Self::Postgres(_, conn) => match conn.take() {
                Some(conn) => conn.detach().close_hard().await,
                None => Ok(()),
            },
        };
        if let Err(error) = closed {
            tracing::debug!(error = %error, "a broken connection did not close cleanly");
        }
    }
}

impl Tx<'_> {
    /// The buckets that hold anything from global position `low` to `high`. Between epochs lie millions of empty
    /// ones, which nobody may ever list.
    pub(super) async fn buckets(&mut self, low: i64, high: i64) -> Result<Vec<i64>, StoreError> {
        let mut out = Vec::new();
        let mut from = low;
        while from <= high {
            let next = from - from % EPOCH_SPAN + EPOCH_SPAN;
            let end: Option<i64> = if high < next {
                Some(high + 1)
            } else {
                on_tx!(self, (conn) => {
                    sqlx::query_scalar("SELECT MAX(size) FROM audit_head WHERE size > $1 AND size <= $2")
                        .bind(from)
                        .bind(next)
                        .fetch_one(conn)
                        .await
                })?
            };
            out.extend(end.into_iter().flat_map(|end| from >> BUCKET_BITS..=(end - 1) >> BUCKET_BITS));
            from = next;
        }
        Ok(out)
    }

    /// The different (actor, issuer, target) of grants to `actors` from global position `low` on.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn targets(
        &mut self,
        actors: &[&str],
        low: i64,
        high: i64,
    ) -> Result<Vec<(String, Option<String>, Option<String>)>, StoreError> {
        let buckets = self.buckets(low, high).await?;
        let (buckets_in, actors_in) = (self.in_number_list(1), self.in_text_list(2));
        let sql = format!(
            "SELECT DISTINCT p.actor, p.actor_iss, p.subject FROM audit_private p \
             JOIN audit_index i ON i.idx = p.idx AND i.typ = 'issue' AND i.decision = 'granted' \
             WHERE (p.idx >> 12) {buckets_in} AND p.actor {actors_in} AND p.idx >= $3"
        );
        Ok(on_tx!(self, (conn) => {
            sqlx::query_as(AssertSqlSafe(sql))
                .bind(json(&buckets))
                .bind(json(&actors))
                .bind(low)
                .fetch_all(conn)
                .await
        })?)
    }

    const fn in_text_list(&self, parameter: u8) -> List {
        List { sqlite: matches!(self, Self::Sqlite(_)), parameter, cast: "text" }
    }

    pub(super) const fn in_number_list(&self, parameter: u8) -> List {
        List { sqlite: matches!(self, Self::Sqlite(_)), parameter, cast: "bigint" }
    }

    /// Gives the lock back, nothing having been changed.
    ///
    /// # Errors
    /// The database could not do it: the connection is of no use any more.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                sqlx::query("ROLLBACK").execute(tx).await?;
            }
            Self::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }

    /// Makes it durable. When this fails, nobody knows whether it is.
    ///
    /// # Errors
    /// The database could not do it, or did not say.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                sqlx::query("COMMIT").execute(tx).await?;
            }
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

/// The connection that appends go through, taken from its pool where it is not held.
pub(super) async fn taken<'c, DB: Database>(
    pool: &Pool<DB>,
    conn: &'c mut Option<PoolConnection<DB>>,
) -> Result<&'c mut PoolConnection<DB>, sqlx::Error> {
    match conn {
        Some(conn) => Ok(conn),
        None => Ok(conn.insert(pool.acquire().await?)),
    }
}

async fn open_sqlite(conn: &mut SqliteConnection, opening: &Opening<'_>) -> Result<Opened, StoreError> {
    let query = sqlx::query(AssertSqlSafe(SQLITE_BEGIN.as_str()))
        .bind(opening.floor)
        .bind(json(&opening.clients))
        .bind(json(&opening.targets))
        .bind(json(&opening.grants))
        .bind(json(&opening.codes));
    let mut answers = conn.fetch_many(query);
    let (mut statement, mut last) = (0, None);
    let (mut active_clients, mut cut_offs, mut standing) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(answer) = answers.try_next().await? {
        match (answer, statement) {
            (Either::Left(_), _) => statement += 1,
            (Either::Right(row), 1) => last = Some(HeadRow::from_row(&row)?.into()),
            (Either::Right(row), 2) => active_clients.push(row.try_get(0)?),
            (Either::Right(row), 3) => cut_offs.push(CutOffRow::from_row(&row)?.try_into()?),
            (Either::Right(row), _) => standing.push(StandingRow::from_row(&row)?.into()),
        }
    }
    let last = last.ok_or(StoreError::Corrupt("the log's head"))?;
    Ok(Opened { last, active_clients, cut_offs, standing })
}

/// The newest head, what stands at the head of global size `floor`, and the server's clock: one round trip, as
/// everybody else waits for the lock.
async fn last_head(conn: &mut PgConnection, floor: i64) -> Result<LastHead, StoreError> {
    let row: HeadRow = sqlx::query_as(
        "SELECT h.size, h.root, h.frontier, h.t_us, h.signature, \
         (SELECT root FROM audit_head WHERE size = $1), \
         (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint FROM (SELECT 1) one LEFT JOIN \
         (SELECT size, root, frontier, t_us, signature FROM audit_head ORDER BY size DESC LIMIT 1) h ON TRUE",
    )
    .bind(floor)
    .fetch_one(conn)
    .await?;
    Ok(row.into())
}

/// Which of `clients` exist and may call.
async fn active_clients(conn: &mut PgConnection, clients: &[&str]) -> Result<Vec<String>, StoreError> {
    if clients.is_empty() {
        return Ok(Vec::new());
    }
    let list = List { sqlite: false, parameter: 1, cast: "text" };
    let sql = format!("SELECT id FROM client WHERE disabled_at_us IS NULL AND id {list}");
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(json(&clients)).fetch_all(conn).await?)
}

async fn standing(
    conn: &mut PgConnection,
    grants: &[&str],
    codes: &[&str],
) -> Result<Vec<Standing>, StoreError> {
    if grants.is_empty() && codes.is_empty() {
        return Ok(Vec::new());
    }
    let list = |parameter| List { sqlite: false, parameter, cast: "text" };
    let query = sqlx::query_as(AssertSqlSafe(standing_sql(&list(1), &list(2))));
    let rows: Vec<StandingRow> = query.bind(json(&grants)).bind(json(&codes)).fetch_all(conn).await?;
    Ok(rows.into_iter().map(Standing::from).collect())
}
