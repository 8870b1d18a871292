//! The issuance log: every attempt, granted or denied, is sealed here before anything is answered.
//!
//! [`Log::record`] and [`Log::release`] are the only ways out of the service for a decision: they return
//! after the entry, its place in the tree and the tree's head are durable in one transaction.

mod approval;
mod batcher;
pub mod body;
mod changes;
pub mod checkpoint;
mod clock_guard;
mod conditions;
pub mod csv;
pub mod epoch;
pub mod erase;
mod error;
pub mod export;
mod halt;

pub mod head;
pub mod note;
mod plan;
pub mod proof;
pub mod read;
pub mod record;
pub mod release;
mod reply;
pub mod sightings;
mod space;
mod standing;
pub mod stopping;
pub mod tile_path;
pub mod tree;
pub mod verify;
mod waiting;
pub mod witness;
pub mod witnessing;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

pub use approval::{Approval, ApprovalRow, ApprovalState, CODE_REUSED, LAPSE_SECONDS, REFUSED_BY_COLLEAGUE};
pub use checkpoint::{Checkpoint, CheckpointSigner};
pub use error::{Fatal, LogError, OpenError};
pub use read::{
    Consistency, Cursor, CursorError, EntryFilter, Grant, GrantFilter, GrantStatus, LogEntry, Lookup, Page,
    PersonalData, ReadError, Stretch, Tile,
};
pub use record::{Condition, Decision, Effect, Event, EventType, GrantRow, Personal, Record, Reserve};
pub use release::{RecordedDenial, ReleasedToken, UnreleasedToken};
pub use stopping::{
    Beginning, CodeRow, Hold, KeyRow, RedeemRow, Revoke, Selector, StoredCode, StoredKey, Tag,
};
pub use waiting::Load;

use crate::server::store::append::Writer;
use crate::server::store::surgery::Surgery;
use crate::server::store::{Db, StoreError, read as store_read};
use crate::token::{ClientId, Clock, Entropy};
use batcher::{Answer, Batcher, Counters, Published, Queued};
use body::Draft;
use clock_guard::ClockGuard;
use head::Head;
use reply::reply;
use space::Space;
use waiting::Waiting;

/// Places in the queue beyond `LogOptions::queue`, for what stops something.
const STOPPING_PLACES: usize = 256;

/// How the log runs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The name of this process among replicas, stored with each head.
    pub replica: String,
    /// The most bytes the log may take on PostgreSQL (`LOG_MAX_BYTES`); the last 5 % are the reserve.
    pub max_bytes: Option<u64>,
    /// How many attempts may wait at the most, however fast they are recorded; one more is refused. What stops
    /// something has some places beyond.
    pub queue: usize,
    /// The most records of one transaction.
    pub batch: usize,
    /// After how long without an entry a heartbeat is written.
    pub heartbeat: Duration,
    /// How long each commit is held back. Zero, but where a slow disk is to be measured.
    pub commit_delay: Duration,
    /// How long a record may be expected to wait; attempts that would wait longer are refused with 503.
    pub patience: Duration,
    /// Whether the database server's clock must agree with this process's (off where the clock is fixed).
    pub compare_database_clock: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            replica: "1".into(),
            max_bytes: None,
            queue: 4096,
            batch: 256,
            heartbeat: Duration::from_mins(5),
            commit_delay: Duration::ZERO,
            patience: Duration::from_millis(100),
            compare_database_clock: true,
        }
    }
}

/// Proof that a record is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the tree of `epoch`.
    pub index: u64,
    /// The log's epoch.
    pub epoch: u32,
    /// The time it was recorded at.
    pub time: DateTime<Utc>,
    /// The receipt: `c2sp.org/tlog-proof@v1` with a signed checkpoint.
    pub proof: String,
    /// The condition that did not hold: then the entry is a denial, and no effect took place.
    pub failed: Option<Condition>,
    /// How many grants a revocation ended.
    pub matched: u64,
}

/// Word that the log grew.
pub struct Growth(watch::Receiver<Published>);

impl Growth {
    /// Waits until this process has recorded something since the last word; for ever once the log is closed.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The longest head that this process has signed or opened with. Its own commits stand in [`Published`].
struct Longest(std::sync::Mutex<Head>);

impl Longest {
    fn new(head: Head) -> Self {
        Self(std::sync::Mutex::new(head))
    }

    fn head(&self) -> Head {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn saw(&self, head: &Head) {
        let mut longest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if head.size() > longest.size() {
            *longest = head.clone();
        }
    }
}

/// How much the log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Transactions committed.
    pub commits: u64,
    /// Entries recorded.
    pub records: u64,
    /// Attempts that could not be recorded, for whatever reason but their own.
    pub refused: u64,
}

/// The issuance log of one process. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    db: Db,
    entropy: Arc<dyn Entropy>,
    signer: Arc<CheckpointSigner>,
    queue: mpsc::Sender<Queued>,
    codes: mpsc::Sender<read::Wanted>,
    published: watch::Receiver<Published>,
    fatal: watch::Sender<Option<Fatal>>,
    longest: Arc<Longest>,
    closing: watch::Sender<bool>,
    waiting: Arc<Waiting>,
    counters: Arc<Counters>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({})", self.0.signer.origin())
    }
}

