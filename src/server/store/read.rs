//! Reading the log's tables: heads, entries, hashes, searches. Positions are global.

use sqlx::AssertSqlSafe;

use super::append::StoredHead;
use super::{BUCKET_BITS, Db, StoreError, json, on_db};

/// An entry as stored, with its disclosures where they are asked for and still there.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Global position.
    pub idx: i64,
    /// When it was recorded, microseconds.
    pub t_us: i64,
    /// Hash of the body.
    pub leaf: Vec<u8>,
    /// What was hashed.
    pub body: Vec<u8>,
    /// JSON array of disclosures.
    pub disclosures: Option<String>,
}

type PlainHeadRow = (i64, Vec<u8>, Vec<u8>, i64, Option<Vec<u8>>);
type HeadRow = (i64, i64, Vec<u8>, Vec<u8>, i64, Option<Vec<u8>>);

type EntryRow = (i64, i64, Vec<u8>, Vec<u8>, Option<String>);

impl From<EntryRow> for StoredEntry {
    fn from((idx, t_us, leaf, body, disclosures): EntryRow) -> Self {
        Self { idx, t_us, leaf, body, disclosures }
    }
}

/// An entry's columns. The personal data comes by a look-up for each row: as a join, PostgreSQL read it from
/// the beginning of the table for every page.
const ENTRY: &str = "e.idx, e.t_us, e.leaf, e.body, \
     (SELECT p.disclosures FROM audit_private p WHERE p.idx = e.idx)";

/// A column that has an index of its own by bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The target's id.
    Subject,
    /// The ticket.
    Ticket,
    /// The actor's id.
    Actor,
    /// The rule.
    Rule,
    /// The type of entry.
    Typ,
    /// The client.
    Client,
    /// How it ended.
    Decision,
    /// The first eight bytes of `signed_sha256` (compared as a number).
    Signed8,
}

impl Key {
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Subject => ("audit_private", "subject", "audit_private_subject"),
            Self::Ticket => ("audit_private", "ticket", "audit_private_ticket"),
            Self::Actor => ("audit_private", "actor", "audit_private_actor"),
            Self::Rule => ("audit_index", "rule", "audit_index_rule"),
            Self::Typ => ("audit_index", "typ", "audit_index_typ"),
            Self::Client => ("audit_index", "client", "audit_index_client"),
            Self::Decision => ("audit_index", "decision", "audit_index_decision"),
            Self::Signed8 => ("audit_index", "signed8", "audit_index_signed"),
        }
    }
}

/// A search by one key, narrowed by others.
#[derive(Debug, Clone)]
pub struct Search {
    /// The key whose index is walked: the rarest first.
    pub key: Key,
    /// Its value.
    pub value: String,
    /// What else must match.
    pub and: Vec<(Key, String)>,
    /// A further condition on `d.idx`, never of text from outside.
    pub also: String,
}

/// The newest head; `None` when nothing was ever recorded.
///
/// # Errors
/// The database could not be asked.
pub async fn newest_head(db: &Db) -> Result<Option<StoredHead>, StoreError> {
    let row: Option<PlainHeadRow> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as("SELECT size, root, frontier, t_us, signature FROM audit_head ORDER BY size DESC LIMIT 1")
                .fetch_optional(pool)
                .await
        }
    )?;
    Ok(row.map(stored_head))
}

fn stored_head((size, root, frontier, t_us, signature): PlainHeadRow) -> StoredHead {
    StoredHead { size, root, frontier, t_us, signature }
}

/// Up to `limit` heads with `size > after`, ascending, each with the head it continues.
///
/// # Errors
/// The database could not be asked.
pub async fn heads(db: &Db, after: i64, limit: i64) -> Result<Vec<(i64, StoredHead)>, StoreError> {
    let rows: Vec<HeadRow> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
            "SELECT prev, size, root, frontier, t_us, signature FROM audit_head WHERE size > $1 ORDER BY size LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await
        }
    )?;
    Ok(rows
        .into_iter()
        .map(|(prev, size, root, frontier, t, signed)| (prev, stored_head((size, root, frontier, t, signed))))
        .collect())
}

