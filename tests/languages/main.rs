//! Other languages, with libraries as they come from npm and `PyPI`: stock verifiers read tokens of the default
//! profile, Clerk's SDKs work unmodified, the recipes follow revocations, generated clients and schemathesis find the
//! contract kept.
#![cfg(feature = "server")]

mod clerk;
mod feed;
mod generated;
#[path = "../support/processes.rs"]
mod processes;
#[path = "../support/recipes.rs"]
mod recipes;
mod served;

use std::io::Write as _;
use std::process::Stdio;

use chrono::{TimeDelta, Timelike as _};
use serde_json::{Value, json};
use stagedoor::server::cli::conformance::keys::TestKey;
use stagedoor::server::cli::conformance::serve::KeyServer;
use stagedoor::token::{
    Act, ActorClaims, Alg, Assurance, ClientId, Clock as _, GrantId, Jti, Scope, SystemClock, SystemEntropy,
    encode_jws,
};

use recipes::Runtime;

const API: &str = "https://api.example.com";

/// What a mint releases: same claims, same writer, same header.
fn actor_token(issuer: &str, key: &TestKey) -> String {
    let now = SystemClock::default().now().with_nanosecond(0).unwrap();
    let claims = ActorClaims {
        iss: issuer.parse().unwrap(),
        sub: "user_42".parse().unwrap(),
        aud: vec![API.parse().unwrap()],
        exp: now + TimeDelta::seconds(600),
        iat: now,
        nbf: now,
        jti: Jti::generate(now, &SystemEntropy),
        client_id: ClientId::generate(now, &SystemEntropy),
        scope: Scope::parse("read").unwrap(),
        sid: GrantId::generate(now, &SystemEntropy),
        actor_assurance: Assurance::Verified,
        azp: None,
        break_glass: false,
        act: Act {
            sub: "admin_7".parse().unwrap(),
            iss: Some("https://people.example".parse().unwrap()),
            act: None,
        },
    };
    encode_jws(key.signer(), "at+jwt", &claims).unwrap().into_string()
}

/// Has the script look at two tokens of each algorithm, ours and a forged one; (library, algorithm) → what it said.
async fn verdicts(runtime: Runtime, script: &str) -> Vec<(String, String, Value)> {
    let keys = Alg::SIGNING.map(|alg| TestKey::generate(alg).unwrap());
    let nobody = TestKey::generate(Alg::Es256).unwrap();
    let server = KeyServer::start("127.0.0.1:0".parse().unwrap(), &keys, &nobody, None).unwrap();
    let issuer = server.issuer().to_owned();
    let mut tokens = serde_json::Map::new();
    for key in &keys {
        let forger = TestKey::generate(key.alg()).unwrap().named(key.kid());
        tokens.insert(key.alg().name().to_owned(), actor_token(&issuer, key).into());
        tokens.insert(format!("{} forged", key.alg().name()), actor_token(&issuer, &forger).into());
    }
    let jwks_uri = format!("{issuer}/.well-known/jwks.json");
    let ask = json!({ "issuer": issuer, "audience": API, "jwksUri": jwks_uri, "tokens": tokens }).to_string();
    let mut command = runtime.command(script);
    let output = tokio::task::spawn_blocking(move || {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        child.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    server.stop().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |result: &Value, name: &str| result[name].as_str().unwrap_or_default().to_owned();
    results.into_iter().map(|r| (text(&r, "library"), text(&r, "alg"), r)).collect()
}

/// Every library takes every algorithm, but for those that the library does not have, and nothing forged.
fn all_accept(verdicts: &[(String, String, Value)], libraries: &[&str], exceptions: &[(&str, &str)]) {
    for library in libraries {
        for alg in Alg::SIGNING {
            let of = verdicts.iter().find(|(l, a, _)| l == library && a == alg.name());
            let (_, _, verdict) = of.unwrap_or_else(|| panic!("{library} was not asked about {alg}"));
            let read = verdict["sub"] == "user_42" && verdict["actor"] == "admin_7";
            let excepted = exceptions.contains(&(*library, alg.name()));
            assert_eq!(read, !excepted, "{library} {alg}: {verdict}");
            let forged = format!("{} forged", alg.name());
            let of = verdicts.iter().find(|(l, a, _)| l == library && *a == forged);
            let (_, _, verdict) = of.unwrap_or_else(|| panic!("{library} was not asked about {forged}"));
            assert!(verdict["error"].is_string(), "{library} {forged}: {verdict}");
        }
    }
}

/// Issue 6 §5, AT-2. jsonwebtoken knows no `EdDSA`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_verifiers_of_node_read_our_tokens() {
    if !Runtime::Node.is_here("stock_verifiers_of_node_read_our_tokens") {
        return;
    }
    let verdicts = verdicts(Runtime::Node, "tests/recipes/node/accepts.mjs").await;
    let libraries = ["jose", "jsonwebtoken+jwks-rsa", "fast-jwt", "aws-jwt-verify"];
    all_accept(&verdicts, &libraries, &[("jsonwebtoken+jwks-rsa", "EdDSA")]);
}

/// Issue 6 §5. joserfc, and Authlib with it, wants to be told before it takes what RFC 9864 calls deprecated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_verifiers_of_python_read_our_tokens() {
    if !Runtime::Python.is_here("stock_verifiers_of_python_read_our_tokens") {
        return;
    }
    let verdicts = verdicts(Runtime::Python, "tests/recipes/python/accepts.py").await;
    all_accept(&verdicts, &["PyJWT", "joserfc", "Authlib"], &[("Authlib", "EdDSA")]);
}
