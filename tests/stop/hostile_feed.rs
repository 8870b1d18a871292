//! A guard whose service is impersonated: what is replayed, downgraded or forged changes nothing that is known,
//! and makes nothing look fresher than it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use stagedoor::guard::remote::{FeedSignal, Knowledge, RemoteRevocations, RevocationsHandle};
use stagedoor::token::feed::{FEED_TYP, FeedDocument, FeedError, FeedKind};
use stagedoor::token::revocation::{Revocations as _, Standing};
use stagedoor::token::{
    Alg, Clock, Issuer, KeySet, LocalSigner, Signer as _, SystemClock, TrustedIssuer, Verified, Verifier,
    encode_jws,
};

use crate::site::{AUDIENCE, ISSUER, until};

/// A service that says whatever it is told to.
#[derive(Clone)]
struct Liar {
    key: Arc<LocalSigner>,
    says: Arc<Mutex<String>>,
}

impl Liar {
    fn new() -> Self {
        Self { key: Arc::new(LocalSigner::generate(Alg::Es256).unwrap()), says: Arc::default() }
    }

    async fn serve(&self) -> String {
        async fn keys(State(liar): State<Liar>) -> String {
            KeySet::new([liar.key.verifying_key().clone()]).to_jwks().to_string()
        }
        async fn snapshot(State(liar): State<Liar>) -> String {
            liar.says.lock().unwrap().clone()
        }
        // no stream: a guard polls
        let app = axum::Router::new()
            .route("/v1/revocations/jwks", get(keys))
            .route("/v1/revocations", get(snapshot))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    fn say(&self, document: &FeedDocument) {
        self.say_as(&self.key, FEED_TYP, document);
    }

    fn say_as(&self, key: &LocalSigner, typ: &str, document: &FeedDocument) {
        *self.says.lock().unwrap() = encode_jws(key, typ, document).unwrap().into_string();
    }
}

fn now_ms() -> i64 {
    SystemClock::default().now().timestamp_millis()
}

fn snapshot(epoch: u32, seq: i64, read_ms: i64, sids: &[&str]) -> FeedDocument {
    let iat = read_ms.div_euclid(1000);
    FeedDocument {
        iss: ISSUER.parse().unwrap(),
        iat,
        read_ms,
        exp: iat + 60,
        next_update: iat + 1,
        kind: FeedKind::Snapshot,
        epoch,
        seq,
        prev: None,
        kids: Vec::new(),
        clients: BTreeMap::new(),
        all: None,
        sids: sids.iter().map(|s| (*s).to_owned()).collect(),
    }
}

struct Guard {
    knowledge: Arc<Knowledge>,
    refused: Arc<Mutex<Vec<FeedError>>>,
    _handle: RevocationsHandle,
}

impl Guard {
    async fn of(base: &str) -> Self {
        let issuer: Issuer = ISSUER.parse().unwrap();
        let refused = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&refused);
        let remote =
            RemoteRevocations::of(&issuer, base).unwrap().stale_after_seconds(2).observe(move |signal| {
                if let FeedSignal::Refused(error) = signal {
                    heard.lock().unwrap().push(error);
                }
            });
        let knowledge = remote.knowledge();
        Self { knowledge, refused, _handle: remote.start().await.unwrap() }
    }

    fn has_refused(&self, wanted: impl Fn(&FeedError) -> bool) -> bool {
        self.refused.lock().unwrap().iter().any(wanted)
    }
}

/// A verified token of grant `act_gone`.
fn token(signer: &LocalSigner) -> Arc<Verified> {
    let now = SystemClock::default().now().timestamp();
    let claims = serde_json::json!({
        "iss": ISSUER, "sub": "user_42", "aud": AUDIENCE, "exp": now + 900, "iat": now, "nbf": now, "jti": "j",
        "client_id": "client_1", "scope": "read", "sid": "act_gone", "actor_assurance": "asserted",
        "act": { "sub": "admin_7" },
    });
    let trusted = TrustedIssuer::stagedoor(ISSUER.parse().unwrap()).audience(AUDIENCE.parse().unwrap());
    let keys = KeySet::new([signer.verifying_key().clone()]);
    let verifier = Verifier::builder().issuer_with_keys(trusted, keys).build().unwrap();
    verifier.verify(encode_jws(signer, "at+jwt", &claims).unwrap().as_str()).unwrap()
}

