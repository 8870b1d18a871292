//! The revocation feed as the recipes of Node and Python read it (issue 6 §5; contract.md §7): a real revoke, a
//! service that is gone, and documents that must not be believed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stagedoor::server::cli::conformance::keys::{TestKey, jwks};
use stagedoor::token::{Alg, Clock as _, SystemClock, encode_jws};

use crate::processes::{Running, free_port};
use crate::recipes::Runtime;
use crate::served::{Served, http};
use crate::{API, actor_token};

const FEED: &str = "stagedoor-revocations+jwt";

/// A service that follows `issuer` with the recipe, and what it says of tokens.
struct Follower {
    _running: Running,
    url: String,
    http: reqwest::Client,
}

impl Follower {
    fn start(runtime: Runtime, issuer: &str, every_ms: u32) -> Self {
        let port = free_port().to_string();
        let script = match runtime {
            Runtime::Node => {
                runtime.command("docs/languages/node/revocations.mjs"); // copied to where its packages are
                "tests/recipes/node/follows.mjs"
            }
            Runtime::Python => "tests/recipes/python/follows.py",
        };
        let every = every_ms.to_string();
        let env = [("STAGEDOOR", issuer), ("AUDIENCE", API), ("PORT", &port), ("EVERY_MS", &every)];
        Self {
            _running: Running::start(runtime.command(script).envs(env)),
            url: format!("http://127.0.0.1:{port}/"),
            http: http(),
        }
    }

