//! Uses of tokens that this service sees (verification, introspection, gates), recorded at most once a minute a
//! token and beside the request: nobody waits for it, and a use that cannot be recorded refuses nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Map;
use tokio::sync::mpsc;

use super::clock_guard::micros;
use super::{Event, EventType, Log, LogError, Record};
use crate::server::remembered::Remembered;
use crate::server::store::read;
use crate::token::{ClientId, Clock, GrantId};

/// One use of a token is recorded in this time.
pub const ONCE_IN: Duration = Duration::from_mins(1);
/// The member of a use's `detail` that says when the token was shown, microseconds.
pub const USED_AT: &str = "at";
/// Tokens remembered as seen; beyond it some are looked for in the log again.
const REMEMBERED: usize = 100_000;
/// Sightings that may wait to be recorded; more are let go.
const WAITING: usize = 4096;
/// Sightings recorded at a time.
const TOGETHER: usize = 64;
/// Newest entries of a grant among which an earlier use is looked for.
const LOOKED_AT: usize = 8;

/// A use that was seen.
#[derive(Debug, Clone)]
struct Sighting {
    grant: GrantId,
    client: Option<ClientId>,
    by: &'static str,
    refused: Option<RefusedUse>,
    at: DateTime<Utc>,
}

/// Why a token that is valid was refused: the policy would not give its grant any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedUse {
    /// The rule.
    pub rule: String,
    /// The policy that decided, `id@sha256`, where it was asked.
    pub policy: Option<String>,
}

/// What was seen within the minute, and what waits to be recorded.
pub struct Sightings {
    seen: Remembered<(String, bool), ()>,
    queue: mpsc::Sender<Sighting>,
    waiting: Mutex<Option<mpsc::Receiver<Sighting>>>,
}

impl Default for Sightings {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self { seen: Remembered::at_most(REMEMBERED), queue, waiting: Mutex::new(Some(waiting)) }
    }
}

impl Sightings {
    /// A valid token of `grant` was shown, to `client` or to a gate; `by` says where. Refusals are sampled apart
    /// from uses.
    pub fn saw(
        &self,
        grant: &str,
        client: Option<&ClientId>,
        by: &'static str,
        refused: Option<RefusedUse>,
        clock: &dyn Clock,
    ) {
        let now = clock.monotonic();
        let key = (grant.to_owned(), refused.is_some());
        if self.seen.get(&key, now).is_some() {
            return;
        }
        let Ok(grant) = GrantId::try_from(grant) else { return };
        self.seen.put(key, (), now + ONCE_IN);
        // a full queue loses samples, never requests
        let _ =
            self.queue.try_send(Sighting { grant, client: client.cloned(), by, refused, at: clock.now() });
    }

    /// Records what is seen, until the process ends. A second call returns at once.
    pub async fn record(&self, log: &Log, clock: &dyn Clock) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let mut batch = Vec::with_capacity(TOGETHER);
        while waiting.recv_many(&mut batch, TOGETHER).await > 0 {
            let all = batch.drain(..).map(|sighting| record_one(log, sighting, clock.now()));
            for recorded in futures_util::future::join_all(all).await {
                if let Err(error) = recorded {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a use was not recorded");
                }
            }
        }
    }
}

/// Records a use, unless another replica has done so within the minute.
async fn record_one(log: &Log, sighting: Sighting, now: DateTime<Utc>) -> Result<(), LogError> {
    let since = micros(now - TimeDelta::from_std(ONCE_IN).unwrap_or_default());
    let positions = read::positions_of_grant(log.db(), sighting.grant.as_str()).await?;
    let newest: Vec<i64> = positions.into_iter().rev().take(LOOKED_AT).collect();
    let entries = read::entries_at(log.db(), &newest).await?;
    let used = |body: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| {
            body["typ"] == EventType::Use.as_str() && body.get("rule").is_some() == sighting.refused.is_some()
        })
    };
    if entries.iter().any(|entry| entry.t_us > since && used(&entry.body)) {
        return Ok(());
    }
    // it is recorded a moment later: what was stopped in between must not look as if it was accepted afterwards
    let at = micros(sighting.at).into();
    let detail = Map::from_iter([("by".to_owned(), sighting.by.into()), (USED_AT.to_owned(), at)]);
    let event = Event {
        grant: Some(sighting.grant),
        client: sighting.client,
        detail: Some(detail),
        ..Event::new(EventType::Use)
    };
    match sighting.refused {
        None => log.record(Record::of(event)).await.map(drop),
        Some(RefusedUse { rule, policy }) => log.deny(Event { policy, ..event }, &rule).await.map(drop),
    }
}