/// The epoch the database is in, from 1: what a [`CheckpointSigner`] is made for.
///
/// # Errors
/// The database could not be asked, or its newest head is damaged.
pub async fn current_epoch(db: &Db) -> Result<u32, StoreError> {
    Ok(read::newest_head(db).await?.map_or(1, |head| head.epoch))
}

impl Log {
    /// Opens the log after checking that its newest head and last 1 000 entries verify, and starts its task
    /// on the current runtime.
    ///
    /// # Errors
    /// See [`OpenError`]: the service must not start.
    pub async fn open(
        db: Db,
        signer: CheckpointSigner,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        db.check_durable().await?;
        let (head, vouched) = match store_read::newest_head(&db).await? {
            Some(stored) => (Head::read(&stored)?, signer.vouches_for(&stored)),
            None => (Head::empty(signer.epoch()), true),
        };
        if head.epoch != signer.epoch() {
            return Err(OpenError::Epoch { database: head.epoch, signer: signer.epoch() });
        }
        if let Some(why) = halt::marked(&db, head.epoch).await? {
            return Err(OpenError::Halted(why));
        }
        if !vouched {
            return Err(OpenError::Damaged(verify::Finding::HeadSignature(head.size())));
        }
        if let Some(finding) = verify::tail(&db, &head, verify::STARTUP_ENTRIES).await? {
            return Err(OpenError::Damaged(finding));
        }
        Ok(Self::start(db, signer, clock, entropy, options, head, false))
    }

    fn start(
        db: Db,
        signer: CheckpointSigner,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: LogOptions,
        head: Head,
        begins_epoch: bool,
    ) -> Self {
        let signer = Arc::new(signer);
        let checkpoint = signer.sign(head.size(), head.root).into();
        let (published, published_rx) = watch::channel(Published { head: head.clone(), checkpoint });
        let fatal = watch::Sender::new(None);
        let longest = Arc::new(Longest::new(head.clone()));
        let (closing, closing_rx) = watch::channel(false);
        let (queue, queue_rx) = mpsc::channel(options.queue + STOPPING_PLACES);
        let waiting =
            Arc::new(Waiting::new(Arc::clone(&clock), options.batch, options.queue, options.patience));
        let counters = Arc::new(Counters::default());
        let batcher = Batcher {
            entropy: Arc::clone(&entropy),
            writer: Writer::new(&db),
            rested: clock.monotonic(),
            db: db.clone(),
            signer: Arc::clone(&signer),
            guard: ClockGuard::new(&*clock),
            space: Space::new(options.max_bytes),
            clock,
            options,
            floor: head,
            queue: queue_rx,
            published,
            fatal: fatal.clone(),
            longest: Arc::clone(&longest),
            closing: closing_rx,
            waiting: Arc::clone(&waiting),
            counters: Arc::clone(&counters),
            begins_epoch,
        };
        let task = Mutex::new(Some(tokio::spawn(batcher.run())));
        let codes = read::find_codes(db.clone());
        Self(Arc::new(Inner {
            db,
            entropy,
            signer,
            queue,
            codes,
            published: published_rx,
            fatal,
            longest,
            closing,
            waiting,
            counters,
            task,
        }))
    }

    /// Records one attempt and returns once it is durable. Dropping the future is harmless: the attempt may
    /// be recorded or not, and nothing was released.
    ///
    /// # Errors
    /// Nothing may be answered but 503: the record is not known to be durable.
    pub fn record(&self, record: Record) -> impl Future<Output = Result<Recorded, LogError>> + Send {
        self.enqueue(record, None)
    }

    /// Records that something is taken out of the log, and takes it out, in one transaction. Works only as
    /// the database's owner.
    async fn operate(&self, record: Record, surgery: Surgery) -> Result<Recorded, LogError> {
        self.enqueue(record, Some(surgery)).await
    }

    /// Queues it at once. What is awaited does not hold the record: futures are moved, and every mint awaits this one.
    fn enqueue(
        &self,
        record: Record,
        surgery: Option<Surgery>,
    ) -> impl Future<Output = Result<Recorded, LogError>> + Send {
        let queued = self.queue(record, surgery);
        async move {
            let waiting = tracing::debug_span!("record");
            let placed = match queued {
                Ok(answered) => answered.instrument(waiting).await.unwrap_or_else(|_| Err(self.stopped())),
                Err(error) => Err(error),
            };
            if !matches!(
                placed,
                Ok(_) | Err(LogError::NotYet { .. } | LogError::Unrecordable(_) | LogError::Overloaded)
            ) {
                self.0.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            Ok(placed?.recorded())
        }
    }

    fn queue(&self, record: Record, surgery: Option<Surgery>) -> Result<oneshot::Receiver<Answer>, LogError> {
        let attempts = record.event.client.as_ref().filter(|_| record.is_attempt());
        let place = self.0.waiting.enter(attempts)?;
        let (reply, answered) = reply();
        let draft = Draft::of(&record.event, None, &*self.0.entropy)?;
        let queued = Queued { record, draft, surgery, reply, place: Some(place) };
        self.0.queue.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LogError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        Ok(answered)
    }

    /// Whether an attempt of `client` would be recorded in time: asked before any work is put into it.
    ///
    /// # Errors
    /// [`LogError::Overloaded`]: it would wait too long, or the client has its share of what waits already.
    pub fn has_time_for(&self, client: &ClientId) -> Result<(), LogError> {
        self.0.waiting.look(client)
    }

    /// How much waits, and how many attempts were refused since the start.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.waiting.load()
    }

