//! The two ways rows leave the log on purpose, as the owner, inside the append that records it: personal data
//! is erased, and old bodies are pruned to their hashes (audit-log.md §5).

use sqlx::{AssertSqlSafe, PgConnection};

use super::append::{StoredPrivate, Tx, on_tx};
use super::{Db, StoreError, json};
use crate::server::log::erase::without;

/// What is taken out. Positions are global.
#[derive(Debug, Clone)]
pub enum Surgery {
    /// These disclosures of rows of personal data. What stays is told from the rows as they are then: somebody else may
    /// have erased more of them meanwhile.
    Erase {
        /// The rows.
        rows: Vec<i64>,
        /// The names of the disclosures.
        fields: &'static [&'static str],
    },
    /// Bodies and personal data under whole tiles `[first, last)`, whose hashes are kept.
    Prune {
        /// The first tile.
        first: i64,
        /// The tile after the last.
        last: i64,
    },
}

impl Tx<'_> {
    /// Does it. The append-only triggers are taken away and put back within this transaction.
    ///
    /// # Errors
    /// The role is not the owner, or the database could not do it.
    pub async fn operate(&mut self, surgery: &Surgery) -> Result<(), StoreError> {
        let tables: &[&str] = match surgery {
            Surgery::Erase { .. } => &["audit_private"],
            Surgery::Prune { .. } => &["audit_private", "audit_entry"],
        };
        let guards = self.unguard(tables).await?;
        match surgery {
            Surgery::Erase { rows, fields } => self.erase(rows, fields).await?,
            Surgery::Prune { first, last } => self.prune(*first, *last).await?,
        }
        for guard in guards {
            self.run(guard).await?;
        }
        Ok(())
    }

    /// Takes the triggers against DELETE away; gives the statements that put them back.
    async fn unguard(&mut self, tables: &[&str]) -> Result<Vec<String>, StoreError> {
        let mut guards = Vec::new();
        for table in tables {
            if let Self::Sqlite(tx) = self {
                let name = format!("{table}_no_delete");
                let sql: Option<String> = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = $1")
                    .bind(&name)
                    .fetch_optional(&mut **tx)
                    .await?;
                guards.push(sql.ok_or_else(|| StoreError::Unsafe(format!("the trigger {name} is missing")))?);
                self.run(format!("DROP TRIGGER {name}")).await?;
            } else {
                guards.push(format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only"));
                self.run(format!("ALTER TABLE {table} DISABLE TRIGGER {table}_append_only")).await?;
            }
        }
        Ok(guards)
    }

    /// A statement of ours, without parameters.
    async fn run(&mut self, sql: String) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await.map(drop)?,
            Self::Postgres(tx) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await.map(drop)?,
        }
        Ok(())
    }

    async fn erase(&mut self, rows: &[i64], fields: &[&str]) -> Result<(), StoreError> {
        type Row = (i64, String, Option<String>, Option<String>, Option<String>, Option<String>);
        let positions = json(&rows);
        let these = self.in_number_list(1);
        let sql = format!(
            "SELECT idx, disclosures, actor, actor_iss, subject, ticket FROM audit_private WHERE idx {these}"
        );
        let there: Vec<Row> = on_tx!(self, (conn) => {
            sqlx::query_as(AssertSqlSafe(sql)).bind(&positions).fetch_all(conn).await?
        });
        let nothing = if matches!(self, Self::Sqlite(_)) { "x''" } else { "''" };
        // what the policy would be asked again with is his data too, sealed or not: such a grant is not known any more
        let grants = format!("SELECT grant_id FROM audit_index WHERE grant_id IS NOT NULL AND idx {these}");
        for sql in [
            format!("DELETE FROM audit_private WHERE idx {these}"),
            format!("DELETE FROM grant_facts WHERE grant_id IN ({grants})"),
            format!("UPDATE handoff_code SET sealed = {nothing} WHERE grant_id IN ({grants})"),
        ] {
            on_tx!(self, (conn) => {
                sqlx::query(AssertSqlSafe(sql)).bind(&positions).execute(conn).await.map(drop)?;
            });
        }
        let kept = there.into_iter().filter_map(|(idx, disclosures, actor, actor_iss, subject, ticket)| {
            let row = StoredPrivate { disclosures, actor, actor_iss, subject, ticket };
            Some((idx, without(row, fields)?))
        });
        self.insert_private(kept.collect()).await
    }

    async fn prune(&mut self, first: i64, last: i64) -> Result<(), StoreError> {
        for tile in first..last {
            let (low, high) = (tile << 8, (tile + 1) << 8);
            let leaves: Vec<Vec<u8>> = match self {
                Self::Sqlite(tx) => {
                    sqlx::query_scalar(LEAVES).bind(low).bind(high).fetch_all(&mut **tx).await?
                }
                Self::Postgres(tx) => {
                    sqlx::query_scalar(LEAVES).bind(low).bind(high).fetch_all(&mut **tx).await?
                }
            };
            if leaves.len() != 256 {
                return Err(StoreError::Corrupt("a tile to be pruned is not whole"));
            }
            let hashes = leaves.concat();
            match self {
                Self::Sqlite(tx) => {
                    sqlx::query(KEEP).bind(tile).bind(hashes).execute(&mut **tx).await.map(drop)?;
                }
                Self::Postgres(tx) => {
                    sqlx::query(KEEP).bind(tile).bind(hashes).execute(&mut **tx).await.map(drop)?;
                }
            }
        }
        for table in ["audit_private", "audit_entry"] {
            self.run(format!("DELETE FROM {table} WHERE idx >= {} AND idx < {}", first << 8, last << 8))
                .await?;
        }
        Ok(())
    }
}

