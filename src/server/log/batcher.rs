//! Group commit: one task takes whatever waits, records it in one transaction, and only then answers.
//!
//! No timer: a lone record is committed at once, and while a commit runs the next batch gathers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};

use super::body::{BodyError, Draft};
use super::checkpoint::CheckpointSigner;
use super::clock_guard::{ClockGuard, micros};
use super::conditions;
use super::halt;
use super::head::{Head, locate, position};
use super::plan::{self, Given, Outcome, Planned};
use super::proof;
use super::record::{Condition, Event, EventType, Record, Reserve};
use super::reply::{Reply, answer_all, reply};
use super::space::Space;
use super::standing;
use super::tree::BatchNodes;
use super::waiting::{Place, Waiting};
use super::{Fatal, LogError, LogOptions, Longest, Recorded, Stats};
use crate::server::store::append::{Opened, Opening, Writer};
use crate::server::store::assume::Assumption;
use crate::server::store::surgery::Surgery;
use crate::server::store::{Db, StoreError};
use crate::token::{Clock, Entropy};

/// Nothing an append does takes this long; a connection that hangs is given up.
const APPEND_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a burst keeps SQLite's writer: giving it back and taking it again is two ways to its thread, but others
/// write, too.
const HOLD: Duration = Duration::from_millis(10);
/// Commits between two times that they are copied into SQLite's file.
const COPIED_BACK_EVERY: u64 = 32;
/// How often an idle log looks at its clocks.
const TICK: Duration = Duration::from_secs(5);

/// What whoever waits for a record is told.
pub(super) type Answer = Result<Placed, LogError>;

/// A record and whoever waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    pub record: Record,
    /// The record's event, written down already.
    pub draft: Draft,
    /// What the record takes out of the log, as the owner.
    pub surgery: Option<Surgery>,
    pub reply: Reply<Answer>,
    /// Its place among those that wait; `None`: the batcher's own.
    pub place: Option<Place>,
}

/// A record that is durable, and what its receipt is made of. Whoever waits makes it, not the batcher, for
/// whom everybody waits.
#[derive(Debug)]
pub(super) struct Placed {
    index: u64,
    time: DateTime<Utc>,
    failed: Option<Condition>,
    matched: u64,
    batch: Arc<Sealed>,
}

/// What a batch's receipts have in common.
#[derive(Debug)]
struct Sealed {
    epoch: u32,
    nodes: BatchNodes,
    checkpoint: Arc<str>,
}

impl Placed {
    pub fn recorded(self) -> Recorded {
        let Self { index, time, failed, matched, batch } = self;
        let proof = proof::format(index, &batch.nodes.inclusion(index), &batch.checkpoint);
        Recorded { index, epoch: batch.epoch, time, proof, failed, matched }
    }
}

/// What the batcher has made durable, for readers.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub head: Head,
    pub checkpoint: Arc<str>,
}

/// Counters shared with the log's handle.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub commits: AtomicU64,
    pub records: AtomicU64,
    pub refused: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> Stats {
        Stats {
            commits: self.commits.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// Why a batch was not recorded.
enum Failure {
    Store(StoreError),
    Fatal(Fatal),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            // a head that does not hold together is not a passing fault
            StoreError::Corrupt(what) => Self::Fatal(Fatal::Corrupt(what)),
            other => Self::Store(other),
        }
    }
}

pub(super) struct Batcher {
    pub db: Db,
    pub writer: Writer,
    /// When the writer was given back last, by the monotonic clock.
    pub rested: Duration,
    pub signer: Arc<CheckpointSigner>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub options: LogOptions,
    pub guard: ClockGuard,
    pub space: Space,
    /// The last head this process saw committed: it must still be there, whatever else happens.
    pub floor: Head,
    pub queue: mpsc::Receiver<Queued>,
    pub published: watch::Sender<Published>,
    pub fatal: watch::Sender<Option<Fatal>>,
    /// What this process has signed of other replicas' heads: seen, too.
    pub longest: Arc<Longest>,
    pub closing: watch::Receiver<bool>,
    /// Whether the first append opens the signer's epoch after an older one.
    pub begins_epoch: bool,
    pub waiting: Arc<Waiting>,
    pub counters: Arc<Counters>,
}

