//! Recomputing the log: at start over its newest entries, by `audit verify` over all of it.

mod database;
mod entry;
mod published;
mod tail;

pub use database::database;
pub use published::{Directory, MAX_FILE_BYTES, Published, PublishedError, published};
pub use tail::{STARTUP_ENTRIES, tail};

/// No report lists more findings than this; the rest is counted.
pub const MAX_FINDINGS: usize = 1000;

/// Something that is not as it was recorded. Numbers are indexes in the tree of the epoch at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// An entry is missing.
    #[error("entry {0} is missing")]
    Missing(u64),
    /// There are rows beyond the newest head of their epoch.
    #[error("entry {0} lies beyond the newest head of its epoch")]
    Beyond(u64),
    /// An entry's body does not make its leaf.
    #[error("entry {0}: its body is not what was hashed")]
    Body(u64),
    /// An entry's body cannot be read.
    #[error("entry {0}: its body is not an entry")]
    Form(u64),
    /// An entry's time is not its body's, or goes back.
    #[error("entry {0}: its time does not fit")]
    Time(u64),
    /// A token was issued at another time than it was recorded.
    #[error("entry {0}: the token's iat is far from the time of the record")]
    IssuedAt(u64),
    /// The search row does not say what the body says.
    #[error("entry {0}: its search row differs from its body")]
    Index(u64),
    /// The search row is missing.
    #[error("entry {0}: its search row is missing")]
    IndexMissing(u64),
    /// A disclosure is not the one the body binds, or a search column differs from it.
    #[error("entry {0}: its personal data is not what was recorded")]
    Private(u64),
    /// A disclosure is gone, and no `erase` or `prune` entry says so.
    #[error("entry {0}: its personal data ({1}) is gone and no entry says that it was erased")]
    Erased(u64, &'static str),
    /// A row of personal data belongs to no entry.
    #[error("there is personal data for entry {0}, which does not exist")]
    PrivateOrphan(u64),
    /// A search row belongs to no entry.
    #[error("there is a search row for entry {0}, which does not exist")]
    IndexOrphan(u64),
    /// Bodies were dropped, and no `prune` entry says so.
    #[error("entries {0} to {1} were dropped and no entry says that they were pruned")]
    Pruned(u64, u64),
    /// A head's root is not that of the entries below it, or its frontier is damaged.
    #[error("the head of size {0} does not follow from the entries")]
    Head(u64),
    /// A head does not continue the one before it.
    #[error("the head of size {0} does not continue the one before it")]
    HeadChain(u64),
    /// The newest head of an epoch is not signed with the log's key.
    #[error(
        "the head of size {0} was not signed by the service: somebody else wrote it, and what is above the last checkpoint you hold"
    )]
    HeadSignature(u64),
    /// A stored subtree is missing or is not what the leaves make.
    #[error("the subtree {1} of level {0} does not follow from the entries")]
    Subtree(u32, u64),
    /// The log is shorter than a checkpoint says it was.
    #[error("ROLLBACK: a checkpoint saw {checkpoint} entries, the log has {size}")]
    Rollback {
        /// The checkpoint's size.
        checkpoint: u64,
        /// The log's size.
        size: u64,
    },
    /// The log has another past than a checkpoint says.
    #[error("FORK: the first {0} entries are not those of a checkpoint")]
    Fork(u64),
    /// A checkpoint belongs to another log.
    #[error("the checkpoint of {0} belongs to another log")]
    OtherLog(String),
}

/// What `audit verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries recomputed, pruned ones included.
    pub entries: u64,
    /// Of these, how many by their hashes alone: bodies that were pruned, or that this reader was not given.
    pub bodies_unseen: u64,
    /// Each epoch's size and root, in order.
    pub epochs: Vec<EpochReport>,
    /// What is wrong, at most [`MAX_FINDINGS`], each with its epoch.
    pub findings: Vec<(u32, Finding)>,
    /// How many more there were.
    pub more: u64,
}

/// One epoch, recomputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochReport {
    /// From 1.
    pub epoch: u32,
    /// Entries.
    pub size: u64,
    /// The root computed from them.
    pub root: super::tree::Hash,
}

impl Report {
    /// Whether everything holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }

    fn add(&mut self, epoch: u32, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push((epoch, finding));
        } else {
            self.more += 1;
        }
    }
}
