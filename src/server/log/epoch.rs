//! `audit epoch`: a restored or poisoned log is never continued; a new one begins, and says after what.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::checkpoint::{Checkpoint, CheckpointSigner};
use super::head::{Head, locate};
use super::record::{Event, EventType, Record};
use super::{Log, LogError, LogOptions, Recorded};
use crate::server::store::{Db, StoreError, read};
use crate::token::{Clock, Entropy};

/// Why a new epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochReason {
    /// The database was restored from a backup, or a standby without the last entries took over.
    Restored,
    /// A wrong clock put a time far ahead into the log.
    Clock,
    /// The log was damaged.
    Damaged,
    /// The service has another issuer now, after which its log is named.
    Renamed,
}

impl EpochReason {
    /// The words of `--reason`.
    pub const WORDS: &'static [&'static str] = &["restored", "clock", "damaged", "renamed"];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Clock => "clock",
            Self::Damaged => "damaged",
            Self::Renamed => "renamed",
        }
    }

    /// Reads a word of [`Self::WORDS`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Restored, Self::Clock, Self::Damaged, Self::Renamed]
            .into_iter()
            .find(|reason| reason.as_str() == word)
    }
}

/// Why no epoch began.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EpochError {
    /// Nothing was ever recorded: there is nothing to continue.
    #[error("the log is empty: it needs no new epoch")]
    Empty,
    /// The signer is not for the epoch after the database's.
    #[error("the next epoch is {next}, the signer is for {signer}")]
    Signer {
        /// The epoch that would begin.
        next: u32,
        /// What the signer signs for.
        signer: u32,
    },
    /// The log did not record it.
    #[error("the new epoch could not be recorded")]
    Log(#[from] LogError),
}

impl From<StoreError> for EpochError {
    fn from(error: StoreError) -> Self {
        Self::Log(error.into())
    }
}

/// Begins the epoch `signer` is for: its first entry names the reason, where the database stands, and the last
/// checkpoint known elsewhere. Running replicas stop by themselves and continue there after a restart.
///
/// # Errors
/// See [`EpochError`].
pub async fn begin(
    db: Db,
    signer: CheckpointSigner,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: LogOptions,
    reason: EpochReason,
    last_known: Option<&Checkpoint>,
) -> Result<Recorded, EpochError> {
    let stored = read::newest_head(&db).await?.ok_or(EpochError::Empty)?;
    let (epoch, last) = locate(stored.size - 1);
    let next = epoch + 1;
    if signer.epoch() != next {
        return Err(EpochError::Signer { next, signer: signer.epoch() });
    }
    let mut detail = Map::new();
    detail.insert("reason".into(), reason.as_str().into());
    let origin = super::checkpoint::origin(signer.host(), epoch);
    detail.insert("database".into(), state(&origin, last + 1, &stored.root));
    if let Some(known) = last_known {
        detail.insert("continues".into(), state(&known.origin, known.size, &known.root));
    }
    let event = Event { detail: Some(detail), ..Event::new(EventType::Epoch) };
    let head = Head::empty(next);
    let log = Log::start(db, signer, clock, entropy, options, head, true);
    let recorded = log.record(Record::of(event).from_the_reserve()).await;
    log.close().await;
    Ok(recorded?)
}

fn state(origin: &str, size: u64, root: &[u8]) -> Value {
    json!({ "origin": origin, "size": size, "root": STANDARD.encode(root) })
}
