//! How fast tokens are minted, as ratios in one run: group commit against one commit a token, and the whole
//! service against its own ceiling (the same HTTP stack, JSON and signature, without rule and log).
//!
//! `cargo bench --bench mint [-- --seconds 5 --connections 64 --postgres postgres://service@… --owner postgres://owner@…]`;
//! the PostgreSQL database must be empty, with both roles made.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{App, HttpServer, web};
use serde_json::{Value, json};
use stagedoor::server::app::{self, Setup};
use stagedoor::server::clients::{self, ClientForm, ClientScope, SecretKind};
use stagedoor::server::config::{Config, Environment, SecretSource};
use stagedoor::server::keyring;
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{
    Act, ActorClaims, Alg, Assurance, Clock, GrantId, Jti, LocalSigner, Scope, SystemClock, SystemEntropy,
    encode_jws, json as strict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const POLICY: &str = r#"
@id("bench") @client("bench") @asserted("allow") @unknown("actor target") @scope("read") @max_lifetime("900")
permit (principal, action == Action::"impersonate", resource);
"#;

struct Args {
    seconds: u64,
    connections: usize,
    postgres: Option<String>,
    owner: Option<String>,
}

fn args() -> Args {
    let mut out = Args { seconds: 5, connections: 64, postgres: None, owner: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => out.seconds = words.next().and_then(|w| w.parse().ok()).unwrap_or(5),
            "--connections" => out.connections = words.next().and_then(|w| w.parse().ok()).unwrap_or(64),
            "--postgres" => out.postgres = words.next(),
            "--owner" => out.owner = words.next(),
            _ => {}
        }
    }
    out
}

/// What one run of the load generator saw.
#[derive(Clone, Copy)]
struct Load {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Keeps `connections` requests under way for `seconds`, on keep-alive connections.
async fn load(address: SocketAddr, path: &str, secret: &str, connections: usize, seconds: u64) -> Load {
    let body = json!({
        "user_id": "user_42", "actor": {"sub": "admin_7"}, "reason": "Ticket 4711: invoice missing", "ticket": "4711",
    })
    .to_string();
    let request = Arc::new(format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {secret}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (request, done) = (Arc::clone(&request), Arc::clone(&done));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("the server listens");
                stream.set_nodelay(true).expect("a TCP option");
                let (mut buffer, mut times) = (vec![0u8; 16 * 1024], Vec::new());
                while Instant::now() < until {
                    let sent = Instant::now();
                    stream.write_all(request.as_bytes()).await.expect("the server reads");
                    answer(&mut stream, &mut buffer).await;
                    times.push(sent.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("no panic"));
    }
    let took = began.elapsed().as_secs_f64();
    times.sort_unstable();
    Load {
        per_second: done.load(Ordering::Relaxed) as f64 / took,
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
    }
}

/// Reads one answer whole; anything but 200 ends the run.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(n > 0, "the server closed the connection");
        filled += n;
        let text = &buffer[..filled];
        let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&text[..end]).expect("ASCII headers").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(text));
        let length: usize = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "))
            .and_then(|l| l.parse().ok())
            .expect("a length");
        if filled >= end + 4 + length {
            return;
        }
    }
}

/// A service on a fresh database, and the secret of a client that may mint.
async fn service(url: &str, owner: &str, dir: &std::path::Path, batch: usize) -> (app::Running, String) {
    let policy = dir.join("policy.cedar");
    std::fs::write(&policy, POLICY).expect("a policy file");
    let environment = Environment::from_pairs([
        ("STAGEDOOR_LISTEN", "127.0.0.1:0".to_owned()),
        ("STAGEDOOR_DATA_DIR", dir.display().to_string()),
        ("STAGEDOOR_DATABASE_URL", url.to_owned()),
        ("STAGEDOOR_POLICY__PATH", policy.display().to_string()),
    ]);
    let config = Config::parse("bench", "", &environment).expect("a good configuration");
    let clock = SystemClock::default();
    let (service, owned) =
        (Db::create(url).await.expect("a database"), Db::create(owner).await.expect("a database"));
    store::migrate(&owned, service.user()).await.expect("migrations");
    owned.close().await;
    let db = service;
    let key = dir.join("master.key");
    let master = if key.exists() {
        MasterKey::load(&SecretSource::File(key)).expect("the master key")
    } else {
        MasterKey::create(&key, &SystemEntropy).expect("a master key")
    };
    keyring::make_initial(&db, &master, Alg::Es256, clock.now(), &SystemEntropy).await.expect("keys");
    let form = ClientForm {
        name: Some("bench".into()),
        scopes: Some(ClientScope::ALL.iter().map(|s| s.as_str().to_owned()).collect()),
        audiences: Some(vec!["https://api.example.com".into()]),
        may_assert: Some(vec!["*".into()]),
        ..ClientForm::default()
    };
    let made = clients::create(&db, &master, &form, SecretKind::Live, clock.now(), &SystemEntropy)
        .await
        .expect("a client");
    db.close().await;
    let mut setup = Setup::new(config);
    setup.log.batch = batch;
    let running = app::start(setup).await.expect("the service starts");
    (running, made.secret.expose().to_owned())
}

