//! `audit verify`: finds every tampering it can, and claims nothing about what it cannot (audit-log.md §7).

use std::path::{Path, PathBuf};

use sqlx::AssertSqlSafe;
use stagedoor::server::log::epoch::{self, EpochReason};
use stagedoor::server::log::head::Head;
use stagedoor::server::log::tree::leaf_hash;
use stagedoor::server::log::verify::{self, Finding, Report};
use stagedoor::server::log::{
    Checkpoint, CheckpointSigner, Event, EventType, Fatal, LogError, LogOptions, OpenError, Record,
};
use stagedoor::server::store::{Db, read};

use crate::harness::{Bench, HOST, SEED, both};

async fn verified(bench: &Bench, checkpoints: &[Checkpoint]) -> Report {
    let mut calls = 0;
    let report = verify::database(&bench.service, checkpoints, Some(&Bench::log_key()), &mut |done, all| {
        calls += 1;
        assert!(done <= all);
    })
    .await
    .unwrap();
    assert!(calls > 0 || report.entries == 0, "says how far it is");
    report
}

async fn fill(bench: &Bench, count: u64) -> Vec<Checkpoint> {
    let log = bench.log().await;
    let verifier = Bench::signer().verifier().clone();
    let mut checkpoints = Vec::new();
    for i in 0..count {
        log.record(bench.grant("admin_7", &format!("user_{i}"))).await.unwrap();
        if i % 50 == 20 || i + 1 == count {
            checkpoints.push(Checkpoint::open(&log.checkpoint().await.unwrap(), &verifier).unwrap());
        }
    }
    log.close().await;
    checkpoints
}

/// Runs statements as somebody who owns the database and has taken the triggers away.
async fn tamper(bench: &Bench, statements: &[&str]) {
    match &bench.super_url {
        None => {
            let Db::Sqlite(db) = &bench.service else { panic!("sqlite") };
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db.path());
            let raw = sqlx::SqlitePool::connect_with(options).await.unwrap();
            let triggers: Vec<String> =
                sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
                    .fetch_all(&raw)
                    .await
                    .unwrap();
            for trigger in triggers {
                sqlx::query(AssertSqlSafe(format!("DROP TRIGGER {trigger}"))).execute(&raw).await.unwrap();
            }
            for statement in statements {
                sqlx::query(AssertSqlSafe((*statement).to_owned())).execute(&raw).await.unwrap();
            }
            raw.close().await;
        }
        Some(url) => {
            let raw = sqlx::PgPool::connect(url).await.unwrap();
            let tables: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal",
            )
            .fetch_all(&raw)
            .await
            .unwrap();
            for table in tables {
                let sql = format!("ALTER TABLE {table} DISABLE TRIGGER USER");
                sqlx::query(AssertSqlSafe(sql)).execute(&raw).await.unwrap();
            }
            for statement in statements {
                sqlx::query(AssertSqlSafe((*statement).replace("x'7b7d'", "'{}'::bytea")))
                    .execute(&raw)
                    .await
                    .unwrap();
            }
            raw.close().await;
        }
    }
}

both! {
    async fn an_untouched_log_holds_with_every_checkpoint_it_ever_gave(bench) {
        assert!(verified(&bench, &[]).await.holds(), "the empty log");
        let checkpoints = fill(&bench, 300).await;
        let report = verified(&bench, &checkpoints).await;
        assert!(report.holds(), "{:?}", report.findings);
        assert_eq!(report.entries, 300);
        assert_eq!(report.epochs[0].root, checkpoints.last().unwrap().root);
    }
}

