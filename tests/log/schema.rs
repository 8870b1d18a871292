//! The schema: both databases alike, append-only by themselves, and a role that cannot undo it.

use sqlx::{AssertSqlSafe, Row as _};
use stagedoor::server::store::{Db, StoreError, check_migrated, check_service_role, migrate};

use crate::harness::{Bench, both};

const LOG_TABLES: [&str; 7] = [
    "audit_entry",
    "audit_head",
    "audit_subtree",
    "audit_private",
    "audit_index",
    "audit_pruned_tile",
    "audit_cosig",
];

async fn sqlite_raw(bench: &Bench) -> sqlx::SqlitePool {
    let Db::Sqlite(db) = &bench.service else { panic!("sqlite") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db.path());
    sqlx::SqlitePool::connect_with(options).await.unwrap()
}

both! {
    async fn a_fresh_database_passes_every_check_and_migrating_again_changes_nothing(bench) {
        check_migrated(&bench.service).await.unwrap();
        check_service_role(&bench.service).await.unwrap();
        bench.service.check_durable().await.unwrap();
        bench.service.ping().await.unwrap();
        migrate(&bench.owner, None).await.unwrap();
        check_migrated(&bench.service).await.unwrap();
        assert_eq!(bench.service.meta("stamp").await.unwrap(), None);
        bench.service.set_meta("stamp", "a").await.unwrap();
        bench.service.set_meta("stamp", "b").await.unwrap();
        assert_eq!(bench.service.meta("stamp").await.unwrap().as_deref(), Some("b"));
    }
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    let Some(pg) = Bench::postgres().await else { return };
    let lite = Bench::sqlite().await.unwrap();
    let raw = sqlite_raw(&lite).await;
    let sqlite: Vec<(String, String)> = sqlx::query_as(
        "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY 1, 2",
    )
    .fetch_all(&raw)
    .await
    .unwrap();
    let admin = sqlx::PgPool::connect(pg.super_url.as_ref().unwrap()).await.unwrap();
    let postgres: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%' \
         ORDER BY table_name::text COLLATE \"C\", column_name::text COLLATE \"C\"",
    )
    .fetch_all(&admin)
    .await
    .unwrap();
    assert_eq!(sqlite, postgres);
    assert!(sqlite.len() > 60);
}

#[tokio::test]
async fn sqlite_refuses_every_way_to_change_what_is_recorded() {
    // invariant 11, INSERT OR REPLACE included
    let bench = Bench::sqlite().await.unwrap();
    let log = bench.log().await;
    for i in 0..3 {
        log.record(bench.grant("a", &format!("u{i}"))).await.unwrap();
    }
    log.close().await;
    let raw = sqlite_raw(&bench).await;
    let seed = [
        "INSERT INTO audit_subtree VALUES (1, 0, zeroblob(32))",
        "INSERT INTO audit_pruned_tile VALUES (0, zeroblob(8192))",
        "INSERT INTO audit_cosig VALUES (1, 'w', 'line')",
    ];
    for statement in seed {
        sqlx::query(statement).execute(&raw).await.unwrap();
    }
    let mut attacks = vec![
        "UPDATE audit_entry SET body = x'7b7d'".to_owned(),
        "INSERT INTO audit_entry VALUES (1, 0, zeroblob(32), x'7b7d')".into(),
        "INSERT OR REPLACE INTO audit_entry VALUES (1, 0, zeroblob(32), x'7b7d')".into(),
        "INSERT OR REPLACE INTO audit_head VALUES (3, 2, zeroblob(32), zeroblob(64), 0, '', NULL)".into(),
        "INSERT OR REPLACE INTO audit_head VALUES (9, 2, zeroblob(32), zeroblob(64), 0, '', NULL)".into(),
        "INSERT INTO audit_head VALUES (9, 3, zeroblob(32), zeroblob(64), 0, '', NULL)".into(),
        "REPLACE INTO audit_index (idx, typ) VALUES (1, 'issue')".into(),
        "INSERT OR REPLACE INTO audit_index (idx, typ, jti) SELECT 99, 'issue', jti FROM audit_index WHERE idx = 1".into(),
        "REPLACE INTO audit_private (idx, disclosures) VALUES (1, '[]')".into(),
        "REPLACE INTO audit_subtree VALUES (1, 0, zeroblob(32))".into(),
        "REPLACE INTO audit_pruned_tile VALUES (0, zeroblob(8192))".into(),
        "REPLACE INTO audit_cosig VALUES (1, 'w', 'other')".into(),
        "INSERT INTO audit_entry VALUES (3, 0, zeroblob(31), x'7b7d')".into(),
        "INSERT INTO audit_entry VALUES (3, 0, zeroblob(32), zeroblob(65536))".into(),
    ];
    for table in LOG_TABLES {
        attacks.push(format!("DELETE FROM {table}"));
    }
    for attack in attacks {
        let done = sqlx::query(AssertSqlSafe(attack.clone())).execute(&raw).await;
        assert!(done.is_err(), "{attack}: {done:?}");
    }
    bench.log().await.close().await;
}

