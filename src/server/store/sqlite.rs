//! What only SQLite needs: one writer, a few readers, the settings that make a commit durable.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

use super::StoreError;

/// The first version without the WAL-reset corruption bug (3.7.0–3.51.2).
const MIN_VERSION: (u32, u32, u32) = (3, 51, 3);
/// How long a statement waits for another process's lock (`audit erase` beside a running service).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A SQLite file: one connection writes, the others read.
#[derive(Debug, Clone)]
pub struct SqliteDb {
    writer: SqlitePool,
    readers: SqlitePool,
    path: PathBuf,
    /// Device and inode of the file that was opened.
    file: (u64, u64),
}

impl SqliteDb {
    pub(super) async fn open(url: &str, create: bool) -> Result<Self, StoreError> {
        if url.contains('?') || url.contains(":memory:") {
            return Err(StoreError::Url("sqlite:// takes the path of a file and nothing else".into()));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::Url("sqlite:// must be followed by a path".into()))?;
        let path = options.get_filename().to_path_buf();
        if !path.exists() {
            if !create {
                return Err(StoreError::Missing(path));
            }
            create_private(&path)?;
        }
        let options = options
            .create_if_missing(false)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL would lose the last commits on power loss: a released token without a record
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("trusted_schema", "OFF")
            .pragma("cell_size_check", "ON")
            // what `audit erase` deletes is overwritten with zeros
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY")
            .disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            // a thread of this process: a ping tells nothing that the next statement would not
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(
                options
                    .clone()
                    // what a commit touches and what is above it in the trees. Where a tree's pages were put in order,
                    // SQLite ends the commit by walking over every page that it keeps: with four times as many a mint
                    // cost a tenth more
                    .pragma("cache_size", "-4000")
                    // most pages change in every commit: at the default of 1000 pages, every twentieth commit
                    // stopped to copy them into the file. What `copy_back` has copied by then is not copied again
                    .pragma("wal_autocheckpoint", "4000"),
            )
            .await?;
        let readers = SqlitePoolOptions::new()
            // a listing may take one for longer, and whoever redeems or sends an Idempotency-Key waits for a look-up
            .max_connections(8)
            .test_before_acquire(false)
            // rows cross from SQLite's thread in bursts: woken for each, `audit verify` took three times as long
            .connect_with(
                options.pragma("query_only", "ON").pragma("cache_size", "-2000").row_buffer_size(1024),
            )
            .await?;
        let file = identity(&path).map_err(sqlx::Error::Io)?;
        let db = Self { writer, readers, path, file };
        db.check_version().await?;
        Ok(db)
    }

    pub(super) async fn opened_again(&self) -> Result<Self, StoreError> {
        Self::open(&format!("sqlite://{}", self.path.display()), false).await
    }

    /// The one connection that writes. The log's batcher holds it for the length of a batch.
    pub(crate) const fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Connections that cannot write.
    pub(crate) const fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what is in the write-ahead log into the file, beside the writer, which then has little left to copy when
    /// the log is long enough to begin anew.
    pub(super) fn copy_back(&self) {
        let readers = self.readers.clone();
        tokio::spawn(async move {
            if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&readers).await {
                tracing::debug!(%error, "the write-ahead log was not copied; the writer does it");
            }
        });
    }

    /// Whether another file stands where this one was, or none: a backup put back under the running service.
    pub(super) fn was_exchanged(&self) -> bool {
        match identity(&self.path) {
            Ok(file) => file != self.file,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    async fn check_version(&self) -> Result<(), StoreError> {
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&self.readers).await?;
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        if (next(), next(), next()) < MIN_VERSION {
            let (a, b, c) = MIN_VERSION;
            return Err(StoreError::Unsafe(format!("SQLite {version} is older than {a}.{b}.{c}")));
        }
        Ok(())
    }

    pub(super) async fn check_durable(&self) -> Result<(), StoreError> {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&self.writer).await?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(StoreError::Unsafe(format!("journal_mode is {mode}, not wal")));
        }
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&self.writer).await?;
        if synchronous < 2 {
            return Err(StoreError::Unsafe("synchronous is below FULL".into()));
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Makes an empty file that only its owner can read; SQLite gives its `-wal` and `-shm` the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| StoreError::from(sqlx::Error::Io(error)))
}
