//! How fast tokens are minted, as ratios in one run: group commit against one commit a token, and the whole
//! service against its own ceiling (the same HTTP stack, secret, JSON and signature, without rule and log).
//!
//! `cargo bench --bench mint`, on SQLite and on a PostgreSQL of its own · `-- sweep`: throughput and latency
//! against load · `-- redeem`: redeeming a code against minting a token · `-- target ADDRESS SECRET COUNT`: only
//! the load, against a server that runs already.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

#[path = "shared/allocator.rs"]
mod allocator;
#[path = "shared/ceiling.rs"]
mod ceiling;
#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;
#[path = "shared/load.rs"]
mod load;
#[path = "shared/ours.rs"]
mod ours;
#[path = "../tests/support/pg.rs"]
mod pg;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use figures::{Asked, figure, point};
use load::{Load, Until, load, load_each};
use ours::{asking, on_sqlite, request, service, wanted};
use serde_json::{Value, json};

const CONNECTIONS: usize = 64;
const SECONDS: u64 = 5;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => ratios().await,
        ["sweep"] => sweep().await,
        ["redeem"] => redeem().await,
        ["target", address, secret, count] => {
            let address = address.parse().expect("an address");
            let count = Until::Requests(count.parse().expect("a number"));
            let seen = load(address, request(address, "/v1/actor_tokens", secret), CONNECTIONS, count).await;
            show("target", seen, seen, 0.0);
        }
        _ => panic!("cargo bench --bench mint [-- sweep | redeem | target ADDRESS SECRET COUNT]"),
    }
}

async fn ratios() {
    let (running, secret, _dir) = on_sqlite(256).await;
    let (address, handle) = ceiling::start(running.service.clone());
    let (most, cpu) = measure(address, request(address, "/", &secret)).await;
    handle.stop(false).await;
    running.stop().await.expect("a clean stop");
    show("ceiling (HTTP, secret, JSON, ES256; no rule, no log)", most, most, cpu);
    for name in ["sqlite", "postgres"] {
        let mut seen = Vec::new();
        for batch in [256, 1] {
            let dir = tempfile::tempdir().expect("a directory");
            let (url, owner) = if name == "sqlite" {
                let url = format!("sqlite://{}/bench.db", dir.path().display());
                (url.clone(), url)
            } else {
                let Some(database) = pg::database().await else { return };
                (database.service_url, database.owner_url)
            };
            let (running, secret) = service(&url, &owner, dir.path(), batch).await;
            let before = running.service.log.stats();
            let wal = wal_bytes(&owner).await;
            let (load, cpu) =
                measure(running.address, request(running.address, "/v1/actor_tokens", &secret)).await;
            let after = running.service.log.stats();
            show(&format!("{name}, at most {batch} records a commit"), load, most, cpu);
            if batch > 1 {
                let mints = (after.records - before.records) as f64;
                let commits = (after.commits - before.commits) as f64;
                figure(&format!("mint, {name}: mints a commit"), mints / commits, "", Asked::AtLeast(8.0));
                if let (Some(before), Some(after)) = (wal, wal_bytes(&owner).await) {
                    let each = (after - before) as f64 / mints / 1e3;
                    figure("mint, postgres: bytes of WAL a mint", each, "kB", Asked::Nothing);
                }
            }
            seen.push(load.per_second);
            running.stop().await.expect("a clean stop");
        }
        let name = |what: &str| format!("mint, {name}, over {what}");
        figure(&name("one a commit"), seen[0] / seen[1], "x", Asked::AtLeast(3.0));
        let asked = if name("").contains("sqlite") { Asked::AtLeast(0.4) } else { Asked::Nothing };
        figure(&name("the ceiling"), seen[0] / most.per_second, "x", asked);
    }
}

/// How much PostgreSQL has written to its write-ahead log; `None` on SQLite.
async fn wal_bytes(url: &str) -> Option<i64> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(url).await.ok()?;
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.ok()
}

/// Throughput and latency against load, on SQLite.
async fn sweep() {
    let (running, secret, _dir) = on_sqlite(256).await;
    for connections in [1, 4, 16, 64, 256] {
        let request = request(running.address, "/v1/actor_tokens", &secret);
        let seen = load(running.address, request, connections, Until::Seconds(3)).await;
        point("mint by connections", connections as f64, seen.per_second, seen.p99.as_secs_f64() * 1e3);
    }
    running.stop().await.expect("a clean stop");
}

/// Redeeming a code against minting a token.
async fn redeem() {
    const EACH: usize = 30_000;
    let (running, secret, _dir) = on_sqlite(256).await;
    let address = running.address;
    let mint = asking(address, "/v1/actor_tokens", &secret, &wanted("token"));
    let by_code = asking(address, "/v1/actor_tokens", &secret, &wanted("code"));
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let until = Until::Requests(EACH as u64);
        let minted = load(address, mint.clone(), CONNECTIONS, until).await;
        let redeems = Arc::new(Mutex::new(Vec::with_capacity(EACH)));
        let seen = {
            let (redeems, secret) = (Arc::clone(&redeems), secret.clone());
            move |answer: &[u8]| {
                let answer: Value = serde_json::from_slice(answer).expect("JSON");
                let body = json!({ "code": answer["code"] });
                let redeem = asking(address, "/v1/actor_tokens/redeem", &secret, &body);
                redeems.lock().expect("no poison").push(redeem);
            }
        };
        load_each(address, vec![by_code.clone()], CONNECTIONS, until, seen).await;
        let redeems = std::mem::take(&mut *redeems.lock().expect("no poison"));
        let redeemed = load_each(address, redeems, CONNECTIONS, until, |_| {}).await;
        println!("{:.0} redeems and {:.0} mints a second", redeemed.per_second, minted.per_second);
        ratios.push(redeemed.per_second / minted.per_second);
    }
    running.stop().await.expect("a clean stop");
    ratios.sort_by(f64::total_cmp);
    figure("redeem over mint, the middle of three rounds", ratios[1], "x", Asked::AtLeast(0.8));
}

/// The load, and the processor time of one request, load generator included, microseconds.
async fn measure(address: SocketAddr, request: String) -> (Load, f64) {
    let before = cpu_seconds();
    let seen = load(address, request, CONNECTIONS, Until::Seconds(SECONDS)).await;
    (seen, (cpu_seconds() - before) / (seen.per_second * SECONDS as f64) * 1e6)
}

fn show(what: &str, seen: Load, most: Load, cpu_us: f64) {
    println!(
        "{what:<54} {:>7.0} /s  {:>5.2} of the ceiling  p50 {:>7.2?}  p99 {:>7.2?}  cpu {cpu_us:>4.0} us",
        seen.per_second,
        seen.per_second / most.per_second,
        seen.p50,
        seen.p99,
    );
}

/// Processor time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime, in hundredths of a second
    (ticks(11) + ticks(12)) / 100.0
}
