//! What proving costs: a mint by an actor with his own login token, looked up in a directory and judged by the shipped
//! policy, against one whose actor a client names, without directory, as ratios in one run.
//!
//! `cargo bench --bench who`. "Seen": the same login token again and again, which is remembered; "not seen": more
//! tokens in turn than the memory holds, so that every one's signature is checked.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

#[path = "shared/allocator.rs"]
mod allocator;
#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;
#[path = "shared/load.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod load;
#[path = "shared/ours.rs"]
mod ours;

use std::net::SocketAddr;
use std::path::Path;

use figures::{Asked, figure};
use load::{Load, Until, load, load_each, post};
use ours::{on_sqlite, request, service_with};
use serde_json::json;
use stagedoor::token::{Alg, Clock as _, KeySet, LocalSigner, Signer as _, SystemClock, encode_jws};

const CONNECTIONS: usize = 64;
const RUN: Until = Until::Seconds(5);
/// More than the service remembers.
const TOKENS: usize = 60_000;
const LOGIN: &str = "https://login.example.com";
const US: &str = "https://stagedoor.example.com";

#[tokio::main]
async fn main() {
    let (running, secret, _dir) = on_sqlite(256).await;
    let mint = request(running.address, "/v1/actor_tokens", &secret);
    let asserted = load(running.address, mint, CONNECTIONS, RUN).await;
    running.stop().await.expect("a clean stop");
    show("asserted, no directory", asserted);

    let dir = tempfile::tempdir().expect("a directory");
    let signer = LocalSigner::generate(Alg::Es256).expect("a key");
    let url = format!("sqlite://{}/bench.db", dir.path().display());
    let (running, secret) = service_with(&url, &url, dir.path(), 256, &company(dir.path(), &signer)).await;
    let mut requests = mints(running.address, &secret, &signer);
    let one = requests[0].clone();
    let seen = load(running.address, one, CONNECTIONS, RUN).await;
    show("verified, file directory, shipped policy; seen", seen);
    requests.swap_remove(0);
    let fresh = load_each(running.address, requests, CONNECTIONS, RUN, |_| {}).await;
    show("verified, file directory, shipped policy; not seen", fresh);
    running.stop().await.expect("a clean stop");

    let over = |load: Load| load.per_second / asserted.per_second;
    figure("mint by a verified actor over an asserted one, seen", over(seen), "x", Asked::AtLeast(0.7));
    figure("mint by a verified actor over an asserted one, not seen", over(fresh), "x", Asked::Nothing);
}

/// An issuer with a key of its own, and a directory of people in a file.
fn company(dir: &Path, signer: &LocalSigner) -> String {
    let (jwks, people) = (dir.join("jwks.json"), dir.join("people.json"));
    let keys = KeySet::new([signer.verifying_key().clone()]);
    std::fs::write(&jwks, keys.to_jwks().to_string()).expect("the issuer's keys");
    let person = |id: String, role: &str| json!({ "id": id, "active": true, "org": "acme", "roles": [role] });
    let mut all: Vec<_> = (0..1000).map(|n| person(format!("user_{n}"), "customer")).collect();
    all.push(person("admin_7".into(), "support"));
    std::fs::write(&people, json!({ "people": all }).to_string()).expect("the people");
    format!(
        "issuer = \"{US}\"\n[directory]\nkind = \"file\"\npath = \"{}\"\n[[issuers]]\niss = \"{LOGIN}\"\njwks_file = \"{}\"\n\
         audiences = [\"{US}\"]\nclients = [\"tool\"]\nroles_path = \"roles\"\n",
        people.display(),
        jwks.display(),
    )
}

/// Mints, each with another login token of the same person.
fn mints(address: SocketAddr, secret: &str, signer: &LocalSigner) -> Vec<String> {
    let now = SystemClock::default().now().timestamp();
    let headers = format!("Authorization: Bearer {secret}\r\nContent-Type: application/json\r\n");
    let mint = |n: usize| {
        let claims = json!({
            "iss": LOGIN, "sub": "admin_7", "aud": US, "client_id": "tool", "iat": now - 1, "exp": now + 600,
            "jti": format!("login-{n}"), "roles": ["support"],
        });
        let token = encode_jws(signer, "at+jwt", &claims).expect("a login token");
        let body = json!({
            "user_id": "user_42", "actor_token": token.into_string(), "reason": "Ticket 4711: invoice missing",
            "ticket": "4711",
        });
        post(address, "/v1/actor_tokens", &headers, &body.to_string())
    };
    (0..TOKENS).map(mint).collect()
}

fn show(what: &str, seen: Load) {
    println!("{what:<54} {:>7.0} /s  p50 {:>7.2?}  p99 {:>7.2?}", seen.per_second, seen.p50, seen.p99);
}
