//! The database: one of two, chosen once by the URL, with its settings, migrations and role checks.
//!
//! Statements that both databases understand are written once and run through `on_db!`; what differs
//! stands in [`sqlite`] and [`postgres`]. Nothing else in the service matches on the database.

pub mod append;
pub mod approval;
pub mod assume;
pub mod cosig;
pub mod grants;
mod insert;
mod migrate;
pub mod postgres;
pub mod read;
pub mod revoked;
pub mod role;
pub mod sqlite;
pub mod stop;
pub mod surgery;
pub mod webhook;
pub mod whole;

use std::path::PathBuf;
use std::sync::Arc;

pub use migrate::{check_migrated, migrate};
pub use role::check_service_role;

/// Why the database did not answer, in words that hold for both.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database this service knows, or one it must not use.
    #[error("the database URL cannot be used: {0}")]
    Url(String),
    /// The file is not there, and only `init` and `dev` create it.
    #[error("there is no database at {}; make one with `stagedoor init`", .0.display())]
    Missing(PathBuf),
    /// The schema is older or newer than this program.
    #[error("the database is not migrated to this version ({0}); run `stagedoor init`")]
    NotMigrated(String),
    /// The database is set up in a way that breaks a promise of the log.
    #[error("the database is not safe to record in: {0}")]
    Unsafe(String),
    /// No connection: nobody answers, or who answers does not let the role in.
    #[error("{said}")]
    NoConnection {
        /// Which server, and what to check.
        said: String,
        /// Why.
        source: Arc<sqlx::Error>,
    },
    /// The database could not be asked, or refused.
    #[error("the database could not do it")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A stored value is not what the schema promises.
    #[error("the database holds a value that cannot be read: {0}")]
    Corrupt(&'static str),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

/// The database the service runs on. Cheap to clone: both hold pools.
#[derive(Debug, Clone)]
pub enum Db {
    /// The embedded one: a single writer connection and a few readers.
    Sqlite(sqlite::SqliteDb),
    /// A server.
    Postgres(postgres::PostgresDb),
}

/// Runs one statement on whichever database is in use. `$pool` is an executor in the body; the body is
/// compiled once per database, so its types are checked against both.
macro_rules! on_db {
    ($db:expr, read($pool:ident) => $body:expr) => {
        match $db {
            $crate::server::store::Db::Sqlite(db) => {
                let $pool = db.readers();
                $body
            }
            $crate::server::store::Db::Postgres(db) => {
                let $pool = db.pool();
                $body
            }
        }
    };
    ($db:expr, write($pool:ident) => $body:expr) => {
        match $db {
            $crate::server::store::Db::Sqlite(db) => {
                let $pool = db.writer();
                $body
            }
            $crate::server::store::Db::Postgres(db) => {
                let $pool = db.pool();
                $body
            }
        }
    };
}
pub(crate) use on_db;

/// Indexes over people's ids are keyed by `(idx >> BUCKET_BITS, id)`: see the first migration.
pub const BUCKET_BITS: u32 = 12;

/// `IN`, over a JSON array bound as one parameter: the one way to pass a list that both databases plan as
/// index look-ups.
struct List {
    sqlite: bool,
    parameter: u8,
    cast: &'static str,
}

impl std::fmt::Display for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sqlite, parameter, cast } = self;
        if *sqlite {
            write!(f, "IN (SELECT value FROM json_each(${parameter}))")
        } else {
            write!(
                f,
                "= ANY (ARRAY (SELECT value::{cast} FROM json_array_elements_text(${parameter}::json)))"
            )
        }
    }
}

/// JSON of plain values cannot fail.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Bytes in hexadecimal, lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)])).collect()
}

impl Db {
    /// Whether SQLite's file is another than the one that was opened: what is written goes nowhere then.
    #[must_use]
    pub fn was_exchanged(&self) -> bool {
        match self {
            Self::Sqlite(db) => db.was_exchanged(),
            Self::Postgres(_) => false,
        }
    }

    /// SQLite: the file that stands where this one was. PostgreSQL: this database.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub(crate) async fn opened_again(&self) -> Result<Self, StoreError> {
        match self {
            Self::Sqlite(db) => Ok(Self::Sqlite(db.opened_again().await?)),
            Self::Postgres(_) => Ok(self.clone()),
        }
    }

    const fn in_list(&self, parameter: u8, cast: &'static str) -> List {
        List { sqlite: matches!(self, Self::Sqlite(_)), parameter, cast }
    }

    /// Connects to the database at `url`.
    ///
    /// # Errors
    /// A URL of another scheme, a missing SQLite file, a library too old, or no connection.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::open(url, false).await
    }

    /// Connects, and makes the SQLite file when it is missing: for `init` and `dev` only.
    ///
    /// # Errors
    /// As [`Db::connect`], without the missing file.
    pub async fn create(url: &str) -> Result<Self, StoreError> {
        Self::open(url, true).await
    }

    async fn open(url: &str, create: bool) -> Result<Self, StoreError> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Self::Sqlite(sqlite::SqliteDb::open(url, create).await?)),
            Some("postgres" | "postgresql") => Ok(Self::Postgres(postgres::PostgresDb::open(url).await?)),
            // the URL may hold a password: it is never repeated in the error
            _ => Err(StoreError::Url("it must begin with sqlite:// or postgres://".into())),
        }
    }

    /// Whether the settings the log's durability rests on are in force (audit-log.md §1, step 9).
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] names the setting.
    pub async fn check_durable(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(db) => db.check_durable().await,
            Self::Postgres(db) => db.check_durable().await,
        }
    }

    /// The user the service connects as; `None` on SQLite, which has no roles.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(db) => Some(db.user()),
        }
    }

    /// The word for this database in settings and messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// A round trip: whether the database answers at all.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let one: i64 =
            on_db!(self, read(pool) => sqlx::query_scalar("SELECT CAST(1 AS BIGINT)").fetch_one(pool).await)?;
        debug_assert_eq!(one, 1);
        Ok(())
    }

    /// A setting of the database itself, `None` when it was never written.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(on_db!(
            self,
            read(pool) => {
                sqlx::query_scalar("SELECT value FROM meta WHERE key = $1")
                    .bind(key)
                    .fetch_optional(pool)
                    .await
            }
        )?)
    }

    /// Writes a setting of the database itself.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn set_meta(&self, key: &str, value: &str) -> Result<(), StoreError> {
        on_db!(
            self,
            write(pool) => {
                sqlx::query(
                    "INSERT INTO meta (key, value) VALUES ($1, $2) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                )
                .bind(key)
                .bind(value)
                .execute(pool)
                .await
                .map(drop)
            }
        )?;
        Ok(())
    }

    /// To be called every few commits: on SQLite, begins to copy them into the file in the background.
    pub fn copy_back(&self) {
        if let Self::Sqlite(db) = self {
            db.copy_back();
        }
    }

    /// Closes every connection; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(db) => db.close().await,
            Self::Postgres(db) => db.pool().close().await,
        }
    }
}
