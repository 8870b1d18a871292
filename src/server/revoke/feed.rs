//! The feed: what is revoked, signed, as a snapshot and as a stream of events (contract.md §7).
//!
//! One task makes the events; every connection is handed the same bytes, so that thousands of guards cost one
//! signature a second. The signed time is that of the last successful read of the database: a replica that
//! cannot read says nothing, and its guards notice.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::{broadcast, watch};

use super::places::{Place, PlaceLimits, Places};
use super::state::{Published, RevocationState};
use crate::server::keyring::{KeyPurpose, Keyring};
use crate::server::store::hex;
use crate::token::feed::{FEED_TYP, FeedDocument, FeedKind};
use crate::token::signer::{SignError, sha256};
use crate::token::{Issuer, encode_jws};

/// How often guards hear from us though nothing happened.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a document may be looked at, seconds: the longest bound that can be configured.
const DOCUMENT_SECONDS: i64 = 60;
/// Events that a connection may fall behind by; one that is slower is dropped and comes back with a snapshot.
const BEHIND: usize = 64;
/// A resumption that would name more grants than this gets a snapshot, which is shared.
const MAX_RESUMED: usize = 4096;
/// How many resumptions are kept for others that begin at the same place.
const MAX_BEGINNINGS: usize = 64;

/// Why no document could be made.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No key signs the feed.
    #[error("no key signs the feed")]
    NoKey,
    /// The key did not sign.
    #[error("the feed could not be signed")]
    Sign(#[from] SignError),
    /// The database has not been read for longer than the bound: nothing is known that may be signed.
    #[error("revocations have not been read for too long")]
    Stale,
}

/// Everything that is revoked and not yet expired, signed.
#[derive(Debug)]
pub struct Snapshot {
    /// The JWT.
    pub text: Bytes,
    /// The same, compressed.
    pub gzip: Bytes,
    /// Names exactly this text: the signed time is part of it, so that "unchanged" never makes knowledge look
    /// younger than it is.
    pub etag: String,
    /// The same as an event of the stream.
    event: Bytes,
    covers: Published,
}

/// The last event that a connection has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEvent {
    epoch: u32,
    seq: i64,
}

impl LastEvent {
    /// Reads `Last-Event-ID`; `None`: it is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, seq) = text.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok().filter(|seq| *seq >= 0)? })
    }
}

/// The feed of one process.
pub struct Feed {
    issuer: Issuer,
    state: Arc<RevocationState>,
    keyring: Arc<Keyring>,
    events: broadcast::Sender<Bytes>,
    snapshot: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
    /// Resumptions since the last event, by where they begin.
    resumed: Mutex<(Option<Published>, HashMap<i64, Bytes>)>,
    places: Arc<Places>,
    closing: watch::Sender<bool>,
}

/// One connection's view of the stream.
pub struct Listener {
    first: Option<Bytes>,
    events: broadcast::Receiver<Bytes>,
    closing: watch::Receiver<bool>,
    _place: Place,
}

impl Listener {
    /// The next piece of the stream; `None`: it ends here, and the guard connects again.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => None,
            // lagged: too slow a reader; closed: the process ends
            event = self.events.recv() => event.ok(),
        }
    }
}

impl Feed {
    /// A feed of `issuer`'s revocations.
    #[must_use]
    pub fn new(
        issuer: Issuer,
        state: Arc<RevocationState>,
        keyring: Arc<Keyring>,
        limits: PlaceLimits,
    ) -> Self {
        Self {
            issuer,
            state,
            keyring,
            events: broadcast::channel(BEHIND).0,
            snapshot: tokio::sync::Mutex::default(),
            resumed: Mutex::default(),
            places: Places::new(limits),
            closing: watch::channel(false).0,
        }
    }

