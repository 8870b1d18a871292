//! What recording costs, as ratios within one run: `cargo bench --bench log -- [quick|full] [sqlite|postgres]`.
//!
//! `quick` (the default) compares group commit with single commits on both databases, one replica with three.
//! `full` also fills a log to a million entries and asks it questions there.

#![expect(clippy::cast_precision_loss, reason = "rates are shown to three digits")]

#[path = "shared/allocator.rs"]
mod allocator;
#[path = "shared/figures.rs"]
mod figures;
#[path = "../tests/support/pg.rs"]
mod pg;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stagedoor::server::log::{
    CheckpointSigner, Decision, Effect, EntryFilter, Event, EventType, GrantFilter, GrantRow, Log,
    LogOptions, Personal, Record, verify,
};
use stagedoor::server::store::{Db, migrate};
use stagedoor::token::{
    Act, Assurance, Clock as _, Entropy as _, GrantId, Jti, Scope, SystemClock, SystemEntropy,
};

use figures::{Asked, figure, point};

struct Place {
    url: String,
    owner: String,
    name: &'static str,
    _dir: tempfile::TempDir,
}

impl Place {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", dir.path().join("log.db").display());
        let db = Db::create(&url).await.expect("a database");
        migrate(&db, None).await.expect("migrated");
        db.close().await;
        Self { owner: url.clone(), url, name: "sqlite", _dir: dir }
    }

    async fn postgres() -> Option<Self> {
        let made = pg::database().await?;
        let owner = Db::connect(&made.owner_url).await.expect("the owner");
        migrate(&owner, Some(&made.service_user)).await.expect("migrated");
        owner.close().await;
        Some(Self {
            url: made.service_url,
            owner: made.owner_url,
            name: "postgres",
            _dir: tempfile::tempdir().expect("a directory"),
        })
    }

    async fn log(&self, batch: usize) -> Log {
        let db = Db::connect(&self.url).await.expect("the database");
        let signer = CheckpointSigner::from_seed(&[7; 32], "bench.example", 1).expect("a signer");
        let options = LogOptions {
            batch,
            // everybody waits, nobody is refused
            patience: Duration::from_secs(30),
            ..LogOptions::default()
        };
        Log::open(db, signer, Arc::new(SystemClock::default()), Arc::new(SystemEntropy), options)
            .await
            .expect("a log")
    }
}

/// A grant of one of 500 actors for one of 200 000 users, as a mint records it.
fn record() -> Record {
    let now = SystemClock::default().now();
    let entropy = SystemEntropy;
    let (id, jti) = (GrantId::generate(now, &entropy), Jti::generate(now, &entropy));
    let n = u64::from_le_bytes(entropy.bytes());
    let mut event = Event::new(EventType::Issue);
    event.decision = Some(Decision::Granted);
    event.client = "client_1".parse().ok();
    event.rule = Some("default".into());
    event.policy = Some("builtin@0123456789abcdef".into());
    event.aud = vec!["https://api.example.com".parse().expect("an audience")];
    event.scope = Scope::parse("read").ok();
    event.assurance = Some(Assurance::Asserted);
    event.grant = Some(id.clone());
    event.jti = Some(jti.clone());
    event.signed_sha256 = Some(entropy.bytes());
    event.kid = "LnUSbvtjEg3y1UzYOKyfxJ7CvCUNlQXcHQ2sXfN0Iyk".parse().ok();
    event.iat = Some(now);
    event.ttl_seconds = Some(600);
    event.personal = Personal {
        actor: Some(Act { sub: format!("admin_{}", n % 500).parse().expect("an id"), iss: None, act: None }),
        subject: format!("user_{}", (n >> 16) % 200_000).parse().ok(),
        reason: Some("Ticket 4711: invoice missing".into()),
        ticket: Some(format!("{}", (n >> 40) % 10_000)),
        address: Some([192, 0, 2, 7].into()),
    };
    let row = GrantRow {
        id,
        jti,
        client: "client_1".parse().expect("an id"),
        kid: "kid".parse().expect("an id"),
        aud: event.aud.clone(),
        scope: Scope::parse("read").expect("a scope"),
        assurance: Assurance::Asserted,
        iat: now,
        exp: now + Duration::from_mins(10),
        created_at: now,
        parent: None,
    };
    Record { effects: vec![Effect::InsertGrant(row)], ..Record::of(event) }
}