/// The newest head of `size` at most `at`, among those after `start`.
///
/// # Errors
/// The database could not be asked.
pub async fn head_at_or_before(db: &Db, start: i64, at: i64) -> Result<Option<StoredHead>, StoreError> {
    let row: Option<PlainHeadRow> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT size, root, frontier, t_us, signature FROM audit_head WHERE size > $1 AND size <= $2 \
             ORDER BY size DESC LIMIT 1",
            )
            .bind(start)
            .bind(at)
            .fetch_optional(pool)
            .await
        }
    )?;
    Ok(row.map(stored_head))
}

/// The first entry recorded at `t_us` or later; `None` when all are older. Found by halving over the heads,
/// whose times never go back within an epoch, so no index on the time has to be kept.
///
/// # Errors
/// The database could not be asked.
pub async fn first_at_or_after(db: &Db, t_us: i64) -> Result<Option<i64>, StoreError> {
    let newest = newest_head(db).await?.map(|head| (head.size, head.t_us));
    let mut halving = Halving::of(newest, t_us);
    while let Some(after) = halving.asks() {
        let next = on_db!(db, read(pool) => {
            sqlx::query_as(NEXT_HEAD).bind(after).fetch_optional(pool).await
        })?;
        halving.told(next);
    }
    Ok(halving.found)
}

/// The first head after a size.
pub(super) const NEXT_HEAD: &str =
    "SELECT size, prev, t_us FROM audit_head WHERE size > $1 ORDER BY size LIMIT 1";

/// See [`first_at_or_after`].
pub(super) struct Halving {
    t_us: i64,
    low: i64,
    high: i64,
    /// What was found so far.
    pub found: Option<i64>,
}

impl Halving {
    /// Between nothing and the newest head, by size and time.
    pub fn of(newest: Option<(i64, i64)>, t_us: i64) -> Self {
        let high = newest.filter(|(_, newest)| *newest >= t_us).map_or(0, |(size, _)| size);
        Self { t_us, low: 0, high, found: None }
    }

    /// After which size the next head has to be found; `None` at the end.
    pub const fn asks(&self) -> Option<i64> {
        if self.low < self.high { Some(self.low + (self.high - self.low) / 2) } else { None }
    }

    /// Size, the size continued and time of the first head after what was asked for.
    pub fn told(&mut self, next: Option<(i64, i64, i64)>) {
        let middle = self.asks().unwrap_or(self.high);
        match next {
            Some((_, prev, t)) if t >= self.t_us => {
                self.found = Some(prev);
                self.high = middle.min(prev);
            }
            Some((size, ..)) => self.low = size,
            None => self.high = middle,
        }
    }
}

/// Entries at `positions`, newest first.
///
/// # Errors
/// The database could not be asked.
pub async fn entries_at(db: &Db, positions: &[i64]) -> Result<Vec<StoredEntry>, StoreError> {
    let sql = format!(
        "SELECT {ENTRY} FROM audit_entry e WHERE e.idx {} ORDER BY e.idx DESC",
        db.in_list(1, "bigint")
    );
    let rows: Vec<EntryRow> = on_db!(
        db,
        read(pool) => sqlx::query_as(AssertSqlSafe(sql)).bind(json(&positions)).fetch_all(pool).await
    )?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Up to `limit` entries in `[low, high)`, ascending.
///
/// # Errors
/// The database could not be asked.
pub async fn entries_ascending(
    db: &Db,
    low: i64,
    high: i64,
    limit: i64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let sql =
        format!("SELECT {ENTRY} FROM audit_entry e WHERE e.idx >= $1 AND e.idx < $2 ORDER BY e.idx LIMIT $3");
    let rows: Vec<EntryRow> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(AssertSqlSafe(sql))
            .bind(low)
            .bind(high)
            .bind(limit)
            .fetch_all(pool)
            .await
        }
    )?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The newest `limit` positions in `[low, high)`, newest first.
