//! What a replica reads of revocations, codes and keys outside an append, and what it clears when it has expired.

use sqlx::AssertSqlSafe;

use super::stop::{CHANNEL, COVERS, StoredCode, StoredKey, first_live};
use super::{Db, StoreError, on_db};

/// How many rows one clearing statement touches at most.
const CHUNK: i64 = 1000;

/// One thing that is revoked, as a replica reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// A grant that ends by itself at this time, microseconds.
    Grant(String, i64),
    /// Whatever a key signed; it was refused in this second.
    Kid(String, i64),
    /// What was issued to a client up to a second.
    Client(String, i64),
    /// What was issued up to a second.
    All(i64),
}

/// What was revoked from some point of the log on, and how far the log was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The global position after the last entry.
    pub end: i64,
    /// Each with the entry that revoked it.
    pub revoked: Vec<(i64, Revoked)>,
}

/// Word from other replicas that something was revoked (PostgreSQL).
pub struct Notices(sqlx::postgres::PgListener);

impl Notices {
    /// Waits for the next word. A connection that was lost and made again counts as one: something may have
    /// been missed.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        Ok(self.0.try_recv().await.map(drop)?)
    }
}

impl StoreError {
    /// The database did not answer in time.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::Unavailable(std::sync::Arc::new(sqlx::Error::PoolTimedOut))
    }
}

impl Db {
    /// Where other replicas say that something was revoked; `None` on a database that has no other replicas.
    ///
    /// # Errors
    /// No connection.
    pub async fn notices(&self) -> Result<Option<Notices>, StoreError> {
        let Self::Postgres(pg) = self else { return Ok(None) };
        let mut listener = sqlx::postgres::PgListener::connect_with(pg.pool()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(Notices(listener)))
    }

