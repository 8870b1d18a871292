//! The revocation feed as it travels: signed documents, and what a reader knows after them (contract.md §7).
//!
//! A reader only ever moves forward: a document of an older epoch or sequence number is refused, a gap is
//! noticed, and how fresh the knowledge is counts from the signed time alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::ids::Issuer;
use super::invalid::Invalid;
use super::json;
use super::jws::UnverifiedJws;
use super::key_set::KeySet;
use super::revocation::Standing;
use super::verified::Verified;

/// Media type of every document of the feed (`typ`, BP-6): no other kind of token is taken for one.
pub const FEED_TYP: &str = "stagedoor-revocations+jwt";
/// How old knowledge may be before it is stale, seconds (contract.md §7).
pub const KNOWLEDGE_BOUND_SECONDS: i64 = 5;
/// The bounds within which that may be configured, seconds.
pub const KNOWLEDGE_BOUND_RANGE: std::ops::RangeInclusive<i64> = 2..=60;
/// The largest document that is read, bytes: more than a hundred thousand revocations.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// How many additions are kept beside the large set before both are put together.
const RECENT: usize = 512;

/// What kind of document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedKind {
    /// Everything that is revoked and not yet expired.
    Snapshot,
    /// What was revoked since `prev`.
    Revocation,
    /// Nothing was revoked since `prev`.
    Heartbeat,
}

/// One document of the feed. No person's id and no reason stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedDocument {
    /// Whose revocations.
    pub iss: Issuer,
    /// When they were read from the database, seconds. Freshness counts from here.
    pub iat: i64,
    /// The same, milliseconds: whole seconds are too coarse for the shortest bound.
    pub read_ms: i64,
    /// After this nobody should look at the document, seconds.
    pub exp: i64,
    /// When the next one is to be expected, seconds.
    pub next_update: i64,
    /// Snapshot, revocation or heartbeat.
    pub kind: FeedKind,
    /// The log's epoch: a restored database raises it.
    pub epoch: u32,
    /// How much of the log it covers: the global index after the last entry.
    pub seq: i64,
    /// What a reader must know at least for this document to be the next one; a snapshot needs nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prev: Option<i64>,
    /// Refused keys.
    #[serde(default)]
    pub kids: Vec<String>,
    /// Cut-offs: tokens of a client issued at or before the second given are refused.
    #[serde(default)]
    pub clients: BTreeMap<String, i64>,
    /// The cut-off of every token.
    #[serde(default)]
    pub all: Option<i64>,
    /// Revoked grants, sorted.
    #[serde(default)]
    pub sids: Vec<String>,
}

/// Why a document was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// Not a JWT of the feed, or not signed by one of its keys.
    #[error("the document is not one of this feed: {0}")]
    Invalid(Invalid),
    /// Of another kind of token.
    #[error("the document's typ is another")]
    Typ,
    /// Its members are not those of a document of the feed.
    #[error("the document's claims are not those of the feed")]
    Claims,
    /// Of another issuer.
    #[error("the document is of another issuer")]
    Issuer,
    /// Of an older epoch or sequence number than what is known.
    #[error("the document is older than what is known")]
    Older,
    /// Read later than now: whoever signed it has a wrong clock, and would make knowledge look fresh until then.
    #[error("the document's time lies ahead of this machine's clock")]
    Future,
    /// Something lies between what is known and this document: a snapshot is needed.
    #[error("there is a gap between what is known and the document")]
    Gap,
}

impl FeedDocument {
    /// Reads and verifies a document of `issuer`'s feed.
    ///
    /// # Errors
    /// Forged, foreign, of another kind, or malformed.
    pub fn open(text: &str, issuer: &Issuer, keys: &KeySet) -> Result<Self, FeedError> {
        let jws = UnverifiedJws::parse(text, MAX_DOCUMENT_BYTES).map_err(FeedError::Invalid)?;
        let typ = jws.unverified_header().typ.as_deref().unwrap_or("");
        let bare = typ.strip_prefix("application/").unwrap_or(typ);
        if !bare.eq_ignore_ascii_case(FEED_TYP) {
            return Err(FeedError::Typ);
        }
        if jws.unverified_header().kid.is_none() {
            return Err(FeedError::Invalid(Invalid::KeyUnknown));
        }
        jws.verify(keys).map_err(FeedError::Invalid)?;
        let claims =
            json::parse_strict(&jws.into_payload(), json::MAX_DEPTH).map_err(|_| FeedError::Claims)?;
        let document: Self = serde_json::from_value(claims).map_err(|_| FeedError::Claims)?;
        if document.iss != *issuer {
            return Err(FeedError::Issuer);
        }
        // the finer time must be the same second, else the signed `iat` would not be what counts
        if document.read_ms.div_euclid(1000) != document.iat || document.seq < 0 {
            return Err(FeedError::Claims);
        }
        Ok(document)
    }
}