///
/// # Errors
/// The database could not be asked.
pub async fn newest_positions(db: &Db, low: i64, high: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_scalar(
                "SELECT idx FROM audit_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx DESC LIMIT $3",
            )
            .bind(low)
            .bind(high)
            .bind(limit)
            .fetch_all(pool)
            .await
        }
    )?)
}

/// The newest `limit` positions in `[low, high)` that match, newest first. The buckets of the key's index
/// are walked from the newest, more at a time the fewer match, so the cost follows what is found.
///
/// # Errors
/// The database could not be asked.
pub async fn search_newest(
    db: &Db,
    search: &Search,
    low: i64,
    high: i64,
    limit: usize,
) -> Result<Vec<i64>, StoreError> {
    let mut found = Vec::new();
    let mut width = 1;
    let mut windows = windows(db, low, high).await?;
    while let Some((first, last)) = windows.pop() {
        // [first, last] in buckets, walked from last
        let mut top = last;
        while top >= first && found.len() < limit {
            let bottom = (top - width + 1).max(first);
            let missing = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
            found.extend(search_window(db, search, (bottom, top), (low, high), missing, true).await?);
            top = bottom - 1;
            width = (width * 4).min(1024);
        }
    }
    Ok(found)
}

/// The oldest `limit` positions in `[low, high)` that match, ascending.
///
/// # Errors
/// The database could not be asked.
pub async fn search_oldest(
    db: &Db,
    search: &Search,
    low: i64,
    high: i64,
    limit: usize,
) -> Result<Vec<i64>, StoreError> {
    let mut found = Vec::new();
    let mut width = 1;
    for (first, last) in windows(db, low, high).await? {
        let mut bottom = first;
        while bottom <= last && found.len() < limit {
            let top = (bottom + width - 1).min(last);
            let missing = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
            found.extend(search_window(db, search, (bottom, top), (low, high), missing, false).await?);
            bottom = top + 1;
            width = (width * 4).min(1024);
        }
    }
    Ok(found)
}

/// The ranges of buckets that hold anything in `[low, high)`: one an epoch, ascending. Between epochs lie
/// millions of empty ones.
async fn windows(db: &Db, low: i64, high: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    use super::append::EPOCH_SPAN;
    let mut out = Vec::new();
    let Some(newest) = newest_head(db).await? else { return Ok(out) };
    let high = high.min(newest.size);
    let mut start = low - low % EPOCH_SPAN;
    while start < high {
        let end = (start + EPOCH_SPAN).min(high);
        if let Some(head) = head_at_or_before(db, start, start + EPOCH_SPAN).await? {
            let (from, to) = (low.max(start), end.min(head.size));
            if from < to {
                out.push((from >> BUCKET_BITS, (to - 1) >> BUCKET_BITS));
            }
        }
        start += EPOCH_SPAN;
    }
    Ok(out)
}

async fn search_window(
    db: &Db,
    search: &Search,
    buckets: (i64, i64),
    (low, high): (i64, i64),
    limit: i64,
    newest_first: bool,
) -> Result<Vec<i64>, StoreError> {
    let sql = window_sql(db, search, newest_first);
    let buckets: Vec<i64> = (buckets.0..=buckets.1).collect();
    Ok(on_db!(
        db,
        read(pool) => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(sql))
                .persistent(search.also.is_empty())
                .bind(json(&buckets))
                .bind(low)
                .bind(high)
                .bind(limit);
            query = match search.key {
                Key::Signed8 => query.bind(search.value.parse::<i64>().unwrap_or(0)),
                _ => query.bind(&search.value),
            };
            for (_, value) in &search.and {
                query = query.bind(value);
            }
            query.fetch_all(pool).await
        }
    )?)
}

