//! Issuers that no real provider can be made into.

use serde_json::{Value, json};
use stagedoor::server::actors::{ActorTokenError, Declared, KeySource};
use stagedoor::token::{Alg, Clock as _, Invalid, KeySet, LocalSigner, Signer as _, encode_jws};

use super::faulty::{Asked, Faulty, http, json};
use super::issuers::{Stage, config};

pub fn jwks(signer: &LocalSigner) -> Value {
    KeySet::new([signer.verifying_key().clone()]).to_jwks()
}

pub fn token(signer: &LocalSigner, stage: &Stage, issuer: &str) -> String {
    let now = stage.clock.now().timestamp();
    let claims = json!({
        "iss": issuer, "sub": "admin_7", "aud": "https://stagedoor.example", "client_id": "billing-bot",
        "iat": now, "exp": now + 60, "jti": "j",
    });
    encode_jws(signer, "at+jwt", &claims).unwrap().into_string()
}

#[tokio::test]
async fn what_is_no_key_set_or_too_much_of_one_is_refused_and_leaves_the_good_keys() {
    let signer = LocalSigner::generate(Alg::Es256).unwrap();
    let good = jwks(&signer);
    let published = good.clone();
    let server = Faulty::start(move |_| json(&published)).await;
    let mut config = config(&server.base);
    config.source = KeySource::JwksUrl(format!("{}/jwks", server.base));
    let stage = Stage::new(config, &[&server.base]);
    stage.actors.refresh().await;
    let token = token(&signer, &stage, &server.base);
    assert!(stage.verify(&token, Declared::Jwt).await.is_ok());

    let key = good["keys"][0].clone();
    let numbered = |n: usize| {
        let mut key = key.clone();
        key["kid"] = json!(format!("k{n}"));
        key
    };
    let thousand = json!({ "keys": (0..1000).map(numbered).collect::<Vec<_>>() }).to_string();
    let ten_megabytes = json!({ "keys": [key], "padding": "x".repeat(10 * 1024 * 1024) }).to_string();
    let base = server.base.clone();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("more than 64 keys", http("200 OK", "application/json", thousand)),
        ("longer than 1048576 bytes", http("200 OK", "application/json", ten_megabytes)),
        (
            "redirect",
            format!("HTTP/1.1 302 Found\r\nLocation: {base}/jwks\r\nContent-Length: 0\r\n\r\n").into(),
        ),
        ("no array `keys`", json(&json!([]))),
        ("not valid JSON", http("200 OK", "application/json", "<html>")),
        ("repeats a member name", http("200 OK", "application/json", r#"{"keys":[],"keys":[]}"#)),
        ("status 404", http("404 Not Found", "application/json", "{}")),
        ("failed", b"not http at all\r\n\r\n".to_vec()),
    ];
    for (want, answer) in rows {
        server.answer_with(move |_| answer.clone());
        let before = server.asked().len();
        stage.clock.push(300);
        stage.actors.refresh().await;
        assert_eq!(server.asked().len() - before, 1, "{want}: one question, nothing followed");
        let error = stage.actors.status().remove(0).1.last_error.unwrap_or_default();
        assert!(error.contains(want), "{want}: {error}");
        assert!(stage.verify(&token, Declared::Jwt).await.is_ok(), "{want}: the good keys stay");
    }
}

/// It answered, so it is not away: keys that it withdrew end at once, and come back when it publishes them again.
#[tokio::test]
async fn a_key_set_without_a_usable_key_ends_the_keys_that_were_known() {
    let signer = LocalSigner::generate(Alg::Es256).unwrap();
    let good = jwks(&signer);
    let server = Faulty::start(|_| Vec::new()).await;
    let mut config = config(&server.base);
    config.source = KeySource::JwksUrl(format!("{}/jwks", server.base));
    let stage = Stage::new(config, &[&server.base]);
    let token = token(&signer, &stage, &server.base);
    let symmetric = json!({ "keys": [{ "kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256" }] });
    for nothing in [json!({ "keys": [] }), symmetric] {
        let published = good.clone();
        server.answer_with(move |_| json(&published));
        stage.clock.push(300);
        stage.actors.refresh().await;
        assert!(stage.verify(&token, Declared::Jwt).await.is_ok());
        let published = nothing.clone();
        server.answer_with(move |_| json(&published));
        stage.clock.push(300);
        stage.actors.refresh().await;
        let status = stage.actors.status().remove(0).1;
        assert_eq!((status.keys, status.age_seconds), (Some(0), None), "{nothing}: the metric says so");
        let got = stage.verify(&token, Declared::Jwt).await.map(drop);
        assert_eq!(got, Err(ActorTokenError::from(Invalid::KeyUnknown)), "{nothing}");
    }
}

#[tokio::test]
async fn discovery_leads_nowhere_but_to_configured_hosts() {
    let signer = LocalSigner::generate(Alg::Es256).unwrap();
    let keys = jwks(&signer);
    let elsewhere = Faulty::start(move |_| json(&keys)).await;
    let server = Faulty::start(|_| Vec::new()).await;
    let (issuer, other) = (server.base.clone(), elsewhere.base.clone());
    let port = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
    let rows = [
        (format!("{other}/jwks"), "not among the configured hosts"),
        (format!("http://localhost:{}/jwks", port(&issuer)), "not among the configured hosts"),
        ("http://169.254.169.254/latest/meta-data".to_owned(), "https is needed"),
        ("https://169.254.169.254/latest/meta-data".to_owned(), "not among the configured hosts"),
        ("file:///etc/passwd".to_owned(), "not a plain http or https URL"),
        (format!("http://user:pass@127.0.0.1:{}/jwks", port(&issuer)), "not a plain http or https URL"),
        ("/jwks".to_owned(), "not a plain http or https URL"),
    ];
    for (jwks_uri, want) in rows {
        let stage = Stage::new(config(&issuer), &[&issuer]);
        let metadata = json!({ "issuer": issuer, "jwks_uri": jwks_uri });
        server.answer_with(move |_: &Asked| json(&metadata));
        stage.actors.refresh().await;
        let error = stage.actors.status().remove(0).1.last_error.unwrap_or_default();
        assert!(error.contains(want), "{jwks_uri}: {error}");
        let got = stage.verify(&token(&signer, &stage, &issuer), Declared::Jwt).await;
        assert!(matches!(got, Err(ActorTokenError::Unreachable { .. })), "{jwks_uri}: {got:?}");
    }
    assert_eq!(elsewhere.asked().len(), 0);
    // The counter-proof: where the other host is configured, its keys are taken.
    let stage = Stage::new(config(&issuer), &[&issuer, &other]);
    let metadata = json!({ "issuer": issuer, "jwks_uri": format!("{other}/jwks") });
    server.answer_with(move |_: &Asked| json(&metadata));
    stage.actors.refresh().await;
    assert!(stage.verify(&token(&signer, &stage, &issuer), Declared::Jwt).await.is_ok());
}
