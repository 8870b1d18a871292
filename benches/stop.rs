//! How soon a stop stops, and what it costs: `cargo bench --bench stop -- [quick|full|weigh]`.
//!
//! `quick` (the default): from the answer to a revocation until every one of 200 guards refuses, with one
//! replica on SQLite and three on PostgreSQL, over the stream and where only polling is left; other replicas'
//! verdicts; verification with 100 000 live revocations against none; what 10 000 revoked grants weigh on the wire
//! and in a guard of its own process. `full` also connects 5 000 guards to one replica and says what each takes.
//! `weigh`: the 10 000 alone.

#![expect(clippy::cast_precision_loss, reason = "figures are shown to three digits")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the machine's clock")]

#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;
#[path = "../tests/stop/site.rs"]
#[expect(dead_code, unused_macros, unused_imports, reason = "shared with the tests")]
mod site;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stagedoor::guard::remote::{Knowledge, RemoteRevocations, RevocationsHandle};
use stagedoor::token::revocation::{Revocations, Standing};
use stagedoor::token::{
    Alg, Clock as _, KeySet, Known, LocalSigner, Signer as _, SystemClock, TrustedIssuer, Verified, Verifier,
    encode_jws,
};

use site::{AUDIENCE, ISSUER, Replica, Site, body_for, mint, text};

use figures::{Asked, figure, point};

const GUARDS: usize = 200;
const ROUNDS: usize = 30;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let full = arguments.iter().any(|arg| arg == "full");
    let weigh = arguments.iter().any(|arg| arg == "weigh");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if let [.., word, base, secret] = arguments.as_slice()
            && word == "guard"
        {
            return guard_alone(base, secret).await;
        }
        weighing(Site::sqlite().await).await;
        if weigh {
            return;
        }
        verifying();
        for stream in [true, false] {
            latency("sqlite, 1 replica", Site::sqlite().await, 1, stream).await;
            match Site::postgres().await {
                Some(site) => latency("postgres, 3 replicas", site, 3, stream).await,
                None => println!("SKIP postgres: it is not installed"),
            }
        }
        if full {
            crowd(Site::sqlite().await).await;
        }
    });
}

/// Milliseconds at the median and at the 99th percentile.
struct Guard {
    knowledge: Arc<Knowledge>,
    _handle: RevocationsHandle,
}

async fn guard(base: &str, secret: &str) -> Guard {
    let revocations = RemoteRevocations::of(&ISSUER.parse().expect("an issuer"), base)
        .expect("a client")
        .client_secret(secret)
        .ready_within(Duration::from_secs(30));
    let knowledge = revocations.knowledge();
    Guard { knowledge, _handle: revocations.start().await.expect("a snapshot") }
}

/// A verified token of a grant, as a guard's verifier hands it to the revocations.
fn verified(replica: &Replica, token: &str) -> Arc<Verified> {
    let keys = replica.running.service.keyring.token_keys();
    let issuer = TrustedIssuer::stagedoor(ISSUER.parse().expect("an issuer"))
        .audience(AUDIENCE.parse().expect("an audience"));
    let verifier = Verifier::builder().issuer_with_keys(issuer, keys).build().expect("a verifier");
    verifier.verify(token).expect("a fresh token")
}

/// A way to a replica on which nobody gets through to the stream; what is asked for goes through.
async fn without_stream(replica: &Replica) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (here, there) = (listener.local_addr().expect("an address"), replica.running.address);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 64];
                let n = near.peek(&mut first).await.unwrap_or(0);
                if first[..n].starts_with(b"GET /v1/revocations/stream") {
                    return;
                }
                if let Ok(mut far) = tokio::net::TcpStream::connect(there).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    format!("http://{here}")
}

