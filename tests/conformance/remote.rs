//! Keys from afar: there before the first request, fresh after it, and never waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use stagedoor::guard::remote::{RemoteError, RemoteKeys};
use stagedoor::token::{FixedClock, Invalid, LocalSigner, TrustedIssuer, Verifier};

use crate::fixtures::{API, ES256, NOW, RS256, STAGEDOOR, claims, header, issuer, keys, sign};

/// A key set server whose answer can be changed.
#[derive(Clone, Default)]
struct Jwks {
    answer: Arc<Mutex<(u16, String)>>,
    fetches: Arc<AtomicUsize>,
}

impl Jwks {
    fn say(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn publish(&self, signers: &[&LocalSigner]) {
        self.say(200, &keys(signers).to_jwks().to_string());
    }

    async fn serve(&self) -> String {
        async fn answer(State(jwks): State<Jwks>) -> Response {
            jwks.fetches.fetch_add(1, Ordering::SeqCst);
            let (status, body) = jwks.answer.lock().unwrap().clone();
            if status == 302 {
                return Redirect::temporary(&body).into_response();
            }
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
        let app = axum::Router::new().route("/jwks", get(answer)).with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        actix_web::rt::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/jwks")
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

fn verifier() -> Arc<Verifier> {
    let trusted = TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(API.parse().unwrap());
    let clock = Arc::new(FixedClock::at_seconds(NOW));
    Arc::new(Verifier::builder().issuer(trusted).clock(clock).build().unwrap())
}

fn remote(verifier: &Arc<Verifier>, url: &str) -> RemoteKeys {
    RemoteKeys::of(verifier)
        .jwks(&issuer(STAGEDOOR), url)
        .unwrap()
        .min_interval(Duration::from_millis(50))
        .ready_within(Duration::from_secs(5))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[actix_web::test]
async fn keys_are_there_before_the_first_request() {
    let jwks = Jwks::default();
    jwks.publish(&[&ES256]);
    let verifier = verifier();
    let token = sign(&ES256, &header(&ES256), &claims());
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::KeysUnavailable);
    let _keys = remote(&verifier, &jwks.serve().await).start().await.unwrap();
    assert!(verifier.is_ready() && verifier.verify(&token).is_ok());
}

#[actix_web::test]
async fn an_unknown_key_id_fetches_anew_without_making_the_request_wait() {
    let jwks = Jwks::default();
    jwks.publish(&[&ES256]);
    let verifier = verifier();
    let _keys = remote(&verifier, &jwks.serve().await).start().await.unwrap();
    jwks.publish(&[&ES256, &RS256]);
    let token = sign(&RS256, &header(&RS256), &claims());
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::KeyUnknown, "answered at once, from memory");
    eventually("the new key is known", || verifier.verify(&token).is_ok()).await;
}

#[actix_web::test]
async fn a_flood_of_unknown_key_ids_fetches_seldom() {
    let jwks = Jwks::default();
    jwks.publish(&[&ES256]);
    let verifier = verifier();
    let slow = remote(&verifier, &jwks.serve().await).min_interval(Duration::from_mins(1));
    let _keys = slow.start().await.unwrap();
    let token = sign(&RS256, &header(&RS256), &claims());
    for _ in 0..1000 {
        assert!(verifier.verify(&token).is_err());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(jwks.fetches(), 1);
}

#[actix_web::test]
async fn keys_outlive_an_issuer_that_fails() {
    let jwks = Jwks::default();
    jwks.publish(&[&ES256]);
    let verifier = verifier();
    let url = jwks.serve().await;
    let _keys = remote(&verifier, &url).refresh_every(Duration::from_millis(20)).start().await.unwrap();
    let token = sign(&ES256, &header(&ES256), &claims());
    let large = " ".repeat(1024 * 1024 + 1);
    let answers = [
        (500, "{}"),
        (200, "not json"),
        (200, r#"{"keys":{}}"#),
        (200, large.as_str()),
        (302, "https://evil.example/jwks"),
    ];
    for (status, body) in answers {
        jwks.say(status, body);
        let before = jwks.fetches();
        eventually("it was asked again", || jwks.fetches() > before).await;
        assert!(verifier.verify(&token).is_ok(), "{status}");
        jwks.publish(&[&ES256]);
        let before = jwks.fetches();
        eventually("it recovered", || jwks.fetches() > before).await;
    }
    jwks.publish(&[&RS256]);
    eventually("a withdrawn key ends", || verifier.verify(&token).is_err()).await;
}

#[actix_web::test]
async fn start_says_when_keys_do_not_arrive() {
    let jwks = Jwks::default();
    jwks.say(503, "");
    let verifier = verifier();
    let remote = remote(&verifier, &jwks.serve().await).ready_within(Duration::from_millis(300));
    assert!(matches!(remote.start().await, Err(RemoteError::NotReady(_))));
    let stranger =
        RemoteKeys::of(&verifier).jwks(&issuer("https://other.example"), "https://other.example/jwks");
    assert!(matches!(stranger, Err(RemoteError::Issuer(_))));
}
