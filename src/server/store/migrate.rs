//! Migrations: numbered pairs, one file a database, forward only, never edited after release.
//!
//! A migration that the version before can serve under (new tables, new columns with a default, new indexes; nothing
//! renamed, dropped or made stricter) is called `expand_…`: it runs while that version serves. Any other waits until
//! no process of an older version is left; those refuse to start on it.

use std::collections::BTreeMap;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlStr};

use super::{Db, StoreError, on_db};

/// Number, name, SQLite's text, PostgreSQL's text.
const MIGRATIONS: [(i64, &str, &str, &str); 7] = [
    (
        1,
        "ground",
        include_str!("../../../migrations/sqlite/0001_ground.sql"),
        include_str!("../../../migrations/postgres/0001_ground.sql"),
    ),
    (
        2,
        "stop",
        include_str!("../../../migrations/sqlite/0002_stop.sql"),
        include_str!("../../../migrations/postgres/0002_stop.sql"),
    ),
    (
        3,
        "outflow",
        include_str!("../../../migrations/sqlite/0003_outflow.sql"),
        include_str!("../../../migrations/postgres/0003_outflow.sql"),
    ),
    (
        4,
        "approval",
        include_str!("../../../migrations/sqlite/0004_approval.sql"),
        include_str!("../../../migrations/postgres/0004_approval.sql"),
    ),
    (
        5,
        "expand_grant_facts",
        include_str!("../../../migrations/sqlite/0005_expand_grant_facts.sql"),
        include_str!("../../../migrations/postgres/0005_expand_grant_facts.sql"),
    ),
    (
        6,
        "head_signature",
        include_str!("../../../migrations/sqlite/0006_head_signature.sql"),
        include_str!("../../../migrations/postgres/0006_head_signature.sql"),
    ),
    (
        7,
        "entry_guard",
        include_str!("../../../migrations/sqlite/0007_entry_guard.sql"),
        include_str!("../../../migrations/postgres/0007_entry_guard.sql"),
    ),
];

/// The log's tables: the service role may read and insert, nothing else.
pub(super) const LOG_TABLES: [&str; 7] = [
    "audit_entry",
    "audit_head",
    "audit_subtree",
    "audit_private",
    "audit_index",
    "audit_pruned_tile",
    "audit_cosig",
];
/// The tables the service changes as it likes.
const OWN_TABLES: [&str; 12] = [
    "meta",
    "client",
    "signing_key",
    "actor_grant",
    "grant_chain",
    "revoked_grant",
    "cutoff",
    "handoff_code",
    "idempotency",
    "webhook",
    "approval",
    "grant_facts",
];

/// Every migration's SQLite text, for the check that the triggers in a file are the ones written here.
pub(super) fn sqlite_texts() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().map(|(_, _, sqlite, _)| *sqlite)
}

fn migrator(db: &Db) -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|&(number, name, sqlite, postgres)| {
            let text = match db {
                Db::Sqlite(_) => sqlite,
                Db::Postgres(_) => postgres,
            };
            Migration::new(number, name.into(), MigrationType::Simple, SqlStr::from_static(text), false)
        })
        .collect();
    Migrator::with_migrations(migrations)
}

/// Brings the schema up to this program's version; run as the owner. On PostgreSQL `service_user` is then
/// given exactly the rights of the service role.
///
/// # Errors
/// The owner may not, or an applied migration was changed.
pub async fn migrate(db: &Db, service_user: Option<&str>) -> Result<(), StoreError> {
    let migrator = migrator(db);
    let ran = match db {
        Db::Sqlite(sqlite) => migrator.run(sqlite.writer()).await,
        Db::Postgres(pg) => {
            let mut session = pg.pool().acquire().await?;
            // an index over a large table takes longer than any statement of the service may
            sqlx::query("SET statement_timeout = 0").execute(&mut *session).await?;
            let ran = migrator.run(&mut *session).await;
            // the session's own settings, and not those of the next one, end here
            sqlx::Connection::close(session.detach()).await?;
            ran
        }
    };
    ran.map_err(|error| StoreError::Unavailable(std::sync::Arc::new(error.into())))?;
    if let (Db::Postgres(pg), Some(user)) = (db, service_user) {
        let role = format!("\"{}\"", user.replace('"', "\"\""));
        for statement in [
            format!("GRANT USAGE ON SCHEMA public TO {role}"),
            format!("GRANT SELECT ON _sqlx_migrations TO {role}"),
            format!("GRANT SELECT, INSERT ON {} TO {role}", LOG_TABLES.join(", ")),
            // kept hashes stand in for leaves that only the owner takes out
            format!("REVOKE INSERT ON audit_pruned_tile FROM {role}"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {role}", OWN_TABLES.join(", ")),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(pg.pool()).await?;
        }
    }
    Ok(())
}

/// What the name of a migration begins with that an older program can serve under.
const EXPANDS: &str = "expand_";

/// Whether every migration of this program is applied, none is missing, and a newer one only adds.
///
/// # Errors
/// [`StoreError::NotMigrated`] says which differs; another error: could not look.
pub async fn check_migrated(db: &Db) -> Result<(), StoreError> {
    let rows: Result<Vec<(i64, String, Vec<u8>)>, sqlx::Error> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT version, description, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
            )
            .fetch_all(pool)
            .await
        }
    );
    let applied: BTreeMap<i64, (String, Vec<u8>)> = match rows {
        Ok(rows) => rows.into_iter().map(|(version, name, sum)| (version, (name, sum))).collect(),
        Err(sqlx::Error::Database(error)) => {
            return Err(StoreError::NotMigrated(format!("no migrations: {}", error.message())));
        }
        Err(error) => return Err(error.into()),
    };
    let wanted = migrator(db);
    for migration in wanted.iter() {
        match applied.get(&migration.version) {
            Some((_, checksum)) if checksum[..] == *migration.checksum => {}
            Some(_) => return Err(StoreError::NotMigrated(format!("{} was changed", migration.version))),
            None => return Err(StoreError::NotMigrated(format!("{} is missing", migration.version))),
        }
    }
    let newer = applied
        .iter()
        .find(|(version, (name, _))| !wanted.version_exists(**version) && !name.starts_with(EXPANDS));
    if let Some((version, (name, _))) = newer {
        return Err(StoreError::NotMigrated(format!(
            "{version} ({name}) is newer than this program, which cannot serve under it"
        )));
    }
    Ok(())
}