/// Records per second of `callers` on each of `logs`, and the median and 99th percentile of one call.
async fn load(logs: &[Log], callers: usize, total: usize) -> (f64, Duration, Duration) {
    let started = now();
    let tasks: Vec<_> = (0..callers * logs.len())
        .map(|caller| {
            let log = logs[caller % logs.len()].clone();
            let mine = total / (callers * logs.len());
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(mine);
                for _ in 0..mine {
                    let begun = now();
                    log.record(record()).await.expect("recorded");
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::with_capacity(total);
    for task in tasks {
        times.extend(task.await.expect("the caller ends"));
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Processor time of this process: on a busy machine it says more than the time that passed.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn show(what: &str, (rate, p50, p99): (f64, Duration, Duration)) -> f64 {
    println!("{what:<52} {rate:>9.0}/s   p50 {p50:>9.2?}   p99 {p99:>9.2?}");
    rate
}

async fn compare(place: &Place) {
    let single = place.log(1).await;
    let one_by_one = show(
        &format!("{} · 64 callers, one record a commit", place.name),
        load(std::slice::from_ref(&single), 64, 3_200).await,
    );
    single.close().await;
    let log = place.log(256).await;
    show(&format!("{} · 1 caller", place.name), load(std::slice::from_ref(&log), 1, 1_000).await);
    let before = log.stats();
    let grouped =
        show(&format!("{} · 64 callers", place.name), load(std::slice::from_ref(&log), 64, 25_600).await);
    let after = log.stats();
    let per_commit = (after.records - before.records) as f64 / (after.commits - before.commits) as f64;
    figure(&format!("record, {}: records a commit", place.name), per_commit, "", Asked::Nothing);
    figure(
        &format!("record, {}: group over one a commit", place.name),
        grouped / one_by_one,
        "x",
        Asked::Nothing,
    );
    log.close().await;
}

/// What a log without group commit does (audit-log.md §3): each of three times 64 callers has a connection of its own,
/// locks the head's row, appends, replaces the head and commits. It has one table, one index and nothing to check.
async fn locked(url: &str) -> (f64, Duration, Duration) {
    const CALLERS: u32 = 3 * 64;
    let pool =
        sqlx::postgres::PgPoolOptions::new().max_connections(CALLERS).connect(url).await.expect("a pool");
    for sql in [
        "CREATE TABLE locked_head (one INT PRIMARY KEY, size BIGINT NOT NULL, root BYTEA NOT NULL)",
        "CREATE TABLE locked_entry (idx BIGINT PRIMARY KEY, body BYTEA NOT NULL)",
        "INSERT INTO locked_head VALUES (1, 0, '')",
    ] {
        sqlx::query(sql).execute(&pool).await.expect("a table");
    }
    let started = now();
    let tasks: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(locked_caller(pool.clone()))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("the caller ends"));
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, times[times.len() / 2], times[times.len() * 99 / 100])
}

async fn locked_caller(pool: sqlx::PgPool) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..15 {
        let begun = now();
        let mut tx = pool.begin().await.expect("a transaction");
        let sql = "SELECT size FROM locked_head WHERE one = 1 FOR UPDATE";
        let size: i64 = sqlx::query_scalar(sql).fetch_one(&mut *tx).await.expect("the head");
        let insert = sqlx::query("INSERT INTO locked_entry VALUES ($1, $2)").bind(size).bind(vec![7u8; 700]);
        insert.execute(&mut *tx).await.expect("an entry");
        let update =
            sqlx::query("UPDATE locked_head SET size = $1, root = $2").bind(size + 1).bind(vec![7u8; 32]);
        update.execute(&mut *tx).await.expect("the head");
        tx.commit().await.expect("a commit");
        times.push(begun.elapsed());
    }
    times
}

async fn replicas(place: &Place) {
    let one = place.log(256).await;
    let three = [one.clone(), place.log(256).await, place.log(256).await];
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let alone = load(std::slice::from_ref(&one), 64, 25_600).await;
        show("postgres · 1 replica x 64", alone);
        let together = load(&three, 64, 38_400).await;
        show("postgres · 3 replicas x 64", together);
        rounds.push((together.0 / alone.0, alone, together));
    }
    // the round in the middle
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, alone, together) = rounds[1];
    figure("record, postgres: three replicas over one", ratio, "x", Asked::AtLeast(0.9));
    for (count, (rate, _, p99)) in [(1.0, alone), (3.0, together)] {
        point("record by replicas (PostgreSQL)", count, rate, p99.as_secs_f64() * 1e3);
    }
    for log in three {
        log.close().await;
    }
    let locked = show("postgres · 3 x 64 callers, a head row locked for each", locked(&place.owner).await);
    figure(
        "record, postgres: three replicas over a head row locked",
        together.0 / locked,
        "x",
        Asked::AtLeast(20.0),
    );
}

