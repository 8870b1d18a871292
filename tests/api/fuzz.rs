//! Mutated input at every door, through real HTTP: nothing panics, no answer is a 500 or outside the contract, and no
//! changed token is ever active.
//!
//! In CI a short run from a fixed seed. Longer, and from another seed (printed with what failed):
//! Mutated is what stands in `tests/corpora`: a finding goes there.
//! `FUZZ_SECONDS=300 FUZZ_SEED=7 cargo test --all-features --test api fuzz -- --nocapture`

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::json;
use stagedoor::server::policy::{Policy, Source};

use crate::support::app::{Database, NewClient, TestApp, TestClient, mint_body};
use crate::support::dice::{Run, corpus};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

async fn app() -> (TestApp, TestClient) {
    let app = TestApp::start(Database::Sqlite).await.expect("SQLite is always there");
    let client = app
        .client(NewClient {
            scopes: &[
                "actor_tokens:issue",
                "actor_tokens:assert_actor",
                "actor_tokens:read",
                "actor_tokens:revoke",
                "actor_tokens:redeem",
                "tokens:verify",
                "audit:read",
            ],
            ..NewClient::minter()
        })
        .await;
    (app, client)
}

async fn bodies(target: &'static str, path: &str, media: &str) {
    let (app, client) = app().await;
    let send = async |body: Vec<u8>| {
        let call = client.api.call(Method::POST, path).header("content-type", media).bytes(body.clone());
        let reply = call.send().await;
        assert!(reply.status.as_u16() < 500, "{path}: {}: {reply:?}", String::from_utf8_lossy(&body));
    };
    let seeds = corpus(target);
    for seed in &seeds {
        send(seed.clone()).await;
    }
    let mut run = Run::new(target, 250);
    while let Some(dice) = run.next() {
        send(dice.mutate(&seeds)).await;
    }
    app.api.get("/healthz").await.ok();
}

#[tokio::test]
async fn mint_bodies() {
    bodies("mint-bodies", "/v1/actor_tokens", JSON).await;
}

#[tokio::test]
async fn explain_bodies() {
    bodies("mint-bodies", "/v1/policy/explain", JSON).await;
}

#[tokio::test]
async fn redeem_and_revocation_bodies() {
    bodies("redeem-bodies", "/v1/actor_tokens/redeem", JSON).await;
    bodies("revocation-bodies", "/v1/revocations", JSON).await;
}

#[tokio::test]
async fn oauth_forms() {
    bodies("oauth-forms", "/oauth/token", FORM).await;
    bodies("oauth-forms", "/oauth/introspect", FORM).await;
}

#[tokio::test]
async fn tokens_in_every_part() {
    let (_app, client) = app().await;
    let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
    let mut run = Run::new("tokens", 500);
    while let Some(dice) = run.next() {
        let changed = dice.mutate_token(&token);
        if changed == token {
            continue;
        }
        let reply = client.api.verify(&changed).await;
        assert!(reply.status.as_u16() < 500, "{changed}: {reply:?}");
        assert_ne!(reply.json()["active"], true, "a changed token is active: {changed}");
    }
    assert_eq!(client.api.verify(&token).await.ok()["active"], true, "the honest one still is");
}

#[tokio::test]
async fn client_assertions() {
    let (app, client) = app().await;
    let claims = json!({ "iss": client.id, "sub": client.id, "aud": app.issuer, "jti": "j", "exp": 4_000_000_000_u64, "iat": 1 });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let assertion =
        format!("{}.{}.{}", part(json!({ "alg": "ES256", "kid": "k" })), part(claims), "A".repeat(86));
    let mut run = Run::new("client assertions", 300);
    while let Some(dice) = run.next() {
        let changed = dice.mutate_token(&assertion);
        let form = [
            ("token", "x"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", changed.as_str()),
        ];
        let reply = app.api.call(Method::POST, "/oauth/introspect").form(&form).send().await;
        assert!((400..500).contains(&reply.status.as_u16()), "{changed}: {reply:?}");
    }
}

#[tokio::test]
async fn tile_paths_and_queries() {
    let (_app, client) = app().await;
    let (paths, queries) = (corpus("tile-paths"), corpus("audit-queries"));
    // any byte can stand in a path or a query, percent-encoded
    let encode = |bytes: &[u8], kept: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || kept.contains(byte) {
                out.push(char::from(*byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
    };
    let mut run = Run::new("tile paths and queries", 400);
    while let Some(dice) = run.next() {
        let path = if dice.roll(2) == 0 {
            format!("/v1/audit/log/tile/{}", encode(&dice.mutate(&paths), b"/-_"))
        } else {
            format!("/v1/audit/entries?{}", encode(&dice.mutate(&queries), b"&=-_%"))
        };
        // dot segments are resolved before they are sent: they would ask for another path
        if path.contains("%2E%2E") || path.contains("/.") || path.contains("%2E/") || path.ends_with("%2E") {
            continue;
        }
        let reply = client.api.call(Method::GET, &path).send_unchecked().await;
        assert!(reply.status.as_u16() < 500, "{path}: {reply:?}");
    }
}

#[test]
fn policy_texts() {
    let seeds = corpus("policy-texts");
    for seed in &seeds {
        let text = std::str::from_utf8(seed).unwrap();
        Policy::load("corpus", &[Source { file: "corpus", text }])
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }
    let mut run = Run::new("policy texts", 2000);
    while let Some(dice) = run.next() {
        let text = String::from_utf8_lossy(&dice.mutate(&seeds)).into_owned();
        // refused or taken: what matters is that it comes back
        let _ = Policy::load("fuzz", &[Source { file: "fuzz.cedar", text: &text }]);
    }
}
