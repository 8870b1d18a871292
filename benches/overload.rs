//! What happens when ten times more is asked for than the log can record: commits take 20 ms and hold 16 records (so that the
//! log and not the processor is the limit), one client floods, another goes on as before.
//!
//! `cargo bench --bench overload [-- --seconds 10]`. Arrivals are paced and do not wait for answers (open loop): a
//! latency counts from when the request was due, not from when it could be sent. Exits 1 when a promise is missed:
//! p99 of what is served ≤ 5 × normal, the quiet client never refused, served as before within 1 s, nothing lost.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stagedoor::server::app::{self, Setup};
use stagedoor::server::clients::{self, ClientForm, ClientScope, SecretKind};
use stagedoor::server::config::{Config, Environment};
use stagedoor::server::keyring;
use stagedoor::server::log::{EntryFilter, Log};
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{Alg, Clock, SystemClock, SystemEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;

use figures::{Asked, figure};

const POLICY: &str = r#"
@id("bench") @client("bench") @asserted("allow") @unknown("actor target") @scope("read") @max_lifetime("900")
permit (principal, action == Action::"impersonate", resource);
"#;
const COMMIT: Duration = Duration::from_millis(20);
const BATCH: usize = 16;

/// What one stream of requests saw.
#[derive(Default)]
struct Seen {
    served: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.served.extend(other.served);
        self.refused.extend(other.refused);
    }

    fn p99(times: &mut [Duration]) -> Duration {
        times.sort_unstable();
        times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
    }

    fn show(&mut self, what: &str, seconds: f64) -> Duration {
        let p99 = Self::p99(&mut self.served);
        println!(
            "{what:<34} served {:>7.0} /s  p50 {:>8.2?}  p99 {p99:>8.2?}   refused {:>7.0} /s  p99 {:>8.2?}",
            self.served.len() as f64 / seconds,
            self.served.get(self.served.len() / 2).copied().unwrap_or_default(),
            self.refused.len() as f64 / seconds,
            Self::p99(&mut self.refused),
        );
        p99
    }
}

struct Target {
    address: SocketAddr,
    request: Arc<str>,
}

impl Target {
    fn new(address: SocketAddr, secret: &str) -> Self {
        let body = json!({
            "user_id": "user_42", "actor": {"sub": "admin_7"}, "reason": "Ticket 4711: invoice missing",
        })
        .to_string();
        let request = format!(
            "POST /v1/actor_tokens HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {secret}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { address, request: request.into() }
    }

    /// `per_second` requests on `connections`, each sent when it is due; `None`: as fast as answers come.
    async fn load(&self, connections: u32, per_second: Option<f64>, seconds: u64) -> Seen {
        let began = Instant::now();
        let until = began + Duration::from_secs(seconds);
        let every = per_second.map(|rate| Duration::from_secs_f64(f64::from(connections) / rate));
        let tasks: Vec<_> = (0..connections)
            .map(|i| {
                let (request, address) = (Arc::clone(&self.request), self.address);
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.expect("the server listens");
                    stream.set_nodelay(true).expect("a TCP option");
                    let (mut buffer, mut seen) = (vec![0u8; 16 * 1024], Seen::default());
                    let mut due = began + every.map_or(Duration::ZERO, |every| every * i / connections);
                    while due < until {
                        tokio::time::sleep_until(due.into()).await;
                        stream.write_all(request.as_bytes()).await.expect("the server reads");
                        let status = answer(&mut stream, &mut buffer).await;
                        match status {
                            200 => seen.served.push(due.elapsed()),
                            503 => seen.refused.push(due.elapsed()),
                            other => panic!("status {other}"),
                        }
                        due = every.map_or_else(Instant::now, |every| due + every);
                    }
                    seen
                })
            })
            .collect();
        let mut all = Seen::default();
        for task in tasks {
            all.add(task.await.expect("no panic"));
        }
        all
    }
}

/// Reads one answer whole and gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> u16 {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(n > 0, "the server closed the connection");
        filled += n;
        let text = &buffer[..filled];
        let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&text[..end]).expect("ASCII headers").to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if filled >= end + 4 + length.expect("a length") {
            return head[9..12].parse().expect("a status");
        }
    }
}

