//! The rule of anomaly: one actor with many different targets in a window.
//!
//! Minting only notes whom it saw; past an eighth of the most, the log is asked, which knows what other replicas
//! granted. Nothing waits for the answer. What *refuses* is the policy (`@max_targets_per_hour`,
//! `context.targets_last_hour`), which counts inside the append.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use crate::server::config::AnomalyConfig;
use crate::server::log::{EntryFilter, Event, EventType, Log, LogError, Record};
use crate::server::remembered::Remembered;
use crate::token::{Act, Clock, Sub};

/// What the entry names as its rule.
const RULE: &str = "many_targets";
/// With as many replicas sharing an actor's mints evenly, the log is still asked in time.
const REPLICAS: u32 = 8;
/// Pairs and actors kept in mind; what is forgotten is asked of the log once more.
const MOST_PAIRS: usize = 65_536;
const MOST_ACTORS: usize = 8192;
/// Actors that may wait to be looked at; one more is looked at with his next target.
const QUEUE: usize = 256;

/// Notes who is granted whom, and raises an entry about an actor with too many.
pub struct TargetWatch {
    most: u32,
    window: Duration,
    clock: Arc<dyn Clock>,
    log: Log,
    hash: RandomState,
    pairs: Remembered<u64, ()>,
    targets: Remembered<u64, u32>,
    raised: Remembered<u64, ()>,
    queue: mpsc::Sender<Act>,
    waiting: Mutex<mpsc::Receiver<Act>>,
    count: AtomicU64,
}

impl TargetWatch {
    /// A watch as configured.
    #[must_use]
    pub fn new(config: AnomalyConfig, log: Log, clock: Arc<dyn Clock>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self {
            most: config.max_targets,
            window: Duration::from_secs(config.window_seconds.into()),
            clock,
            log,
            hash: RandomState::new(),
            pairs: Remembered::at_most(MOST_PAIRS),
            targets: Remembered::at_most(MOST_ACTORS),
            raised: Remembered::at_most(MOST_ACTORS),
            queue,
            waiting: Mutex::new(waiting),
            count: AtomicU64::new(0),
        }
    }

    /// `actor` was granted `target`.
    pub(super) fn saw(&self, actor: &Act, target: &Sub) {
        let now = self.clock.monotonic();
        let (who, until) = (self.key(actor), now + self.window);
        let pair = self.hash.hash_one((who, target));
        if self.most == 0 || self.pairs.get(&pair, now).is_some() {
            return;
        }
        self.pairs.put(pair, (), until);
        let targets = self.targets.get(&who, now).unwrap_or(0).saturating_add(1);
        self.targets.put(who, targets, until);
        if targets > self.most / REPLICAS && self.raised.get(&who, now).is_none() {
            let outermost = Act { sub: actor.sub.clone(), iss: actor.iss.clone(), act: None };
            // a full queue: his next target asks again
            let _ = self.queue.try_send(outermost);
        }
    }

    /// Entries this process raised.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks at the actors that may be over, for ever.
    pub async fn run(&self) {
        let mut waiting = self.waiting.lock().await;
        while let Some(actor) = waiting.recv().await {
            if let Err(error) = self.look(&actor).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "an actor's targets are counted with his next one");
            }
        }
    }

    /// Counts in the log, and raises one entry a window.
    async fn look(&self, actor: &Act) -> Result<(), LogError> {
        let (who, now) = (self.key(actor), self.clock.monotonic());
        if self.raised.get(&who, now).is_some() {
            return Ok(());
        }
        let since = self.clock.now() - self.window;
        let targets = u32::try_from(self.log.targets_since(actor, since).await?.len()).unwrap_or(u32::MAX);
        if targets <= self.most {
            return Ok(());
        }
        let filter = EntryFilter {
            actor: Some(actor.sub.clone()),
            typ: Some(EventType::Anomaly.as_str().into()),
            since: Some(since),
            ..EntryFilter::default()
        };
        // a handful: actors of the same id at other issuers
        let before = self.log.entries(&filter, None, 10, true).await?;
        let the_same = serde_json::to_value(actor).ok();
        if !before
            .rows
            .iter()
            .any(|row| row.personal.as_ref().and_then(|p| p.get("act")) == the_same.as_ref())
        {
            let mut event = Event { rule: Some(RULE.into()), ..Event::new(EventType::Anomaly) };
            event.personal.actor = Some(actor.clone());
            let detail = [("targets", targets.into()), ("window_seconds", self.window.as_secs().into())];
            event.detail = Some(detail.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
            let recorded = self.log.record(Record::of(event)).await?;
            self.count.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(index = recorded.index, targets, "an actor has unusually many targets");
        }
        self.raised.put(who, (), now + self.window);
        Ok(())
    }

    fn key(&self, actor: &Act) -> u64 {
        self.hash.hash_one((&actor.sub, &actor.iss))
    }
}
