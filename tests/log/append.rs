//! Recording: what is answered is durable, in order, provable, and nobody hurts his neighbours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stagedoor::server::log::epoch::{self, EpochReason};
use stagedoor::server::log::{
    Checkpoint, CheckpointSigner, Condition, Event, EventType, Fatal, Log, LogError, LogOptions, OpenError,
    Record, proof,
};
use stagedoor::server::store::Db;
use stagedoor::token::Clock as _;

use crate::harness::{Bench, HOST, SEED, both, issue};

async fn bodies(db: &Db) -> Vec<(i64, Vec<u8>)> {
    let sql = "SELECT idx, body FROM audit_entry ORDER BY idx";
    match db {
        Db::Sqlite(db) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db.path());
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            sqlx::query_as(sql).fetch_all(&pool).await.unwrap()
        }
        Db::Postgres(_) => unreachable!("asked through its URL"),
    }
}

async fn all_bodies(bench: &Bench) -> Vec<Vec<u8>> {
    let rows: Vec<(i64, Vec<u8>)> = match &bench.super_url {
        None => bodies(&bench.service).await,
        Some(url) => {
            let pool = sqlx::PgPool::connect(url).await.unwrap();
            sqlx::query_as("SELECT idx, body FROM audit_entry ORDER BY idx").fetch_all(&pool).await.unwrap()
        }
    };
    let indexes: Vec<i64> = rows.iter().map(|(idx, _)| *idx).collect();
    assert_eq!(indexes, (0..i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>(), "invariant 3");
    rows.into_iter().map(|(_, body)| body).collect()
}

both! {
    async fn every_record_gets_an_index_of_its_own_and_a_receipt_that_verifies(bench) {
        // invariants 3, 4
        let log = bench.log().await;
        let verifier = Bench::signer().verifier().clone();
        let mut tasks = Vec::new();
        for i in 0..300 {
            let (log, record) = (log.clone(), bench.grant("admin_7", &format!("user_{i}")));
            tasks.push(tokio::spawn(async move { log.record(record).await.unwrap() }));
        }
        let mut seen = BTreeSet::new();
        let mut answers = Vec::new();
        for task in tasks {
            let recorded = task.await.unwrap();
            assert!(seen.insert(recorded.index), "index {} twice", recorded.index);
            answers.push(recorded);
        }
        assert_eq!(seen, (0..300).collect());
        let bodies = all_bodies(&bench).await;
        for recorded in &answers {
            let body = &bodies[usize::try_from(recorded.index).unwrap()];
            let (index, _) = proof::verify(&recorded.proof, body, &verifier).unwrap();
            assert_eq!(index, recorded.index);
        }
        let newest = Checkpoint::open(&log.checkpoint().await.unwrap(), &verifier).unwrap();
        assert_eq!(newest.size, 300);
        log.close().await;
        assert!(matches!(log.record(Record::of(Event::new(EventType::Stop))).await, Err(LogError::Closed)));
        bench.log().await.close().await;
    }
}

both! {
    async fn one_loser_among_sixty_three_neighbours_is_denied_alone(bench) {
        let log = bench.log().await;
        let mut tasks = Vec::new();
        for i in 0..64 {
            let mut record = bench.grant("admin_7", &format!("user_{i}"));
            if i == 31 {
                record.conditions.push(Condition::ClientActive("client_gone".parse().unwrap()));
            }
            let log = log.clone();
            tasks.push(tokio::spawn(async move { log.record(record).await.unwrap() }));
        }
        let mut losers = Vec::new();
        for (i, task) in tasks.into_iter().enumerate() {
            let recorded = task.await.unwrap();
            if recorded.failed.is_some() {
                losers.push((i, recorded.index));
            }
        }
        assert_eq!(losers.len(), 1);
        assert_eq!(losers[0].0, 31);
        let bodies = all_bodies(&bench).await;
        assert_eq!(bodies.len(), 64);
        let body: serde_json::Value =
            serde_json::from_slice(&bodies[usize::try_from(losers[0].1).unwrap()]).unwrap();
        assert_eq!((body["decision"].as_str(), body["rule"].as_str()), (Some("denied"), Some("client_disabled")));
        assert!(body.get("jti").is_none() && body.get("signed_sha256").is_none());
        log.close().await;
    }
}

both! {
    async fn sixty_four_callers_share_commits(bench) {
        // invariant 16, the part that no machine's speed decides; the ratios are `cargo bench --bench log`
        let log = bench.log().await;
        let mut tasks = Vec::new();
        for caller in 0..64 {
            let (log, records) =
                (log.clone(), (0..10).map(|_| bench.grant("admin_7", &format!("user_{caller}"))).collect::<Vec<_>>());
            tasks.push(tokio::spawn(async move {
                for record in records {
                    log.record(record).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let stats = log.stats();
        assert_eq!(stats.records, 640);
        assert!(stats.commits * 8 <= stats.records, "{stats:?}");
        log.close().await;
    }
}

both! {
    async fn a_waiter_that_goes_away_harms_nobody(bench) {
        let log = bench.log().await;
        for i in 0..50 {
            let (left, stays) = (bench.grant("a", "u"), bench.grant("b", &format!("u{i}")));
            let dropped = log.record(left);
            drop(tokio::time::timeout(Duration::ZERO, dropped).await);
            log.record(stays).await.unwrap();
        }
        log.close().await;
        assert!(all_bodies(&bench).await.len() >= 50);
    }
}

both! {
    async fn a_full_queue_refuses_at_once(bench) {
        let options = LogOptions { queue: 1, batch: 1, compare_database_clock: false, ..LogOptions::default() };
        let log = bench.log_with(options).await;
        let attempts = (0..64).map(|i| log.record(bench.grant("a", &format!("u{i}"))));
        let answers = futures_util::future::join_all(attempts).await;
        assert!(answers.iter().any(|a| matches!(a, Err(LogError::Overloaded))));
        assert!(answers.iter().any(Result::is_ok));
        log.close().await;
    }
}

both! {
    async fn what_cannot_be_written_down_fails_alone(bench) {
        let log = bench.log().await;
        let mut bad = issue("a", "u").denied("no");
        bad.detail = serde_json::from_str(r#"{"fraction":0.5}"#).ok();
        let (good, bad) = tokio::join!(log.record(bench.grant("a", "u")), log.record(Record::of(bad)));
        assert!(good.is_ok());
        assert!(matches!(bad, Err(LogError::Unrecordable(_))));
        log.close().await;
    }
}

both! {
    async fn recorded_times_never_go_back_and_a_wrong_clock_is_refused(bench) {
        // invariant 6
        let log = bench.log().await;
        let first = log.record(bench.grant("a", "u")).await.unwrap();
        let at = bench.clock.now();
        bench.clock.jump_to(at - Duration::from_hours(1));
        let late = log.record(Record::of(issue("a", "u").denied("no"))).await;
        assert!(matches!(late, Err(LogError::ClockJumped | LogError::ClockBehind)), "{late:?}");
        let stop = Record::of(Event::new(EventType::Revoke)).from_the_reserve();
        let revoked = log.record(stop).await.unwrap();
        assert!(revoked.time >= first.time, "a revocation never waits for a clock");
        bench.clock.jump_to(at + Duration::from_hours(24));
        assert!(matches!(log.record(bench.grant("a", "u")).await, Err(LogError::ClockJumped)));
        bench.clock.jump_to(at);
        assert!(log.record(bench.grant("a", "u")).await.is_err(), "not before the clocks agree for 10 s");
        bench.clock.advance(Duration::from_secs(11));
        let back = log.record(bench.grant("a", "u")).await.unwrap();
        assert!(back.time >= revoked.time);
        log.close().await;
    }
}

both! {
    async fn a_token_issued_at_another_time_than_now_is_not_recorded(bench) {
        let log = bench.log().await;
        let mut stale = bench.grant("a", "u");
        stale.event.iat = Some(bench.clock.now() - Duration::from_secs(31));
        assert!(matches!(log.record(stale).await, Err(LogError::ClockJumped)));
        log.close().await;
    }
}

both! {
    async fn two_replicas_share_one_log(bench) {
        // invariants 3, 4 and the floor guard between replicas
        let (one, two) = (bench.log().await, bench.log().await);
        let mut tasks = Vec::new();
        for i in 0..100 {
            let log = if i % 2 == 0 { one.clone() } else { two.clone() };
            let record = bench.grant("a", &format!("u{i}"));
            tasks.push(tokio::spawn(async move { log.record(record).await.unwrap().index }));
        }
        let mut indexes = BTreeSet::new();
        for task in tasks {
            assert!(indexes.insert(task.await.unwrap()));
        }
        assert_eq!(indexes, (0..100).collect());
        assert_eq!(one.checkpoint().await.unwrap(), two.checkpoint().await.unwrap(), "the same bytes");
        one.close().await;
        two.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_database_is_503_for_everyone_and_no_fork_later() {
    // invariant 7, the short form: every session of the service is cut, then it goes on
    let Some(bench) = Bench::postgres().await else { return };
    let log = bench.log().await;
    log.record(bench.grant("a", "u")).await.unwrap();
    let admin = sqlx::PgPool::connect(bench.super_url.as_ref().unwrap()).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND datname = current_database()";
    let mut recorded = 1;
    for i in 0..10 {
        sqlx::query(cut).execute(&admin).await.unwrap();
        for j in 0..5 {
            match log.record(bench.grant("a", &format!("u{i}{j}"))).await {
                Ok(_) => recorded += 1,
                Err(error) => assert!(matches!(error, LogError::Unavailable(_)), "{error:?}"),
            }
        }
    }
    assert!(recorded > 20, "{recorded}");
    log.close().await;
    assert!(all_bodies(&bench).await.len() >= recorded);
    bench.log().await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_file_under_a_running_service_stops_it() {
    // invariant 10
    let bench = Bench::sqlite().await.unwrap();
    let log = bench.log().await;
    for i in 0..5 {
        log.record(bench.grant("a", &format!("u{i}"))).await.unwrap();
    }
    let Db::Sqlite(file) = &bench.service else { panic!("sqlite") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    let raw = sqlx::SqlitePool::connect_with(options).await.unwrap();
    // what restoring a backup of size 3 amounts to
    for statement in [
        "DROP TRIGGER audit_head_no_delete",
        "DROP TRIGGER audit_entry_no_delete",
        "DELETE FROM audit_head WHERE size > 3",
        "DELETE FROM audit_entry WHERE idx >= 3",
    ] {
        sqlx::query(statement).execute(&raw).await.unwrap();
    }
    assert!(matches!(log.checkpoint().await, Err(LogError::Stopped(Fatal::Rollback { .. }))));
    let refused = log.record(bench.grant("a", "u")).await;
    assert!(
        matches!(refused, Err(LogError::Stopped(Fatal::Rollback { database: 3, seen: 5 }))),
        "{refused:?}"
    );
    assert_eq!(log.fatal().await, Fatal::Rollback { database: 3, seen: 5 });
    assert!(matches!(log.record(bench.grant("a", "u")).await, Err(LogError::Stopped(_))));
    log.close().await;
    // whoever starts it again knows nothing of what was seen, and is told
    let db = Db::connect(&bench.service_url).await.unwrap();
    let options = LogOptions::default();
    let again = bench.open(db.clone(), options.clone()).await;
    assert!(matches!(&again, Err(OpenError::Halted(why)) if why.contains("ROLLBACK")), "{again:?}");
    let next = || CheckpointSigner::from_seed(&SEED, HOST, 2).unwrap();
    let (clock, entropy) = (bench.clock.clone(), Arc::clone(&bench.entropy));
    let (why, twice) = (EpochReason::Restored, options.clone());
    epoch::begin(db.clone(), next(), clock.clone(), Arc::clone(&entropy), twice, why, None).await.unwrap();
    let log = Log::open(db, next(), clock, entropy, options).await.expect("a new epoch is free of it");
    assert_eq!(log.record(bench.grant("a", "u")).await.unwrap().epoch, 2);
    log.close().await;
}
