//! The append's transaction: lock, head, conditions, insert, commit; the same steps on both databases.
//!
//! Only the lock and the bulk inserts differ; they stand at the end of this file, side by side.

use sqlx::pool::PoolConnection;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool,
    Transaction,
};

use super::{BUCKET_BITS, Db, List, StoreError, hex, json};

/// Entries of one epoch; a new epoch begins at the next multiple.
pub const EPOCH_SPAN: i64 = 1 << 40;

/// Serialises appends of all replicas; released by commit, rollback or the end of the session.
const POSTGRES_BEGIN: &str = "BEGIN; SELECT pg_advisory_xact_lock(7594319276342)";
const SQLITE_BEGIN: &str = "BEGIN IMMEDIATE";

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
    pub entries: Vec<EntryRow>,
    /// Complete subtrees of 256^level leaves.
    pub subtrees: Vec<(i64, i64, [u8; 32])>,
    /// Grants that come into being.
    pub grants: Vec<StoredGrant>,
}

impl Batch<'_> {
    fn private(&self) -> Vec<(i64, &StoredPrivate)> {
        self.entries.iter().filter_map(|row| Some((row.idx, row.private.as_ref()?))).collect()
    }
}

/// One entry with what is stored beside it.
#[derive(Debug)]
pub struct EntryRow {
    /// Global position.
    pub idx: i64,
    /// Hash of the body.
    pub leaf: [u8; 32],
    /// What was hashed: JSON, so it is text.
    pub body: Vec<u8>,
    /// Search keys that are not personal.
    pub jti: Option<String>,
    /// See `audit_index.signed8`.
    pub signed8: Option<i64>,
    /// Type of entry.
    pub typ: &'static str,
    /// How it ended.
    pub decision: Option<&'static str>,
    /// Client.
    pub client: Option<String>,
    /// Rule.
    pub rule: Option<String>,
    /// Grant.
    pub grant_id: Option<String>,
    /// What can be erased.
    pub private: Option<StoredPrivate>,
}

/// A row of `audit_private` without its position.
#[derive(Debug, Clone)]
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
    /// Taken from the pool of one for the length of a batch, so that others can write in between.
    Sqlite(SqlitePool, Option<PoolConnection<Sqlite>>),
    /// Kept: its session settings and prepared statements cost a round trip each.
    Postgres(PgPool, Option<PoolConnection<Postgres>>),
}