/// `stream`: guards hear; else they are left with asking once a second.
async fn latency(name: &str, site: Site, replicas: usize, stream: bool) {
    let name = format!("{name}, {}", if stream { "streamed" } else { "stream cut, polled" });
    let minter = site.minter().await;
    let mut running = Vec::new();
    for _ in 0..replicas {
        running.push(site.replica().await);
    }
    let mut bases = Vec::new();
    for replica in &running {
        bases.push(if stream { replica.base.clone() } else { without_stream(replica).await });
    }
    let mut guards = Vec::new();
    for i in 0..GUARDS {
        guards.push(guard(&bases[i % replicas], &minter.secret).await);
    }
    // streams are up when nobody needs to ask any more
    tokio::time::sleep(Duration::from_secs(2)).await;
    let api = minter.at(&running[0]);
    let (mut all, mut elsewhere) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let minted = mint(&api).await;
        let token = verified(&running[0], text(&minted, "token"));
        let path = format!("/v1/actor_tokens/{}/revoke", text(&minted, "id"));
        api.post(&path, &json!({})).await.ok();
        let answered = Instant::now();
        let now = SystemClock::default().now();
        let other = running.last().expect("a replica").running.service.revocations.clone();
        let mut others = None;
        loop {
            if others.is_none() && other.standing(&token, now) == Standing::Revoked {
                others = Some(answered.elapsed());
            }
            let refuses = |guard: &Guard| guard.knowledge.standing(&token, now) == Standing::Revoked;
            if guards.iter().all(refuses) && others.is_some() {
                break;
            }
            assert!(answered.elapsed() < Duration::from_secs(10), "a guard never heard of it");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        all.push(answered.elapsed());
        elsewhere.extend(others);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let p99 = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() * 99 / 100).map(|time| time.as_secs_f64() * 1e3)
    };
    if let Some(p99) = p99(all) {
        // a guard that polls has the bound of contract.md §7 before it refuses everything
        let asked = Asked::AtMost(if stream { 1000.0 } else { 5000.0 });
        figure(&format!("stop, {name}: {GUARDS} guards refuse, p99"), p99, "ms", asked);
    }
    if let Some(p99) = p99(elsewhere) {
        figure(&format!("stop, {name}: another replica refuses, p99"), p99, "ms", Asked::AtMost(250.0));
    }
    drop(guards);
    for replica in running {
        replica.stop().await;
    }
}

/// What 10 000 revoked grants weigh: the snapshot over the wire, and a process that does nothing but follow.
async fn weighing(site: Site) {
    const REVOKED: usize = 10_000;
    let (minter, admin) = (site.minter().await, site.admin().await);
    let replica = site.replica().await;
    let api = minter.at(&replica);
    let callers = 16;
    run(callers, REVOKED / callers, |_| {
        let api = api.clone();
        async move { drop(api.mint(&body_for("admin_7", "user_42")).await.ok()) }
    })
    .await;
    let before = child(&replica, &minter.secret);
    let body = json!({ "actor": { "sub": "admin_7" }, "reason": "The figures need many" });
    let matched = admin.at(&replica).post("/v1/revocations", &body).await.ok();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let wire = |encoding: &'static str| {
        let request =
            client.get(format!("{}/v1/revocations", replica.base)).header("accept-encoding", encoding);
        async move { request.send().await.expect("an answer").bytes().await.expect("a body").len() }
    };
    let (packed, plain) = (wire("gzip").await, wire("identity").await);
    println!("{} revoked grants: {packed} bytes on the wire (gzip), {plain} without", matched["matched"]);
    figure("stop: 10 000 revoked grants on the wire", packed as f64 / 1e3, "kB", Asked::AtMost(200.0));
    let after = child(&replica, &minter.secret);
    for (name, of) in
        ["its own pages", "resident, the program's pages among them", "resident at its most"].iter().zip(0..)
    {
        println!("a guard alone, {name}: {} KiB with none revoked, {} KiB with them", before[of], after[of]);
    }
    figure("stop: a guard's memory, 10 000 revoked", after[1] as f64 / 1024.0, "MiB", Asked::AtMost(20.0));
    replica.stop().await;
}

/// A process of its own that follows `replica`: its own pages, its resident memory and the most it ever was, KiB.
fn child(replica: &Replica, secret: &str) -> Vec<u64> {
    let program = std::env::current_exe().expect("a path");
    let output = std::process::Command::new(program)
        .args(["guard", &replica.base, secret])
        .output()
        .expect("a process of its own");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<u64> = said.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(figures.len(), 3, "{said}");
    figures
}