fn window_sql(db: &Db, search: &Search, newest_first: bool) -> String {
    use std::fmt::Write as _;
    let (table, column, index) = search.key.names();
    let hint = match db {
        // SQLite's planner has no statistics to prefer the index over the primary key
        Db::Sqlite(_) => format!("INDEXED BY {index} "),
        Db::Postgres(_) => String::new(),
    };
    // `+ 0` keeps PostgreSQL from walking the primary key instead: that would read the whole log for a rare value
    let mut sql = format!(
        "SELECT d.idx FROM {table} d {hint}WHERE (d.idx >> 12) {} AND d.{column} = $5 \
         AND d.idx + 0 >= $2 AND d.idx + 0 < $3",
        db.in_list(1, "bigint")
    );
    for ((key, _), parameter) in search.and.iter().zip(6..) {
        let (table, column, _) = key.names();
        let _ = write!(
            sql,
            " AND EXISTS (SELECT 1 FROM {table} x WHERE x.idx = d.idx AND x.{column} = ${parameter})"
        );
    }
    let order = if newest_first { "DESC" } else { "ASC" };
    let _ = write!(sql, "{} ORDER BY d.idx + 0 {order} LIMIT $4", search.also);
    sql
}

/// The entry that released the token `jti`.
///
/// # Errors
/// The database could not be asked.
pub async fn position_of_jti(db: &Db, jti: &str) -> Result<Option<i64>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_scalar("SELECT idx FROM audit_index WHERE jti = $1")
                .bind(jti)
                .fetch_optional(pool)
                .await
        }
    )?)
}

/// All entries that name `grant`, ascending.
///
/// # Errors
/// The database could not be asked.
pub async fn positions_of_grant(db: &Db, grant: &str) -> Result<Vec<i64>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_scalar("SELECT idx FROM audit_index WHERE grant_id = $1 ORDER BY idx")
                .bind(grant)
                .fetch_all(pool)
                .await
        }
    )?)
}

/// Leaves at `[low, high)`, ascending; fewer when bodies were pruned.
///
/// # Errors
/// The database could not be asked.
pub async fn leaves(db: &Db, low: i64, high: i64) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_as("SELECT idx, leaf FROM audit_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx")
                .bind(low)
                .bind(high)
                .fetch_all(pool)
                .await
        }
    )?)
}

/// The kept leaf hashes of a pruned tile, concatenated.
///
/// # Errors
/// The database could not be asked.
pub async fn pruned_tile(db: &Db, n: i64) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_scalar("SELECT hashes FROM audit_pruned_tile WHERE n = $1")
                .bind(n)
                .fetch_optional(pool)
                .await
        }
    )?)
}

/// Complete subtrees `[low, high)` of `level`, ascending.
///
/// # Errors
/// The database could not be asked.
pub async fn subtrees(db: &Db, level: i64, low: i64, high: i64) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT n, hash FROM audit_subtree WHERE level = $1 AND n >= $2 AND n < $3 ORDER BY n",
            )
            .bind(level)
            .bind(low)
            .bind(high)
            .fetch_all(pool)
            .await
        }
    )?)
}

/// The different (issuer of the actor, target) of grants to `actor` from `low` on.
///
/// # Errors
/// The database could not be asked.
pub async fn targets(
    db: &Db,
    actor: &str,
    low: i64,
) -> Result<Vec<(Option<String>, Option<String>)>, StoreError> {
    let windows = windows(db, low, i64::MAX).await?;
    let buckets: Vec<i64> = windows.into_iter().flat_map(|(first, last)| first..=last).collect();
    let sql = format!(
        "SELECT DISTINCT p.actor_iss, p.subject FROM audit_private p \
         JOIN audit_index i ON i.idx = p.idx AND i.typ = 'issue' AND i.decision = 'granted' \
         WHERE (p.idx >> 12) {} AND p.actor = $2 AND p.idx >= $3",
        db.in_list(1, "bigint")
    );
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_as(AssertSqlSafe(sql))
                .bind(json(&buckets))
                .bind(actor)
                .bind(low)
                .fetch_all(pool)
                .await
        }
    )?)
}

/// The newest pruned tile at or after `first`.
///
/// # Errors
/// The database could not be asked.
pub async fn last_pruned_tile(db: &Db, first: i64) -> Result<Option<i64>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => sqlx::query_scalar("SELECT n FROM audit_pruned_tile WHERE n >= $1 ORDER BY n DESC LIMIT 1")
            .bind(first)
            .fetch_optional(pool)
            .await
    )?)
}
