//! What a Stagedoor service has revoked, followed in the background: by its stream, and by asking again
//! and again while the stream says nothing.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chrono::TimeDelta;
use flate2::read::GzDecoder;
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::client::{RemoteError, careful};
use super::events::Events;
use super::keys::{backoff, jittered};
use super::knowledge::Knowledge;
use crate::token::feed::{FeedDocument, FeedError, FeedKind, KNOWLEDGE_BOUND_RANGE, MAX_DOCUMENT_BYTES};
use crate::token::key_set::MAX_JWKS_BYTES;
use crate::token::{Clock, Invalid, Issuer, KeySet};

/// How often the service is asked while its stream says nothing.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// A stream that has said nothing for this long is dead: there is a heartbeat each second.
const SILENCE: Duration = Duration::from_secs(3);
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest pause before the stream is tried again.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// After this long everything is fetched anew: what has expired is forgotten that way.
const ANEW: Duration = Duration::from_mins(5);
/// The feed's keys are fetched anew for an unknown one, but not more often than this.
const KEYS_EVERY: Duration = Duration::from_secs(2);
/// How long [`RemoteRevocations::start`] waits for the first snapshot.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// A document larger than this is verified beside the tasks that serve requests.
const LARGE: usize = 64 * 1024;

/// What happened to the feed, for counters. Called by the task that follows it; must not block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedSignal {
    /// A document was taken in; its signed time is so old.
    Taken {
        /// Snapshot, revocation or heartbeat.
        kind: FeedKind,
        /// How old its signed time was.
        age: TimeDelta,
    },
    /// A document was refused.
    Refused(FeedError),
    /// The stream ended or could not be had.
    StreamLost,
    /// The service did not answer a question.
    NoAnswer,
}

type Hook = Box<dyn Fn(FeedSignal) + Send + Sync>;

/// Follows the revocations of one Stagedoor service.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use stagedoor::guard::remote::{RemoteKeys, RemoteRevocations};
/// use stagedoor::token::{Issuer, TrustedIssuer, Verifier};
///
/// let issuer: Issuer = "https://stagedoor.example".parse()?;
/// let revocations = RemoteRevocations::of(&issuer, "https://stagedoor.example")?;
/// let trusted = TrustedIssuer::stagedoor(issuer.clone()).audience("https://api.example".parse()?);
/// let verifier = Verifier::builder().issuer(trusted).revocations(revocations.knowledge()).build()?;
/// let verifier = Arc::new(verifier);
/// let _keys = RemoteKeys::of(&verifier)
///     .jwks(&issuer, "https://stagedoor.example/.well-known/jwks.json")?
///     .start()
///     .await?;
/// let _revocations = revocations.start().await?; // keep both handles: dropping one ends its refreshing
/// # Ok(()) }
/// ```
pub struct RemoteRevocations {
    knowledge: Arc<Knowledge>,
    base: Url,
    asking: Client,
    streaming: Client,
    secret: Option<Zeroizing<String>>,
    hook: Hook,
    ready_within: Duration,
}

impl RemoteRevocations {
    /// Will follow `issuer`, which answers at `address`: https, or plain http to loopback.
    pub fn of(issuer: &Issuer, address: &str) -> Result<Self, RemoteError> {
        let address = format!("{}/", address.trim_end_matches('/'));
        let (asking, base) = careful(&address)?;
        let (streaming, _) = careful(&address)?;
        Ok(Self {
            knowledge: Arc::new(Knowledge::none_yet(issuer.clone())),
            base,
            asking: asking.timeout(TIMEOUT).build().map_err(RemoteError::Client)?,
            streaming: streaming
                .connect_timeout(TIMEOUT)
                .read_timeout(SILENCE)
                .build()
                .map_err(RemoteError::Client)?,
            secret: None,
            hook: Box::new(|_| {}),
            ready_within: READY_WITHIN,
        })
    }