async fn million(place: &Place, size: u64) {
    let log = place.log(256).await;
    load(std::slice::from_ref(&log), 512, 10_000).await;
    let small = load(std::slice::from_ref(&log), 64, 20_000).await;
    show(&format!("{} · 64 callers at 10 000 entries", place.name), small);
    let begun = now();
    let have = log.stats().records;
    load(std::slice::from_ref(&log), 512, usize::try_from(size - have).expect("fits")).await;
    println!("  filled to {size} in {:.1?}", begun.elapsed());
    let large = load(std::slice::from_ref(&log), 64, 20_000).await;
    show(&format!("{} · 64 callers at {size} entries", place.name), large);
    let least = if place.name == "sqlite" { 0.6 } else { 0.8 };
    let name = format!("record, {}: at 1 million entries over 10 000", place.name);
    figure(&name, large.0 / small.0, "x", Asked::AtLeast(least));
    for (entries, (rate, _, p99)) in [(10_000.0, small), (1_000_000.0, large)] {
        point(&format!("record by entries ({})", place.name), entries, rate, p99.as_secs_f64() * 1e3);
    }
    questions(&log, place.name).await;
    let db = log.db().clone();
    log.close().await;
    let begun = now();
    let before = cpu();
    let report = verify::database(&db, &[], None, &mut |_, _| ()).await.expect("could look");
    assert!(report.holds(), "the log that was filled holds");
    let each = 1e6 / report.entries as f64;
    let name = |what: &str| format!("audit verify, {}: {what} of 1 million entries", place.name);
    figure(&name("time"), begun.elapsed().as_secs_f64() * each, "s", Asked::AtMost(10.0));
    figure(&name("processor"), cpu().saturating_sub(before).as_secs_f64() * each, "s", Asked::Nothing);
}

async fn questions(log: &Log, place: &str) {
    let size = log.stats().records;
    let mut proofs = Vec::new();
    for i in 0..500u64 {
        let index = i * 7919 % size;
        let begun = now();
        log.proof(index).await.expect("a proof");
        proofs.push(begun.elapsed());
    }
    percentile(place, "proof of one entry", 5.0, proofs);
    let filters: [(&str, EntryFilter); 7] = [
        ("newest page", EntryFilter::default()),
        ("by subject", EntryFilter { subject: "user_77".parse().ok(), ..EntryFilter::default() }),
        ("by actor", EntryFilter { actor: "admin_7".parse().ok(), ..EntryFilter::default() }),
        ("by ticket", EntryFilter { ticket: Some("77".into()), ..EntryFilter::default() }),
        ("by a rule nobody used", EntryFilter { rule: Some("none".into()), ..EntryFilter::default() }),
        ("denied (none)", EntryFilter { decision: Some("denied".into()), ..EntryFilter::default() }),
        ("by a subject nobody had", EntryFilter { subject: "nobody".parse().ok(), ..EntryFilter::default() }),
    ];
    for (name, filter) in filters {
        let mut times = Vec::new();
        for _ in 0..100 {
            let begun = now();
            log.entries(&filter, None, 50, true).await.expect("a page");
            times.push(begun.elapsed());
        }
        percentile(place, name, 20.0, times);
    }
    let filter = GrantFilter { subject: "user_77".parse().ok(), ..GrantFilter::default() };
    let mut times = Vec::new();
    for _ in 0..100 {
        let begun = now();
        log.grants(&filter, None, 50, SystemClock::default().now()).await.expect("a page");
        times.push(begun.elapsed());
    }
    percentile(place, "grants by subject", 20.0, times);
}

fn percentile(place: &str, what: &str, most_ms: f64, mut times: Vec<Duration>) {
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100].as_secs_f64() * 1e3;
    figure(&format!("query, {place}, 1 million entries: {what}, p99"), p99, "ms", Asked::AtMost(most_ms));
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let word = |word: &str| std::env::args().any(|arg| arg == word);
    let full = word("full");
    if !word("postgres") {
        compare(&Place::sqlite().await).await;
        if full {
            million(&Place::sqlite().await, 1_000_000).await;
        }
    }
    if word("sqlite") {
        return;
    }
    if let Some(postgres) = Place::postgres().await {
        compare(&postgres).await;
        replicas(&postgres).await;
        if full && let Some(fresh) = Place::postgres().await {
            million(&fresh, 1_000_000).await;
        }
    }
}
