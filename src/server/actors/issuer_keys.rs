//! One issuer's keys: fetched in the background, kept while it is away, never asked for too often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::sync::watch;

use super::{IssuerConfig, KeySource};
use crate::server::outbound::{Answer, Call, Outbound, OutboundError, TOTAL_TIMEOUT, Url};
use crate::token::key_set::{KeySet, KeySetError, MAX_JWKS_BYTES};
use crate::token::{Clock, Issuer};

/// How often keys are fetched when all is well, seconds.
pub const REFRESH_SECONDS: u64 = 300;
/// How often keys are fetched at most, whatever happens, seconds: a flood of unknown `kid`s makes one fetch.
pub const MIN_FETCH_INTERVAL_SECONDS: u64 = 60;
/// The same while there are no keys, and nobody of that issuer gets in.
const FIRST_FETCH_INTERVAL_SECONDS: u64 = 5;
/// How long keys are used after the last fetch that succeeded, seconds. An issuer that answers is not away: what it
/// publishes counts, even if it is nothing.
pub const KEEP_SECONDS: u64 = 3_600;

/// What is known of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// How many keys can be used; `None`: none are known (any more).
    pub keys: Option<usize>,
    /// Age of the last fetch that brought keys, seconds; `None`: there are none.
    pub age_seconds: Option<u64>,
    /// Why the last fetch failed, if it did.
    pub last_error: Option<String>,
}

