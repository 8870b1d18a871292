//! What this replica knows of revocations: read at start, after every revocation of its own, when another
//! replica says so, and at short intervals whatever happens.
//!
//! The time of the last successful read is how fresh the knowledge is. A replica that cannot read its
//! database refuses actor tokens once that is longer ago than the bound: a stop must not be outlived by a
//! replica that has not heard of it.
//!
//! What was refused stays refused until it would have ended by itself: whoever deletes a revocation from the
//! database lifts it for nobody who knows it, and is seen.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Mutex, watch};

use crate::server::log::GrantRow;
use crate::server::store::revoked::{Reading, Revoked};
use crate::server::store::{Db, StoreError};
use crate::token::feed::{GrowingSet, KNOWLEDGE_BOUND_SECONDS, Known};
use crate::token::revocation::{Revocations, Standing};
use crate::token::{Clock, Verified};

/// How often the database is asked although nobody said that something changed. Twice this and a commit is
/// the most by which a replica lags when notifications are lost.
pub const POLL_EVERY: Duration = Duration::from_millis(250);
/// How long one look may take; a database that hangs is one that cannot be read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a token may live at most, seconds: a cut-off older than that refuses nothing any more.
const LONGEST_LIFE_SECONDS: i64 = 3600;
/// After how many looks everything is read again: what has ended goes, and a hand in the database is seen.
const READ_ALL_EVERY: u32 = 480;

/// Everything in force, for those who publish it.
#[derive(Debug, Default)]
pub struct Rows {
    /// Grants in the order they were revoked.
    grants: Vec<RevokedGrant>,
    /// Keys, with the second they were refused in.
    kids: BTreeMap<String, i64>,
    /// Clients, with the cut-off (seconds).
    pub clients: BTreeMap<String, i64>,
    /// The cut-off of everything (seconds).
    pub all: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RevokedGrant {
    /// Global position of the entry.
    idx: i64,
    id: Arc<str>,
    /// When it ends by itself, microseconds.
    exp_us: i64,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Read {
    rows: Rows,
    looks: u32,
    /// The latest time there was: a clock that goes back brings nothing back that had ended.
    latest: DateTime<Utc>,
}

/// The revocations of this service, in memory.
pub struct RevocationState {
    db: Db,
    clock: Arc<dyn Clock>,
    epoch: u32,
    bound: TimeDelta,
    known: ArcSwap<Known>,
    /// When that was read, milliseconds (monotonic): a clock that is set back makes it no younger.
    read_at_ms: AtomicU64,
    read: Mutex<Read>,
    vanished: AtomicU64,
    published: watch::Sender<Published>,
}

/// What was read last, for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The log's epoch.
    pub epoch: u32,
    /// How much of the log is known: the global position after the last entry.
    pub seq: i64,
    /// When it was read.
    pub as_of: DateTime<Utc>,
    /// Counts every change of what is in force.
    pub version: u64,
}

impl std::fmt::Debug for RevocationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevocationState")
            .field("published", &*self.published.borrow())
            .finish_non_exhaustive()
    }
}

impl RevocationState {
    /// Reads everything that is in force. `epoch` is the log's; knowledge older than `bound` is stale.
    ///
    /// # Errors
    /// The database could not be asked: the service does not start without knowing what is revoked.
    pub async fn load(
        db: Db,
        clock: Arc<dyn Clock>,
        epoch: u32,
        bound: Option<TimeDelta>,
    ) -> Result<Self, StoreError> {
        let as_of = clock.now();
        let (published, _) = watch::channel(Published { epoch, seq: 0, as_of, version: 0 });
        let state = Self {
            db,
            clock,
            epoch,
            bound: bound.unwrap_or(TimeDelta::seconds(KNOWLEDGE_BOUND_SECONDS)),
            known: ArcSwap::from_pointee(Known { epoch, as_of, ..Known::default() }),
            read_at_ms: AtomicU64::new(0),
            read: Mutex::default(),
            vanished: AtomicU64::new(0),
            published,
        };
        state.refresh().await?;
        Ok(state)
    }

