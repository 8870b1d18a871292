//! What only PostgreSQL needs: a pool whose sessions can neither hang nor commit without a flush.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};

use super::StoreError;

/// How long the question may take why there is no connection.
const ASK_WHY: Duration = Duration::from_secs(2);

/// Every session's settings. A frozen holder of the log's lock is cut off after two seconds, so it delays
/// the other replicas no longer (audit-log.md §7); the commit waits for the flush whatever the server's default.
const SESSION: [(&str, &str); 7] = [
    ("lock_timeout", "4s"),
    ("statement_timeout", "8s"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("tcp_user_timeout", "5s"),
    ("synchronous_commit", "on"),
    // every statement is short: compiling one costs more than it runs
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
];

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresDb {
    pool: PgPool,
    looking: PgPool,
    user: String,
}

impl PostgresDb {
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Url("postgres:// must be followed by user, host and database".into()))?
            .application_name("stagedoor")
            .options(SESSION)
            .disable_statement_logging();
        let user = options.get_username().to_owned();
        let pool = |connections| {
            PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5))
        };
        let looking = pool(1).connect_lazy_with(options.clone());
        match pool(8).connect_with(options.clone()).await {
            Ok(pool) => Ok(Self { pool, looking, user }),
            Err(error) => Err(no_connection(&options, error).await),
        }
    }

    /// The connections.
    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The connection over which revocations are looked at: slow questions of others must not make what is known of them
    /// stale.
    pub(crate) const fn looking(&self) -> &PgPool {
        &self.looking
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) async fn check_durable(&self) -> Result<(), StoreError> {
        for (setting, wanted) in [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")] {
            let value: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&self.pool).await?;
            if value != wanted {
                return Err(StoreError::Unsafe(format!("{setting} is {value}, not {wanted}")));
            }
        }
        Ok(())
    }
}

/// Which server it was, without the password, why, and what to check.
async fn no_connection(options: &PgConnectOptions, error: sqlx::Error) -> StoreError {
    // the pool tries again until its time is over, and then knows no cause any more
    let error = match error {
        sqlx::Error::PoolTimedOut => match tokio::time::timeout(ASK_WHY, options.connect()).await {
            Ok(Err(cause)) => cause,
            _ => error,
        },
        other => other,
    };
    let (host, port, user) = (options.get_host(), options.get_port(), options.get_username());
    let at = options.get_socket().map_or_else(|| format!("{host}:{port}"), |path| path.display().to_string());
    let said = match &error {
        sqlx::Error::Database(_) => format!(
            "PostgreSQL at {at} does not let the role \"{user}\" in; check role, password and database in DATABASE_URL \
             (of `init`, `erase` and `prune`: DATABASE_OWNER_URL)"
        ),
        _ => format!(
            "PostgreSQL at {at} does not answer; check that it runs and can be reached there, and that DATABASE_URL names it \
             (of `init`, `erase` and `prune`: DATABASE_OWNER_URL)"
        ),
    };
    StoreError::NoConnection { said, source: Arc::new(error) }
}
