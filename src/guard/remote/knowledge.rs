//! What a guard knows of one service's revocations, and for how long it relies on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chrono::{DateTime, TimeDelta, Utc};

use crate::token::feed::{FeedDocument, FeedError, KNOWLEDGE_BOUND_SECONDS, Known};
use crate::token::revocation::{Revocations, Standing};
use crate::token::{Clock, Issuer, SystemClock, Verified};

/// What is known of one service's revocations: give it to
/// [`VerifierBuilder::revocations`](crate::token::verifier::VerifierBuilder::revocations). It answers from
/// memory. Older than its bound, it says so for every token of that service.
pub struct Knowledge {
    pub(super) issuer: Issuer,
    pub(super) bound: TimeDelta,
    pub(super) clock: Arc<dyn Clock>,
    held: ArcSwapOption<Held>,
    /// One document at a time: knowledge never moves back.
    taking: Mutex<()>,
}

/// What the newest document said, and when it came.
struct Held {
    known: Known,
    /// Monotonic: however the clocks of service and guard differ, and wherever the guard's is set, nobody is believed for
    /// longer than the bound after his last word.
    heard: Duration,
}

impl std::fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knowledge")
            .field("issuer", &self.issuer)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

impl Knowledge {
    pub(super) fn none_yet(issuer: Issuer) -> Self {
        Self {
            issuer,
            bound: TimeDelta::seconds(KNOWLEDGE_BOUND_SECONDS),
            clock: Arc::new(SystemClock::default()),
            held: ArcSwapOption::empty(),
            taking: Mutex::default(),
        }
    }

    /// How old it is at `now`; `None` before the first snapshot.
    #[must_use]
    pub fn age(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        self.held.load().as_ref().map(|held| now - held.known.as_of)
    }

    /// Whether it is too old to rely on at `now`, or not there.
    #[must_use]
    pub fn is_stale(&self, now: DateTime<Utc>) -> bool {
        self.held
            .load()
            .as_ref()
            .is_none_or(|held| held.known.is_stale(now, self.bound) || self.is_silent(held))
    }

    fn is_silent(&self, held: &Held) -> bool {
        self.clock.monotonic().saturating_sub(held.heard) > self.bound.to_std().unwrap_or_default()
    }

    /// How many revoked grants it holds.
    #[must_use]
    pub fn revoked_grants(&self) -> usize {
        self.held.load().as_ref().map_or(0, |held| held.known.sids.len())
    }

    /// Epoch and sequence number of the newest document.
    pub(super) fn newest(&self) -> Option<(u32, i64)> {
        self.held.load().as_ref().map(|held| (held.known.epoch, held.known.seq))
    }

    pub(super) fn take(&self, document: &FeedDocument) -> Result<(), FeedError> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Known::after(self.held.load().as_ref().map(|held| &held.known), document)?;
        self.held.store(Some(Arc::new(Held { known, heard: self.clock.monotonic() })));
        Ok(())
    }

    /// Ours, or profile `clerk` under ours.
    fn speaks_for(&self, iss: &Issuer) -> bool {
        iss.as_str()
            .strip_prefix(self.issuer.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("/clerk/"))
    }
}

impl Revocations for Knowledge {
    fn standing(&self, token: &Verified, now: DateTime<Utc>) -> Standing {
        match self.held.load().as_ref() {
            Some(held) if self.speaks_for(&token.iss) => match held.known.standing(token, now, self.bound) {
                Standing::Good if self.is_silent(held) => Standing::Stale,
                standing => standing,
            },
            // nothing is known of it: neither before the first snapshot nor of another service's tokens
            _ => Standing::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::token::FixedClock;
    use crate::token::feed::FeedKind;

    const NOW: i64 = 1_795_333_985;

    /// contract.md §7: nobody relies on what is older than the bound, by how much ever two clocks differ.
    #[test]
    fn a_clock_that_is_behind_makes_nothing_younger() {
        let clock = Arc::new(FixedClock::at_seconds(NOW - 4));
        let issuer: Issuer = "https://stagedoor.example".parse().unwrap();
        let knowledge = Knowledge { clock: clock.clone(), ..Knowledge::none_yet(issuer.clone()) };
        assert!(knowledge.is_stale(clock.now()), "nothing was heard yet");
        let document = FeedDocument {
            iss: issuer,
            iat: NOW,
            read_ms: NOW * 1000,
            exp: NOW + 60,
            next_update: NOW + 1,
            kind: FeedKind::Snapshot,
            epoch: 1,
            seq: 7,
            prev: None,
            kids: Vec::new(),
            clients: BTreeMap::new(),
            all: None,
            sids: Vec::new(),
        };
        knowledge.take(&document).unwrap();
        clock.advance(Duration::from_millis(4900));
        assert!(!knowledge.is_stale(clock.now()));
        clock.advance(Duration::from_millis(200));
        assert!(knowledge.is_stale(clock.now()), "by its clock the document is a second old");
        knowledge.take(&FeedDocument { read_ms: NOW * 1000 + 5000, ..document }).unwrap();
        assert!(!knowledge.is_stale(clock.now()));
        clock.advance(Duration::from_secs(3));
        clock.jump_to(DateTime::from_timestamp(NOW + 5, 0).unwrap());
        clock.advance(Duration::from_secs(3));
        assert!(
            knowledge.is_stale(clock.now()),
            "a clock that is set back while the service is away changes nothing"
        );
    }
}