/// An append in progress, holding the log's lock. Dropped without [`Tx::commit`] it leaves no trace.
#[derive(Debug)]
pub enum Tx<'w> {
    /// `BEGIN IMMEDIATE`.
    Sqlite(Transaction<'w, Sqlite>),
    /// The advisory lock.
    Postgres(Transaction<'w, Postgres>),
}

macro_rules! on_tx {
    ($tx:expr, ($conn:ident) => $body:expr) => {
        match $tx {
            Tx::Sqlite(tx) => {
                let $conn: &mut SqliteConnection = &mut *tx;
                $body
            }
            Tx::Postgres(tx) => {
                let $conn: &mut PgConnection = &mut *tx;
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

    /// Takes the log's lock.
    ///
    /// # Errors
    /// No connection, or the lock was not to be had in time.
    pub async fn begin(&mut self) -> Result<Tx<'_>, StoreError> {
        Ok(match self {
            Self::Sqlite(pool, conn) => {
                let conn = match conn {
                    Some(conn) => conn,
                    None => conn.insert(pool.acquire().await?),
                };
                Tx::Sqlite(conn.begin_with(SQLITE_BEGIN).await?)
            }
            Self::Postgres(pool, conn) => {
                let conn = match conn {
                    Some(conn) => conn,
                    None => conn.insert(pool.acquire().await?),
                };
                Tx::Postgres(conn.begin_with(POSTGRES_BEGIN).await?)
            }
        })
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
    /// The newest head, what stands at the head of global size `floor`, and the server's clock: one round trip,
    /// as everybody else waits for the lock.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn last_head(&mut self, floor: i64) -> Result<LastHead, StoreError> {
        type Row = (Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>, Option<i64>);
        let row: Row = match self {
            Self::Sqlite(tx) => {
                sqlx::query_as(
                    "SELECT h.size, h.root, h.frontier, h.t_us, \
                     (SELECT root FROM audit_head WHERE size = $1), NULL FROM (SELECT 1) LEFT JOIN \
                     (SELECT size, root, frontier, t_us FROM audit_head ORDER BY size DESC LIMIT 1) h",
                )
                .bind(floor)
                .fetch_one(&mut **tx)
                .await?
            }
            Self::Postgres(tx) => {
                sqlx::query_as(
                    "SELECT h.size, h.root, h.frontier, h.t_us, \
                     (SELECT root FROM audit_head WHERE size = $1), \
                     (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint FROM (SELECT 1) one LEFT JOIN \
                     (SELECT size, root, frontier, t_us FROM audit_head ORDER BY size DESC LIMIT 1) h ON TRUE",
                )
                .bind(floor)
                .fetch_one(&mut **tx)
                .await?
            }
        };
        let (size, root, frontier, t_us, root_at_floor, database_us) = row;
        let head = match (size, root, frontier, t_us) {
            (Some(size), Some(root), Some(frontier), Some(t_us)) => {
                Some(StoredHead { size, root, frontier, t_us })
            }
            _ => None,
        };
        Ok(LastHead { head, root_at_floor, database_us })
    }

    /// Which of `clients` exist and may call.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn active_clients(&mut self, clients: &[&str]) -> Result<Vec<String>, StoreError> {
        let list = self.in_text_list(1);
        let sql = format!("SELECT id FROM client WHERE disabled_at_us IS NULL AND id {list}");
        Ok(on_tx!(self, (conn) => {
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(json(&clients)).fetch_all(conn).await
        })?)
    }

    /// Which of `grants` exist, are not revoked and end after `t_us`.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn live_grants(&mut self, grants: &[&str], t_us: i64) -> Result<Vec<String>, StoreError> {
        let list = self.in_text_list(1);
        let sql =
            format!("SELECT id FROM actor_grant WHERE revoked_at_us IS NULL AND exp_us > $2 AND id {list}");
        Ok(on_tx!(self, (conn) => {
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(json(&grants)).bind(t_us).fetch_all(conn).await
        })?)
    }

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

    /// Inserts rows of personal data.
    pub(super) async fn insert_private(&mut self, rows: &[(i64, &StoredPrivate)]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        match self {
            Self::Sqlite(tx) => {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(idx, p)| (idx, &p.disclosures, &p.actor, &p.actor_iss, &p.subject, &p.ticket))
                    .collect();
                sqlx::query(
                    "INSERT INTO audit_private (idx, disclosures, actor, actor_iss, subject, ticket) \
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 \
                     FROM json_each($1)",
                )
                .bind(json(&rows))
                .execute(&mut **tx)
                .await?;
            }
            Self::Postgres(tx) => {
                sqlx::query(
                    "INSERT INTO audit_private (idx, disclosures, actor, actor_iss, subject, ticket) \
                     SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], \
                     $6::text[])",
                )
                .bind(rows.iter().map(|(idx, _)| *idx).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.disclosures.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.actor.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.actor_iss.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.subject.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.ticket.as_deref()).collect::<Vec<_>>())
                .execute(&mut **tx)
                .await?;
            }
        }
        Ok(())
    }

    const fn in_text_list(&self, parameter: u8) -> List {
        List { sqlite: matches!(self, Self::Sqlite(_)), parameter, cast: "text" }
    }

    pub(super) const fn in_number_list(&self, parameter: u8) -> List {
        List { sqlite: matches!(self, Self::Sqlite(_)), parameter, cast: "bigint" }
    }

    /// Inserts a batch: entries first, then the head, whose trigger counts them.
    ///
    /// # Errors
    /// A key that exists, or the database could not do it.
    pub async fn insert(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                insert_sqlite(&mut *tx, batch).await?;
                self.insert_private(&batch.private()).await?;
            }
            Self::Postgres(tx) => insert_postgres(&mut *tx, batch).await?,
        }
        for (level, n, hash) in &batch.subtrees {
            on_tx!(self, (conn) => {
                sqlx::query("INSERT INTO audit_subtree (level, n, hash) VALUES ($1, $2, $3)")
                    .bind(level)
                    .bind(n)
                    .bind(&hash[..])
                    .execute(conn)
                    .await
                    .map(drop)
            })?;
        }
        on_tx!(self, (conn) => {
            sqlx::query(
                "INSERT INTO audit_head (size, prev, root, frontier, t_us, replica) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(batch.head.size)
            .bind(batch.prev)
            .bind(&batch.head.root)
            .bind(&batch.head.frontier)
            .bind(batch.head.t_us)
            .bind(batch.replica)
            .execute(conn)
            .await
            .map(drop)
        })?;
        Ok(())
    }

    /// Makes it durable. When this fails, nobody knows whether it is.
    ///
    /// # Errors
    /// The database could not do it, or did not say.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

