//! A head of the log: an epoch's tree as far as it is committed.

use super::Fatal;
use super::tree::{Frontier, Hash};
use crate::server::store::append::{EPOCH_SPAN, StoredHead};
use crate::server::store::{Db, StoreError, read};

/// A committed state of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// From 1; a restored database begins a new one.
    pub epoch: u32,
    /// The tree.
    pub frontier: Frontier,
    /// Its root.
    pub root: Hash,
    /// The time of its newest entry, microseconds; `None` when there is none.
    pub t_us: Option<i64>,
}

impl Head {
    /// The head of an empty epoch.
    #[must_use]
    pub fn empty(epoch: u32) -> Self {
        let frontier = Frontier::default();
        Self { epoch, root: frontier.root(), frontier, t_us: None }
    }

    /// Reads a stored head, and checks that its frontier makes its root (invariant 5).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it does not.
    pub fn read(stored: &StoredHead) -> Result<Self, StoreError> {
        let last = stored.size.checked_sub(1).filter(|last| *last >= 0);
        let last = last.ok_or(StoreError::Corrupt("the size of a head"))?;
        let epoch = u32::try_from(last / EPOCH_SPAN + 1).map_err(|_| StoreError::Corrupt("an epoch"))?;
        let size = u64::try_from(last % EPOCH_SPAN + 1).map_err(|_| StoreError::Corrupt("a size"))?;
        let nodes = stored.frontier.as_chunks::<32>().0.to_vec();
        let frontier = Frontier::from_parts(size, nodes).ok_or(StoreError::Corrupt("a frontier"))?;
        let root = frontier.root();
        if root[..] != stored.root[..] {
            return Err(StoreError::Corrupt("the root of a head"));
        }
        Ok(Self { epoch, frontier, root, t_us: Some(stored.t_us) })
    }

    /// How it is stored, but for its signature. One of an empty epoch never is.
    #[must_use]
    pub fn stored(&self) -> StoredHead {
        StoredHead {
            size: self.end(),
            root: self.root.to_vec(),
            frontier: self.frontier.nodes().concat(),
            t_us: self.t_us.unwrap_or_default(),
            signature: None,
        }
    }

    /// The floor guard: what this process saw committed must still be there (invariants 9 and 10). `root_there` is the root of
    /// the database's head at the size of `seen`.
    ///
    /// # Errors
    /// How this head does not continue `seen`.
    pub(super) fn continues(&self, seen: &Self, root_there: Option<&[u8]>) -> Result<(), Fatal> {
        if self.epoch != seen.epoch {
            return Err(Fatal::Epoch { database: self.epoch, seen: seen.epoch });
        }
        if self.size() < seen.size() {
            return Err(Fatal::Rollback { database: self.size(), seen: seen.size() });
        }
        if seen.size() == 0 || root_there.is_some_and(|root| root[..] == seen.root[..]) {
            Ok(())
        } else {
            Err(Fatal::Fork { size: seen.size() })
        }
    }

    /// Whether this head of `db` continues `seen`; how it does not.
    ///
    /// # Errors
    /// The database could not be asked.
    pub(super) async fn is_seen_in(&self, db: &Db, seen: &Self) -> Result<Result<(), Fatal>, StoreError> {
        let root = if self.size() == seen.size() {
            Some(self.root.to_vec())
        } else {
            let there = read::head_at_or_before(db, position(seen.epoch, 0), seen.end()).await?;
            there.filter(|there| there.size == seen.end()).map(|there| there.root)
        };
        Ok(self.continues(seen, root.as_deref()))
    }

    /// Entries in this epoch's tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The global position after the last entry.
    #[must_use]
    pub fn end(&self) -> i64 {
        position(self.epoch, self.size())
    }
}

/// The global position of `index` in `epoch`'s tree.
///
/// # Panics
/// When `index` is 2^40 or more: no tree grows that far.
#[must_use]
pub fn position(epoch: u32, index: u64) -> i64 {
    let index = i64::try_from(index).ok().filter(|i| *i <= EPOCH_SPAN).expect("below 2^40");
    (i64::from(epoch) - 1) * EPOCH_SPAN + index
}

/// Epoch and index of the entry at a global position (not negative).
#[must_use]
pub fn locate(position: i64) -> (u32, u64) {
    let epoch = u32::try_from(position / EPOCH_SPAN + 1).unwrap_or(u32::MAX);
    (epoch, u64::try_from(position % EPOCH_SPAN).unwrap_or(0))
}