/// A set that grows by little and is read all the time: a large part that is shared, and recent additions.
#[derive(Debug, Clone, Default)]
pub struct GrowingSet {
    base: Arc<Ids>,
    recent: Arc<Ids>,
}

type Ids = HashSet<Box<str>, BuildHasherDefault<TailHasher>>;

/// Hashes an id by its end, where ours are random. Nobody else's get in: what is in the set and what is looked
/// up are both signed by the service. A keyed hash over the whole would cost a twentieth of a verification.
#[derive(Debug, Clone, Default)]
pub struct TailHasher(u64);

impl Hasher for TailHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut tail = [0u8; 8];
        let length = bytes.len().min(8);
        tail[..length].copy_from_slice(&bytes[bytes.len() - length..]);
        self.0 ^= u64::from_le_bytes(tail);
    }

    // what `str` adds to its bytes tells texts apart that are hashed one after another; here there is one
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        let mixed = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

impl GrowingSet {
    /// Whether `text` is in the set.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        // Almost always empty or without it: no hash is computed for an empty set.
        (!self.recent.is_empty() && self.recent.contains(text))
            || (!self.base.is_empty() && self.base.contains(text))
    }

    /// The set with `more` in it.
    #[must_use]
    pub fn with<'t>(&self, more: impl IntoIterator<Item = &'t str>) -> Self {
        let mut recent = Ids::clone(&self.recent);
        recent.extend(more.into_iter().filter(|text| !self.base.contains(*text)).map(Box::from));
        if recent.len() <= RECENT {
            return Self { base: Arc::clone(&self.base), recent: Arc::new(recent) };
        }
        let mut base = Ids::clone(&self.base);
        base.extend(recent);
        Self { base: Arc::new(base), recent: Arc::default() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.base.len() + self.recent.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.base.is_empty() && self.recent.is_empty()
    }
}

impl<'t> FromIterator<&'t str> for GrowingSet {
    fn from_iter<I: IntoIterator<Item = &'t str>>(texts: I) -> Self {
        Self { base: Arc::new(texts.into_iter().map(Box::from).collect()), recent: Arc::default() }
    }
}

/// What is known of revocations at one moment. Cheap to clone; a change makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The log's epoch.
    pub epoch: u32,
    /// How much of the log is known.
    pub seq: i64,
    /// When it was true.
    pub as_of: DateTime<Utc>,
    /// Revoked grants.
    pub sids: GrowingSet,
    /// Refused keys.
    pub kids: Arc<HashSet<Box<str>>>,
    /// Cut-offs of clients, seconds.
    pub clients: Arc<HashMap<Box<str>, i64>>,
    /// The cut-off of everything, seconds.
    pub all: Option<i64>,
}

impl Known {
    /// Knowledge after a document. `None` before the first one: only a snapshot will do.
    ///
    /// # Errors
    /// [`FeedError::Older`] and [`FeedError::Gap`]; what was known stays.
    pub fn after(known: Option<&Self>, document: &FeedDocument) -> Result<Self, FeedError> {
        let as_of = DateTime::from_timestamp_millis(document.read_ms).ok_or(FeedError::Claims)?;
        if let Some(known) = known {
            if (document.epoch, document.seq) < (known.epoch, known.seq) {
                return Err(FeedError::Older);
            }
            // The same sequence number read earlier tells nothing new and must not make knowledge younger.
            if (document.epoch, document.seq) == (known.epoch, known.seq) && as_of < known.as_of {
                return Err(FeedError::Older);
            }
        }
        if document.kind == FeedKind::Snapshot {
            return Ok(Self {
                epoch: document.epoch,
                seq: document.seq,
                as_of,
                sids: document.sids.iter().map(String::as_str).collect(),
                kids: Arc::new(document.kids.iter().map(|kid| kid.as_str().into()).collect()),
                clients: Arc::new(document.clients.iter().map(|(c, t)| (c.as_str().into(), *t)).collect()),
                all: document.all,
            });
        }
        let known = known.ok_or(FeedError::Gap)?;
        let prev = document.prev.ok_or(FeedError::Claims)?;
        if document.epoch != known.epoch || prev > known.seq {
            return Err(FeedError::Gap);
        }
        let mut next = Self { seq: document.seq, as_of: as_of.max(known.as_of), ..known.clone() };
        next.add(document);
        Ok(next)
    }