    /// Another bound than [`KNOWLEDGE_BOUND_SECONDS`](crate::token::feed::KNOWLEDGE_BOUND_SECONDS), brought into
    /// [`KNOWLEDGE_BOUND_RANGE`].
    ///
    /// # Panics
    /// After [`Self::knowledge`] was given out.
    #[must_use]
    pub fn stale_after_seconds(mut self, seconds: i64) -> Self {
        let seconds = seconds.clamp(*KNOWLEDGE_BOUND_RANGE.start(), *KNOWLEDGE_BOUND_RANGE.end());
        let knowledge = Arc::get_mut(&mut self.knowledge).expect("set before the knowledge is given out");
        knowledge.bound = TimeDelta::seconds(seconds);
        self
    }

    /// A client secret: it keeps a place on the stream when strangers take the others.
    #[must_use]
    pub fn client_secret(mut self, secret: &str) -> Self {
        self.secret = Some(Zeroizing::new(secret.to_owned()));
        self
    }

    /// Another clock than the machine's: the one the verifier reads.
    ///
    /// # Panics
    /// After [`Self::knowledge`] was given out.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        let knowledge = Arc::get_mut(&mut self.knowledge).expect("set before the knowledge is given out");
        knowledge.clock = clock;
        self
    }

    /// Told of everything that happens to the feed.
    #[must_use]
    pub fn observe(mut self, hook: impl Fn(FeedSignal) + Send + Sync + 'static) -> Self {
        self.hook = Box::new(hook);
        self
    }

    /// Waits up to this long for the first snapshot, instead of ten seconds.
    #[must_use]
    pub fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// What a verifier asks.
    #[must_use]
    pub fn knowledge(&self) -> Arc<Knowledge> {
        Arc::clone(&self.knowledge)
    }

    /// Fetches the first snapshot, trying again until it is there, then follows. An error when it did not
    /// arrive in time; the last failure is in the log.
    pub async fn start(self) -> Result<RevocationsHandle, RemoteError> {
        let within = self.ready_within;
        let mut handle = self.start_in_background();
        timeout(within, handle.ready()).await.map_err(|_| RemoteError::RevocationsNotReady(within))?;
        Ok(handle)
    }

    /// As [`Self::start`], without waiting: until the first snapshot, actor tokens are refused as stale.
    /// Must be called within a tokio runtime.
    pub fn start_in_background(self) -> RevocationsHandle {
        let (ready, is_ready) = watch::channel(false);
        let follower = Arc::new(Follower {
            anew: Notify::new(),
            keys: ArcSwapOption::empty(),
            fetched: tokio::sync::Mutex::default(),
            ready,
            remote: self,
        });
        let polling = tokio::spawn({
            let follower = Arc::clone(&follower);
            async move { follower.poll().await }
        });
        let streaming = tokio::spawn(async move { follower.stream().await });
        RevocationsHandle { tasks: [polling, streaming], ready: is_ready }
    }
}

/// Following goes on while this is kept.
#[must_use = "when it is dropped, nothing is followed any more"]
pub struct RevocationsHandle {
    tasks: [JoinHandle<()>; 2],
    ready: watch::Receiver<bool>,
}

impl RevocationsHandle {
    /// Returns when the first snapshot is there.
    pub async fn ready(&mut self) {
        // A closed channel means that the tasks ended, which only dropping this handle does.
        let _ = self.ready.wait_for(|ready| *ready).await;
    }
}

impl Drop for RevocationsHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Follower {
    remote: RemoteRevocations,
    /// Somebody needs a snapshot now.
    anew: Notify,
    keys: ArcSwapOption<KeySet>,
    /// When the keys were asked for last; held while they are.
    fetched: tokio::sync::Mutex<Option<Instant>>,
    ready: watch::Sender<bool>,
}