    /// Looks at the database now. When this returns, everything that was committed before the call is known.
    ///
    /// # Errors
    /// The database could not be asked; what was known stays, and grows old.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        // one at a time, so that knowledge never moves back; whoever waited looks again, as its own
        // revocation may have been committed after the look before
        let mut read = self.read.lock().await;
        let (as_of, began_ms, known) = (self.clock.now(), self.monotonic_ms(), self.known.load_full());
        // under a clock that ran ahead, what is in force looked as if it had ended
        let everything = read.looks.is_multiple_of(READ_ALL_EVERY) || as_of < known.as_of;
        let from = if everything { 0 } else { known.seq };
        let reading =
            match tokio::time::timeout(READ_TIMEOUT, self.db.revoked_since(from, micros(as_of))).await {
                Ok(reading) => reading?,
                Err(_) => return Err(StoreError::timed_out()),
            };
        read.looks = read.looks.wrapping_add(1);
        self.take_in(&mut read, reading, as_of, everything);
        self.read_at_ms.store(began_ms, Ordering::Relaxed);
        Ok(())
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn take_in(&self, read: &mut Read, reading: Reading, as_of: DateTime<Utc>, everything: bool) {
        let Read { rows, latest, .. } = read;
        *latest = as_of.max(*latest);
        let before = self.known.load_full();
        // A log that became shorter is a database that was set back; the log itself stops for that. What
        // was refused stays refused, and nothing here moves back.
        let seq = before.seq.max(reading.end);
        let known_before = if everything { std::mem::take(rows) } else { Rows::default() };
        let fresh = rows.add(reading, as_of);
        if everything {
            self.tell_vanished(rows.keep(known_before, *latest));
        }
        let mut known = Known { seq, as_of, ..Known::clone(&before) };
        let changed = everything || fresh.changed;
        if everything {
            known.sids = rows.grants.iter().map(|grant| &*grant.id).collect::<GrowingSet>();
        } else if !fresh.grants.is_empty() {
            known.sids = before.sids.with(fresh.grants.iter().map(|id| &**id));
        }
        if changed {
            known.kids = Arc::new(rows.kids().map(Into::into).collect());
            known.clients =
                Arc::new(rows.clients.iter().map(|(c, until)| (c.as_str().into(), *until)).collect());
            known.all = rows.all;
        }
        let (seq, as_of) = (known.seq, known.as_of);
        self.known.store(Arc::new(known));
        self.published.send_modify(|published| {
            published.seq = seq;
            published.as_of = as_of;
            published.version += u64::from(fresh.changed);
        });
    }

    fn tell_vanished(&self, vanished: u64) {
        if vanished > self.vanished.swap(vanished, Ordering::Relaxed) {
            tracing::error!(
                vanished,
                "ALARM: revocations went from the database before their time; they are still refused here"
            );
        }
    }

    /// How many revocations are known that went from the database before their time; must be 0.
    pub fn vanished(&self) -> u64 {
        self.vanished.load(Ordering::Relaxed)
    }

    /// What is known now.
    #[must_use]
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Whether a cut-off or a refused key covers a grant, whatever its row says.
    #[must_use]
    pub fn covers(&self, grant: &GrantRow) -> bool {
        let (known, issued) = (self.known.load(), grant.iat.timestamp());
        known.all.is_some_and(|until| issued <= until)
            || known.clients.get(grant.client.as_str()).is_some_and(|until| issued <= *until)
            || known.kids.contains(grant.kid.as_str())
    }

    /// What was read last, and every reading to come.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Whether this replica has not been able to read for longer than the bound.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.known.load().is_stale(self.clock.now(), self.bound) || self.is_silent()
    }

    /// Whether nothing was read for longer than the bound, whatever the wall clock says.
    fn is_silent(&self) -> bool {
        let since_ms = self.monotonic_ms().saturating_sub(self.read_at_ms.load(Ordering::Relaxed));
        i64::try_from(since_ms).is_ok_and(|since_ms| since_ms > self.bound.num_milliseconds())
    }

    /// Everything in force, while `look` looks at it.
    pub async fn with_rows<T>(&self, look: impl FnOnce(&Rows, Published) -> T) -> T {
        let read = self.read.lock().await;
        let published = *self.published.borrow();
        look(&read.rows, published)
    }

    /// The log's epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Keeps the knowledge fresh for as long as it is polled.
    pub async fn follow(&self) {
        tokio::join!(self.poll(), self.listen());
    }

    async fn poll(&self) {
        let mut ticks = tokio::time::interval(POLL_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let seen = self.refresh().await;
            // said once when it begins: requests that are refused for it say it too
            if let (Err(error), false) = (&seen, failing) {
                tracing::error!(error = error as &dyn std::error::Error, "revocations cannot be read");
            }
            failing = seen.is_err();
        }
    }

    /// Looks as soon as another replica has committed a revocation, where the database can tell.
    async fn listen(&self) {
        loop {
            match self.heed().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "no word of revocations elsewhere"
                    );
                }
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn heed(&self) -> Result<(), StoreError> {
        let Some(mut notices) = self.db.notices().await? else { return Ok(()) };
        loop {
            notices.next().await?;
            self.refresh().await?;
        }
    }
}