    /// Adds what a document names; nothing is ever taken away but by a snapshot.
    fn add(&mut self, document: &FeedDocument) {
        if !document.sids.is_empty() {
            self.sids = self.sids.with(document.sids.iter().map(String::as_str));
        }
        if !document.kids.is_empty() {
            let mut kids = HashSet::clone(&self.kids);
            kids.extend(document.kids.iter().map(|kid| Box::from(kid.as_str())));
            self.kids = Arc::new(kids);
        }
        if !document.clients.is_empty() {
            let mut clients = HashMap::clone(&self.clients);
            for (client, until) in &document.clients {
                let at = clients.entry(client.as_str().into()).or_insert(*until);
                *at = (*at).max(*until);
            }
            self.clients = Arc::new(clients);
        }
        self.all = self.all.max(document.all);
    }

    /// Whether a token of this issuer is revoked, as far as is known; nothing about how fresh that is.
    #[must_use]
    pub fn revokes(&self, token: &Verified) -> bool {
        let issued = token.iat.map_or(i64::MIN, |iat| iat.timestamp());
        let client = || token.client_id.as_deref().and_then(|client| self.clients.get(client));
        self.all.is_some_and(|until| issued <= until)
            || token.sid.as_deref().is_some_and(|sid| self.sids.contains(sid))
            || (!self.kids.is_empty() && self.kids.contains(token.kid.as_str()))
            || (!self.clients.is_empty() && client().is_some_and(|until| issued <= *until))
    }

    /// How a token of this issuer stands at `now`, when knowledge older than `bound` is stale.
    #[must_use]
    pub fn standing(&self, token: &Verified, now: DateTime<Utc>, bound: TimeDelta) -> Standing {
        if self.revokes(token) {
            Standing::Revoked
        } else if self.is_stale(now, bound) {
            Standing::Stale
        } else {
            Standing::Good
        }
    }

    /// Too old, or from further ahead than clocks differ: either way not to be relied on.
    #[must_use]
    pub fn is_stale(&self, now: DateTime<Utc>, bound: TimeDelta) -> bool {
        (now - self.as_of).abs() > bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Alg, LocalSigner, Signer as _, encode_jws};

    const NOW: i64 = 1_795_333_985;

    fn issuer() -> Issuer {
        "https://stagedoor.example".parse().unwrap()
    }