/// Why keys could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Outbound(#[from] OutboundError),
    #[error("the {what} answers with status {status}")]
    Status { what: &'static str, status: u16 },
    #[error("the metadata is not a JSON object with `issuer` and `jwks_uri`")]
    Metadata,
    #[error("the metadata names another issuer ({0})")]
    OtherIssuer(String),
    #[error("{0}")]
    KeySet(#[from] KeySetError),
    #[error("the key file cannot be read: {0}")]
    File(String),
}

enum Source {
    Discovery(Url),
    JwksUrl(Url),
    JwksFile(std::path::PathBuf),
}

struct Known {
    set: Arc<KeySet>,
    /// When the answer was asked for (monotonic).
    as_of: Duration,
}

#[derive(Default)]
struct Fetching {
    /// When the last fetch began (monotonic).
    last_began: Option<Duration>,
    under_way: bool,
    last_error: Option<String>,
}

pub(super) struct IssuerKeys {
    iss: Issuer,
    source: Source,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    known: ArcSwapOption<Known>,
    /// Held for a moment at the beginning and end of a fetch, never across one.
    fetching: Mutex<Fetching>,
    /// Counts fetches that ended, so that those who need one can wait for it.
    ended: watch::Sender<u64>,
}

impl IssuerKeys {
    pub(super) fn new(
        config: &IssuerConfig,
        outbound: Outbound,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OutboundError> {
        let source = match &config.source {
            KeySource::Discovery(url) => Source::Discovery(outbound.destination(url)?),
            KeySource::JwksUrl(url) => Source::JwksUrl(outbound.destination(url)?),
            KeySource::JwksFile(path) => Source::JwksFile(path.clone()),
        };
        Ok(Self {
            iss: config.iss.clone(),
            source,
            outbound,
            clock,
            known: ArcSwapOption::empty(),
            fetching: Mutex::default(),
            ended: watch::Sender::new(0),
        })
    }

    /// The keys to verify with; `None` when none were ever fetched, or not for [`KEEP_SECONDS`].
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        let known = self.known.load();
        let known = known.as_ref()?;
        let age = self.clock.monotonic().saturating_sub(known.as_of);
        (age <= Duration::from_secs(KEEP_SECONDS)).then(|| Arc::clone(&known.set))
    }

    pub(super) fn status(&self) -> KeyStatus {
        let known = self.known.load();
        let known = known.as_ref().filter(|known| !known.set.is_empty());
        let age = known.map(|known| self.clock.monotonic().saturating_sub(known.as_of).as_secs());
        KeyStatus {
            keys: self.current().map(|set| set.len()),
            age_seconds: age,
            last_error: self.lock().last_error.clone(),
        }
    }

    /// Fetches when the keys are old, or the last fetch failed; waits for the end of it.
    pub(super) async fn refresh_if_due(self: &Arc<Self>) {
        let known = self.known.load().as_ref().map(|known| known.as_of);
        let failed = self.failed();
        let old = known.is_none_or(|as_of| {
            self.clock.monotonic().saturating_sub(as_of) >= Duration::from_secs(REFRESH_SECONDS)
        });
        if old || failed {
            self.look_again().await;
        }
    }

    /// Whether the last fetch failed.
    pub(super) fn failed(&self) -> bool {
        self.lock().last_error.is_some()
    }

    /// Has the keys fetched unless that was done less than [`MIN_FETCH_INTERVAL_SECONDS`] ago
    /// ([`FIRST_FETCH_INTERVAL_SECONDS`] while there are none), and waits for a fetch that is under way, at most as
    /// long as one may take.
    pub(super) async fn look_again(self: &Arc<Self>) {
        let mut ended = self.ended.subscribe();
        if !self.begin() {
            return;
        }
        // Both answers of a discovery, and a little for the rest.
        let _ = tokio::time::timeout(TOTAL_TIMEOUT * 2 + Duration::from_millis(500), ended.changed()).await;
    }

    /// Starts a fetch where none is under way and one may begin; whether there is one to wait for.
    fn begin(self: &Arc<Self>) -> bool {
        let now = self.clock.monotonic();
        let mut fetching = self.lock();
        if fetching.under_way {
            return true;
        }
        let none = self.known.load().as_ref().is_none_or(|known| known.set.is_empty());
        let interval =
            Duration::from_secs(if none { FIRST_FETCH_INTERVAL_SECONDS } else { MIN_FETCH_INTERVAL_SECONDS });
        if fetching.last_began.is_some_and(|began| now.saturating_sub(began) < interval) {
            return false;
        }
        (fetching.under_way, fetching.last_began) = (true, Some(now));
        drop(fetching);
        // A task of its own: it goes on when the request that needed it is gone.
        // The end is made before the task, so that even a task that never runs ends.
        let mut end = EndOfFetch { keys: Arc::clone(self), error: Some("the fetch was cut off".to_owned()) };
        tokio::spawn(async move {
            let outcome = end.keys.fetch_and_keep(now).await;
            end.came_to(outcome);
        });
        true
    }

    async fn fetch_and_keep(&self, began: Duration) -> Option<String> {
        match self.fetch().await {
            Ok(set) => {
                for skipped in set.skipped() {
                    tracing::debug!(issuer = %self.iss, index = skipped.index, reason = %skipped.reason, "key left out");
                }
                let empty = set.is_empty();
                let before = self.known.swap(Some(Arc::new(Known { set: Arc::new(set), as_of: began })));
                if empty && before.is_none_or(|before| !before.set.is_empty()) {
                    tracing::error!(issuer = %self.iss, "the issuer publishes no key that can be used: its actors are refused until it does");
                }
                None
            }
            Err(error) => {
                if self.known.load().is_some() {
                    tracing::warn!(issuer = %self.iss, %error, "keys not fetched: going on with the last good ones");
                } else {
                    tracing::warn!(issuer = %self.iss, %error, "keys not fetched, and there never were any: its actors get 503");
                }
                Some(error.to_string())
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let bytes = match &self.source {
            Source::JwksUrl(url) => self.get(url.clone(), "key set").await?,
            Source::Discovery(url) => {
                let metadata = self.get(url.clone(), "metadata").await?;
                let jwks_uri = self.outbound.destination(&jwks_uri(&self.iss, &metadata)?)?;
                self.get(jwks_uri, "key set").await?
            }
            Source::JwksFile(path) => {
                let path = path.clone();
                match tokio::task::spawn_blocking(move || read_file(&path)).await {
                    Ok(bytes) => bytes?,
                    Err(_cancelled) => return Err(FetchError::File("the reader was cut off".to_owned())),
                }
            }
        };
        Ok(KeySet::from_jwks_json(&bytes)?)
    }

    async fn get(&self, url: Url, what: &'static str) -> Result<Vec<u8>, FetchError> {
        let call = Call::get(url).accept("application/json, application/jwk-set+json");
        let Answer { status, body, .. } = self.outbound.send(call).await?;
        if status == 200 { Ok(body) } else { Err(FetchError::Status { what, status }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a fetch however it ends: those who wait are always woken.
struct EndOfFetch {
    keys: Arc<IssuerKeys>,
    error: Option<String>,
}

impl EndOfFetch {
    fn came_to(&mut self, error: Option<String>) {
        self.error = error;
    }
}

impl Drop for EndOfFetch {
    fn drop(&mut self) {
        let mut fetching = self.keys.lock();
        (fetching.under_way, fetching.last_error) = (false, self.error.take());
        drop(fetching);
        self.keys.ended.send_modify(|count| *count += 1);
    }
}

/// The members of provider metadata that are used (RFC 8414, OIDC Discovery).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// MD-2: metadata speaks for an issuer only when it names it, byte for byte.
fn jwks_uri(iss: &Issuer, body: &[u8]) -> Result<String, FetchError> {
    let metadata: Metadata = serde_json::from_slice(body).map_err(|_| FetchError::Metadata)?;
    if metadata.issuer == iss.as_str() {
        Ok(metadata.jwks_uri)
    } else {
        Err(FetchError::OtherIssuer(
            metadata.issuer.chars().take(100).flat_map(char::escape_default).collect(),
        ))
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, FetchError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_JWKS_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| FetchError::File(error.to_string()))?;
    Ok(bytes)
}
