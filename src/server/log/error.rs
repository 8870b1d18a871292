//! Why nothing was recorded, why the log stopped, why it did not open.

use chrono::{DateTime, Utc};

use super::body::BodyError;
use super::verify;
use crate::server::store::StoreError;

/// Why nothing was recorded. Every variant is a 503 with `Retry-After`, for grants and denials alike.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// More records wait than are recorded in time, or this client has its share of them.
    #[error("the issuance log has too much to do")]
    Overloaded,
    /// The database did not record it, or did not say that it did.
    #[error("the issuance log cannot record now")]
    Unavailable(#[source] StoreError),
    /// Only the reserve of free space is left.
    #[error("the issuance log is full but for its reserve")]
    Full,
    /// The clock stands more than two seconds behind the log's newest entry.
    #[error("the clock is behind the issuance log")]
    ClockBehind,
    /// The clock was set, or differs from the database's.
    #[error("the clock jumped, or disagrees with the database's")]
    ClockJumped,
    /// The event cannot be written down faithfully: a defect of the caller.
    #[error("the event cannot be recorded")]
    Unrecordable(#[from] BodyError),
    /// The log has stopped for good; the process should exit.
    #[error("the issuance log has stopped")]
    Stopped(#[source] Fatal),
    /// The log was closed.
    #[error("the issuance log is closed")]
    Closed,
    /// A cut-off covers the second the token was signed for, or its key: sign anew after `after`. Nothing
    /// was recorded, and nothing may be answered before another attempt was.
    #[error("a cut-off covers this second")]
    NotYet {
        /// The last second, or moment, that is covered.
        after: DateTime<Utc>,
    },
}

impl LogError {
    /// When it is worth trying again, seconds (`Retry-After`).
    #[must_use]
    pub const fn retry_after_seconds(&self) -> u32 {
        match self {
            Self::Overloaded | Self::Unavailable(_) | Self::NotYet { .. } => 1,
            Self::ClockBehind | Self::ClockJumped | Self::Closed | Self::Stopped(_) => 10,
            Self::Full | Self::Unrecordable(_) => 60,
        }
    }
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error)
    }
}

/// The database holds another log than this process wrote to: nothing may be recorded any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// Entries that were committed are gone.
    #[error("ROLLBACK: the database has {database} entries, this process saw {seen} committed")]
    Rollback {
        /// Entries in the database.
        database: u64,
        /// Entries this process saw committed.
        seen: u64,
    },
    /// The log has another past than the one this process saw.
    #[error("FORK: the log's first {size} entries are not the ones this process saw committed")]
    Fork {
        /// The size at which both differ.
        size: u64,
    },
    /// Somebody began a new epoch; a restart continues there.
    #[error("the database is in epoch {database}, this process signs for epoch {seen}")]
    Epoch {
        /// The database's epoch.
        database: u32,
        /// This process's epoch.
        seen: u32,
    },
    /// SQLite's file is not the one that was opened.
    #[error(
        "EXCHANGED: the database file is not the one that this process opened; stop the service before a backup is put back, and \
         begin a new epoch with `stagedoor audit epoch` when entries are gone"
    )]
    Exchanged,
    /// The newest head is not one that this log's key signed.
    #[error(
        "FORGED: the newest head of the log (size {size}) was not signed by the service: somebody else wrote it"
    )]
    Forged {
        /// Its size.
        size: u64,
    },
    /// The newest head does not hold together.
    #[error("the newest head of the log is damaged: {0}")]
    Corrupt(&'static str),
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database could not be asked, or is not set up safely.
    #[error("the issuance log cannot be opened")]
    Store(#[from] StoreError),
    /// The newest entries do not verify.
    #[error("the issuance log does not verify: {0}")]
    Damaged(verify::Finding),
    /// A process saw entries committed that are no longer there, here or in another replica.
    #[error(
        "the issuance log was stopped and stays so ({0}); nobody may continue it: find the database that has \
         every entry, or begin a new epoch with `stagedoor audit epoch`"
    )]
    Halted(String),
    /// The signer is for another epoch than the database is in.
    #[error("the log is in epoch {database}, the signer is for epoch {signer}")]
    Epoch {
        /// The database's epoch.
        database: u32,
        /// The signer's epoch.
        signer: u32,
    },
}
