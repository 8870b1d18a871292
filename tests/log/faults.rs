//! Faults of connection and lock: refused is never released, and what comes later is no fork.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use stagedoor::server::log::{Event, EventType, LogError, LogOptions, Record, Reserve, verify};
use stagedoor::server::store::Db;
use stagedoor::server::store::append::{Opening, Writer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::Bench;

/// Where the proxy cuts a connection.
const PASS: u8 = 0;
const BEFORE_COMMIT: u8 = 1;
const AFTER_COMMIT: u8 = 2;
const BEFORE_INSERT: u8 = 3;

/// A TCP proxy before PostgreSQL that cuts a connection where it is told to, once.
async fn proxy(to: String, cut: Arc<AtomicU8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&to).await else { continue };
            tokio::spawn(relay(client, server, Arc::clone(&cut)));
        }
    });
    port
}

async fn relay(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(n @ 1..) = read else { return };
                let sent = &up[..n];
                let commit = sent.windows(7).any(|w| w == b"COMMIT\0");
                // a bound execution that carries entries is the largest message there is
                let insert = n > 600;
                match cut.load(Ordering::SeqCst) {
                    BEFORE_COMMIT if commit => { cut.store(PASS, Ordering::SeqCst); return }
                    BEFORE_INSERT if insert => { cut.store(PASS, Ordering::SeqCst); return }
                    AFTER_COMMIT if commit => {
                        server.write_all(sent).await.unwrap();
                        // the server's answer proves that it committed; nobody else hears it
                        let _ = server.read(&mut down).await;
                        cut.store(PASS, Ordering::SeqCst);
                        return;
                    }
                    _ => if server.write_all(sent).await.is_err() { return },
                }
            }
            read = server.read(&mut down) => {
                let Ok(n @ 1..) = read else { return };
                if client.write_all(&down[..n]).await.is_err() { return }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_around_commit_releases_nothing_and_forks_nothing() {
    // invariant 7: failed and not persisted, failed but persisted
    let Some(bench) = Bench::postgres().await else { return };
    let authority = bench.service_url.split('@').nth(1).unwrap();
    let (host, database) = authority.split_once('/').unwrap();
    let cut = Arc::new(AtomicU8::new(PASS));
    let port = proxy(host.to_owned(), Arc::clone(&cut)).await;
    let user = bench.service.user().unwrap();
    let through = Db::connect(&format!("postgres://{user}@127.0.0.1:{port}/{database}")).await.unwrap();
    let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
    let log = bench.open(through, options).await.unwrap();
    let (mut answered, mut persisted) = (0u64, 0u64);
    for round in 0..12 {
        let before = log.record(bench.grant("a", &format!("before{round}"))).await;
        assert!(before.is_ok(), "round {round}: {before:?}");
        answered += 1;
        let at = [BEFORE_COMMIT, AFTER_COMMIT, BEFORE_INSERT][round % 3];
        cut.store(at, Ordering::SeqCst);
        let refused = log.record(bench.grant("a", &format!("cut{round}"))).await;
        assert!(matches!(refused, Err(LogError::Unavailable(_))), "cut {at}: {refused:?}");
        assert_eq!(cut.load(Ordering::SeqCst), PASS, "the connection was cut");
        persisted += u64::from(at == AFTER_COMMIT);
    }
    let last = log.record(bench.grant("a", "after")).await.unwrap();
    assert_eq!(
        last.index,
        answered + persisted,
        "recorded and not released counts; the reverse never happens"
    );
    log.close().await;
    let report =
        verify::database(&bench.service, &[], Some(&Bench::log_key()), &mut |_, _| ()).await.unwrap();
    assert!(report.holds(), "{:?}", report.findings);
    assert_eq!(report.entries, answered + persisted + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_of_the_lock_delays_the_others_by_two_seconds_at_most() {
    // invariant 9: the database ends the session that holds the lock and does nothing
    let Some(bench) = Bench::postgres().await else { return };
    let log = bench.log().await;
    log.record(bench.grant("a", "u")).await.unwrap();
    let mut frozen = Writer::new(&bench.service);
    let nothing = Opening { floor: 0, clients: vec![], targets: vec![], grants: vec![], codes: vec![] };
    let held = frozen.begin(&nothing).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(3_500), log.record(bench.grant("a", "v"))).await;
    assert!(waited.expect("no longer than the timeout").is_ok());
    drop(held);
    frozen.discard().await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_write_refuses_everyone_and_recovers() {
    // invariant 8, the short form: another process holds SQLite's write lock longer than we wait
    let bench = Bench::sqlite().await.unwrap();
    let log = bench.log().await;
    log.record(bench.grant("a", "u")).await.unwrap();
    let Db::Sqlite(file) = &bench.service else { panic!("sqlite") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    let other = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let refused = log.record(bench.grant("a", "v")).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    lock.rollback().await.unwrap();
    assert_eq!(log.record(bench.grant("a", "w")).await.unwrap().index, 1);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_its_reserve_still_takes_a_revocation() {
    let Some(bench) = Bench::postgres().await else { return };
    let options =
        LogOptions { compare_database_clock: false, max_bytes: Some(100_000), ..LogOptions::default() };
    let log = bench.log_with(options).await;
    assert!(matches!(log.record(bench.grant("a", "u")).await, Err(LogError::Full)));
    assert!(matches!(log.deny(crate::harness::issue("a", "u"), "no").await, Err(LogError::Full)));
    let stop = |reserve| Record::of(Event::new(EventType::Revoke)).from(reserve);
    let by_a_client = log.record(stop(Reserve::Half)).await;
    assert!(matches!(by_a_client, Err(LogError::Full)), "its half is used up: {by_a_client:?}");
    assert!(log.record(stop(Reserve::Open)).await.is_ok());
    log.close().await;

    // in the first half of it
    let used: i64 = sqlx::query_scalar(
        "SELECT SUM(pg_total_relation_size(c.oid))::bigint FROM pg_class c \
         WHERE c.relkind = 'r' AND c.relname LIKE 'audit\\_%'",
    )
    .fetch_one(&sqlx::PgPool::connect(bench.super_url.as_ref().unwrap()).await.unwrap())
    .await
    .unwrap();
    let max_bytes = Some(used.unsigned_abs() * 100 / 96);
    let log = bench
        .log_with(LogOptions { max_bytes, compare_database_clock: false, ..LogOptions::default() })
        .await;
    assert!(matches!(log.record(bench.grant("a", "u")).await, Err(LogError::Full)));
    assert!(log.record(stop(Reserve::Half)).await.is_ok());
    assert!(log.record(stop(Reserve::Open)).await.is_ok());
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_database_loses_nothing_that_was_answered() {
    // invariant 9: PostgreSQL stopped at once, twice, under load. A cluster of its own: others run beside.
    let Some(cluster) = crate::pg::Cluster::own() else { return };
    let made = cluster.database().await;
    let owner = Db::connect(&made.owner_url).await.unwrap();
    stagedoor::server::store::migrate(&owner, Some(&made.service_user)).await.unwrap();
    owner.close().await;
    let bench = Bench::of_postgres(&made).await;
    let log = bench.log().await;
    let mut answered = 0u64;
    for round in 0..3u32 {
        let mut tasks = Vec::new();
        for i in 0..40 {
            let (log, record) = (log.clone(), bench.grant("a", &format!("u{round}_{i}")));
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(i * 3)).await;
                log.record(record).await
            }));
        }
        if round < 2 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            cluster.crash();
        }
        for task in tasks {
            match task.await.unwrap() {
                Ok(recorded) => answered = answered.max(recorded.index + 1),
                Err(error) => assert!(matches!(error, LogError::Unavailable(_)), "{error:?}"),
            }
        }
        if round < 2 {
            cluster.up();
        }
    }
    let last = log.record(bench.grant("a", "after")).await.unwrap();
    assert!(last.index >= answered);
    log.close().await;
    let report =
        verify::database(&bench.service, &[], Some(&Bench::log_key()), &mut |_, _| ()).await.unwrap();
    assert!(report.holds(), "{:?}", report.findings);
}