async fn insert_sqlite(conn: &mut SqliteConnection, batch: &Batch<'_>) -> Result<(), StoreError> {
    let body = |row: &EntryRow| String::from_utf8(row.body.clone()).map_err(|_| StoreError::Corrupt("body"));
    let t_us = batch.head.t_us;
    let entries = batch
        .entries
        .iter()
        .map(|row| Ok((row.idx, hex(&row.leaf), body(row)?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    sqlx::query(
        "INSERT INTO audit_entry (idx, t_us, leaf, body) \
         SELECT value ->> 0, $2, unhex(value ->> 1), CAST(value ->> 2 AS BLOB) FROM json_each($1)",
    )
    .bind(json(&entries))
    .bind(t_us)
    .execute(&mut *conn)
    .await?;
    let index: Vec<_> = batch
        .entries
        .iter()
        .map(|r| (r.idx, &r.jti, r.signed8, r.typ, r.decision, &r.client, &r.rule, &r.grant_id))
        .collect();
    sqlx::query(
        "INSERT INTO audit_index (idx, jti, signed8, typ, decision, client, rule, grant_id) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
         value ->> 7 FROM json_each($1)",
    )
    .bind(json(&index))
    .execute(&mut *conn)
    .await?;
    if !batch.grants.is_empty() {
        let grants: Vec<_> = batch
            .grants
            .iter()
            .map(|g| {
                let times = (g.iat_us, g.exp_us, g.created_at_us);
                (&g.id, g.idx, &g.jti, &g.client, &g.kid, &g.aud, &g.scope, g.assurance, times, &g.parent)
            })
            .collect();
        sqlx::query(
            "INSERT INTO actor_grant (id, idx, jti, client, kid, aud, scope, assurance, iat_us, exp_us, \
             created_at_us, updated_at_us, parent) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
             value ->> 7, value ->> '$[8][0]', value ->> '$[8][1]', value ->> '$[8][2]', value ->> '$[8][2]', \
             value ->> 9 \
             FROM json_each($1)",
        )
        .bind(json(&grants))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Everything but the head in one statement: under the lock each round trip is paid by all replicas.
async fn insert_postgres(conn: &mut PgConnection, batch: &Batch<'_>) -> Result<(), StoreError> {
    let (rows, private, g) = (&batch.entries, batch.private(), &batch.grants);
    sqlx::query(
        "WITH entries AS (
            INSERT INTO audit_entry (idx, t_us, leaf, body)
            SELECT idx, $2, leaf, body FROM unnest($1::bigint[], $3::bytea[], $4::bytea[]) AS u (idx, leaf, body)
        ), private AS (
            INSERT INTO audit_private (idx, disclosures, actor, actor_iss, subject, ticket)
            SELECT * FROM unnest($12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[])
        ), grants AS (
            INSERT INTO actor_grant (id, idx, jti, client, kid, aud, scope, assurance, iat_us, exp_us,
                created_at_us, updated_at_us, parent)
            SELECT id, idx, jti, client, kid, aud, scope, assurance, iat, exp, created, created, parent
            FROM unnest($18::text[], $19::bigint[], $20::text[], $21::text[], $22::text[], $23::text[],
                $24::text[], $25::text[], $26::bigint[], $27::bigint[], $28::bigint[], $29::text[])
                AS u (id, idx, jti, client, kid, aud, scope, assurance, iat, exp, created, parent)
        )
        INSERT INTO audit_index (idx, jti, signed8, typ, decision, client, rule, grant_id)
        SELECT * FROM unnest($1::bigint[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[])",
    )
    .bind(rows.iter().map(|r| r.idx).collect::<Vec<_>>())
    .bind(batch.head.t_us)
    .bind(rows.iter().map(|r| &r.leaf[..]).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| &r.body[..]).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.jti.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.signed8).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.typ).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.decision).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.client.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.rule.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.grant_id.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(idx, _)| *idx).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.disclosures.as_str()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.actor.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.actor_iss.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.subject.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.ticket.as_deref()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.id.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.idx).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.jti.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.client.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.kid.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.aud.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.scope.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.assurance).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.iat_us).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.exp_us).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.created_at_us).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.parent.as_deref()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}