both! {
    async fn every_change_of_a_row_is_named_by_its_index(bench) {
        // invariant 12: rows 1–3 of the matrix, and everything stored beside the tree. Each attack works on an
        // entry of its own, so that one database serves them all.
        let checkpoints = fill(&bench, 600).await;
        assert!(verified(&bench, &checkpoints).await.holds());
        let attacks: Vec<(&str, Finding)> = vec![
            ("UPDATE audit_index SET rule = 'other' WHERE idx = 3", Finding::Index(3)),
            ("UPDATE audit_index SET jti = 'other' WHERE idx = 4", Finding::Index(4)),
            ("UPDATE audit_index SET signed8 = 1 WHERE idx = 5", Finding::Index(5)),
            ("DELETE FROM audit_index WHERE idx = 6", Finding::IndexMissing(6)),
            ("UPDATE audit_private SET subject = 'somebody' WHERE idx = 7", Finding::Private(7)),
            ("UPDATE audit_private SET actor = NULL WHERE idx = 8", Finding::Private(8)),
            ("UPDATE audit_private SET disclosures = '[\"WyJ4Iiwic3ViIiwieCJd\"]' WHERE idx = 9", Finding::Private(9)),
            ("DELETE FROM audit_private WHERE idx = 10", Finding::Erased(10, "sub")),
            ("UPDATE audit_entry SET t_us = t_us + 1 WHERE idx = 11", Finding::Time(11)),
            ("UPDATE audit_entry SET body = x'7b7d' WHERE idx = 12", Finding::Body(12)),
            ("UPDATE audit_subtree SET hash = (SELECT leaf FROM audit_entry WHERE idx = 0) WHERE n = 1", Finding::Subtree(1, 1)),
            ("UPDATE audit_head SET root = (SELECT leaf FROM audit_entry WHERE idx = 0) WHERE size = 40", Finding::Head(40)),
            ("UPDATE audit_head SET t_us = t_us - 1 WHERE size = 50", Finding::HeadChain(50)),
            ("INSERT INTO audit_private (idx, disclosures) VALUES (999, '[]')", Finding::PrivateOrphan(999)),
            ("INSERT INTO audit_index (idx, typ) VALUES (998, 'issue')", Finding::IndexOrphan(998)),
        ];
        let statements: Vec<&str> = attacks.iter().map(|(statement, _)| *statement).collect();
        tamper(&bench, &statements).await;
        let report = verified(&bench, &checkpoints).await;
        let found: Vec<&Finding> = report.findings.iter().map(|(_, finding)| finding).collect();
        for (attack, expected) in &attacks {
            assert!(found.contains(&expected), "{attack}: {found:?}");
        }
        // one damage is named once, and nothing is said of what was left alone
        let also = [Finding::Form(12), Finding::Erased(10, "act")];
        assert!(found.len() <= attacks.len() + 20, "{found:?}");
        assert!(also.iter().all(|finding| found.contains(&finding)), "{found:?}");
        assert!(!found.iter().any(|f| matches!(f, Finding::Rollback { .. } | Finding::Fork(_))), "{found:?}");
    }
}

both! {
    async fn a_body_and_its_leaf_changed_together_break_the_heads(bench) {
        // invariant 12, row 2
        fill(&bench, 60).await;
        tamper(&bench, &["UPDATE audit_entry SET body = (SELECT body FROM audit_entry WHERE idx = 5), \
                          leaf = (SELECT leaf FROM audit_entry WHERE idx = 5) WHERE idx = 30"]).await;
        let report = verified(&bench, &[]).await;
        assert!(report.findings.iter().any(|(_, f)| *f == Finding::Head(31)), "{:?}", report.findings);
    }
}

both! {
    async fn deleted_and_swapped_rows_are_found(bench) {
        // invariant 12, row 3
        fill(&bench, 60).await;
        tamper(&bench, &["DELETE FROM audit_entry WHERE idx = 17"]).await;
        let report = verified(&bench, &[]).await;
        assert!(report.findings.iter().any(|(_, f)| *f == Finding::Missing(17)), "{:?}", report.findings);
        assert!(!report.findings.iter().any(|(_, f)| *f == Finding::Missing(18)), "later indexes stay in step");
        tamper(&bench, &[
            "UPDATE audit_entry SET idx = 10017 WHERE idx = 20",
            "UPDATE audit_entry SET idx = 20 WHERE idx = 21",
            "UPDATE audit_entry SET idx = 21 WHERE idx = 10017",
        ]).await;
        let report = verified(&bench, &[]).await;
        assert!(report.findings.iter().any(|(_, f)| *f == Finding::Head(21)), "{:?}", report.findings);
    }
}