    fn document(kind: FeedKind, seq: i64, prev: Option<i64>, sids: &[&str]) -> FeedDocument {
        FeedDocument {
            iss: issuer(),
            iat: NOW,
            read_ms: NOW * 1000 + 250,
            exp: NOW + 60,
            next_update: NOW + 1,
            kind,
            epoch: 1,
            seq,
            prev,
            kids: Vec::new(),
            clients: BTreeMap::new(),
            all: None,
            sids: sids.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn a_document_opens_only_with_its_keys_issuer_typ_and_form() {
        let (key, other) =
            (LocalSigner::generate(Alg::Es256).unwrap(), LocalSigner::generate(Alg::Es256).unwrap());
        let keys = KeySet::new([key.verifying_key().clone()]);
        let sound = document(FeedKind::Snapshot, 7, None, &["act_1"]);
        let text = encode_jws(&key, FEED_TYP, &sound).unwrap().into_string();
        assert_eq!(FeedDocument::open(&text, &issuer(), &keys).unwrap(), sound);

        let forged = encode_jws(&other, FEED_TYP, &sound).unwrap().into_string();
        assert!(
            matches!(FeedDocument::open(&forged, &issuer(), &keys), Err(FeedError::Invalid(_))),
            "forgery"
        );
        let token = encode_jws(&key, "at+jwt", &sound).unwrap().into_string();
        assert_eq!(FeedDocument::open(&token, &issuer(), &keys), Err(FeedError::Typ), "BP-7");
        let foreign = FeedDocument { iss: "https://other.example".parse().unwrap(), ..sound.clone() };
        let foreign = encode_jws(&key, FEED_TYP, &foreign).unwrap().into_string();
        assert_eq!(FeedDocument::open(&foreign, &issuer(), &keys), Err(FeedError::Issuer), "another issuer");
        let younger = FeedDocument { read_ms: (NOW + 30) * 1000, ..sound.clone() };
        let younger = encode_jws(&key, FEED_TYP, &younger).unwrap().into_string();
        assert_eq!(FeedDocument::open(&younger, &issuer(), &keys), Err(FeedError::Claims));
        for i in [10, text.len() / 2, text.len() - 2] {
            let mut bytes = text.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(FeedDocument::open(&changed, &issuer(), &keys).is_err(), "byte {i}");
        }
    }

    #[test]
    fn knowledge_only_moves_forward() {
        let start = Known::after(None, &document(FeedKind::Snapshot, 10, None, &["act_1"])).unwrap();
        assert_eq!(
            Known::after(None, &document(FeedKind::Heartbeat, 10, Some(10), &[])).unwrap_err(),
            FeedError::Gap,
            "nothing but a snapshot to begin with"
        );
        let next =
            Known::after(Some(&start), &document(FeedKind::Revocation, 12, Some(10), &["act_2"])).unwrap();
        assert!(next.sids.contains("act_1") && next.sids.contains("act_2"));
        for kind in [FeedKind::Snapshot, FeedKind::Revocation, FeedKind::Heartbeat] {
            let older = document(kind, 11, Some(1), &[]);
            assert_eq!(Known::after(Some(&next), &older).unwrap_err(), FeedError::Older, "replay, downgrade");
        }
        let gap = document(FeedKind::Heartbeat, 20, Some(15), &[]);
        assert_eq!(Known::after(Some(&next), &gap).unwrap_err(), FeedError::Gap);
        let mut earlier = document(FeedKind::Heartbeat, 12, Some(12), &[]);
        earlier.read_ms -= 200;
        assert_eq!(Known::after(Some(&next), &earlier).unwrap_err(), FeedError::Older);
        let mut restored = document(FeedKind::Revocation, 3, Some(2), &[]);
        restored.epoch = 2;
        assert_eq!(
            Known::after(Some(&next), &restored).unwrap_err(),
            FeedError::Gap,
            "a new epoch forces a snapshot"
        );
        restored.kind = FeedKind::Snapshot;
        assert_eq!(Known::after(Some(&next), &restored).unwrap().epoch, 2);
    }

    #[test]
    fn cut_offs_never_move_back_but_by_a_snapshot() {
        let mut first = document(FeedKind::Snapshot, 1, None, &[]);
        first.clients.insert("client_1".into(), NOW);
        first.all = Some(NOW - 5);
        let known = Known::after(None, &first).unwrap();
        let mut second = document(FeedKind::Revocation, 2, Some(1), &[]);
        second.clients.insert("client_1".into(), NOW - 10);
        let known = Known::after(Some(&known), &second).unwrap();
        assert_eq!(known.clients["client_1"], NOW);
        assert_eq!(known.all, Some(NOW - 5));
    }

    #[test]
    fn knowledge_is_stale_in_both_directions_of_time() {
        let known = Known::after(None, &document(FeedKind::Snapshot, 1, None, &[])).unwrap();
        let bound = TimeDelta::seconds(KNOWLEDGE_BOUND_SECONDS);
        let at = |seconds: i64| DateTime::from_timestamp(NOW + seconds, 0).unwrap();
        assert!(!known.is_stale(at(0), bound) && !known.is_stale(at(5), bound));
        assert!(known.is_stale(at(6), bound), "too old");
        assert!(known.is_stale(at(-60), bound) && known.is_stale(at(60), bound), "a clock one minute off");
    }

    #[test]
    fn a_growing_set_holds_what_was_put_into_it() {
        let mut set = GrowingSet::default();
        for i in 0..1500 {
            set = set.with([format!("act_{i}").as_str()]);
        }
        assert_eq!(set.len(), 1500);
        assert!((0..1500).all(|i| set.contains(&format!("act_{i}"))) && !set.contains("act_x"));
        assert_eq!(set.with(["act_1", "act_1400"]).len(), 1500, "no repeats");
    }
}