    /// `in`, `revoked`, `stale`; nothing before it listens.
    async fn says(&self, token: &str) -> String {
        match self.http.get(&self.url).bearer_auth(token).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Waits until it says so, and for how long that took.
    async fn until(&self, token: &str, wanted: &str) -> Duration {
        let clock = SystemClock::default();
        loop {
            let said = self.says(token).await;
            if said == wanted {
                return clock.monotonic();
            }
            assert!(clock.monotonic() < Duration::from_secs(20), "still {said:?}, not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Polling as the recipes do by default: a revoke is seen within seconds, and a service that is gone closes.
async fn follows_a_real_service(runtime: Runtime) {
    let mut served = Served::initialised();
    let scopes = "actor_tokens:issue,actor_tokens:assert_actor,actor_tokens:revoke";
    let client = served.client(&["--scopes", scopes, "--may-assert", "admin_*", "--audience", API]);
    served.serve(&client.permit);
    let post = async |path: String, body: Value| -> Value {
        let sent =
            http().post(format!("{}{path}", served.url)).bearer_auth(&client.secret).json(&body).send();
        sent.await.expect("it answers").json().await.expect("JSON")
    };
    let mint = async || {
        let body =
            json!({ "user_id": "user_42", "actor": { "sub": "admin_7" }, "reason": "Invoice is missing" });
        let minted = post("/v1/actor_tokens".to_owned(), body).await;
        let text = |name: &str| minted[name].as_str().unwrap_or_else(|| panic!("{minted}")).to_owned();
        (text("id"), text("token"))
    };
    let ((id, ended), (_, other)) = (mint().await, mint().await);
    let follower = Follower::start(runtime, &served.url, 1000);
    follower.until(&ended, "in").await;
    assert_eq!(follower.says(&other).await, "in");

    let revoked = post(format!("/v1/actor_tokens/{id}/revoke"), json!({})).await;
    assert_eq!(revoked["status"], "revoked", "{revoked}");
    let seen = follower.until(&ended, "revoked").await;
    assert!(seen < Duration::from_secs(5), "seen after {seen:?}");
    assert_eq!(follower.says(&other).await, "in");

    served.kill();
    let closed = follower.until(&other, "stale").await;
    let (soonest, latest) = (Duration::from_secs(2), Duration::from_secs(7));
    assert!(closed > soonest && closed < latest, "closed after {closed:?}");
    assert_eq!(follower.says(&ended).await, "revoked");
}

/// A feed that shows what it is told to show.
struct Forger {
    issuer: String,
    feed: TestKey,
    feed_keys: Arc<Mutex<Value>>,
    tokens: TestKey,
    nobody: TestKey,
    shown: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    handle: actix_web::dev::ServerHandle,
}

impl Forger {
    fn start() -> Self {
        let key = || TestKey::generate(Alg::Es256).expect("a key");
        let (feed, tokens, nobody) = (key(), key(), key());
        let (shown, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicUsize::new(0)));
        let token_keys = jwks(std::slice::from_ref(&tokens));
        let feed_keys = Arc::new(Mutex::new(jwks(std::slice::from_ref(&feed))));
        let (text, count, keys) = (Arc::clone(&shown), Arc::clone(&asked), Arc::clone(&feed_keys));
        let server = HttpServer::new(move || {
            let (text, count, keys) = (Arc::clone(&text), Arc::clone(&count), Arc::clone(&keys));
            let set = |set: Value| std::future::ready(HttpResponse::Ok().json(set));
            let token_keys = token_keys.clone();
            let show = move || {
                count.fetch_add(1, Ordering::SeqCst);
                let text = text.lock().expect("no panic").clone();
                let status = if text.is_empty() { 503 } else { 200 };
                std::future::ready(HttpResponse::build(status.try_into().expect("a status")).body(text))
            };
            App::new()
                .route("/v1/revocations", web::get().to(show))
                .route(
                    "/v1/revocations/jwks",
                    web::get().to(move || set(keys.lock().expect("no panic").clone())),
                )
                .route("/.well-known/jwks.json", web::get().to(move || set(token_keys.clone())))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a port");
        let issuer = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { issuer, feed, feed_keys, tokens, nobody, shown, asked, handle }
    }

    /// Another key signs from now on, and the old one is known no more.
    fn replace_feed_key(&mut self) {
        self.feed = TestKey::generate(Alg::Es256).expect("a key");
        *self.feed_keys.lock().expect("no panic") = jwks(std::slice::from_ref(&self.feed));
    }

    /// A snapshot read just now, with `changes`.
    fn snapshot(&self, epoch: u32, seq: u32, changes: Value) -> Value {
        let read = SystemClock::default().now().timestamp_millis();
        let iat = read.div_euclid(1000);
        let mut document = json!({
            "iss": self.issuer, "iat": iat, "read_ms": read, "exp": iat + 60, "next_update": iat + 1, "kind": "snapshot",
            "epoch": epoch, "seq": seq, "kids": [], "clients": {}, "all": null, "sids": []
        });
        let Value::Object(changes) = changes else { panic!("changes are members") };
        document.as_object_mut().expect("an object").extend(changes);
        document
    }

    fn signed(&self, document: &Value) -> String {
        encode_jws(self.feed.signer(), FEED, document).expect("a document").into_string()
    }

    /// Shows it, and waits until the follower has taken it in or refused it: it asks one question after another.
    async fn show(&self, text: String) {
        *self.shown.lock().expect("no panic") = text;
        let before = self.asked.load(Ordering::SeqCst);
        let clock = SystemClock::default();
        while self.asked.load(Ordering::SeqCst) < before + 2 {
            assert!(clock.monotonic() < Duration::from_secs(20), "nobody asks");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One claim of a token.
fn claim(token: &str, name: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a payload")).expect("base64url");
    serde_json::from_slice::<Value>(&payload).expect("JSON")[name].clone()
}

/// Documents that would bring a revoked grant back, each wrong in one place.
fn lies(forger: &Forger, other: &Value) -> Vec<(&'static str, String)> {
    let document = |epoch, seq, changes| forger.snapshot(epoch, seq, changes);
    let sign = |changes| forger.signed(&document(2, 900, changes));
    let by = |key: &TestKey, typ| {
        encode_jws(key.signer(), typ, &document(2, 900, json!({}))).expect("a document").into_string()
    };
    let now = SystemClock::default().now().timestamp();
    let sound = sign(json!({}));
    let (input, _) = sound.rsplit_once('.').expect("three parts");
    let foreign = by(&forger.nobody, FEED);
    let (_, signature) = foreign.rsplit_once('.').expect("three parts");
    vec![
        ("older epoch", forger.signed(&document(1, 999, json!({ "sids": [other] })))),
        ("older seq", forger.signed(&document(2, 1, json!({ "sids": [other] })))),
        ("another issuer", sign(json!({ "iss": "https://other.example" }))),
        ("another typ", by(&forger.feed, "at+jwt")),
        ("another key", foreign.clone()),
        ("the tokens' key", by(&forger.tokens, FEED)),
        ("another signature", format!("{input}.{signature}")),
        ("no signature", format!("{input}.")),
        ("expired", sign(json!({ "exp": now - 10 }))),
        ("no exp", sign(json!({ "exp": null }))),
        ("a heartbeat", sign(json!({ "kind": "heartbeat", "prev": 0 }))),
        ("times that differ", sign(json!({ "read_ms": (now + 30) * 1000 }))),
        ("of the future", sign(json!({ "iat": now + 30, "read_ms": (now + 30) * 1000, "exp": now + 90 }))),
        ("seq a text", sign(json!({ "seq": "900" }))),
        ("epoch missing", sign(json!({ "epoch": null }))),
        ("sids a text", sign(json!({ "sids": "act_" }))),
        ("no sids", sign(json!({ "sids": null }))),
        ("clients without times", sign(json!({ "clients": { "client_x": "soon" } }))),
        ("no document", "nonsense".to_owned()),
        ("no answer", String::new()),
    ]
}

async fn believes_no_lie(runtime: Runtime) {
    let mut forger = Forger::start();
    let (ended, other) =
        (actor_token(&forger.issuer, &forger.tokens), actor_token(&forger.issuer, &forger.tokens));
    let (ended_sid, other_sid) = (claim(&ended, "sid"), claim(&other, "sid"));
    let follower = Follower::start(runtime, &forger.issuer, 40);
    follower.until(&other, "stale").await; // nothing is known yet

    let mut seq = 10;
    for (name, lie) in lies(&forger, &other_sid) {
        seq += 1;
        forger.show(forger.signed(&forger.snapshot(2, seq, json!({ "sids": [ended_sid] })))).await;
        forger.show(lie).await;
        assert_eq!(
            (&*follower.says(&ended).await, &*follower.says(&other).await),
            ("revoked", "in"),
            "{name}"
        );
    }
    let iat = claim(&other, "iat");
    for (name, epoch, changes, verdicts) in [
        ("a new epoch begins anew", 3, json!({ "sids": [other_sid] }), ("in", "revoked")),
        ("a cut-off of all", 4, json!({ "all": iat }), ("revoked", "revoked")),
        (
            "a cut-off of a client",
            5,
            json!({ "clients": { claim(&other, "client_id").as_str().unwrap(): iat } }),
            ("in", "revoked"),
        ),
        ("a key", 6, json!({ "kids": [forger.tokens.kid()] }), ("revoked", "revoked")),
    ] {
        forger.show(forger.signed(&forger.snapshot(epoch, 1, changes))).await;
        assert_eq!((&*follower.says(&ended).await, &*follower.says(&other).await), verdicts, "{name}");
    }
    // signed anew by a replica that has not read its database for six seconds
    let read = SystemClock::default().now().timestamp() - 6;
    forger.show(forger.signed(&forger.snapshot(7, 1, json!({ "iat": read, "read_ms": read * 1000 })))).await;
    assert_eq!(follower.says(&other).await, "stale");
    // a key that was replaced at once keeps nobody out for longer than the knowledge may be old
    forger.replace_feed_key();
    let clock = SystemClock::default();
    while follower.says(&other).await != "in" {
        assert!(clock.monotonic() < Duration::from_secs(5), "the new key is not looked for");
        forger.show(forger.signed(&forger.snapshot(8, 1, json!({})))).await;
    }
    forger.handle.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_recipe_follows_revocations() {
    if Runtime::Node.is_here("the_node_recipe_follows_revocations") {
        follows_a_real_service(Runtime::Node).await;
        believes_no_lie(Runtime::Node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_recipe_follows_revocations() {
    if Runtime::Python.is_here("the_python_recipe_follows_revocations") {
        follows_a_real_service(Runtime::Python).await;
        believes_no_lie(Runtime::Python).await;
    }
}

/// "One copyable file of at most 60 lines".
#[test]
fn the_recipes_that_follow_are_short() {
    for script in ["node/revocations.mjs", "python/revocations.py"] {
        let path = format!("{}/docs/languages/{script}", env!("CARGO_MANIFEST_DIR"));
        let lines = std::fs::read_to_string(path).expect("the recipe").lines().count();
        assert!(lines <= 60, "{script}: {lines} lines");
    }
}