const CUT: [&str; 6] = [
    "DELETE FROM audit_head WHERE size > 71",
    "DELETE FROM audit_entry WHERE idx >= 71",
    "DELETE FROM audit_index WHERE idx >= 71",
    "DELETE FROM audit_private WHERE idx >= 71",
    "DELETE FROM actor_grant WHERE idx >= 71",
    "DELETE FROM audit_subtree WHERE n >= 0",
];

both! {
    async fn a_tail_cut_consistently_is_found_only_by_a_later_checkpoint(bench) {
        // invariant 12, rows 4 and 5: what fsck alone must not claim to find
        let checkpoints = fill(&bench, 120).await;
        tamper(&bench, &CUT).await;
        assert!(verified(&bench, &[]).await.holds(), "the database alone shows nothing");
        let kept: Vec<Checkpoint> = checkpoints.iter().filter(|c| c.size <= 71).cloned().collect();
        assert_eq!(kept.last().unwrap().size, 71);
        assert!(verified(&bench, &kept).await.holds(), "the limit of the method");
        let report = verified(&bench, &checkpoints).await;
        assert_eq!(
            report.findings,
            vec![(1, Finding::Rollback { checkpoint: 120, size: 71 })],
        );
        assert!(!report.holds());
    }
}

both! {
    async fn a_log_rewritten_with_the_real_key_is_found_only_by_an_old_checkpoint(bench) {
        // invariant 12, row 6
        let honest = if bench.super_url.is_some() { Bench::postgres().await } else { Bench::sqlite().await };
        let honest = honest.unwrap();
        let checkpoints = fill(&honest, 80).await;
        fill(&bench, 80).await;
        assert!(verified(&bench, &[]).await.holds(), "the database alone shows nothing");
        let report = verified(&bench, &checkpoints).await;
        assert!(report.findings.contains(&(1, Finding::Fork(21))), "{:?}", report.findings);
        let other = Checkpoint { origin: "log.example/audit/x".into(), size: 1, root: [0; 32] };
        assert!(matches!(verified(&bench, &[other]).await.findings[0].1, Finding::OtherLog(_)));
    }
}

both! {
    async fn whoever_has_no_key_cannot_continue_the_log(bench) {
        // everything an append writes, and consistent: only nobody with the log's key made it
        fill(&bench, 40).await;
        let log = bench.log().await;
        let head = Head::read(&read::newest_head(&bench.service).await.unwrap().unwrap()).unwrap();
        let mut frontier = head.frontier;
        let body = read::entries_at(&bench.service, &[39]).await.unwrap().remove(0).body;
        frontier.push(leaf_hash(&body), |_, _, _| ());
        let bytes = |bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if bench.super_url.is_some() { format!("decode('{hex}', 'hex')") } else { format!("x'{hex}'") }
        };
        let forged = [
            "INSERT INTO audit_entry SELECT 40, t_us, leaf, body FROM audit_entry WHERE idx = 39".to_owned(),
            "INSERT INTO audit_index SELECT 40, jti || 'x', signed8, typ, decision, client, rule, grant_id FROM audit_index WHERE idx = 39".to_owned(),
            format!(
                "INSERT INTO audit_head SELECT 41, 40, {}, {}, t_us, replica, signature FROM audit_head WHERE size = 40",
                bytes(&frontier.root()), bytes(&frontier.nodes().concat()),
            ),
        ];
        tamper(&bench, &forged.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let published = log.checkpoint().await;
        assert!(matches!(published, Err(LogError::Stopped(Fatal::Forged { size: 41 }))), "{published:?}");
        let recorded = log.record(bench.grant("a", "u")).await;
        assert!(matches!(recorded, Err(LogError::Stopped(Fatal::Forged { size: 41 }))), "{recorded:?}");
        log.close().await;
        let options = stagedoor::server::log::LogOptions { compare_database_clock: false, ..Default::default() };
        let opened = bench.open(bench.service.clone(), options).await;
        assert!(matches!(opened, Err(OpenError::Halted(_) | OpenError::Damaged(Finding::HeadSignature(41)))), "{opened:?}");
        let report = verified(&bench, &[]).await;
        assert!(report.findings.contains(&(1, Finding::HeadSignature(41))), "{:?}", report.findings);
    }
}