/// What the service comes to say, and what the guard has to see in it.
type Says = Box<dyn Fn(&Liar)>;
type Refused = fn(&FeedError) -> bool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replayed_downgraded_or_forged_changes_nothing_and_the_guard_closes() {
    let thief = LocalSigner::generate(Alg::Es256).unwrap();
    let good = |seq| snapshot(2, seq, now_ms(), &["act_gone"]);
    let other = FeedDocument { iss: "https://other.test".parse().unwrap(), ..snapshot(2, 30, now_ms(), &[]) };
    let heartbeat =
        FeedDocument { kind: FeedKind::Heartbeat, prev: Some(25), ..snapshot(2, 30, now_ms(), &[]) };
    let younger = FeedDocument { read_ms: now_ms() + 30_000, ..snapshot(2, 30, now_ms(), &[]) };
    let cases: Vec<(&str, Says, Refused)> = vec![
        ("a replay", Box::new(|l| l.say(&snapshot(2, 9, now_ms(), &[]))), |e| *e == FeedError::Older),
        ("the same, read earlier", Box::new(|l| l.say(&snapshot(2, 10, now_ms() - 60_000, &[]))), |e| {
            *e == FeedError::Older
        }),
        ("a time an hour ahead", Box::new(|l| l.say(&snapshot(2, 12, now_ms() + 3_600_000, &[]))), |e| {
            *e == FeedError::Future
        }),
        ("an epoch before", Box::new(|l| l.say(&snapshot(1, 99, now_ms(), &[]))), |e| *e == FeedError::Older),
        ("a forgery", Box::new(move |l| l.say_as(&thief, FEED_TYP, &snapshot(2, 30, now_ms(), &[]))), |e| {
            matches!(e, FeedError::Invalid(_))
        }),
        ("an access token", Box::new(|l| l.say_as(&l.key, "at+jwt", &snapshot(2, 30, now_ms(), &[]))), |e| {
            *e == FeedError::Typ
        }),
        ("another issuer's", Box::new(move |l| l.say(&other)), |e| *e == FeedError::Issuer),
        ("a heartbeat over a gap", Box::new(move |l| l.say(&heartbeat)), |e| *e == FeedError::Gap),
        ("made to look younger", Box::new(move |l| l.say(&younger)), |e| *e == FeedError::Claims),
        ("no document", Box::new(|l| *l.says.lock().unwrap() = "{}".into()), |e| {
            matches!(e, FeedError::Invalid(_))
        }),
    ];
    let token = token(&LocalSigner::generate(Alg::Es256).unwrap());
    let now = || SystemClock::default().now();
    let (token, good) = (&token, &good);
    let each = cases.iter().map(|(name, say, refused)| async move {
        let liar = Liar::new();
        liar.say(&good(10));
        let guard = Guard::of(&liar.serve().await).await;
        assert!(!guard.knowledge.is_stale(now()), "{name}: fresh at first");
        say(&liar);
        until(name, || async { guard.has_refused(refused) }).await;
        let began = SystemClock::default();
        // nothing that was said since makes it fresher, and what is revoked stays so
        until(&format!("closed after {name}"), || async {
            assert_eq!(guard.knowledge.standing(token, now()), Standing::Revoked, "{name}");
            guard.knowledge.is_stale(now())
        })
        .await;
        assert!(began.monotonic() < Duration::from_secs(4), "{name}: {:?}", guard.refused.lock().unwrap());
        liar.say(&good(11));
        until("the true service is heard again", || async {
            // freshness counts from what was signed, so it is signed anew while this is waited for
            liar.say(&good(11));
            !guard.knowledge.is_stale(now())
        })
        .await;
    });
    futures_util::future::join_all(each).await;
}
