//! What the guard costs, as ratios within one run: `cargo bench --bench guard`.
//!
//! Targets (issue 6): cold at most 1.2 × the raw signature check for ES256 and 1.5 × for RS256; a token seen
//! before at most 2 µs; signing at most 1.3 × the raw primitive (issue 2). Over HTTP, with a token seen before: a hello
//! service with the guard at least 0.85 of the same without it, forward authentication at least 0.6 of `/healthz`.
//! `-- --seconds 2 --connections 32` sets how long each of those is measured, and with how many callers.

#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stagedoor::guard::{Impersonable, identify};
use stagedoor::server::app::{self, Setup};
use stagedoor::server::config::{Config, Environment};
use stagedoor::server::keyring;
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{
    Alg, Clock, Issuer, KeySet, LocalSigner, Signer, SystemClock, SystemEntropy, TrustedIssuer, Verifier,
    encode_jws,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

stagedoor::action!(Read = "read");

use figures::{Asked, figure};

const ISSUER: &str = "https://stagedoor.example";
const API: &str = "https://api.example.com";

fn claims(clock: &SystemClock) -> Value {
    let now = clock.now().timestamp();
    json!({
        "iss": ISSUER, "sub": "user_42", "aud": API, "exp": now + 3600, "iat": now, "nbf": now,
        "jti": "01j0000000000000000000000a", "client_id": "client_01j0000000000000000000000a", "scope": "read",
        "sid": "act_01j0000000000000000000000a", "actor_assurance": "verified",
        "act": { "sub": "admin_7", "iss": "https://staff.example" }
    })
}

/// The best of `rounds` rounds of each of `what`, taken in turns so that noise hits all alike.
fn best<const N: usize>(clock: &SystemClock, calls: u32, mut what: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut best = [Duration::MAX; N];
    for _ in 0..30 {
        for (i, run) in what.iter_mut().enumerate() {
            let began = clock.monotonic();
            for _ in 0..calls {
                run();
            }
            best[i] = best[i].min(clock.monotonic().saturating_sub(began) / calls);
        }
    }
    best
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

fn verifier(signer: &LocalSigner, remember: usize) -> Verifier {
    let issuer: Issuer = ISSUER.parse().expect("an issuer");
    let trusted = TrustedIssuer::stagedoor(issuer).audience(API.parse().expect("an audience"));
    let keys = KeySet::new([signer.verifying_key().clone()]);
    Verifier::builder().issuer_with_keys(trusted, keys).remember(remember).build().expect("a verifier")
}

fn main() {
    let clock = SystemClock::default();
    primitives(&clock);
    let args = Args::read();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        hello(&clock, args).await;
        forward_auth(&clock, args).await;
    });
}

#[expect(clippy::disallowed_methods, reason = "the raw primitive wants its own generator")]
fn primitives(clock: &SystemClock) {
    for (alg, limit) in [(Alg::Es256, 1.2), (Alg::Rs256, 1.5)] {
        let signer = LocalSigner::generate(alg).expect("a key");
        let der = signer.to_pkcs8().expect("its form");
        let token = encode_jws(&signer, "at+jwt", &claims(clock)).expect("a token").into_string();
        let (input, signature) = token.rsplit_once('.').expect("three parts");
        let (input, signature) = (input.as_bytes(), URL_SAFE_NO_PAD.decode(signature).expect("base64url"));
        let authorization = format!("Bearer {token}");
        let (cold, warm) = (verifier(&signer, 0), verifier(&signer, 2048));

        let rng = SystemRandom::new();
        let mut out = vec![0; 256];
        let (raw, parsed, mut sign): (_, _, Box<dyn FnMut()>) = if alg == Alg::Es256 {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("a key");
            let public = pair.public_key().as_ref().to_vec();
            let raw = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public.clone());
            let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).expect("a key");
            let sign = move || {
                black_box(pair.sign(&rng, input).expect("signs"));
            };
            (raw, parsed, Box::new(sign))
        } else {
            let pair = RsaKeyPair::from_pkcs8(&der).expect("a key");
            let public = pair.public_key().as_ref().to_vec();
            let raw = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.clone());
            let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).expect("a key");
            (
                raw,
                parsed,
                Box::new(move || {
                    pair.sign(&RSA_PKCS1_SHA256, &rng, input, &mut out).expect("signs");
                    black_box(&out);
                }),
            )
        };
        let [raw, parsed, cold, warm] = best(
            clock,
            200,
            [
                &mut || raw.verify(input, &signature).expect("verifies"),
                &mut || parsed.verify_sig(input, &signature).expect("verifies"),
                &mut || drop(black_box(identify(&cold, [authorization.as_bytes()]).expect("accepted"))),
                &mut || drop(black_box(identify(&warm, [authorization.as_bytes()]).expect("accepted"))),
            ],
        );
        let [raw_sign, our_sign] = best(
            clock,
            if alg == Alg::Es256 { 200 } else { 20 },
            [&mut *sign, &mut || drop(black_box(signer.sign(input)))],
        );
        println!(
            "{alg}: raw check {raw:.2?} (key parsed before: {parsed:.2?}), raw signature {raw_sign:.2?}"
        );
        figure(
            &format!("guard, {alg}: cold over the raw check"),
            ratio(cold, raw),
            "x",
            Asked::AtMost(limit),
        );
        figure(
            &format!("guard, {alg}: a token seen before"),
            warm.as_secs_f64() * 1e6,
            "us",
            Asked::AtMost(2.0),
        );
        figure(
            &format!("signing, {alg}: over the raw primitive"),
            ratio(our_sign, raw_sign),
            "x",
            Asked::AtMost(1.3),
        );
    }
}