impl Batcher {
    /// Serves the queue until it is closed and empty, or the log is found to be another than it was.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(self.options.batch);
        let mut tick = tokio::time::interval(TICK);
        let mut last_append = self.clock.monotonic();
        let mut open = true;
        loop {
            waiting.clear();
            tokio::select! {
                biased;
                _ = self.closing.changed(), if open => {
                    // what is queued is still recorded; nothing more gets in
                    open = false;
                    self.queue.close();
                    continue;
                }
                taken = self.queue.recv_many(&mut waiting, self.options.batch) => {
                    if taken == 0 {
                        return;
                    }
                }
                _ = tick.tick() => {
                    let idle = self.clock.monotonic().saturating_sub(last_append);
                    // looking often lets a jumped clock settle before the next request needs it
                    let _ = self.guard.judge(&*self.clock, self.floor.t_us, None);
                    if idle < self.options.heartbeat || !self.heartbeat_due().await {
                        continue;
                    }
                    waiting.extend(heartbeat(&*self.entropy));
                }
            }
            let recorded = self.serve(&mut waiting).await;
            last_append = self.clock.monotonic();
            if let Err(Failure::Fatal(fatal)) = recorded {
                tracing::error!(reason = %fatal, "the issuance log stopped: it is not the log this process wrote");
                halt::mark(&self.db, &self.floor, &fatal).await;
                self.fatal.send_replace(Some(fatal.clone()));
                self.queue.close();
                let left = std::iter::from_fn(|| self.queue.try_recv().ok());
                answer_all(left.map(|queued| (queued.reply, Err(LogError::Stopped(fatal.clone())))));
                return;
            }
        }
    }

    /// Records one batch and answers everyone in it. A waiter that has gone away is no error.
    async fn serve(&mut self, waiting: &mut Vec<Queued>) -> Result<(), Failure> {
        // all of them run at once, so any order is right; revocations come last and find the batch's grants
        if waiting.iter().any(|queued| queued.record.revokes()) {
            waiting.sort_by_key(|queued| queued.record.revokes());
        }
        let mut surgeries = Vec::new();
        let mut records = Vec::with_capacity(waiting.len());
        let mut drafts = Vec::with_capacity(waiting.len());
        let mut waiters = Vec::with_capacity(waiting.len());
        let mut places = Vec::with_capacity(waiting.len());
        for queued in waiting.drain(..) {
            surgeries.extend(queued.surgery);
            records.push(queued.record);
            drafts.push(queued.draft);
            waiters.push(queued.reply);
            places.extend(queued.place);
        }
        self.waiting.begins();
        let append = self.append(&records, drafts, &surgeries);
        let appended = match tokio::time::timeout(APPEND_TIMEOUT, append).await {
            Ok(appended) => appended,
            Err(_) => Err(Failure::Store(StoreError::Unavailable(Arc::new(sqlx::Error::PoolTimedOut)))),
        };
        self.waiting.ends();
        drop(places);
        match appended {
            Ok(outcomes) => {
                let held = self.clock.monotonic().saturating_sub(self.rested);
                if self.queue.is_empty() || held >= HOLD {
                    self.writer.rest();
                    self.rested = self.clock.monotonic();
                }
                answer_all(waiters.into_iter().zip(outcomes));
                Ok(())
            }
            Err(failure) => {
                // whether the commit happened may be unknown: the next append reads the head again
                self.writer.discard().await;
                let error = match &failure {
                    Failure::Store(error) => LogError::Unavailable(error.clone()),
                    Failure::Fatal(fatal) => LogError::Stopped(fatal.clone()),
                };
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    records = records.len(),
                    "a batch was not recorded"
                );
                // whoever queued up meanwhile would wait for the same failure again; whoever comes after the
                // answer gets another try
                while let Ok(queued) = self.queue.try_recv() {
                    waiters.push(queued.reply);
                }
                answer_all(waiters.into_iter().map(|waiter| (waiter, Err(error.clone()))));
                Err(failure)
            }
        }
    }

    async fn append(
        &mut self,
        records: &[Record],
        mut drafts: Vec<Draft>,
        surgeries: &[Surgery],
    ) -> Result<Vec<Answer>, Failure> {
        if self.db.was_exchanged() {
            return Err(Failure::Fatal(Fatal::Exchanged));
        }
        let longest = self.longest.head();
        if longest.epoch == self.floor.epoch && longest.size() > self.floor.size() {
            self.floor = longest;
        }
        let needs = self.space.needs(&self.db, &*self.clock).await;
        let opening = Opening {
            floor: self.floor.end(),
            clients: conditions::clients(records),
            targets: standing::targets(records),
            grants: standing::grants(records),
            codes: standing::codes(records),
        };
        if surgeries.is_empty() && self.knows_the_head() && standing::is_foreseeable(records) {
            if let Some(answers) = self.append_assuming(records, drafts, needs, &opening).await? {
                return Ok(answers);
            }
            drafts = drafts_of(records, &*self.entropy)?;
        }
        let hour_ago = conditions::hour_ago(&self.db, records, &*self.clock).await?;
        let (mut tx, Opened { last, active_clients, cut_offs, standing }) =
            self.writer.begin(&opening).await?;
        let head = match &last.head {
            // the old epoch's head may be the very thing that is damaged: it is not read
            Some(stored) if self.begins_epoch && locate(stored.size - 1).0 + 1 == self.signer.epoch() => {
                Head::empty(self.signer.epoch())
            }
            Some(stored) => Head::read(stored)?,
            None => Head::empty(self.signer.epoch()),
        };
        head.continues(&self.floor, last.root_at_floor.as_deref()).map_err(Failure::Fatal)?;
        // this process's own head was signed by it; another's has to be, or it is no replica's
        let vouched = |stored| self.signer.vouches_for(stored);
        if head.size() > 0 && head != self.floor && !last.head.as_ref().is_some_and(vouched) {
            return Err(Failure::Fatal(Fatal::Forged { size: head.size() }));
        }
        let database_us = last.database_us.filter(|_| self.options.compare_database_clock);
        let verdict = self.guard.judge(&*self.clock, head.t_us, database_us);
        let failed = conditions::failed(&mut tx, records, &active_clients, hour_ago, head.end()).await?;
        let rulings = standing::judge(&mut tx, records, cut_offs, standing, verdict.t_us()).await?;
        let given = Given { head, verdict, needs, replica: &self.options.replica };
        let planned = given.plan(records, drafts, failed, rulings, &*self.entropy);
        if planned.is_nothing() {
            tx.rollback().await?;
            return Ok(planned.outcomes.into_iter().map(|outcome| Err(plan::refusal(outcome))).collect());
        }
        for surgery in surgeries {
            tx.operate(surgery).await?;
        }
        delay(self.options.commit_delay).await;
        let (Planned { outcomes, made, nodes, mut batch, changes }, Given { head, .. }) = (planned, given);
        batch.head = self.signer.sign_head(&batch.head);
        let matched = if changes.are_rows() {
            tx.insert_and_commit(batch, &changes).await?;
            HashMap::new()
        } else {
            tx.insert(batch, &changes).await?;
            let matched = tx.change(&changes, verdict.t_us()).await?;
            tx.commit().await?;
            matched
        };
        Ok(self.appended(outcomes, &head, made, nodes, &matched))
    }

    /// Whether the newest head can be assumed to be the one this process wrote last, and checked to be.
    fn knows_the_head(&self) -> bool {
        self.writer.assumes() && !self.begins_epoch && self.floor.size() > 0
    }

    /// Appends what is likely to stand as if it stood, which the append itself checks; `None`, when something is not as
    /// assumed and nothing was done.
    async fn append_assuming(
        &mut self,
        records: &[Record],
        drafts: Vec<Draft>,
        needs: Reserve,
        opening: &Opening<'_>,
    ) -> Result<Option<Vec<Answer>>, Failure> {
        let head = self.floor.clone();
        let verdict = self.guard.judge(&*self.clock, head.t_us, None);
        let assumption = Assumption {
            head: head.stored(),
            opening,
            keys: standing::keys(records),
            since: standing::since(records),
            t_us: verdict.t_us(),
        };
        let failed = vec![None; records.len()];
        let rulings = standing::foresee(records, verdict.t_us());
        let given = Given { head, verdict, needs, replica: &self.options.replica };
        let planned = given.plan(records, drafts, failed, rulings, &*self.entropy);
        if planned.is_nothing() || !planned.changes.are_rows() {
            return Ok(None);
        }
        delay(self.options.commit_delay).await;
        let (Planned { outcomes, made, nodes, mut batch, changes }, Given { head, .. }) = (planned, given);
        batch.head = self.signer.sign_head(&batch.head);
        if !self.writer.insert_if(&assumption, batch, &changes).await? {
            return Ok(None);
        }
        Ok(Some(self.appended(outcomes, &head, made, nodes, &HashMap::new())))
    }

    /// Takes note of a batch that is durable, and answers it.
    fn appended(
        &mut self,
        outcomes: Vec<Outcome>,
        head: &Head,
        made: Head,
        nodes: BatchNodes,
        matched: &HashMap<i64, u64>,
    ) -> Vec<Answer> {
        if self.counters.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(COPIED_BACK_EVERY) {
            self.db.copy_back();
        }
        self.counters.records.fetch_add(made.size() - head.size(), Ordering::Relaxed);
        let checkpoint: Arc<str> = self.signer.sign(made.size(), made.root).into();
        let sealed = Sealed { epoch: made.epoch, nodes, checkpoint: Arc::clone(&checkpoint) };
        let answers = answers(outcomes, head, &made, matched, &Arc::new(sealed));
        self.begins_epoch = false;
        self.floor = made.clone();
        self.published.send_replace(Published { head: made, checkpoint });
        answers
    }

    /// Whether no replica has written anything for the length of a heartbeat.
    async fn heartbeat_due(&self) -> bool {
        match super::read::newest_head(&self.db).await {
            Ok(head) => {
                let newest = head.and_then(|head| head.t_us).unwrap_or(0);
                let since = micros(self.clock.now()).saturating_sub(newest);
                u128::try_from(since).is_ok_and(|since| since >= self.options.heartbeat.as_micros())
            }
            Err(_) => false,
        }
    }
}