    /// Makes the events for as long as it is polled.
    pub async fn run(&self) {
        let mut published = self.state.subscribe();
        let mut ticks = tokio::time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = *published.borrow_and_update();
        loop {
            tokio::select! {
                changed = published.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if published.borrow_and_update().version == last.version {
                        continue;
                    }
                }
                _ = ticks.tick() => {}
            }
            let (rows, now) = self.delta(last.seq).await;
            let changed = now.version != last.version;
            if !changed && now.as_of == last.as_of {
                // nothing was read since: a heartbeat would be a lie
                continue;
            }
            let kind = if changed { FeedKind::Revocation } else { FeedKind::Heartbeat };
            match self.event(&rows.document(&self.issuer, now, kind, Some(last.seq))) {
                Ok(event) => {
                    // an error only says that nobody listens
                    let _ = self.events.send(event);
                    last = now;
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the feed says nothing");
                }
            }
        }
    }

    /// Ends every stream, so that a process told to stop does not wait for its guards.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// How many listen to the stream.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.places.taken()
    }

    /// Begins a stream: with what was missed since `last`, or with a snapshot. `None`: there is no place.
    ///
    /// # Errors
    /// Nothing can be said now.
    pub async fn listen(
        &self,
        address: Option<IpAddr>,
        known: bool,
        last: Option<LastEvent>,
    ) -> Result<Option<Listener>, FeedError> {
        let Some(place) = self.places.take(address, known) else { return Ok(None) };
        // subscribed before the first piece is made: nothing falls in between
        let (events, closing) = (self.events.subscribe(), self.closing.subscribe());
        let first = match last {
            Some(last) => self.resume(last).await?,
            None => None,
        };
        let first = match first {
            Some(first) => first,
            None => self.snapshot().await?.event.clone(),
        };
        Ok(Some(Listener { first: Some(first), events, closing, _place: place }))
    }

    /// What was revoked since `last`; `None`: a snapshot is needed.
    async fn resume(&self, last: LastEvent) -> Result<Option<Bytes>, FeedError> {
        if last.epoch != self.state.epoch() {
            return Ok(None);
        }
        if last.seq > self.state.known().seq {
            // heard elsewhere of what this replica has not looked at yet
            let _ = self.state.refresh().await;
        }
        if self.state.is_stale() {
            return Err(FeedError::Stale);
        }
        let (rows, now) = self.delta(last.seq).await;
        if last.seq > now.seq || rows.sids.len() > MAX_RESUMED {
            return Ok(None);
        }
        if let Some(event) = self.resumed(now, last.seq, None) {
            return Ok(Some(event));
        }
        let event = self.event(&rows.document(&self.issuer, now, FeedKind::Revocation, Some(last.seq)))?;
        Ok(self.resumed(now, last.seq, Some(event)))
    }

    /// Many guards come back at once with the same last event: one signature serves them all.
    fn resumed(&self, now: Published, from: i64, made: Option<Bytes>) -> Option<Bytes> {
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        if resumed.0 != Some(now) {
            *resumed = (Some(now), HashMap::new());
        }
        match made {
            // whoever asks chooses where he begins
            Some(made) if resumed.1.len() < MAX_BEGINNINGS => {
                resumed.1.insert(from, made.clone());
                Some(made)
            }
            Some(made) => Some(made),
            None => resumed.1.get(&from).cloned(),
        }
    }

    /// The snapshot of what was read last, made once and shared.
    ///
    /// # Errors
    /// Nothing can be said now.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, FeedError> {
        if self.state.is_stale() {
            return Err(FeedError::Stale);
        }
        let mut kept = self.snapshot.lock().await;
        let published = *self.state.subscribe().borrow();
        if let Some(snapshot) = kept.as_ref().filter(|kept| serves(&kept.covers, &published)) {
            return Ok(Arc::clone(snapshot));
        }
        let (rows, now) = self.delta(0).await;
        let mut document = rows.document(&self.issuer, now, FeedKind::Snapshot, None);
        // neighbours in time are neighbours in the text, which halves what goes over the wire
        document.sids.sort_unstable();
        let signer = self.keyring.signer(&KeyPurpose::Feed).ok_or(FeedError::NoKey)?;
        let snapshot = tokio::task::spawn_blocking(move || -> Result<Snapshot, FeedError> {
            let text = encode_jws(&*signer, FEED_TYP, &document)?.into_string();
            Ok(Snapshot {
                gzip: compressed(text.as_bytes()),
                etag: format!("\"{}\"", hex(&sha256(text.as_bytes())[..16])),
                event: frame(&document, &text),
                text: text.into(),
                covers: now,
            })
        });
        let snapshot = snapshot.await.map_err(|_| FeedError::NoKey)??;
        let snapshot = Arc::new(snapshot);
        *kept = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// What was revoked by entries from the global position `from` on.
    async fn delta(&self, from: i64) -> (Delta, Published) {
        self.state
            .with_rows(|rows, now| {
                let delta = Delta {
                    sids: rows.grants_since(from).map(|id| (**id).to_owned()).collect(),
                    kids: rows.kids().map(str::to_owned).collect(),
                    clients: rows.clients.clone(),
                    all: rows.all,
                };
                (delta, now)
            })
            .await
    }

    fn event(&self, document: &FeedDocument) -> Result<Bytes, FeedError> {
        let signer = self.keyring.signer(&KeyPurpose::Feed).ok_or(FeedError::NoKey)?;
        Ok(frame(document, encode_jws(&*signer, FEED_TYP, document)?.as_str()))
    }
}