/// Waits until no transaction is left that began before this moment: rewriting a table keeps the deleted rows
/// that the oldest of them could still see. Views matter of this database only, but one that writes in any database
/// of the cluster makes every view that is taken meanwhile reach as far back as itself.
async fn until_nobody_sees_before(session: &mut PgConnection) -> Result<(), StoreError> {
    let now: String =
        sqlx::query_scalar("SELECT pg_current_xact_id()::xid::text").fetch_one(&mut *session).await?;
    for _ in 0..600 {
        let older: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
             AND (age(backend_xid) >= age($1::text::xid) \
             OR (datname = current_database() OR datname IS NULL) AND age(backend_xmin) >= age($1::text::xid))",
        )
        .bind(&now)
        .fetch_one(&mut *session)
        .await?;
        if older == 0 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(StoreError::Unsafe(
        "a transaction of the last minute still sees what was erased; end it (pg_stat_activity) and try again".into(),
    ))
}

const LEAVES: &str = "SELECT leaf FROM audit_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx";
const KEEP: &str = "INSERT INTO audit_pruned_tile (n, hashes) VALUES ($1, $2)";

impl Db {
    /// After an erasure: makes what was deleted unrecoverable in the files this service can reach. `SQLite`
    /// empties its write-ahead log (pages were overwritten when they were freed); PostgreSQL rewrites the
    /// table and its statistics. Backups, WAL archives and standbys are beyond it.
    ///
    /// # Errors
    /// Somebody holds an older view of the data open, or the role is not the owner: try again.
    pub async fn forget(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(db) => {
                for _ in 0..20 {
                    let (busy, _, _): (i64, i64, i64) =
                        sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(db.writer()).await?;
                    if busy == 0 {
                        return Ok(());
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Err(StoreError::Unsafe(
                    "the write-ahead log could not be emptied: a reader holds it open; try again".into(),
                ))
            }
            Self::Postgres(db) => {
                let mut session = db.pool().acquire().await?;
                // rewriting a large table takes longer than any statement of the service may
                sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = '60s'")
                    .execute(&mut *session)
                    .await?;
                until_nobody_sees_before(&mut session).await?;
                for table in ["audit_private", "grant_facts", "handoff_code"] {
                    let rewrite = format!("VACUUM FULL {table}");
                    sqlx::raw_sql(AssertSqlSafe(rewrite)).execute(&mut *session).await?;
                }
                // the planner keeps common values of a column: taken anew, and the old ones rewritten away (which
                // the database's owner may; PostgreSQL only warns anybody else)
                sqlx::raw_sql("ANALYZE audit_private").execute(&mut *session).await?;
                until_nobody_sees_before(&mut session).await?;
                sqlx::raw_sql("VACUUM FULL pg_statistic").execute(&mut *session).await?;
                session.close().await?;
                Ok(())
            }
        }
    }
}
