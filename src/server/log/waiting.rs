//! Who may still queue up: as many as are recorded in time, and no client takes what another needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::LogError;
use crate::token::{ClientId, Clock};

/// Commits that may always be waited for, however slow one is: while one runs, a client alone still fills the next.
const MIN_COMMITS: usize = 4;
/// How much the newest commit says about the next one: a quarter.
const WEIGHT: u32 = 4;
/// How often the operator is told that attempts are refused.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The records that wait for a commit, by client.
pub(super) struct Waiting {
    clock: Arc<dyn Clock>,
    batch: usize,
    queue: usize,
    /// How long a record may be expected to wait before another is refused.
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: usize,
    by_client: HashMap<ClientId, usize>,
    /// How long a commit takes; `None` before the first.
    commit: Option<Duration>,
    /// Since when the commit under way is.
    since: Option<Duration>,
    refused: u64,
    told: Option<Duration>,
}

/// How much waits, and how many attempts were refused so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Records that wait for their commit.
    pub waiting: u64,
    /// Attempts refused, as they would have waited too long.
    pub refused: u64,
}

/// A record's place in the queue, given up when it is answered.
pub(super) struct Place {
    waiting: Arc<Waiting>,
    client: Option<ClientId>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Waiting {
    pub fn new(clock: Arc<dyn Clock>, batch: usize, queue: usize, patience: Duration) -> Self {
        Self { clock, batch, queue, patience, state: Mutex::default() }
    }

    /// Whether an attempt of `client` would be let in now; asked before any work is put into it.
    ///
    /// # Errors
    /// [`LogError::Overloaded`]
    pub fn look(&self, client: &ClientId) -> Result<(), LogError> {
        self.admit(&mut self.lock(), client)
    }

    /// Takes a place for an attempt of `client`. `None` is the service itself, or what stops something: they always
    /// get in, as long as the queue holds them.
    ///
    /// # Errors
    /// [`LogError::Overloaded`]
    pub fn enter(self: &Arc<Self>, client: Option<&ClientId>) -> Result<Place, LogError> {
        let mut state = self.lock();
        if let Some(client) = client {
            self.admit(&mut state, client)?;
            *state.by_client.entry(client.clone()).or_default() += 1;
        }
        state.total += 1;
        Ok(Place { waiting: Arc::clone(self), client: client.cloned() })
    }

    /// A client may take as many places as it leaves free for others: alone half of them, one of two a third. However
    /// many one of them sends, there is room for the other.
    fn admit(&self, state: &mut State, client: &ClientId) -> Result<(), LogError> {
        let own = state.by_client.get(client).copied().unwrap_or(0);
        let now = self.clock.monotonic();
        if own < self.places(state, now).saturating_sub(state.total) {
            return Ok(());
        }
        state.refused += 1;
        if state.told.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY) {
            state.told = Some(now);
            tracing::warn!(
                waiting = state.total,
                refused = state.refused,
                "more is asked for than the log can record in time: attempts are refused with 503"
            );
        }
        Err(LogError::Overloaded)
    }

    /// As many as are recorded in time; a commit that hangs counts as long as it has hung.
    fn places(&self, state: &State, now: Duration) -> usize {
        let running = state.since.map(|since| now.saturating_sub(since));
        let commit = state.commit.max(running).unwrap_or_default().as_micros().max(1);
        let commits =
            usize::try_from(self.patience.as_micros() / commit).unwrap_or(usize::MAX).max(MIN_COMMITS);
        self.batch.saturating_mul(commits).min(self.queue)
    }

    /// A commit begins.
    pub fn begins(&self) {
        let now = self.clock.monotonic();
        self.lock().since = Some(now);
    }

    /// It is over, whatever came of it.
    pub fn ends(&self) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let Some(since) = state.since.take() else { return };
        let took = now.saturating_sub(since);
        state.commit = Some(match state.commit {
            None => took,
            Some(before) => (before * (WEIGHT - 1) + took) / WEIGHT,
        });
    }

    pub fn load(&self) -> Load {
        let state = self.lock();
        Load { waiting: state.total as u64, refused: state.refused }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        state.total -= 1;
        if let Some(client) = &self.client
            && let Some(own) = state.by_client.get_mut(client)
        {
            *own -= 1;
            if *own == 0 {
                state.by_client.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use chrono::{DateTime, Utc};

    use super::*;

    /// A clock that stands at so many milliseconds.
    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn desk(batch: usize, queue: usize) -> (Arc<Hand>, Arc<Waiting>) {
        let hand = Arc::new(Hand::default());
        (hand.clone(), Arc::new(Waiting::new(hand, batch, queue, Duration::from_millis(100))))
    }

    fn commit(hand: &Hand, waiting: &Waiting, millis: u64) {
        waiting.begins();
        hand.0.fetch_add(millis, Ordering::Relaxed);
        waiting.ends();
    }

    fn fill(waiting: &Arc<Waiting>, client: &str) -> Vec<Place> {
        let client = ClientId::try_from(client).unwrap();
        std::iter::from_fn(|| waiting.enter(Some(&client)).ok()).collect()
    }

    #[test]
    fn as_many_wait_as_are_recorded_in_time() {
        let (hand, waiting) = desk(10, 4096);
        commit(&hand, &waiting, 20);
        assert_eq!(fill(&waiting, "client_a").len(), 25, "half of five commits of ten");
        let (hand, waiting) = desk(10, 4096);
        commit(&hand, &waiting, 5);
        assert_eq!(fill(&waiting, "client_a").len(), 100, "half of twenty commits");
        let (hand, waiting) = desk(10, 30);
        commit(&hand, &waiting, 1);
        assert_eq!(fill(&waiting, "client_a").len(), 15, "never more than the queue holds");
    }

    #[test]
    fn a_commit_that_hangs_is_as_slow_as_it_has_hung() {
        let (hand, waiting) = desk(10, 4096);
        commit(&hand, &waiting, 1);
        waiting.begins();
        hand.0.fetch_add(60_000, Ordering::Relaxed);
        assert_eq!(fill(&waiting, "client_a").len(), 20, "half of the four that may always be waited for");
    }

    #[test]
    fn one_clients_flood_leaves_room_for_another() {
        let (hand, waiting) = desk(10, 4096);
        commit(&hand, &waiting, 50);
        let flood = fill(&waiting, "client_a");
        assert_eq!(flood.len(), 20);
        let other = fill(&waiting, "client_b");
        assert_eq!(other.len(), 10, "half of what was left");
        assert!(!fill(&waiting, "client_c").is_empty(), "and there is room for a third");
        assert!(waiting.enter(None).is_ok(), "what stops something always gets in");
        assert!(waiting.load().refused >= 3);
    }

    #[test]
    fn who_is_answered_makes_room_and_is_forgotten() {
        let (hand, waiting) = desk(1, 4096);
        commit(&hand, &waiting, 200);
        let flood = fill(&waiting, "client_a");
        let client = ClientId::try_from("client_a").unwrap();
        assert!(waiting.look(&client).is_err());
        drop(flood);
        assert!(waiting.look(&client).is_ok());
        assert_eq!(waiting.load().waiting, 0);
        assert!(waiting.lock().by_client.is_empty(), "nothing is remembered of who is not there");
    }

    #[test]
    fn fast_commits_are_believed_again_soon() {
        let (hand, waiting) = desk(10, 4096);
        commit(&hand, &waiting, 20);
        for _ in 0..12 {
            commit(&hand, &waiting, 1);
        }
        assert!(fill(&waiting, "client_a").len() > 200, "a dozen commits later");
    }
}