both! {
    async fn what_a_replica_has_signed_is_seen_though_another_recorded_it(bench) {
        let (writes, looks) = (bench.log().await, bench.log().await);
        for _ in 0..80 {
            writes.record(bench.grant("a", "u")).await.unwrap();
        }
        let signed = Checkpoint::open(&looks.checkpoint().await.unwrap(), Bench::signer().verifier()).unwrap();
        assert_eq!(signed.size, 80);
        writes.close().await;
        tamper(&bench, &CUT).await;
        let published = looks.checkpoint().await;
        assert!(matches!(published, Err(LogError::Stopped(Fatal::Rollback { database: 71, seen: 80 }))), "{published:?}");
        let told = tokio::time::timeout(std::time::Duration::from_secs(5), looks.fatal()).await;
        assert!(matches!(told, Ok(Fatal::Rollback { .. })), "the process is told to end, though nobody asks for a token");
        let recorded = looks.record(bench.grant("a", "u")).await;
        assert!(matches!(recorded, Err(LogError::Stopped(Fatal::Rollback { .. }))), "{recorded:?}");
        looks.close().await;
        let options = stagedoor::server::log::LogOptions { compare_database_clock: false, ..Default::default() };
        let opened = bench.open(bench.service.clone(), options).await;
        assert!(matches!(opened, Err(OpenError::Halted(_))), "and a restart changes nothing: {opened:?}");
    }
}

both! {
    async fn a_tail_that_was_cut_and_written_anew_is_no_continuation_of_what_was_signed(bench) {
        let (writes, looks) = (bench.log().await, bench.log().await);
        for _ in 0..80 {
            writes.record(bench.grant("a", "u")).await.unwrap();
        }
        assert!(looks.checkpoint().await.is_ok());
        writes.close().await;
        tamper(&bench, &CUT).await;
        // another process, which has not seen what is gone, goes past it
        let other = bench.log().await;
        for _ in 0..20 {
            other.record(bench.grant("b", "v")).await.unwrap();
        }
        other.close().await;
        let published = looks.checkpoint().await;
        assert!(matches!(published, Err(LogError::Stopped(Fatal::Fork { size: 80 }))), "{published:?}");
        let recorded = looks.record(bench.grant("a", "u")).await;
        assert!(matches!(recorded, Err(LogError::Stopped(Fatal::Fork { size: 80 }))), "{recorded:?}");
        looks.close().await;
    }
}

/// A copy of a database in one file.
async fn copy_of(path: &Path) -> PathBuf {
    let copy = path.with_extension("copy");
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("copy-wal")).unwrap();
    // closed, it has taken in its write-ahead log
    Db::connect(&format!("sqlite://{}", copy.display())).await.unwrap().close().await;
    copy
}