/// A service whose commits are slow, and the secrets of two clients that may mint.
async fn service(dir: &std::path::Path) -> (app::Running, String, String) {
    let policy = dir.join("policy.cedar");
    std::fs::write(&policy, POLICY).expect("a policy file");
    let url = format!("sqlite://{}/bench.db", dir.display());
    let environment = Environment::from_pairs([
        ("STAGEDOOR_LISTEN", "127.0.0.1:0".to_owned()),
        ("STAGEDOOR_DATA_DIR", dir.display().to_string()),
        ("STAGEDOOR_DATABASE_URL", url.clone()),
        ("STAGEDOOR_POLICY__PATH", policy.display().to_string()),
    ]);
    let config = Config::parse("bench", "", &environment).expect("a good configuration");
    let db = Db::create(&url).await.expect("a database");
    store::migrate(&db, None).await.expect("migrations");
    let master = MasterKey::create(&dir.join("master.key"), &SystemEntropy).expect("a master key");
    let now = SystemClock::default().now();
    keyring::make_initial(&db, &master, Alg::Es256, now, &SystemEntropy).await.expect("keys");
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let form = ClientForm {
            name: Some("bench".into()),
            scopes: Some(ClientScope::ALL.iter().map(|s| s.as_str().to_owned()).collect()),
            audiences: Some(vec!["https://api.example.com".into()]),
            may_assert: Some(vec!["*".into()]),
            ..ClientForm::default()
        };
        let made = clients::create(&db, &master, &form, SecretKind::Live, now, &SystemEntropy).await;
        secrets.push(made.expect("a client").secret.expose().to_owned());
    }
    db.close().await;
    let mut setup = Setup::new(config);
    setup.log.batch = BATCH;
    setup.log.commit_delay = COMMIT;
    let running = app::start(setup).await.expect("the service starts");
    let quiet = secrets.pop().unwrap_or_default();
    (running, secrets.pop().unwrap_or_default(), quiet)
}

/// Granted attempts in the log.
async fn granted(log: &Log) -> usize {
    let filter = EntryFilter { typ: Some("issue".into()), ..EntryFilter::default() };
    let (mut from, mut count) = (0, 0);
    loop {
        let rows = log.entries_from(&filter, from, 1000, false).await.expect("the log can be read");
        let Some(last) = rows.last() else { return count };
        from = last.index + 1;
        count +=
            rows.iter().filter(|row| row.body.as_ref().is_some_and(|b| b["decision"] == "granted")).count();
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let mut words = std::env::args().skip_while(|word| word != "--seconds");
    let seconds = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().expect("a directory");
    let (running, flooding, quiet) = service(dir.path()).await;
    let (flooding, quiet) = (Target::new(running.address, &flooding), Target::new(running.address, &quiet));
    let mut served = 0;

    let mut normal = flooding.load(24, None, seconds).await;
    let sustained = normal.served.len() as f64 / seconds as f64;
    let usual = normal.show("sustained, 24 connections", seconds as f64);
    served += normal.served.len();

    let rate = 10.0 * sustained;
    let (mut flood, mut others) =
        tokio::join!(flooding.load(640, Some(rate), seconds), quiet.load(4, Some(20.0), seconds));
    let worst = flood.show("ten times that, one client", seconds as f64);
    others.show("meanwhile another client, 20 /s", seconds as f64);
    served += flood.served.len() + others.served.len();

    let over = Instant::now();
    let recovered = loop {
        let began = Instant::now();
        let mut stream = TcpStream::connect(flooding.address).await.expect("the server listens");
        stream.write_all(flooding.request.as_bytes()).await.expect("the server reads");
        let status = answer(&mut stream, &mut vec![0u8; 16 * 1024]).await;
        served += usize::from(status == 200);
        if status == 200 && began.elapsed() <= usual {
            break over.elapsed();
        }
    };
    let recorded = granted(&running.service.log).await;
    println!("tokens received {served}, granted in the log {recorded}");
    running.stop().await.expect("a clean stop");

    let lost = served.abs_diff(recorded) as f64;
    let ratio = worst.as_secs_f64() / usual.as_secs_f64();
    let kept = [
        figure("p99 of what is served under ten times the load / normal", ratio, "x", Asked::AtMost(5.0)),
        figure("another client refused meanwhile", others.refused.len() as f64, "", Asked::AtMost(0.0)),
        figure("served as before after", recovered.as_secs_f64(), "s", Asked::AtMost(1.0)),
        figure("tokens received that are not in the log, or lost from it", lost, "", Asked::AtMost(0.0)),
    ];
    std::process::ExitCode::from(u8::from(kept.contains(&false)))
}