impl Follower {
    /// Asks for everything: at first, after a gap, from time to time, and each second while the stream is silent.
    async fn poll(&self) {
        let (mut failures, mut last) = (0u32, None::<Instant>);
        loop {
            let due = last.is_none_or(|last| last.elapsed() > ANEW) || self.is_old();
            if due {
                if last.is_some_and(|last| last.elapsed() > ANEW) {
                    // a key that was withdrawn must not be believed for ever
                    self.keys(true).await;
                }
                match self.ask().await {
                    Ok(()) => (failures, last) = (0, Some(Instant::now())),
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        self.failed(&error, failures);
                    }
                }
            }
            // at a short bound, often enough that what is asked for is here before it is stale
            let every = POLL_EVERY.min(self.remote.knowledge.bound.to_std().unwrap_or_default() / 4);
            let pause = if failures == 0 { every } else { backoff(failures).min(every * 2) };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.anew.notified() => last = None,
            }
        }
    }

    /// Whether what is known has not been heard of for longer than a stream that works would leave it.
    fn is_old(&self) -> bool {
        let knowledge = &self.remote.knowledge;
        let old = TimeDelta::seconds(2).min(knowledge.bound / 2);
        knowledge.age(self.remote.knowledge.clock.now()).is_none_or(|age| age.abs() > old)
    }

    fn failed(&self, error: &RemoteError, failures: u32) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(issuer = %self.remote.knowledge.issuer, %error, source, failures, "revocations could not be fetched");
        if !matches!(error, RemoteError::Feed { .. }) {
            (self.remote.hook)(FeedSignal::NoAnswer);
        }
    }

    async fn ask(&self) -> Result<(), RemoteError> {
        let url = self.url("v1/revocations");
        let text = self.get(&url, MAX_DOCUMENT_BYTES).await?;
        let text = String::from_utf8(text).map_err(|_| FeedError::Claims);
        let taken = match text {
            Ok(text) => self.take(text).await,
            Err(error) => Err(error),
        };
        match taken {
            // the stream was faster, or another replica knows more: nothing is wrong
            Ok(()) | Err(FeedError::Older) => Ok(()),
            Err(source) => Err(RemoteError::Feed { url, source }),
        }
    }

    /// Follows the stream, and tries again when it ends.
    async fn stream(&self) {
        let mut failures = 0u32;
        loop {
            // where the stream begins is known once there is a snapshot
            let mut ready = self.ready.subscribe();
            let _ = ready.wait_for(|ready| *ready).await;
            let began = Instant::now();
            if let Err(error) = self.listen().await {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(issuer = %self.remote.knowledge.issuer, %error, source, "the stream of revocations is away");
            }
            (self.remote.hook)(FeedSignal::StreamLost);
            // one that held for a while was not refused; it ended, perhaps with its replica
            failures = if began.elapsed() > SILENCE { 1 } else { failures.saturating_add(1) };
            sleep(jittered(backoff(failures).min(MAX_PAUSE))).await;
        }
    }

    async fn listen(&self) -> Result<(), RemoteError> {
        let url = self.url("v1/revocations/stream");
        let mut request = self.remote.streaming.get(url.clone()).header("accept", "text/event-stream");
        if let Some((epoch, seq)) = self.remote.knowledge.newest() {
            request = request.header("last-event-id", format!("{epoch}-{seq}"));
        }
        let unreachable = |source| RemoteError::Unreachable { url: url.clone(), source };
        let mut response = self.authorized(request).send().await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(RemoteError::Status { url, status: response.status() });
        }
        let mut events = Events::default();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            let complete =
                events.push(&chunk, MAX_DOCUMENT_BYTES).map_err(|_| RemoteError::TooLarge(url.clone()))?;
            for text in complete {
                match self.take(text).await {
                    Ok(()) | Err(FeedError::Older) => {}
                    Err(FeedError::Gap) => self.anew.notify_one(),
                    Err(source) => return Err(RemoteError::Feed { url, source }),
                }
            }
        }
        Ok(())
    }

    /// Verifies a document and takes it in.
    async fn take(&self, text: String) -> Result<(), FeedError> {
        let taken = self.verify_and_take(text).await;
        match &taken {
            Ok(kind) => {
                let age = self.remote.knowledge.age(self.remote.knowledge.clock.now()).unwrap_or_default();
                (self.remote.hook)(FeedSignal::Taken { kind: *kind, age });
                self.ready.send_replace(true);
            }
            Err(error) => {
                (self.remote.hook)(FeedSignal::Refused(*error));
                // heard, and clocks disagree: nothing is known, and whoever starts need not wait for more
                if *error == FeedError::Future {
                    self.ready.send_replace(true);
                }
            }
        }
        taken.map(drop)
    }

    async fn verify_and_take(&self, text: String) -> Result<FeedKind, FeedError> {
        let text: Arc<str> = text.into();
        let keys = self.keys(false).await;
        let document = match self.open(&text, keys).await {
            Err(FeedError::Invalid(Invalid::KeyUnknown)) => {
                let keys = self.keys(true).await;
                self.open(&text, keys).await?
            }
            opened => opened?,
        };
        let ahead = self.remote.knowledge.clock.now() + self.remote.knowledge.bound;
        if document.read_ms > ahead.timestamp_millis() {
            return Err(FeedError::Future);
        }
        self.remote.knowledge.take(&document).map(|()| document.kind)
    }

    async fn open(&self, text: &Arc<str>, keys: Option<Arc<KeySet>>) -> Result<FeedDocument, FeedError> {
        let keys = keys.ok_or(FeedError::Invalid(Invalid::KeyUnknown))?;
        let issuer = self.remote.knowledge.issuer.clone();
        if text.len() <= LARGE {
            return FeedDocument::open(text, &issuer, &keys);
        }
        let text = Arc::clone(text);
        let opened = tokio::task::spawn_blocking(move || FeedDocument::open(&text, &issuer, &keys)).await;
        opened.unwrap_or(Err(FeedError::Claims))
    }

    /// The feed's keys; fetched when there are none, or when a document names `another` one.
    async fn keys(&self, another: bool) -> Option<Arc<KeySet>> {
        // documents that the keys at hand verify do not wait for others
        if let (false, Some(keys)) = (another, self.keys.load_full()) {
            return Some(keys);
        }
        let mut fetched = self.fetched.lock().await;
        let recently = fetched.is_some_and(|at| at.elapsed() < KEYS_EVERY);
        if (another || self.keys.load().is_none()) && !recently {
            *fetched = Some(Instant::now());
            let url = self.url("v1/revocations/jwks");
            match self.get(&url, MAX_JWKS_BYTES).await.map(|body| KeySet::from_jwks_json(&body)) {
                Ok(Ok(keys)) => self.keys.store(Some(Arc::new(keys))),
                Ok(Err(source)) => self.failed(&RemoteError::KeySet { url, source }, 1),
                Err(error) => self.failed(&error, 1),
            }
        }
        self.keys.load_full()
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.remote.base.clone();
        url.set_path(&format!("{}{path}", self.remote.base.path()));
        url
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.remote.secret {
            Some(secret) => request.bearer_auth(secret.as_str()),
            None => request,
        }
    }

    /// The body of a 200, unpacked, at most `max` bytes of it.
    async fn get(&self, url: &Url, max: usize) -> Result<Vec<u8>, RemoteError> {
        let unreachable = |source| RemoteError::Unreachable { url: url.clone(), source };
        let request = self.remote.asking.get(url.clone()).header("accept-encoding", "gzip");
        let mut response = request.send().await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(RemoteError::Status { url: url.clone(), status: response.status() });
        }
        let packed = response.headers().get("content-encoding").is_some_and(|coding| coding == "gzip");
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > max {
                return Err(RemoteError::TooLarge(url.clone()));
            }
            body.extend_from_slice(&chunk);
        }
        if !packed {
            return Ok(body);
        }
        // the threads of whoever is guarded have requests to answer
        let unpacked = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            // one byte more than allowed tells a bomb from a large body
            let unpacked = GzDecoder::new(&*body).take(max as u64 + 1).read_to_end(&mut out);
            unpacked.ok().filter(|_| out.len() <= max).map(|_| out)
        });
        unpacked.await.ok().flatten().ok_or_else(|| RemoteError::TooLarge(url.clone()))
    }
}