/// As an operator puts a backup back, but for stopping the service.
fn put_back(copy: &Path, path: &Path) {
    for beside in ["db-wal", "db-shm"] {
        std::fs::remove_file(path.with_extension(beside)).unwrap();
    }
    std::fs::rename(copy, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_put_in_place_of_the_database_stops_the_log() {
    let bench = Bench::sqlite().await.unwrap();
    let log = bench.log().await;
    log.record(bench.grant("a", "u")).await.unwrap();
    let Db::Sqlite(db) = &bench.service else { panic!("sqlite") };
    let older = copy_of(db.path()).await;
    log.record(bench.grant("a", "v")).await.unwrap();
    put_back(&older, db.path());
    for _ in 0..2 {
        let recorded = log.record(bench.grant("a", "w")).await;
        assert!(matches!(recorded, Err(LogError::Stopped(Fatal::Exchanged))), "{recorded:?}");
    }
    let published = log.checkpoint().await;
    assert!(matches!(published, Err(LogError::Stopped(Fatal::Exchanged))), "{published:?}");
    log.close().await;
    let there = Db::connect(&format!("sqlite://{}", db.path().display())).await.unwrap();
    let options = stagedoor::server::log::LogOptions { compare_database_clock: false, ..Default::default() };
    let opened = bench.open(there, options).await;
    assert!(
        matches!(opened, Err(OpenError::Halted(_))),
        "an older copy is not continued by a restart: {opened:?}"
    );
}

/// A whole copy has every entry: whoever starts on it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_copy_in_place_of_the_database_may_be_started() {
    let bench = Bench::sqlite().await.unwrap();
    let log = bench.log().await;
    log.record(bench.grant("a", "u")).await.unwrap();
    let Db::Sqlite(db) = &bench.service else { panic!("sqlite") };
    let whole = copy_of(db.path()).await;
    put_back(&whole, db.path());
    let recorded = log.record(bench.grant("a", "w")).await;
    assert!(matches!(recorded, Err(LogError::Stopped(Fatal::Exchanged))), "{recorded:?}");
    log.close().await;
    let there = Db::connect(&format!("sqlite://{}", db.path().display())).await.unwrap();
    let options = stagedoor::server::log::LogOptions { compare_database_clock: false, ..Default::default() };
    bench.open(there, options).await.unwrap().close().await;
}

both! {
    async fn a_log_rewritten_without_the_key_is_found_by_the_database_alone(bench) {
        let log = bench.log_of(&[9; 32]).await;
        for _ in 0..5 {
            log.record(bench.grant("a", "u")).await.unwrap();
        }
        log.close().await;
        assert_eq!(verified(&bench, &[]).await.findings, vec![(1, Finding::HeadSignature(5))]);
        let options = stagedoor::server::log::LogOptions { compare_database_clock: false, ..Default::default() };
        let opened = bench.open(bench.service.clone(), options).await;
        assert!(matches!(opened, Err(OpenError::Damaged(Finding::HeadSignature(5)))), "{opened:?}");
    }
}

both! {
    async fn the_service_does_not_open_a_log_whose_newest_entries_do_not_verify(bench) {
        fill(&bench, 20).await;
        tamper(&bench, &["UPDATE audit_entry SET body = x'7b7d' WHERE idx = 19"]).await;
        let options = stagedoor::server::log::LogOptions { compare_database_clock: false, ..Default::default() };
        let opened = bench.open(bench.service.clone(), options).await;
        assert!(matches!(opened, Err(OpenError::Damaged(Finding::Body(19)))), "{opened:?}");
    }
}

both! {
    async fn rows_between_two_epochs_are_found(bench) {
        fill(&bench, 5).await;
        let signer = CheckpointSigner::from_seed(&SEED, HOST, 2).unwrap();
        let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let db = Db::connect(&bench.service_url).await.unwrap();
        let (clock, entropy) = (bench.clock.clone(), bench.entropy.clone());
        epoch::begin(db, signer, clock, entropy, options, EpochReason::Restored, None).await.unwrap();
        assert!(verified(&bench, &[]).await.holds());
        tamper(&bench, &[
            "INSERT INTO audit_entry SELECT 5, t_us, leaf, body FROM audit_entry WHERE idx = 4",
            "INSERT INTO audit_entry SELECT 700, t_us, leaf, body FROM audit_entry WHERE idx = 4",
        ]).await;
        let report = verified(&bench, &[]).await;
        assert_eq!(report.findings, [(1, Finding::Beyond(700)), (1, Finding::Beyond(5))]);
    }
}

both! {
    async fn an_erasure_that_was_logged_is_no_finding_and_one_that_was_not_is(bench) {
        // invariant 13, the part a verifier sees
        fill(&bench, 10).await;
        let log = bench.log().await;
        let mut erase = Event::new(EventType::Erase);
        erase.detail = serde_json::from_str(r#"{"fields":["sub","reason","ticket"],"indexes":[[3,4]]}"#).ok();
        log.record(Record::of(erase)).await.unwrap();
        log.close().await;
        tamper(&bench, &["DELETE FROM audit_private WHERE idx = 4"]).await;
        let report = verified(&bench, &[]).await;
        let mut found: Vec<Finding> = report.findings.into_iter().map(|(_, finding)| finding).collect();
        found.sort_by_key(ToString::to_string);
        assert_eq!(found, vec![Finding::Erased(4, "act"), Finding::Erased(4, "addr")]);
    }
}