#[derive(Clone, Copy)]
struct Args {
    seconds: u64,
    connections: usize,
}

impl Args {
    fn read() -> Self {
        let mut out = Self { seconds: 2, connections: 32 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seconds" => out.seconds = words.next().and_then(|w| w.parse().ok()).unwrap_or(out.seconds),
                "--connections" => {
                    out.connections = words.next().and_then(|w| w.parse().ok()).unwrap_or(out.connections);
                }
                _ => {}
            }
        }
        out
    }
}

/// Requests a second of the best of three rounds at each of two addresses, taken in turns.
async fn rates(clock: &SystemClock, args: Args, of: [(SocketAddr, &str, &str); 2]) -> [f64; 2] {
    let mut best = [0.0_f64; 2];
    for _ in 0..3 {
        for (best, (address, path, token)) in best.iter_mut().zip(of) {
            *best = best.max(load(clock, args, address, path, token).await);
        }
    }
    best
}

/// Keeps so many requests under way on keep-alive connections; how many were answered in a second.
async fn load(clock: &SystemClock, args: Args, address: SocketAddr, path: &str, token: &str) -> f64 {
    let request: Arc<str> =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n").into();
    let (began, whole) = (clock.monotonic(), Duration::from_secs(args.seconds));
    let callers: Vec<_> = (0..args.connections)
        .map(|_| {
            let (request, clock) = (Arc::clone(&request), clock.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("the server listens");
                stream.set_nodelay(true).expect("a TCP option");
                let (mut buffer, mut answered) = (vec![0; 4096], 0_u64);
                while clock.monotonic().saturating_sub(began) < whole {
                    stream.write_all(request.as_bytes()).await.expect("the server reads");
                    answer(&mut stream, &mut buffer).await;
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.expect("no panic");
    }
    answered as f64 / clock.monotonic().saturating_sub(began).as_secs_f64()
}

/// Reads one answer whole; anything but 200 ends the run.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        let text = std::str::from_utf8(&buffer[..filled]).expect("UTF-8");
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
            return;
        }
    }
}

/// The smallest service there is, with the guard and without it.
async fn hello(clock: &SystemClock, args: Args) {
    let signer = LocalSigner::generate(Alg::Es256).expect("a key");
    let token = encode_jws(&signer, "at+jwt", &claims(clock)).expect("a token").into_string();
    let verifier = Arc::new(verifier(&signer, 2048));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Arc::clone(&verifier))
            .route("/open", web::get().to(async || "hello"))
            .route("/guarded", web::get().to(async |_: Impersonable<Read>| "hello"))
    });
    let server = server.workers(2).disable_signals().bind(("127.0.0.1", 0)).expect("a port");
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    let [open, guarded] =
        rates(clock, args, [(address, "/open", &token), (address, "/guarded", &token)]).await;
    figure("actix hello: with the guard over without it", guarded / open, "x", Asked::AtLeast(0.85));
    handle.stop(false).await;
}

/// The whole service: a gate against the route that does nothing.
async fn forward_auth(clock: &SystemClock, args: Args) {
    let dir = tempfile::tempdir().expect("a directory");
    let signer = LocalSigner::generate(Alg::Es256).expect("a key");
    let jwks = KeySet::new([signer.verifying_key().clone()]).to_jwks();
    std::fs::write(dir.path().join("home.json"), jwks.to_string()).expect("a file");
    let token = encode_jws(&signer, "at+jwt", &claims(clock)).expect("a token").into_string();
    let running = service(dir.path(), clock).await;
    let address = running.address;
    let [health, gate] =
        rates(clock, args, [(address, "/healthz", &token), (address, "/v1/forward_auth", &token)]).await;
    figure("forward_auth over /healthz", gate / health, "x", Asked::AtLeast(0.6));
    running.stop().await.expect("a clean stop");
}

async fn service(dir: &Path, clock: &SystemClock) -> app::Running {
    let place = dir.display();
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = \"{place}\"\ndatabase_url = \"sqlite://{place}/bench.db\"\n\
         [[issuers]]\niss = \"{ISSUER}\"\njwks_file = \"{place}/home.json\"\naudiences = [\"{API}\"]\ntyp = [\"at+jwt\"]\nclients = [\"bench\"]\n\
         [[gates]]\nname = \"default\"\naudience = \"{API}\"\nimpersonation = true\n"
    );
    let config = Config::parse("bench", &text, &Environment::default()).expect("settings");
    let db = Db::create(config.database_url.expose()).await.expect("a database");
    store::migrate(&db, db.user()).await.expect("migrations");
    let master = MasterKey::create(&dir.join("master.key"), &SystemEntropy).expect("a master key");
    keyring::make_initial(&db, &master, Alg::Es256, clock.now(), &SystemEntropy).await.expect("keys");
    db.close().await;
    app::start(Setup::new(config)).await.expect("the service starts")
}