/// The same stack without rule and log: what the machine could do at most.
fn ceiling() -> (SocketAddr, actix_web::dev::ServerHandle) {
    let signer = Arc::new(LocalSigner::generate(Alg::Es256).expect("a key"));
    let clock = SystemClock::default();
    let server = HttpServer::new(move || {
        let (signer, clock) = (Arc::clone(&signer), clock.clone());
        App::new().default_service(web::to(move |body: web::Bytes| {
            let (signer, clock) = (Arc::clone(&signer), clock.clone());
            async move {
                let Ok(Value::Object(asked)) = strict::parse_strict(&body, 8) else {
                    return actix_web::HttpResponse::BadRequest().finish();
                };
                let now = clock.now();
                let id = |name: &str| asked[name].as_str().unwrap_or("x").to_owned();
                let claims = ActorClaims {
                    iss: "http://127.0.0.1".parse().expect("an issuer"),
                    sub: id("user_id").try_into().expect("an id"),
                    aud: vec!["https://api.example.com".parse().expect("an audience")],
                    exp: now,
                    iat: now,
                    nbf: now,
                    jti: Jti::generate(now, &SystemEntropy),
                    client_id: "client_x".parse().expect("an id"),
                    scope: Scope::parse("read").expect("a scope"),
                    sid: GrantId::generate(now, &SystemEntropy),
                    actor_assurance: Assurance::Asserted,
                    azp: None,
                    break_glass: false,
                    act: Act { sub: "admin_7".parse().expect("an id"), iss: None, act: None },
                };
                let jws = encode_jws(&*signer, "at+jwt", &claims).expect("a signature");
                let answer = json!({ "object": "actor_token", "token": jws.as_str(), "user_id": claims.sub, "id": claims.sid });
                actix_web::HttpResponse::Ok().content_type("application/json").body(answer.to_string())
            }
        }))
    })
    .disable_signals()
    .bind("127.0.0.1:0")
    .expect("a free port");
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    (address, handle)
}

#[tokio::main]
async fn main() {
    let args = args();
    let (address, handle) = ceiling();
    let most = load(address, "/", "none", args.connections, args.seconds).await;
    handle.stop(false).await;
    show("ceiling (HTTP, JSON, ES256; no rule, no log)", most, most);
    let mut databases = vec![("sqlite", None)];
    if let Some(url) = &args.postgres {
        databases.push(("postgres", Some(url.clone())));
    }
    for (name, url) in databases {
        // One master key for one database: PostgreSQL's is used twice.
        let shared = tempfile::tempdir().expect("a directory");
        for batch in [256, 1] {
            let own = tempfile::tempdir().expect("a directory");
            let dir = if url.is_some() { shared.path() } else { own.path() };
            let url = url.clone().unwrap_or_else(|| format!("sqlite://{}/bench.db", dir.display()));
            let owner = args.owner.clone().unwrap_or_else(|| url.clone());
            let (running, secret) = service(&url, &owner, dir, batch).await;
            let before = running.service.log.stats();
            let seen =
                load(running.address, "/v1/actor_tokens", &secret, args.connections, args.seconds).await;
            let after = running.service.log.stats();
            show(&format!("{name}, at most {batch} records a commit"), seen, most);
            let per_commit =
                (after.records - before.records) as f64 / (after.commits - before.commits) as f64;
            println!("{:>66} {per_commit:.1} mints a commit", "");
            running.stop().await.expect("a clean stop");
        }
    }
    if let Some(kib) = resident_kib() {
        println!("resident memory at the end: {:.1} MiB (server and load generator)", kib as f64 / 1024.0);
    }
}

fn show(what: &str, seen: Load, most: Load) {
    println!(
        "{what:<48} {:>9.0} /s  {:>5.2} of the ceiling  p50 {:>7.2?}  p99 {:>7.2?}",
        seen.per_second,
        seen.per_second / most.per_second,
        seen.p50,
        seen.p99
    );
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