/// What tests and benches put before each commit.
async fn delay(by: Duration) {
    if !by.is_zero() {
        tokio::time::sleep(by).await;
    }
}

fn drafts_of(records: &[Record], entropy: &dyn Entropy) -> Result<Vec<Draft>, Failure> {
    records
        .iter()
        .map(|record| Draft::of(&record.event, None, entropy))
        .collect::<Result<_, _>>()
        // they were written down before
        .map_err(|_| Failure::Store(StoreError::Corrupt("a record")))
}

fn heartbeat(entropy: &dyn Entropy) -> Result<Queued, BodyError> {
    let record = Record::of(Event::new(EventType::Heartbeat));
    let draft = Draft::of(&record.event, None, entropy)?;
    Ok(Queued { record, draft, surgery: None, reply: reply().0, place: None })
}

/// What everyone in the batch is told, now that it is durable.
fn answers(
    outcomes: Vec<Outcome>,
    head: &Head,
    made: &Head,
    matched: &HashMap<i64, u64>,
    batch: &Arc<Sealed>,
) -> Vec<Answer> {
    let mut next = head.size();
    let time = DateTime::<Utc>::from_timestamp_micros(made.t_us.unwrap_or_default()).unwrap_or_default();
    outcomes
        .into_iter()
        .map(|outcome| {
            let failed = outcome?;
            let index = next;
            next += 1;
            let matched = matched.get(&position(made.epoch, index)).copied().unwrap_or(0);
            Ok(Placed { index, time, failed, matched, batch: Arc::clone(batch) })
        })
        .collect()
}