/// What a reading added.
struct Fresh {
    grants: Vec<Arc<str>>,
    changed: bool,
}

impl Rows {
    fn add(&mut self, reading: Reading, now: DateTime<Utc>) -> Fresh {
        let mut fresh = Fresh { grants: Vec::new(), changed: false };
        let over = over(now);
        let mut grants = Vec::new();
        for (idx, what) in reading.revoked {
            match what {
                Revoked::Grant(id, exp_us) => {
                    let id: Arc<str> = id.into();
                    fresh.grants.push(Arc::clone(&id));
                    grants.push(RevokedGrant { idx, id, exp_us });
                }
                Revoked::Kid(kid, at) => fresh.changed |= raise(&mut self.kids, kid, at),
                Revoked::Client(client, until) if until > over => {
                    fresh.changed |= raise(&mut self.clients, client, until);
                }
                Revoked::All(until) if until > over => {
                    fresh.changed |= Some(until) > self.all;
                    self.all = self.all.max(Some(until));
                }
                Revoked::Client(..) | Revoked::All(_) => {}
            }
        }
        fresh.changed |= !grants.is_empty();
        grants.sort_unstable();
        // a reading begins where the last one ended: what is new comes after what is known
        self.grants.append(&mut grants);
        fresh
    }

    /// Takes back from `before` what this reading of everything should have found and did not; how much.
    fn keep(&mut self, before: Self, now: DateTime<Utc>) -> u64 {
        let (over, mut kept) = (over(now), 0);
        let there: HashSet<&str> = self.grants.iter().map(|grant| &*grant.id).collect();
        let in_force = |grant: &RevokedGrant| grant.exp_us > micros(now) && !there.contains(&*grant.id);
        let mut gone: Vec<_> = before.grants.into_iter().filter(in_force).collect();
        if !gone.is_empty() {
            kept += gone.len() as u64;
            self.grants.append(&mut gone);
            self.grants.sort_unstable();
        }
        for (own, known) in [(&mut self.kids, before.kids), (&mut self.clients, before.clients)] {
            let in_force = known.into_iter().filter(|(_, until)| *until > over);
            kept += in_force.map(|(key, until)| u64::from(raise(own, key, until))).sum::<u64>();
        }
        if let Some(until) = before.all.filter(|until| *until > over && self.all < before.all) {
            kept += 1;
            self.all = Some(until);
        }
        kept
    }

    /// The refused keys.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.kids.keys().map(String::as_str)
    }

    /// The grants revoked by entries from the global position `from` on.
    pub fn grants_since(&self, from: i64) -> impl ExactSizeIterator<Item = &Arc<str>> {
        let start = self.grants.partition_point(|grant| grant.idx < from);
        self.grants[start..].iter().map(|grant| &grant.id)
    }
}

/// Notes a cut-off; whether it is later than the one that is known.
fn raise(known: &mut BTreeMap<String, i64>, key: String, until: i64) -> bool {
    let known = known.entry(key).or_insert(i64::MIN);
    let later = until > *known;
    *known = until.max(*known);
    later
}

/// A cut-off of this second or before refuses nothing any more.
const fn over(now: DateTime<Utc>) -> i64 {
    now.timestamp() - LONGEST_LIFE_SECONDS - 60
}

impl Revocations for RevocationState {
    fn standing(&self, token: &Verified, now: DateTime<Utc>) -> Standing {
        match self.known.load().standing(token, now, self.bound) {
            Standing::Good if self.is_silent() => Standing::Stale,
            standing => standing,
        }
    }
}

fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}
