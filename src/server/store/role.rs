//! Whether the connected role can only append to the log, and whether the triggers that hold it are there.

use super::migrate::{LOG_TABLES, sqlite_texts};
use super::{Db, StoreError};

/// Refuses a connection that could change or delete what is recorded: an owner, a superuser, a role with
/// more than SELECT and INSERT, or (both databases) missing or altered append-only triggers.
///
/// # Errors
/// [`StoreError::Unsafe`] names the first thing found.
pub async fn check_service_role(db: &Db) -> Result<(), StoreError> {
    match db {
        Db::Sqlite(db) => check_sqlite_triggers(db.readers()).await,
        Db::Postgres(db) => {
            check_privileges(db.pool()).await?;
            check_postgres_triggers(db.pool()).await
        }
    }
}

async fn check_sqlite_triggers(pool: &sqlx::SqlitePool) -> Result<(), StoreError> {
    let found: Vec<(String, String)> =
        sqlx::query_as("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetch_all(pool).await?;
    let known = |sql: &str| sqlite_texts().any(|text| text.contains(sql));
    for table in LOG_TABLES {
        for kind in ["no_update", "no_delete", "no_replace"] {
            let name = format!("{table}_{kind}");
            if !found.iter().any(|(n, sql)| *n == name && known(sql)) {
                return Err(StoreError::Unsafe(format!("the trigger {name} is missing or altered")));
            }
        }
    }
    if !found.iter().any(|(n, sql)| n == "audit_head_contiguous" && known(sql)) {
        return Err(StoreError::Unsafe("the trigger audit_head_contiguous is missing or altered".into()));
    }
    // a trigger of somebody else's on these tables could undo what ours refuse
    if let Some((name, _)) = found.iter().find(|(_, sql)| !known(sql)) {
        return Err(StoreError::Unsafe(format!("the trigger {name} is not one of ours")));
    }
    Ok(())
}

async fn check_privileges(pool: &sqlx::PgPool) -> Result<(), StoreError> {
    for table in LOG_TABLES {
        let (owner, changes): (bool, bool) = sqlx::query_as(
            "SELECT pg_has_role(current_user, c.relowner, 'MEMBER') OR pg_has_role(current_user, n.nspowner, 'MEMBER'),
                    has_table_privilege(c.oid, 'UPDATE') OR has_any_column_privilege(c.oid, 'UPDATE')
                    OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE')
                    OR has_table_privilege(c.oid, 'TRIGGER')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass($1)",
        )
        .bind(table)
        .fetch_optional(pool)
        .await?
        .ok_or_else(|| StoreError::NotMigrated(format!("{table} is missing")))?;
        if owner {
            return Err(StoreError::Unsafe(format!(
                "the service's role owns {table} (or is a superuser): give DATABASE_URL a role of its own"
            )));
        }
        if changes {
            return Err(StoreError::Unsafe(format!(
                "the service's role may change or delete rows of {table}: it must have SELECT and INSERT only"
            )));
        }
    }
    Ok(())
}

async fn check_postgres_triggers(pool: &sqlx::PgPool) -> Result<(), StoreError> {
    // tgtype: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate; 'A': ENABLE ALWAYS
    let found: Vec<(String, bool)> = sqlx::query_as(
        "SELECT t.tgname::text, t.tgenabled = 'A' AND t.tgqual IS NULL
           AND ((t.tgtype = 58 AND p.proname = 'audit_refuse' AND t.tgname = l.name || '_append_only')
             OR (t.tgtype = 7 AND p.proname = 'audit_head_continues' AND l.name = 'audit_head'
                 AND t.tgname = 'audit_head_contiguous')
             OR (t.tgtype = 4 AND p.proname = 'audit_entry_follows' AND l.name = 'audit_entry'
                 AND t.tgname = 'audit_entry_follows'))
         FROM unnest($1::text[]) AS l (name) JOIN pg_trigger t ON t.tgrelid = to_regclass(l.name)
         JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal",
    )
    .bind(&LOG_TABLES[..])
    .fetch_all(pool)
    .await?;
    let wanted = LOG_TABLES.iter().map(|table| format!("{table}_append_only"));
    for name in wanted.chain(["audit_head_contiguous", "audit_entry_follows"].map(str::to_owned)) {
        if !found.iter().any(|(found, ours)| *found == name && *ours) {
            return Err(StoreError::Unsafe(format!("the trigger {name} is missing or not ENABLE ALWAYS")));
        }
    }
    // a trigger of somebody else's on these tables could undo what ours refuse
    if let Some((name, _)) = found.iter().find(|(_, ours)| !ours) {
        return Err(StoreError::Unsafe(format!("the trigger {name} is not one of ours")));
    }
    Ok(())
}