#[tokio::test]
async fn postgres_refuses_every_way_to_change_what_is_recorded() {
    // invariant 11: the service by privilege, owner and superuser by trigger
    let Some(bench) = Bench::postgres().await else { return };
    let log = bench.log().await;
    log.record(bench.grant("a", "u")).await.unwrap();
    log.close().await;
    let service = sqlx::PgPool::connect(&bench.service_url).await.unwrap();
    let admin = sqlx::PgPool::connect(bench.super_url.as_ref().unwrap()).await.unwrap();
    for table in LOG_TABLES {
        let first: String = sqlx::query(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position LIMIT 1",
        )
        .bind(table)
        .fetch_one(&admin)
        .await
        .unwrap()
        .get(0);
        for attack in [
            format!("UPDATE {table} SET {first} = {first}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("MERGE INTO {table} t USING {table} s ON t.{first} = s.{first} WHEN MATCHED THEN DELETE"),
        ] {
            for (who, pool) in [("service", &service), ("superuser", &admin)] {
                let done = sqlx::query(AssertSqlSafe(attack.clone())).execute(pool).await;
                assert!(done.is_err(), "{who}: {attack}: {done:?}");
            }
            let mut session = admin.acquire().await.unwrap();
            sqlx::query("SET session_replication_role = replica").execute(&mut *session).await.unwrap();
            let done = sqlx::query(AssertSqlSafe(attack.clone())).execute(&mut *session).await;
            assert!(done.is_err(), "as a replica: {attack}");
            sqlx::query("RESET session_replication_role").execute(&mut *session).await.unwrap();
        }
        for attack in [
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
            format!("DROP TABLE {table}"),
            format!("ALTER TABLE {table} ADD COLUMN x INT"),
        ] {
            assert!(sqlx::query(AssertSqlSafe(attack.clone())).execute(&service).await.is_err(), "{attack}");
        }
    }
    let upsert = "INSERT INTO audit_entry (idx, t_us, leaf, body) SELECT idx, t_us, leaf, body FROM audit_entry \
                  ON CONFLICT (idx) DO UPDATE SET t_us = 0";
    assert!(sqlx::query(upsert).execute(&service).await.is_err());
    assert!(sqlx::query(upsert).execute(&admin).await.is_err());
    let gap = "INSERT INTO audit_head VALUES (9, 1, decode(repeat('00', 32), 'hex'), '', 0, '', NULL)";
    assert!(sqlx::query(gap).execute(&service).await.is_err(), "a head must continue the log");
}

#[tokio::test]
async fn serve_refuses_a_role_or_triggers_that_could_undo_the_log() {
    let unsafe_ = |checked: Result<(), StoreError>| {
        assert!(matches!(checked, Err(StoreError::Unsafe(_))), "{checked:?}");
    };
    let lite = Bench::sqlite().await.unwrap();
    let raw = sqlite_raw(&lite).await;
    sqlx::query("CREATE TRIGGER mine AFTER INSERT ON audit_entry BEGIN SELECT 1; END")
        .execute(&raw)
        .await
        .unwrap();
    unsafe_(check_service_role(&lite.service).await);
    sqlx::query("DROP TRIGGER mine").execute(&raw).await.unwrap();
    check_service_role(&lite.service).await.unwrap();
    sqlx::query("DROP TRIGGER audit_index_no_replace").execute(&raw).await.unwrap();
    unsafe_(check_service_role(&lite.service).await);

    let Some(pg) = Bench::postgres().await else { return };
    unsafe_(check_service_role(&pg.owner).await);
    let admin_url = pg.super_url.as_ref().unwrap();
    unsafe_(check_service_role(&Db::connect(admin_url).await.unwrap()).await);
    let admin = sqlx::PgPool::connect(admin_url).await.unwrap();
    let user = pg.service.user().unwrap();
    for (grant, revoke) in [
        ("GRANT UPDATE (t_us) ON audit_entry TO", "REVOKE UPDATE (t_us) ON audit_entry FROM"),
        ("GRANT DELETE ON audit_private TO", "REVOKE DELETE ON audit_private FROM"),
        ("GRANT TRIGGER ON audit_head TO", "REVOKE TRIGGER ON audit_head FROM"),
    ] {
        sqlx::query(AssertSqlSafe(format!("{grant} {user}"))).execute(&admin).await.unwrap();
        unsafe_(check_service_role(&pg.service).await);
        sqlx::query(AssertSqlSafe(format!("{revoke} {user}"))).execute(&admin).await.unwrap();
        check_service_role(&pg.service).await.unwrap();
    }
    for (make, unmake) in [
        (
            "CREATE TRIGGER mine AFTER INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION audit_head_continues()",
            "DROP TRIGGER mine ON audit_entry",
        ),
        // the trigger of a table that was put in the place of ours
        (
            "ALTER TRIGGER audit_index_append_only ON audit_index RENAME TO audit_other_append_only",
            "ALTER TRIGGER audit_other_append_only ON audit_index RENAME TO audit_index_append_only",
        ),
    ] {
        sqlx::raw_sql(make).execute(&admin).await.unwrap();
        unsafe_(check_service_role(&pg.service).await);
        sqlx::raw_sql(unmake).execute(&admin).await.unwrap();
        check_service_role(&pg.service).await.unwrap();
    }
    sqlx::query("ALTER TABLE audit_entry ENABLE TRIGGER audit_entry_append_only")
        .execute(&admin)
        .await
        .unwrap();
    unsafe_(check_service_role(&pg.service).await);
}

#[tokio::test]
async fn a_missing_or_unmigrated_database_stops_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("none.db").display());
    assert!(matches!(Db::connect(&url).await, Err(StoreError::Missing(_))));
    let db = Db::create(&url).await.unwrap();
    assert!(matches!(check_migrated(&db).await, Err(StoreError::NotMigrated(_))));
    for bad in ["mysql://x", "sqlite::memory:", "sqlite://x?mode=memory", ""] {
        assert!(matches!(Db::connect(bad).await, Err(StoreError::Url(_))), "{bad}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join("none.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "nobody else reads the log");
    }
}
