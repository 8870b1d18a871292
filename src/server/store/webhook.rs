//! How far each webhook has been told of the log, and who tells it: one row a webhook, changed by compare-and-set.

use super::{Db, StoreError, on_db};

impl Db {
    /// Makes the row of a webhook that is new; it is told of what comes from `next` on.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn webhook_begin(&self, name: &str, next: i64) -> Result<(), StoreError> {
        on_db!(
            self,
            write(pool) => {
                sqlx::query(
                    "INSERT INTO webhook (name, next_idx, holder, held_until_us) VALUES ($1, $2, '', 0) \
                     ON CONFLICT (name) DO NOTHING",
                )
                .bind(name)
                .bind(next)
                .execute(pool)
                .await
                .map(drop)
            }
        )?;
        Ok(())
    }

    /// The position of the first entry that a webhook has not been told of.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn webhook_next(&self, name: &str) -> Result<Option<i64>, StoreError> {
        Ok(on_db!(
            self,
            read(pool) => {
                sqlx::query_scalar("SELECT next_idx FROM webhook WHERE name = $1")
                    .bind(name)
                    .fetch_optional(pool)
                    .await
            }
        )?)
    }

    /// Lets `holder` deliver until `until_us`, unless another does at `now_us`; where to go on.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn webhook_hold(
        &self,
        name: &str,
        holder: &str,
        now_us: i64,
        until_us: i64,
    ) -> Result<Option<i64>, StoreError> {
        Ok(on_db!(
            self,
            write(pool) => {
                sqlx::query_scalar(
                    "UPDATE webhook SET holder = $2, held_until_us = $4 \
                     WHERE name = $1 AND (holder = $2 OR held_until_us <= $3) RETURNING next_idx",
                )
                .bind(name)
                .bind(holder)
                .bind(now_us)
                .bind(until_us)
                .fetch_optional(pool)
                .await
            }
        )?)
    }

    /// Keeps that everything before `next` is dealt with, and holds on until `until_us`; `false`: another took
    /// over meanwhile, and nothing was changed.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn webhook_advance(
        &self,
        name: &str,
        holder: &str,
        next: i64,
        until_us: i64,
    ) -> Result<bool, StoreError> {
        let changed = on_db!(
            self,
            write(pool) => {
                sqlx::query(
                    "UPDATE webhook SET next_idx = $3, held_until_us = $4 \
                     WHERE name = $1 AND holder = $2 AND next_idx <= $3",
                )
                .bind(name)
                .bind(holder)
                .bind(next)
                .bind(until_us)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
            }
        )?;
        Ok(changed == 1)
    }

    /// The grants that the entry at `idx` ended and that would still live, at most `limit`.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn grants_ended_by(&self, idx: i64, limit: i64) -> Result<Vec<String>, StoreError> {
        Ok(on_db!(
            self,
            read(pool) => {
                sqlx::query_scalar("SELECT grant_id FROM revoked_grant WHERE idx = $1 ORDER BY grant_id LIMIT $2")
                    .bind(idx)
                    .bind(limit)
                    .fetch_all(pool)
                    .await
            }
        )?)
    }
}
