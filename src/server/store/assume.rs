//! SQLite: what a batch takes for granted is checked by the text that takes the lock, inserts and commits.
//!
//! Asking first and inserting then is two ways to SQLite's thread and back, and on a busy machine waiting for a
//! turn took as long as the work. Almost always the answer is known: the head is the one this process wrote last, and
//! whatever the batch needs to stand stands. Where it does not, nothing was changed, and the batch is asked about
//! as everywhere else ([`Writer::begin`]).

use std::sync::LazyLock;

use super::append::{Batch, Opening, StoredHead, Writer, standing_sql, taken};
use super::insert::Many;
use super::stop::Changes;
use super::{StoreError, json};

/// What SQLite says of an assumption that does not hold. Only a trigger can raise an error by name; a path that is none
/// is quoted by the error that it is.
const STALE: &str = "the log is not as assumed";

static CHECK: LazyLock<String> = LazyLock::new(|| {
    let list = "IN (SELECT value FROM json_each(?))";
    let standing = standing_sql(&list, &list);
    format!(
        "BEGIN IMMEDIATE;
        SELECT json_extract('{{}}', '{STALE}') WHERE (
            (SELECT size = ? AND root = ? AND frontier = ? AND t_us = ? FROM audit_head ORDER BY size DESC LIMIT 1)
            AND (SELECT count(*) FROM client WHERE disabled_at_us IS NULL AND id {list}) = ?
            AND NOT EXISTS (SELECT 1 FROM cutoff WHERE target {list}
                AND (kind = 'kid' OR hold_until_us > ? OR until_iat >= ?))
            AND NOT EXISTS (SELECT 1 FROM idempotency WHERE key_tag {list} AND exp_us > ?)
            AND (SELECT count(*) FROM ({standing}) WHERE exp_us > ?) = ?
        ) IS NOT TRUE"
    )
});

/// What a batch that is recorded at `t_us` needs to find.
#[derive(Debug)]
pub struct Assumption<'b> {
    /// The newest head.
    pub head: StoredHead,
    /// All of its clients are active, its grants not over and its codes unused, and no cut-off or hold meets its targets.
    pub opening: &'b Opening<'b>,
    /// Idempotency keys under which nothing was answered.
    pub keys: Vec<&'b str>,
    /// The earliest `iat`, seconds: cut-offs before it meet nobody.
    pub since: i64,
    /// The time of the record, microseconds.
    pub t_us: i64,
}

impl Writer {
    /// Whether [`Self::insert_if`] is how to insert here.
    #[must_use]
    pub const fn assumes(&self) -> bool {
        matches!(self, Self::Sqlite(..))
    }

    /// Takes the log's lock, inserts the batch and those of its changes that are rows, and commits; or does nothing of
    /// it and says `false`, when something is not as assumed.
    ///
    /// # Errors
    /// As [`super::append::Tx::insert_and_commit`]; on PostgreSQL always.
    pub async fn insert_if(
        &mut self,
        assumption: &Assumption<'_>,
        batch: Batch<'_>,
        changes: &Changes,
    ) -> Result<bool, StoreError> {
        let Self::Sqlite(pool, conn) = self else {
            return Err(StoreError::Unsafe("nothing is assumed on PostgreSQL".into()));
        };
        let conn = taken(pool, conn).await?;
        let mut many = Many::default();
        assumption.check(&mut many);
        many.batch(batch, changes);
        many.script("COMMIT");
        match many.execute(conn).await {
            Ok(()) => Ok(true),
            Err(StoreError::Unavailable(error)) if is_stale(&error) => {
                sqlx::query("ROLLBACK").execute(&mut **conn).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_stale(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains(STALE))
}

impl Assumption<'_> {
    fn check(&self, many: &mut Many) {
        let Opening { floor: _, clients, targets, grants, codes } = self.opening;
        many.script(&CHECK);
        many.bind(self.head.size);
        many.bind(self.head.root.clone());
        many.bind(self.head.frontier.clone());
        many.bind(self.head.t_us);
        many.bind(json(clients));
        many.bind(count(clients.len()));
        many.bind(json(targets));
        many.bind(self.t_us);
        many.bind(self.since);
        many.bind(json(&self.keys));
        many.bind(self.t_us);
        many.bind(json(grants));
        many.bind(json(codes));
        many.bind(self.t_us);
        many.bind(count(grants.len() + codes.len()));
    }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
