//! Everything that is stored about entries, for whoever proves the log (`audit verify`) or takes out of it
//! (`audit erase`). Positions are global.

use super::append::StoredPrivate;
use super::{Db, StoreError, on_db};

/// Everything stored about one entry, for `audit verify`.
#[derive(Debug)]
pub struct FullEntry {
    /// Global position.
    pub idx: i64,
    /// When it was recorded, microseconds.
    pub t_us: i64,
    /// Hash of the body.
    pub leaf: Vec<u8>,
    /// What was hashed.
    pub body: Vec<u8>,
    /// The erasable row.
    pub private: Option<StoredPrivate>,
    /// The search row: jti, signed8, typ, decision, client, rule, grant.
    pub index: Option<FullIndex>,
}

/// The search row of an entry.
#[derive(Debug, PartialEq, Eq)]
pub struct FullIndex {
    /// See `audit_index`.
    pub jti: Option<String>,
    /// See `audit_index`.
    pub signed8: Option<i64>,
    /// See `audit_index`.
    pub typ: String,
    /// See `audit_index`.
    pub decision: Option<String>,
    /// See `audit_index`.
    pub client: Option<String>,
    /// See `audit_index`.
    pub rule: Option<String>,
    /// See `audit_index`.
    pub grant_id: Option<String>,
}

type FullRow = (
    i64,
    i64,
    Vec<u8>,
    Vec<u8>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

impl From<FullRow> for FullEntry {
    fn from(row: FullRow) -> Self {
        let (
            idx,
            t_us,
            leaf,
            body,
            disclosures,
            actor,
            actor_iss,
            subject,
            ticket,
            jti,
            signed8,
            typ,
            decision,
            client,
            rule,
            grant_id,
        ) = row;
        let private =
            disclosures.map(|disclosures| StoredPrivate { disclosures, actor, actor_iss, subject, ticket });
        let index = typ.map(|typ| FullIndex { jti, signed8, typ, decision, client, rule, grant_id });
        Self { idx, t_us, leaf, body, private, index }
    }
}

/// Up to `limit` entries in `[low, high)` with all that is stored about them, ascending.
///
/// # Errors
/// The database could not be asked.
pub async fn full_entries(db: &Db, low: i64, high: i64, limit: i64) -> Result<Vec<FullEntry>, StoreError> {
    let rows: Vec<FullRow> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
            "SELECT e.idx, e.t_us, e.leaf, e.body, p.disclosures, p.actor, p.actor_iss, p.subject, p.ticket, \
             i.jti, i.signed8, i.typ, i.decision, i.client, i.rule, i.grant_id \
             FROM audit_entry e LEFT JOIN audit_private p ON p.idx = e.idx AND p.idx >= $1 AND p.idx < $2 \
             LEFT JOIN audit_index i ON i.idx = e.idx AND i.idx >= $1 AND i.idx < $2 \
             WHERE e.idx >= $1 AND e.idx < $2 ORDER BY e.idx LIMIT $3",
        )
        .bind(low)
        .bind(high)
        .bind(limit)
        .fetch_all(pool)
        .await
        }
    )?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Up to ten positions in `table` that belong to no entry and no pruned tile.
///
/// # Errors
/// The database could not be asked.
pub async fn orphans(db: &Db, table: OrphanTable) -> Result<Vec<i64>, StoreError> {
    let sql = match table {
        OrphanTable::Private => {
            "SELECT idx FROM audit_private t WHERE NOT EXISTS (SELECT 1 FROM audit_entry e WHERE e.idx = t.idx) \
             ORDER BY idx LIMIT 10"
        }
        OrphanTable::Index => {
            "SELECT idx FROM audit_index t WHERE NOT EXISTS (SELECT 1 FROM audit_entry e WHERE e.idx = t.idx) \
             AND NOT EXISTS (SELECT 1 FROM audit_pruned_tile n WHERE n.n = t.idx >> 8) ORDER BY idx LIMIT 10"
        }
    };
    Ok(on_db!(db, read(pool) => sqlx::query_scalar(sql).fetch_all(pool).await)?)
}

/// A table whose rows must belong to entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanTable {
    /// `audit_private`
    Private,
    /// `audit_index`
    Index,
}

/// A row of personal data, as `audit erase` looks through them.
#[derive(Debug)]
pub struct PrivateEntry {
    /// Global position.
    pub idx: i64,
    /// When the entry was recorded, microseconds.
    pub t_us: i64,
    /// The row.
    pub row: StoredPrivate,
}

/// Up to `limit` rows of personal data after `after`, ascending.
///
/// # Errors
/// The database could not be asked.
pub async fn private_rows(db: &Db, after: i64, limit: i64) -> Result<Vec<PrivateEntry>, StoreError> {
    type Row = (i64, i64, String, Option<String>, Option<String>, Option<String>, Option<String>);
    let rows: Vec<Row> = on_db!(
        db,
        read(pool) => sqlx::query_as(
            "SELECT p.idx, e.t_us, p.disclosures, p.actor, p.actor_iss, p.subject, p.ticket \
             FROM audit_private p JOIN audit_entry e ON e.idx = p.idx AND e.idx > $1 \
             WHERE p.idx > $1 ORDER BY p.idx LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await
    )?;
    Ok(rows
        .into_iter()
        .map(|(idx, t_us, disclosures, actor, actor_iss, subject, ticket)| PrivateEntry {
            idx,
            t_us,
            row: StoredPrivate { disclosures, actor, actor_iss, subject, ticket },
        })
        .collect())
}