async fn guard_alone(base: &str, secret: &str) {
    let guard = guard(base, secret).await;
    // the stream is up, and its snapshot taken in as well
    tokio::time::sleep(Duration::from_secs(4)).await;
    println!("{} {} {}", memory("RssAnon:"), memory("VmRSS:"), memory("VmHWM:"));
    drop(guard);
}

/// Verification with 100 000 live revocations against none, as a ratio.
fn verifying() {
    let key = LocalSigner::generate(Alg::Es256).expect("a key");
    let now = SystemClock::default().now().timestamp();
    let claims = json!({
        "iss": ISSUER, "sub": "user_42", "aud": AUDIENCE, "exp": now + 900, "iat": now, "nbf": now, "jti": "j",
        "client_id": "client_1", "scope": "read", "sid": "act_1", "actor_assurance": "asserted",
        "act": { "sub": "admin_7" },
    });
    let token = encode_jws(&key, "at+jwt", &claims).expect("a token").into_string();
    let with = |known: Known| {
        struct Fixed(Known);
        impl Revocations for Fixed {
            fn standing(&self, token: &Verified, now: chrono::DateTime<chrono::Utc>) -> Standing {
                self.0.standing(token, now, chrono::TimeDelta::days(1))
            }
        }
        let issuer = TrustedIssuer::stagedoor(ISSUER.parse().expect("an issuer"))
            .audience(AUDIENCE.parse().expect("an audience"));
        let keys = KeySet::new([key.verifying_key().clone()]);
        Verifier::builder()
            .issuer_with_keys(issuer, keys)
            .revocations(Arc::new(Fixed(known)))
            .build()
            .expect("a verifier")
    };
    let as_of = SystemClock::default().now();
    let texts: Vec<String> = (0..100_000).map(|i| format!("act_{i:026}")).collect();
    let empty = with(Known { as_of, ..Known::default() });
    let many = with(Known { as_of, sids: texts.iter().map(String::as_str).collect(), ..Known::default() });
    let rate = |verifier: &Verifier| {
        let started = Instant::now();
        for _ in 0..20_000 {
            verifier.verify(&token).expect("valid");
        }
        20_000.0 / started.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..9).map(|_| rate(&many) / rate(&empty)).collect();
    ratios.sort_by(f64::total_cmp);
    let name = "verify with 100 000 revocations over none (median of 9)";
    figure(name, ratios[4], "x", Asked::AtLeast(0.95));
    let none = rate(&empty);
    for (revoked, rate) in [(0.0, none), (100_000.0, none * ratios[4])] {
        point("verify by revocations", revoked, rate, 0.0);
    }
}

async fn run<F: Future<Output = ()> + Send + 'static>(callers: usize, each: usize, one: impl Fn(usize) -> F) {
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let mine: Vec<F> = (0..each).map(|i| one(caller * each + i)).collect();
        tasks.push(tokio::spawn(async move {
            for call in mine {
                call.await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("a caller");
    }
}

/// What 5 000 connected guards take of a replica: resident memory of a server of its own before and after.
async fn crowd(site: Site) {
    const CROWD: usize = 5000;
    let minter = site.minter().await;
    let replica = site.replica().await;
    let before = memory("VmRSS:");
    let mut streams = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(replica.running.address).await.expect("a connection");
        let request = format!(
            "GET /v1/revocations/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
            minter.secret
        );
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut head = [0u8; 12];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head[9..], b"200");
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = memory("VmRSS:");
    // our own ends of the connections are small, and counted too: the figure is an upper bound
    assert_eq!(replica.running.service.feed.listeners(), CROWD, "everybody listens");
    let each = (after - before) as f64 / CROWD as f64;
    figure(&format!("stream, {CROWD} guards: memory each, both ends"), each, "KiB", Asked::AtMost(20.0));
    drop(streams);
    replica.stop().await;
}

/// A figure of this process's memory, KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