    fn stopped(&self) -> LogError {
        self.0.fatal.borrow().clone().map_or(LogError::Closed, LogError::Stopped)
    }

    /// The newest signed checkpoint, other replicas' entries included. What was signed once counts as seen: a database
    /// that holds less is not continued, whoever wrote it.
    ///
    /// # Errors
    /// The database could not be asked, or holds less than this process saw: then the log has stopped.
    pub async fn checkpoint(&self) -> Result<String, LogError> {
        let signed = self.newest_signed().await;
        if let Err(LogError::Stopped(fatal)) = &signed
            && self.0.fatal.borrow().is_none()
        {
            tracing::error!(reason = %fatal, "the issuance log stopped: it is not the log this process knows");
            halt::mark(&self.0.db, &self.seen(), fatal).await;
            self.0.fatal.send_replace(Some(fatal.clone()));
        }
        signed
    }

    async fn newest_signed(&self) -> Result<String, LogError> {
        // before the database is asked, which then holds as much or more
        let (own, seen) = (self.0.published.borrow().clone(), self.seen());
        if self.0.db.was_exchanged() {
            return Err(LogError::Stopped(Fatal::Exchanged));
        }
        let stored = store_read::newest_head(&self.0.db).await?;
        let head = match &stored {
            Some(stored) => Head::read(stored)?,
            None => Head::empty(self.0.signer.epoch()),
        };
        head.is_seen_in(&self.0.db, &seen).await?.map_err(LogError::Stopped)?;
        if head.size() == own.head.size() {
            return Ok(own.checkpoint.to_string());
        }
        if !stored.is_some_and(|stored| self.0.signer.vouches_for(&stored)) {
            return Err(LogError::Stopped(Fatal::Forged { size: head.size() }));
        }
        self.0.longest.saw(&head);
        // only committed heads can be seen, and a commit is durable before it is seen
        Ok(self.0.signer.sign(head.size(), head.root))
    }

    /// The longest head that this process committed, signed or opened with.
    fn seen(&self) -> Head {
        let (own, signed) = (self.0.published.borrow().head.clone(), self.0.longest.head());
        if own.size() > signed.size() { own } else { signed }
    }

    /// The signed checkpoint of an earlier size; `None` where no append ended.
    ///
    /// # Errors
    /// The database could not be asked, or the head does not hold together.
    pub async fn checkpoint_of(&self, size: u64) -> Result<Option<String>, LogError> {
        let (start, at) = (head::position(self.epoch(), 0), head::position(self.epoch(), size));
        let Some(stored) = store_read::head_at_or_before(&self.0.db, start, at).await? else {
            return Ok(None);
        };
        let head = Head::read(&stored)?;
        if head.size() == size && !self.0.signer.vouches_for(&stored) {
            return Err(LogError::Unavailable(StoreError::Corrupt("the signature of a head")));
        }
        Ok((head.size() == size).then(|| self.0.signer.sign(size, head.root)))
    }

    /// The checkpoint of the last entry this process recorded, without asking the database.
    #[must_use]
    pub fn known_checkpoint(&self) -> String {
        self.0.published.borrow().checkpoint.to_string()
    }

    /// Entries up to the last one this process recorded, without asking the database.
    #[must_use]
    pub fn known_size(&self) -> u64 {
        self.0.published.borrow().head.size()
    }

    /// Tells whenever this process has recorded something.
    #[must_use]
    pub fn growth(&self) -> Growth {
        Growth(self.0.published.clone())
    }

    /// The key checkpoints verify with, in note form.
    #[must_use]
    pub fn vkey(&self) -> String {
        self.0.signer.verifier().vkey()
    }

    /// The log's name: `host/audit/<epoch>`.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.0.signer.origin()
    }

    /// The epoch recorded in.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.0.signer.epoch()
    }

    /// The database the log lives in, for reads.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// What this process has recorded so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read()
    }

    /// Waits until the log stops for good; the process should then exit. Never returns after [`Log::close`].
    pub async fn fatal(&self) -> Fatal {
        let mut fatal = self.0.fatal.subscribe();
        loop {
            if let Some(fatal) = fatal.borrow_and_update().clone() {
                return fatal;
            }
            if fatal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Records what is queued, then stops. Later records are refused.
    pub async fn close(&self) {
        self.0.closing.send_replace(true);
        if let Some(task) = self.0.task.lock().await.take() {
            let _ = task.await;
        }
    }
}
