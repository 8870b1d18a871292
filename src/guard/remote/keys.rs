//! Issuers' keys, fetched before the first request and refreshed ever after.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::token::{Entropy, Issuer, KeySet, SystemEntropy, Verifier};

use super::client::{RemoteError, Source};

/// How often keys are fetched anew when nothing asks for it: the `max-age` of our own key set.
const REFRESH: Duration = Duration::from_mins(5);
/// A token with an unknown `kid` fetches anew, but not more often than this: anybody can send one.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_mins(1);
/// Keys that could not be refreshed for this long are dropped: who can keep us from the issuer must not keep
/// a key alive that the issuer withdrew.
const MAX_AGE: Duration = Duration::from_hours(24);
/// How long [`RemoteKeys::start`] waits for the first keys.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Keeps a verifier's keys fresh.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use stagedoor::guard::remote::RemoteKeys;
/// use stagedoor::token::{Issuer, TrustedIssuer, Verifier};
///
/// let issuer: Issuer = "https://stagedoor.example".parse()?;
/// let trusted = TrustedIssuer::stagedoor(issuer.clone()).audience("https://api.example".parse()?);
/// let verifier = Arc::new(Verifier::builder().issuer(trusted).build()?);
/// let _keys = RemoteKeys::of(&verifier)
///     .jwks(&issuer, "https://stagedoor.example/.well-known/jwks.json")?
///     .start()
///     .await?; // keep the handle: dropping it ends the refreshing
/// # Ok(()) }
/// ```
pub struct RemoteKeys {
    verifier: Arc<Verifier>,
    sources: Vec<(Issuer, Source)>,
    refresh: Duration,
    min_interval: Duration,
    ready_within: Duration,
}

impl RemoteKeys {
    /// Will feed `verifier`.
    #[must_use]
    pub fn of(verifier: &Arc<Verifier>) -> Self {
        Self {
            verifier: Arc::clone(verifier),
            sources: Vec::new(),
            refresh: REFRESH,
            min_interval: MIN_INTERVAL,
            ready_within: READY_WITHIN,
        }
    }

    /// The address of an issuer's key set: https, or plain http to loopback.
    pub fn jwks(mut self, issuer: &Issuer, url: &str) -> Result<Self, RemoteError> {
        if !self.verifier.issuers().iter().any(|trusted| trusted.iss() == issuer) {
            return Err(RemoteError::Issuer(issuer.clone()));
        }
        self.sources.push((issuer.clone(), Source::new(url)?));
        Ok(self)
    }

    /// Another pause between refreshes than five minutes.
    #[must_use]
    pub fn refresh_every(mut self, pause: Duration) -> Self {
        self.refresh = pause;
        self
    }

    /// Another shortest pause than ten seconds between fetches that unknown key ids ask for.
    #[must_use]
    pub fn min_interval(mut self, pause: Duration) -> Self {
        self.min_interval = pause;
        self
    }

    /// Waits up to this long for the first keys, instead of ten seconds.
    #[must_use]
    pub fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// Fetches every issuer's keys, trying again until they are there, then keeps them fresh.
    /// An error when they did not arrive in time; the last failure is in the log.
    pub async fn start(self) -> Result<RemoteKeysHandle, RemoteError> {
        let within = self.ready_within;
        let mut handle = self.start_in_background();
        timeout(within, handle.ready()).await.map_err(|_| RemoteError::NotReady(within))?;
        Ok(handle)
    }

    /// As [`Self::start`], without waiting: until the first keys arrive, tokens get 503 `keys_unavailable`.
    /// Must be called within a tokio runtime.
    pub fn start_in_background(self) -> RemoteKeysHandle {
        let mut wanted = HashMap::new();
        let mut handle = RemoteKeysHandle { tasks: Vec::new(), ready: Vec::new() };
        for (issuer, source) in self.sources {
            let (ready, is_ready) = watch::channel(false);
            let asked = Arc::new(Notify::new());
            wanted.insert(issuer.clone(), Arc::clone(&asked));
            let refresher = Refresher {
                verifier: Arc::clone(&self.verifier),
                issuer,
                source,
                refresh: self.refresh,
                min_interval: self.min_interval,
                asked,
                ready,
            };
            handle.tasks.push(tokio::spawn(refresher.run()));
            handle.ready.push(is_ready);
        }
        self.verifier.on_key_wanted(Box::new(move |issuer, _kid| {
            if let Some(asked) = wanted.get(issuer) {
                asked.notify_one();
            }
        }));
        handle
    }
}

/// Refreshing goes on while this is kept.
#[must_use = "when it is dropped, keys are refreshed no more, and what was known is believed for ever"]
pub struct RemoteKeysHandle {
    tasks: Vec<JoinHandle<()>>,
    ready: Vec<watch::Receiver<bool>>,
}

impl RemoteKeysHandle {
    /// Returns when every issuer's keys have been fetched once.
    pub async fn ready(&mut self) {
        for ready in &mut self.ready {
            // A closed channel means that the task ended, which only dropping this handle does.
            let _ = ready.wait_for(|ready| *ready).await;
        }
    }
}

impl Drop for RemoteKeysHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Refresher {
    verifier: Arc<Verifier>,
    issuer: Issuer,
    source: Source,
    refresh: Duration,
    min_interval: Duration,
    asked: Arc<Notify>,
    ready: watch::Sender<bool>,
}

impl Refresher {
    async fn run(self) {
        let (mut failures, mut last_success) = (0u32, Instant::now());
        loop {
            let began = Instant::now();
            match self.fetch().await {
                Ok(()) => (failures, last_success) = (0, began),
                Err(error) => {
                    failures += 1;
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(issuer = %self.issuer, %error, source, failures, "keys could not be fetched");
                    if last_success.elapsed() > MAX_AGE {
                        self.verifier.forget_keys(&self.issuer);
                    }
                }
            }
            let pause = if failures == 0 { self.refresh } else { backoff(failures) };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                // after a failure nobody who asks makes the next try later than it would have been
                () = self.asked.notified() => sleep_until(began + self.min_interval.min(pause)).await,
            }
        }
    }

    async fn fetch(&self) -> Result<(), RemoteError> {
        let body = self.source.get().await?;
        let keys = KeySet::from_jwks_json(&body)
            .map_err(|source| RemoteError::KeySet { url: self.source.url().clone(), source })?;
        for skipped in keys.skipped() {
            let kid = skipped.kid.as_ref().map(ToString::to_string);
            tracing::info!(issuer = %self.issuer, index = skipped.index, kid, reason = %skipped.reason, "key left out");
        }
        if keys.is_empty() {
            tracing::warn!(issuer = %self.issuer, "the issuer publishes no usable key");
        }
        self.verifier.set_keys(&self.issuer, keys);
        self.ready.send_replace(true);
        Ok(())
    }
}

/// 250 ms, doubled with each failure, up to [`MAX_BACKOFF`].
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_BACKOFF)
}

/// Three quarters to five quarters of `pause`, so that a fleet does not ask all at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let [random] = SystemEntropy.bytes::<1>();
    pause.mul_f64(0.75 + f64::from(random) / 510.0)
}