/// What a document names. The few cut-offs are named each time, so that only grants depend on where a reader
/// begins.
struct Delta {
    sids: Vec<String>,
    kids: Vec<String>,
    clients: BTreeMap<String, i64>,
    all: Option<i64>,
}

impl Delta {
    fn document(self, issuer: &Issuer, now: Published, kind: FeedKind, prev: Option<i64>) -> FeedDocument {
        let iat = now.as_of.timestamp();
        FeedDocument {
            iss: issuer.clone(),
            iat,
            read_ms: now.as_of.timestamp_millis(),
            exp: iat + DOCUMENT_SECONDS,
            next_update: iat + 1,
            kind,
            epoch: now.epoch,
            seq: now.seq,
            prev,
            kids: self.kids,
            clients: self.clients,
            all: self.all,
            sids: self.sids,
        }
    }
}

/// Whether a snapshot that covers `kept` will do where `now` is known: nothing was revoked since, and it is
/// of the same second.
fn serves(kept: &Published, now: &Published) -> bool {
    kept.epoch == now.epoch
        && kept.version == now.version
        && (now.as_of - kept.as_of).num_milliseconds() < 1000
        && kept.as_of <= now.as_of
}

/// A document as an event of the stream.
fn frame(document: &FeedDocument, text: &str) -> Bytes {
    let name = match document.kind {
        FeedKind::Snapshot => "snapshot",
        FeedKind::Revocation => "revocation",
        FeedKind::Heartbeat => "heartbeat",
    };
    format!("id: {}-{}\nevent: {name}\ndata: {text}\n\n", document.epoch, document.seq).into()
}

fn compressed(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    // writing to memory cannot fail
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_ours_resume() {
        assert_eq!(LastEvent::parse("2-17"), Some(LastEvent { epoch: 2, seq: 17 }));
        for bad in ["", "17", "2-", "-17", "2--1", "x-1", "1-2-3"] {
            assert_eq!(LastEvent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ten_thousand_revoked_grants_take_at_most_200_kb_on_the_wire() {
        use crate::token::{Alg, GrantId, LocalSigner, SystemEntropy};
        let now = chrono::DateTime::from_timestamp(1_795_333_985, 0).unwrap();
        let mut sids: Vec<String> = (0..10_000)
            .map(|i| GrantId::generate(now - chrono::TimeDelta::milliseconds(i * 90), &SystemEntropy).into())
            .collect();
        sids.sort_unstable();
        let delta = Delta { sids, kids: vec![], clients: BTreeMap::new(), all: None };
        let published = Published { epoch: 1, seq: 20_000, as_of: now, version: 1 };
        let document = delta.document(
            &"https://stagedoor.example".parse().unwrap(),
            published,
            FeedKind::Snapshot,
            None,
        );
        let key = LocalSigner::generate(Alg::Es256).unwrap();
        let text = encode_jws(&key, FEED_TYP, &document).unwrap().into_string();
        let size = compressed(text.as_bytes()).len();
        assert!(size <= 200_000, "{size} bytes");
    }
}
