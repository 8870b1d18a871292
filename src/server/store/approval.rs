//! Requests that wait for a colleague, as rows: what an append asks and changes, and what is waiting.

use sqlx::AssertSqlSafe;

use super::append::{Tx, on_tx};
use super::stop::Changes;
use super::{Db, StoreError, json, on_db};

/// A new row of `approval`.
#[derive(Debug)]
pub struct StoredApproval {
    /// The grant.
    pub grant_id: String,
    /// The word.
    pub state: &'static str,
    /// When the request lapses, microseconds.
    pub lapses_us: i64,
    /// The lifetime asked for.
    pub lifetime_seconds: u32,
    /// What stands for the asker.
    pub asker_tag: Option<String>,
}

/// What a colleague decided.
#[derive(Debug)]
pub struct StoredDecision {
    /// The entry.
    pub idx: i64,
    /// The grant.
    pub grant_id: String,
    /// The word.
    pub state: &'static str,
}

impl Tx<'_> {
    /// The state of those of `grants` that have a row.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn approval_states(&mut self, grants: &[&str]) -> Result<Vec<(String, String)>, StoreError> {
        // an approval is what the log says, not what the row says: whoever changes the row leaves no entry behind that a
        // head seals (one can be planted between two epochs, or where a body was pruned)
        let body = if matches!(self, Self::Sqlite(_)) {
            "CAST(e.body AS TEXT)"
        } else {
            "convert_from(e.body, 'UTF8')::json"
        };
        let sql = format!(
            "SELECT a.grant_id, CASE WHEN a.state <> 'approved' OR EXISTS (SELECT 1 FROM audit_entry e \
             WHERE e.idx = a.decided_idx AND {body} ->> 'typ' = 'approve' AND {body} ->> 'grant' = a.grant_id \
             AND {body} ->> 'decision' = 'granted' \
             AND NOT EXISTS (SELECT 1 FROM audit_pruned_tile p WHERE p.n = (e.idx >> 8)) \
             AND (SELECT h.prev FROM audit_head h WHERE h.size > e.idx ORDER BY h.size LIMIT 1) <= e.idx) THEN a.state ELSE 'waiting' END \
             FROM approval a WHERE a.grant_id {}",
            self.texts()
        );
        Ok(on_tx!(self, (conn) => {
            sqlx::query_as(AssertSqlSafe(sql)).bind(json(&grants)).fetch_all(conn).await
        })?)
    }

    /// Makes a batch's changes to requests at `t_us`: asked, then decided, then released.
    pub(super) async fn approvals(&mut self, changes: &Changes, t_us: i64) -> Result<(), StoreError> {
        for new in &changes.approvals {
            on_tx!(self, (conn) => {
                sqlx::query(
                    "INSERT INTO approval (grant_id, state, lapses_us, lifetime_seconds, asker_tag) \
                     VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(&new.grant_id)
                .bind(new.state)
                .bind(new.lapses_us)
                .bind(i64::from(new.lifetime_seconds))
                .bind(&new.asker_tag)
                .execute(conn)
                .await
                .map(drop)
            })?;
        }
        for decision in &changes.decisions {
            on_tx!(self, (conn) => {
                sqlx::query("UPDATE approval SET state = $2, decided_idx = $3 WHERE grant_id = $1")
                    .bind(&decision.grant_id)
                    .bind(decision.state)
                    .bind(decision.idx)
                    .execute(conn)
                    .await
                    .map(drop)
            })?;
            self.touch(&decision.grant_id, t_us).await?;
        }
        for released in &changes.released {
            on_tx!(self, (conn) => {
                sqlx::query("UPDATE approval SET state = 'released' WHERE grant_id = $1")
                    .bind(&released.grant_id)
                    .execute(conn)
                    .await
                    .map(drop)
            })?;
            on_tx!(self, (conn) => {
                sqlx::query(
                    "UPDATE actor_grant SET kid = $2, scope = $3, iat_us = $4, exp_us = $5, \
                     updated_at_us = $6 WHERE id = $1",
                )
                .bind(&released.grant_id)
                .bind(&released.kid)
                .bind(&released.scope)
                .bind(released.iat_us)
                .bind(released.exp_us)
                .bind(t_us)
                .execute(conn)
                .await
                .map(drop)
            })?;
        }
        Ok(())
    }

    async fn touch(&mut self, grant: &str, t_us: i64) -> Result<(), StoreError> {
        on_tx!(self, (conn) => {
            sqlx::query("UPDATE actor_grant SET updated_at_us = $2 WHERE id = $1")
                .bind(grant)
                .bind(t_us)
                .execute(conn)
                .await
                .map(drop)
        })?;
        Ok(())
    }
}

impl Db {
    /// The positions of up to `limit` requests that wait at `now_us`, for a colleague or, unless `undecided`, for their
    /// asker; those that lapse first first.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn open_requests(
        &self,
        now_us: i64,
        undecided: bool,
        limit: i64,
    ) -> Result<Vec<i64>, StoreError> {
        Ok(on_db!(self, read(pool) => {
            sqlx::query_scalar(
                "SELECT g.idx FROM approval a JOIN actor_grant g ON g.id = a.grant_id \
                 WHERE a.state IN ('waiting', $2) AND a.lapses_us > $1 AND g.revoked_at_us IS NULL \
                 ORDER BY a.lapses_us, g.idx LIMIT $3",
            )
            .bind(now_us)
            .bind(if undecided { "waiting" } else { "approved" })
            .bind(limit)
            .fetch_all(pool)
            .await
        })?)
    }
}
