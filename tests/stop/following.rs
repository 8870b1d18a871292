//! The feed: what it says, to whom, and what a guard does with it, without it, and with a false one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use stagedoor::guard::remote::{FeedSignal, Knowledge, RemoteKeys, RemoteRevocations, RevocationsHandle};
use stagedoor::token::feed::{FeedDocument, FeedError, FeedKind};
use stagedoor::token::{Clock, FixedClock, Invalid, Issuer, KeySet, SystemClock, TrustedIssuer, Verifier};

use crate::site::{AUDIENCE, Caller, ISSUER, Replica, claims, is_active, mint, on_both, text, until};

fn issuer() -> Issuer {
    ISSUER.parse().unwrap()
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn feed_keys(replica: &Replica) -> KeySet {
    let jwks = replica.api.get("/v1/revocations/jwks").await;
    KeySet::from_jwks_json(jwks.text().as_bytes()).unwrap()
}

async fn snapshot(replica: &Replica) -> FeedDocument {
    let text = replica.api.get("/v1/revocations").await.text();
    FeedDocument::open(&text, &issuer(), &feed_keys(replica).await).unwrap()
}

async fn revoke(api: &crate::support::contract::Client, grant: &Value) {
    api.post(&format!("/v1/actor_tokens/{}/revoke", text(grant, "id")), &json!({})).await.ok();
}

/// A stream of events, read one at a time.
struct Events {
    response: reqwest::Response,
    buffer: String,
    keys: KeySet,
}

impl Events {
    async fn of(replica: &Replica, last: Option<&str>) -> Self {
        let mut request = http().get(format!("{}/v1/revocations/stream", replica.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        Self { response, buffer: String::new(), keys: feed_keys(replica).await }
    }

    /// The next event: its id, its name, its verified document.
    async fn next(&mut self) -> (String, String, FeedDocument) {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = event.lines().find_map(|line| line.strip_prefix(name));
                    lines.unwrap_or_else(|| panic!("{name} in {event}")).to_owned()
                };
                let document = FeedDocument::open(&field("data: "), &issuer(), &self.keys).unwrap();
                let out = (field("id: "), field("event: "), document);
                let rest = rest.to_owned();
                self.buffer = rest;
                return out;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(3), self.response.chunk()).await;
            let chunk = chunk.expect("an event each second").unwrap().expect("the stream goes on");
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// A guard in this process, as a downstream service has one.
struct Guard {
    verifier: Arc<Verifier>,
    knowledge: Arc<Knowledge>,
    signals: Arc<Mutex<Vec<FeedSignal>>>,
    _handles: (stagedoor::guard::remote::RemoteKeysHandle, RevocationsHandle),
}

impl Guard {
    async fn of(replica: &Replica, caller: &Caller, clock: Arc<dyn Clock>, bound: i64) -> Self {
        let signals = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&signals);
        let revocations = RemoteRevocations::of(&issuer(), &replica.base)
            .unwrap()
            .stale_after_seconds(bound)
            .client_secret(&caller.secret)
            .clock(Arc::clone(&clock))
            .observe(move |signal| heard.lock().unwrap().push(signal));
        let knowledge = revocations.knowledge();
        let trusted = TrustedIssuer::stagedoor(issuer()).audience(AUDIENCE.parse().unwrap());
        let verifier = Verifier::builder().issuer(trusted).clock(clock).revocations(knowledge.clone());
        let verifier = Arc::new(verifier.build().unwrap());
        let jwks = format!("{}/.well-known/jwks.json", replica.base);
        let keys = RemoteKeys::of(&verifier).jwks(&issuer(), &jwks).unwrap().start().await.unwrap();
        let revocations = revocations.start().await.unwrap();
        Self { verifier, knowledge, signals, _handles: (keys, revocations) }
    }

    fn heard(&self, wanted: impl Fn(&FeedSignal) -> bool) -> bool {
        self.signals.lock().unwrap().iter().any(wanted)
    }
}

fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

on_both! {
    async fn the_snapshot_names_what_is_revoked_and_nobody(site) {
        let (minter, admin) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let (one, two) = (mint(&api).await, mint(&api).await);
        let empty = snapshot(&replica).await;
        assert!(empty.sids.is_empty() && empty.kids.is_empty() && empty.clients.is_empty() && empty.all.is_none());
        let body = json!({ "actor": { "sub": "admin_7" }, "reason": "Left the company in a hurry" });
        admin.at(&replica).post("/v1/revocations", &body).await.ok();
        let full = snapshot(&replica).await;
        let mut wanted = [text(&one, "id").to_owned(), text(&two, "id").to_owned()];
        wanted.sort_unstable();
        assert_eq!(full.sids, wanted, "expanded in the same transaction");
        assert!(full.seq > empty.seq && full.epoch == 1 && full.exp > full.iat && full.next_update > full.iat);
        let said = claims(&replica.api.get("/v1/revocations").await.text()).to_string();
        for personal in ["admin_7", "user_42", "hurry"] {
            assert!(!said.contains(personal), "no person and no reason: {said}");
        }
        replica.stop().await;
    }

    async fn a_snapshot_is_shared_compressed_and_never_made_to_look_younger(site) {
        let replica = site.replica().await;
        let url = format!("{}/v1/revocations", replica.base);
        let plain = http().get(&url).send().await.unwrap();
        let (tag, text) = (plain.headers()["etag"].to_str().unwrap().to_owned(), plain.text().await.unwrap());
        let packed = http().get(&url).header("accept-encoding", "br, gzip").send().await.unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        assert_ne!(packed.headers()["etag"], tag.as_str(), "another representation");
        let refused = http().get(&url).header("accept-encoding", "gzip;q=0").send().await.unwrap();
        assert!(refused.headers().get("content-encoding").is_none());
        let again = |tag: String| http().get(&url).header("if-none-match", format!("\"x\", {tag}")).send();
        let first = again(tag.clone()).await.unwrap();
        if first.status() == StatusCode::NOT_MODIFIED {
            assert!(first.headers().contains_key("etag"));
        } else {
            assert_ne!(first.text().await.unwrap(), text, "a later second");
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(again(tag).await.unwrap().status(), StatusCode::OK, "the signed time is part of the text");
        replica.stop().await;
    }

    async fn the_stream_says_each_second_that_it_lives_and_at_once_what_is_revoked(site) {
        let minter = site.minter().await;
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let mut events = Events::of(&replica, None).await;
        let (_, name, first) = events.next().await;
        assert_eq!((name.as_str(), first.kind), ("snapshot", FeedKind::Snapshot));
        let (_, name, beat) = events.next().await;
        assert_eq!((name.as_str(), beat.kind), ("heartbeat", FeedKind::Heartbeat));
        // the reading that a snapshot and the heartbeat behind it tell of may be the same one
        assert!(beat.prev.is_some_and(|prev| prev <= beat.seq), "{beat:?}");
        assert!(beat.read_ms >= first.read_ms, "{beat:?} after {first:?}");
        let (_, _, next) = events.next().await;
        assert_eq!((next.kind, next.prev), (FeedKind::Heartbeat, Some(beat.seq)), "nothing is left out");
        assert!(next.read_ms > beat.read_ms, "read again since: {next:?} after {beat:?}");
        let minted = mint(&api).await;
        revoke(&api, &minted).await;
        let (id, revoked) = loop {
            let (id, name, document) = events.next().await;
            if name == "revocation" {
                break (id, document);
            }
        };
        assert_eq!(revoked.sids, [text(&minted, "id")]);
        let before = format!("{}-{}", first.epoch, first.seq);
        let (_, name, resumed) = Events::of(&replica, Some(&before)).await.next().await;
        assert_eq!((name.as_str(), resumed.prev), ("revocation", Some(first.seq)), "resumed where it was left");
        assert_eq!(resumed.sids, revoked.sids);
        let (_, name, nothing) = Events::of(&replica, Some(&id)).await.next().await;
        assert!(name == "revocation" && nothing.sids.is_empty(), "nothing was missed");
        for unknown in ["7-1", "nonsense", "1-999999999999"] {
            let (_, name, _) = Events::of(&replica, Some(unknown)).await.next().await;
            assert_eq!(name, "snapshot", "{unknown}");
        }
        let wrong = http().get(format!("{}/v1/revocations/stream", replica.base)).bearer_auth("sk_live_x");
        assert_eq!(wrong.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        // streams do not hold up a stop
        let clock = SystemClock::default();
        replica.stop().await;
        assert!(clock.monotonic() < Duration::from_secs(10));
    }

    async fn a_guard_refuses_what_is_revoked_and_everything_when_it_hears_nothing(site) {
        let minter = site.minter().await;
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let guard = Guard::of(&replica, &minter, system(), 2).await;
        let (kept, ended) = (mint(&api).await, mint(&api).await);
        let verdict = |grant: &Value| guard.verifier.verify(text(grant, "token")).map(drop);
        assert_eq!((verdict(&kept), verdict(&ended)), (Ok(()), Ok(())));
        revoke(&api, &ended).await;
        until("the guard refuses", || async { verdict(&ended) == Err(Invalid::Revoked) }).await;
        assert_eq!(verdict(&kept), Ok(()));
        assert!(guard.heard(|s| matches!(s, FeedSignal::Taken { kind: FeedKind::Snapshot, .. })));
        // longer than the bound, and nothing is stale while it hears
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(verdict(&kept), Ok(()));
        }
        replica.stop().await;
        until("knowledge grows stale", || async { verdict(&kept) == Err(Invalid::RevocationsStale) }).await;
        assert_eq!(verdict(&ended), Err(Invalid::Revoked), "what is known to be revoked stays refused");
        assert!(guard.heard(|s| *s == FeedSignal::StreamLost) && guard.knowledge.is_stale(SystemClock::default().now()));
    }

    async fn a_clock_a_minute_off_closes_the_guard(site) {
        let minter = site.minter().await;
        let replica = site.replica().await;
        let minted = mint(&minter.at(&replica)).await;
        for off in [-60, 60] {
            let clock = Arc::new(FixedClock::at(SystemClock::default().now() + chrono::TimeDelta::seconds(off)));
            let guard = Guard::of(&replica, &minter, clock, 5).await;
            let verdict = guard.verifier.verify(text(&minted, "token")).map(drop);
            assert!(
                matches!(verdict, Err(Invalid::RevocationsStale | Invalid::IssuedInFuture | Invalid::NotYetValid)),
                "{off} s: {verdict:?}"
            );
        }
        replica.stop().await;
    }

    async fn a_feed_of_another_issuer_is_never_believed(site) {
        let replica = site.replica().await;
        let other: Issuer = "https://other.test".parse().unwrap();
        let signals = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&signals);
        let revocations = RemoteRevocations::of(&other, &replica.base)
            .unwrap()
            .observe(move |signal| heard.lock().unwrap().push(signal))
            .ready_within(Duration::from_millis(800));
        let knowledge = revocations.knowledge();
        assert!(revocations.start().await.is_err(), "the first fetch comes before ready");
        assert!(knowledge.is_stale(SystemClock::default().now()));
        assert!(signals.lock().unwrap().contains(&FeedSignal::Refused(FeedError::Issuer)));
        replica.stop().await;
    }
}

/// A way to the replica on which nobody gets through to the stream; what is asked for goes through.
async fn without_stream(replica: &Replica) -> String {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (here, there) = (listener.local_addr().unwrap(), replica.running.address);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 64];
                let n = near.peek(&mut first).await.unwrap_or(0);
                if first[..n].starts_with(b"GET /v1/revocations/stream") {
                    let _ = near.shutdown().await;
                    return;
                }
                let mut far = tokio::net::TcpStream::connect(there).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    format!("http://{here}")
}

/// The stream is cut: polling takes over, within the bound, and nothing grows stale meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_stream_is_cut_polling_takes_over() {
    let site = crate::site::Site::sqlite().await;
    let minter = site.minter().await;
    let replica = site.replica().await;
    let api = minter.at(&replica);
    let cut =
        Replica { base: without_stream(&replica).await, api: replica.api.clone(), running: replica.running };
    let guard = Guard::of(&cut, &minter, system(), 5).await;
    let (kept, ended) = (mint(&api).await, mint(&api).await);
    let verdict = |grant: &Value| guard.verifier.verify(text(grant, "token")).map(drop);
    assert_eq!(verdict(&ended), Ok(()));
    revoke(&api, &ended).await;
    crate::site::until_within(5, "the guard refuses", || async { verdict(&ended) == Err(Invalid::Revoked) })
        .await;
    let clock = SystemClock::default();
    while clock.monotonic() < Duration::from_secs(6) {
        assert_eq!(verdict(&kept), Ok(()), "polled, so never stale");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let streamed = |s: &FeedSignal| matches!(s, FeedSignal::Taken { kind: FeedKind::Heartbeat, .. });
    assert!(guard.heard(|s| *s == FeedSignal::StreamLost) && !guard.heard(streamed), "it was the polling");
    cut.stop().await;
}

/// contract.md §7: a replica that cannot read its database says nothing, and fails closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_cut_off_from_its_database_closes_within_the_bound_and_comes_back() {
    let Some(site) = crate::site::Site::postgres().await else { return };
    let minter = site.minter().await;
    let replica = site.replica().await;
    let api = minter.at(&replica);
    let minted = mint(&api).await;
    let token = text(&minted, "token");
    assert!(is_active(&api, token).await);
    let guard = Guard::of(&replica, &minter, system(), 2).await;
    site.cut_off(true).await;
    let cut = SystemClock::default();
    crate::site::until_within(9, "the replica knows too little", || async { !is_active(&api, token).await })
        .await;
    assert!(cut.monotonic() <= Duration::from_secs(7), "5 s, and what a look takes");
    assert_eq!(api.verify(token).await.ok()["reason"], "revocations_stale");
    replica.api.get("/v1/revocations").await.fails(503, "log_unavailable");
    assert_eq!(
        guard.verifier.verify(token).map(drop),
        Err(Invalid::RevocationsStale),
        "and so does its guard"
    );
    site.cut_off(false).await;
    crate::site::until_within(9, "it comes back", || async {
        is_active(&api, token).await && guard.verifier.verify(token).is_ok()
    })
    .await;
    crate::site::until("the log records again", || async {
        api.mint(&crate::site::body_for("admin_7", "user_42")).await.status == 200
    })
    .await;
    replica.stop().await;
}