    /// What was revoked by entries from `from` on and has not expired at `now_us`.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn revoked_since(&self, from: i64, now_us: i64) -> Result<Reading, StoreError> {
        // One statement, one snapshot: what it sees of the log and of the revocations belongs together. A
        // disabled client counts as cut off even where nobody recorded that.
        const SQL: &str = "SELECT 'grant', grant_id, exp_us, idx FROM revoked_grant \
             WHERE idx >= $1 AND exp_us > $2 \
             UNION ALL SELECT kind, target, until_iat, idx FROM cutoff \
             WHERE idx >= $1 AND until_iat IS NOT NULL \
             UNION ALL SELECT 'client', id, disabled_at_us / 1000000 + 30, -1 FROM client \
             WHERE disabled_at_us > $2 - 7200000000 \
             UNION ALL SELECT 'end', '', size, 0 FROM \
             (SELECT size FROM audit_head ORDER BY size DESC LIMIT 1) newest";
        let rows: Vec<(String, String, i64, i64)> = match self {
            Self::Sqlite(db) => sqlx::query_as(SQL).bind(from).bind(now_us).fetch_all(db.readers()).await,
            Self::Postgres(db) => sqlx::query_as(SQL).bind(from).bind(now_us).fetch_all(db.looking()).await,
        }?;
        let mut reading = Reading { end: 0, revoked: Vec::with_capacity(rows.len().saturating_sub(1)) };
        for (kind, target, value, idx) in rows {
            let revoked = match kind.as_str() {
                "end" => {
                    reading.end = value;
                    continue;
                }
                "grant" => Revoked::Grant(target, value),
                "all" => Revoked::All(value),
                "client" => Revoked::Client(target, value),
                "kid" => Revoked::Kid(target, value),
                _ => return Err(StoreError::Corrupt("the kind of a cut-off")),
            };
            reading.revoked.push((idx, revoked));
        }
        Ok(reading)
    }

    /// The entry that ended a grant, until the grant would have ended by itself; `None` also where a cut-off did.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn ended_by(&self, grant: &str) -> Result<Option<i64>, StoreError> {
        Ok(on_db!(self, read(pool) => {
            sqlx::query_scalar("SELECT idx FROM revoked_grant WHERE grant_id = $1")
                .bind(grant)
                .fetch_optional(pool)
                .await
        })?)
    }

    /// The handoff code that `code_hash` finds, used or not.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn handoff_code(&self, code_hash: &str) -> Result<Option<StoredCode>, StoreError> {
        type Row = (String, String, String, Option<String>, Vec<u8>, i64, i64, Option<i64>);
        let row: Option<Row> = on_db!(self, read(pool) => {
            sqlx::query_as(
                "SELECT grant_id, code_hash, redeem_client, code_challenge, sealed, exp_us, keep_until_us, \
                 used_idx FROM handoff_code WHERE code_hash = $1",
            )
            .bind(code_hash)
            .fetch_optional(pool)
            .await
        })?;
        let code = |(
            grant_id,
            code_hash,
            redeem_client,
            code_challenge,
            sealed,
            exp_us,
            keep_until_us,
            used_idx,
        )| {
            StoredCode {
                grant_id,
                code_hash,
                redeem_client,
                code_challenge,
                sealed,
                exp_us,
                keep_until_us,
                used_idx,
            }
        };
        Ok(row.map(code))
    }

    /// What the policy is asked again with about a grant, sealed.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn grant_facts(&self, grant: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(on_db!(self, read(pool) => {
            sqlx::query_scalar("SELECT sealed FROM grant_facts WHERE grant_id = $1")
                .bind(grant)
                .fetch_optional(pool)
                .await
        })?)
    }

    /// What was answered under an idempotency key, until it expires.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn idempotency(&self, key_tag: &str, now_us: i64) -> Result<Option<StoredKey>, StoreError> {
        let row: Option<(String, String, String, i64)> = on_db!(self, read(pool) => {
            sqlx::query_as(
                "SELECT key_tag, body_tag, grant_id, exp_us FROM idempotency WHERE key_tag = $1 AND exp_us > $2",
            )
            .bind(key_tag)
            .bind(now_us)
            .fetch_optional(pool)
            .await
        })?;
        Ok(row.map(|(key_tag, body_tag, grant_id, exp_us)| StoredKey { key_tag, body_tag, grant_id, exp_us }))
    }

    /// The entries that hold a person at `now_us`, and until when, microseconds.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn held_people(&self, now_us: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        Ok(on_db!(self, read(pool) => {
            sqlx::query_as(
                "SELECT idx, hold_until_us FROM cutoff WHERE kind = 'person' AND hold_until_us > $1 ORDER BY idx",
            )
            .bind(now_us)
            .fetch_all(pool)
            .await
        })?)
    }

    /// Writes into grants' rows that a cut-off covers them, at most a few at a time; how many.
    ///
    /// Whether a grant is over never depends on it: lists and filters do.
    ///
    /// # Errors
    /// The database could not do it.
    pub async fn mark_cut_off(&self, now_us: i64) -> Result<u64, StoreError> {
        const SQL: &str = "UPDATE actor_grant SET \
             revoked_at_us = (SELECT MIN(c.t_us) FROM cutoff c WHERE COVERS), updated_at_us = $2 \
             WHERE id IN (SELECT actor_grant.id FROM actor_grant JOIN cutoff c ON COVERS \
             WHERE actor_grant.id >= $1 AND actor_grant.revoked_at_us IS NULL AND actor_grant.exp_us > c.t_us \
             LIMIT $3)";
        let sql = SQL.replace("COVERS", COVERS);
        Ok(on_db!(self, write(pool) => {
            sqlx::query(AssertSqlSafe(sql))
                .bind(first_live(now_us))
                .bind(now_us)
                .bind(CHUNK)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?)
    }

    /// Deletes what has expired, at most a few rows a table; how many.
    ///
    /// # Errors
    /// The database could not do it.
    pub async fn clear_expired(&self, now_us: i64) -> Result<u64, StoreError> {
        // a cut-off goes when the youngest token it covers has ended, and its hold too
        const STATEMENTS: [&str; 6] = [
            "DELETE FROM revoked_grant WHERE grant_id IN \
             (SELECT grant_id FROM revoked_grant WHERE exp_us < $1 ORDER BY exp_us LIMIT $2)",
            "DELETE FROM grant_chain WHERE (tag, grant_id) IN \
             (SELECT tag, grant_id FROM grant_chain WHERE exp_us < $1 ORDER BY exp_us LIMIT $2)",
            "DELETE FROM handoff_code WHERE grant_id IN \
             (SELECT grant_id FROM handoff_code WHERE keep_until_us < $1 ORDER BY keep_until_us LIMIT $2)",
            "DELETE FROM grant_facts WHERE grant_id IN \
             (SELECT grant_id FROM grant_facts WHERE keep_until_us < $1 ORDER BY keep_until_us LIMIT $2)",
            "DELETE FROM idempotency WHERE key_tag IN \
             (SELECT key_tag FROM idempotency WHERE exp_us < $1 ORDER BY exp_us LIMIT $2)",
            "DELETE FROM cutoff WHERE (kind, target) IN (SELECT kind, target FROM cutoff \
             WHERE (until_iat IS NULL OR t_us < $1 - 7200000000) \
             AND (hold_until_us IS NULL OR hold_until_us < $1) LIMIT $2)",
        ];
        // a minute of grace, so that no clock among replicas matters
        let before = now_us - 60_000_000;
        let mut cleared = 0;
        for sql in STATEMENTS {
            cleared += on_db!(self, write(pool) => {
                sqlx::query(sql).bind(before).bind(CHUNK).execute(pool).await.map(|done| done.rows_affected())
            })?;
        }
        Ok(cleared)
    }
}
