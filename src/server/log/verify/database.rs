//! `audit verify` over a database: everything recomputed in one pass, in constant memory.

use std::collections::{HashMap, VecDeque};

use tokio::task::JoinHandle;

use super::entry::{Checked, Removal, Removed, check};
use super::{EpochReport, Finding, Report};
use crate::server::log::checkpoint::{Checkpoint, vouches_for};
use crate::server::log::head::{Head, locate, position};
use crate::server::log::tree::{Frontier, Hash};
use crate::server::store::append::{EPOCH_SPAN, StoredHead};
use crate::server::store::read;
use crate::server::store::whole::{FullEntry, OrphanTable, full_entries, orphans};
use crate::server::store::{Db, StoreError};

/// Entries fetched at a time.
const CHUNK: i64 = 4096;
/// A task of the pass ended before its work did.
const GONE: StoreError = StoreError::Corrupt("an entry that cannot be checked");
/// Heads fetched at a time.
const HEADS: i64 = 4096;

/// Recomputes the whole log and compares it with `checkpoints` taken earlier, whose signatures the caller has
/// checked. With `log_key` each epoch's newest head has to be signed by it: its root stands for everything below.
/// `progress` is told (done, all) after each chunk.
///
/// # Errors
/// The database could not be asked: nothing is known then.
pub async fn database(
    db: &Db,
    checkpoints: &[Checkpoint],
    log_key: Option<&[u8; 32]>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let newest = read::newest_head(db).await?;
    let last_epoch = newest.as_ref().map_or(1, |head| locate(head.size - 1).0);
    let mut checkpoints = by_epoch(checkpoints, last_epoch, &mut report);
    let mut passes = Vec::new();
    for epoch in 1..=last_epoch {
        let mut pass = Pass::new(db, epoch, checkpoints.remove(&epoch).unwrap_or_default());
        pass.run(log_key, &mut report, progress).await?;
        passes.push(pass);
        let next = if epoch < last_epoch { position(epoch + 1, 0) } else { i64::MAX };
        for idx in super::tail::beyond(db, position(epoch, 0), next, 10).await? {
            report.add(epoch, Finding::Beyond(locate(idx).1));
        }
    }
    explain(db, log_key, &mut passes, &mut report).await?;
    for idx in orphans(db, OrphanTable::Private).await? {
        let (epoch, index) = locate(idx);
        report.add(epoch, Finding::PrivateOrphan(index));
    }
    for idx in orphans(db, OrphanTable::Index).await? {
        let (epoch, index) = locate(idx);
        report.add(epoch, Finding::IndexOrphan(index));
    }
    Ok(report)
}

/// Checkpoints by epoch, smallest first.
fn by_epoch(
    checkpoints: &[Checkpoint],
    last: u32,
    report: &mut Report,
) -> HashMap<u32, VecDeque<Checkpoint>> {
    let mut out: HashMap<u32, VecDeque<Checkpoint>> = HashMap::new();
    let mut sorted: Vec<&Checkpoint> = checkpoints.iter().collect();
    sorted.sort_by_key(|checkpoint| checkpoint.size);
    for checkpoint in sorted {
        let epoch = checkpoint.origin.rsplit_once("/audit/").and_then(|(_, epoch)| epoch.parse().ok());
        match epoch {
            Some(epoch) if epoch > last => {
                report.add(last, Finding::Rollback { checkpoint: checkpoint.size, size: 0 });
            }
            Some(epoch) if epoch > 0 => out.entry(epoch).or_default().push_back(checkpoint.clone()),
            _ => report.add(last, Finding::OtherLog(checkpoint.origin.clone())),
        }
    }
    out
}

/// One pass over one epoch.
struct Pass<'d> {
    db: &'d Db,
    epoch: u32,
    frontier: Frontier,
    heads: VecDeque<(i64, StoredHead)>,
    heads_done: bool,
    /// End and time of the last head passed.
    last_head: (i64, i64),
    t_us: i64,
    checkpoints: VecDeque<Checkpoint>,
    subtrees: Vec<(u32, u64, Hash)>,
    gone: Vec<(u64, &'static str)>,
    removals: Vec<Removal>,
    pruned: Vec<(u64, u64)>,
}

impl<'d> Pass<'d> {
    fn new(db: &'d Db, epoch: u32, checkpoints: VecDeque<Checkpoint>) -> Self {
        Self {
            db,
            epoch,
            frontier: Frontier::default(),
            heads: VecDeque::new(),
            heads_done: false,
            last_head: (position(epoch, 0), i64::MIN),
            t_us: i64::MIN,
            checkpoints,
            subtrees: Vec::new(),
            gone: Vec::new(),
            removals: Vec::new(),
            pruned: Vec::new(),
        }
    }

    async fn run(
        &mut self,
        log_key: Option<&[u8; 32]>,
        report: &mut Report,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), StoreError> {
        let start = position(self.epoch, 0);
        let end = read::head_at_or_before(self.db, start, start + EPOCH_SPAN).await?;
        if let (Some(key), Some(head)) = (log_key, &end)
            && !vouches_for(key, head)
        {
            report.add(self.epoch, Finding::HeadSignature(u64::try_from(head.size - start).unwrap_or(0)));
        }
        let end = end.map_or(start, |head| head.size);
        let size = locate(end).1.max(u64::try_from(end - start).unwrap_or(0));
        self.compare_checkpoints(report);
        // one thread reads a chunk, one hashes the chunk before, this one grows the tree with the one before that
        let mut fetched = fetch(self.db, start, end).await?;
        let mut checking: Option<JoinHandle<Vec<Checked>>> = None;
        while fetched.is_some() || checking.is_some() {
            let before = checking.take();
            let mut fetching = None;
            if let Some(entries) = fetched.take() {
                let next = entries.last().map_or(end, |last| last.idx + 1);
                let db = self.db.clone();
                fetching = Some(tokio::spawn(async move { fetch(&db, next, end).await }));
                checking = Some(tokio::task::spawn_blocking(move || entries.iter().map(check).collect()));
            }
            let checked = match before {
                Some(before) => before.await.map_err(|_| GONE)?,
                None => Vec::new(),
            };
            for entry in checked {
                self.take(entry, report).await?;
            }
            self.compare_subtrees(report).await?;
            progress(self.frontier.size(), size);
            if let Some(fetching) = fetching {
                fetched = fetching.await.map_err(|_| GONE)??;
            }
        }
        self.fill_pruned(size, report).await?;
        while self.frontier.size() < size {
            report.add(self.epoch, Finding::Missing(self.frontier.size()));
            if size - self.frontier.size() > 10 {
                break;
            }
            self.frontier.push([0; 32], |_, _, _| ());
        }
        self.compare_subtrees(report).await?;
        self.finish(report);
        Ok(())
    }

    async fn take(&mut self, entry: Checked, report: &mut Report) -> Result<(), StoreError> {
        if entry.index > self.frontier.size() {
            self.fill_pruned(entry.index, report).await?;
        }
        if entry.index != self.frontier.size() {
            // named once; a stand-in keeps later indexes in step, and the heads will tell the rest
            for missing in self.frontier.size()..entry.index {
                report.add(self.epoch, Finding::Missing(missing));
                if report.more > 0 {
                    break;
                }
            }
            while self.frontier.size() < entry.index {
                self.push([0; 32], self.t_us, report).await?;
            }
        }
        for finding in entry.findings {
            report.add(self.epoch, finding);
        }
        if entry.t_us < self.t_us {
            report.add(self.epoch, Finding::Time(entry.index));
        }
        self.gone.extend(entry.gone.into_iter().map(|name| (entry.index, name)));
        self.removals.extend(entry.removal);
        self.push(entry.leaf, entry.t_us, report).await
    }

    /// Takes the leaves of pruned tiles up to `until`, as far as there are any.
    async fn fill_pruned(&mut self, until: u64, report: &mut Report) -> Result<(), StoreError> {
        while self.frontier.size() < until && self.frontier.size().is_multiple_of(256) {
            let first = self.frontier.size();
            let Some(hashes) = read::pruned_tile(self.db, position(self.epoch, first) >> 8).await? else {
                return Ok(());
            };
            report.bodies_unseen += 256;
            for leaf in hashes.as_chunks::<32>().0 {
                self.push(*leaf, self.t_us, report).await?;
            }
            match self.pruned.last_mut() {
                Some(last) if last.1 + 1 == first => last.1 = self.frontier.size() - 1,
                _ => self.pruned.push((first, self.frontier.size() - 1)),
            }
        }
        Ok(())
    }

    async fn push(&mut self, leaf: Hash, t_us: i64, report: &mut Report) -> Result<(), StoreError> {
        let subtrees = &mut self.subtrees;
        self.frontier.push(leaf, |height, n, hash| {
            if height > 0 && height % 8 == 0 {
                subtrees.push((height / 8, n, hash));
            }
        });
        self.t_us = t_us;
        report.entries += 1;
        self.compare_head(report).await?;
        self.compare_checkpoints(report);
        Ok(())
    }

    async fn compare_head(&mut self, report: &mut Report) -> Result<(), StoreError> {
        if self.heads.is_empty() && !self.heads_done {
            self.heads = read::heads(self.db, self.last_head.0, HEADS).await?.into();
            self.heads_done = self.heads.is_empty();
        }
        let at = position(self.epoch, self.frontier.size());
        while self.heads.front().is_some_and(|(_, head)| head.size < at) {
            // inside a batch: no head ends here
            self.heads.pop_front();
        }
        let Some((prev, stored)) = self.heads.pop_front_if(|(_, head)| head.size == at) else {
            return Ok(());
        };
        let size = self.frontier.size();
        match Head::read(&stored) {
            Ok(head) if head.frontier == self.frontier => {}
            Ok(head) => {
                report.add(self.epoch, Finding::Head(size));
                // go on from what was sealed here: one damage is one finding, not one for each later head
                self.frontier = head.frontier;
            }
            Err(_) => report.add(self.epoch, Finding::Head(size)),
        }
        if prev != self.last_head.0 || stored.t_us < self.last_head.1 {
            report.add(self.epoch, Finding::HeadChain(size));
        }
        self.last_head = (stored.size, stored.t_us);
        Ok(())
    }

    fn compare_checkpoints(&mut self, report: &mut Report) {
        while let Some(checkpoint) = self.checkpoints.pop_front_if(|c| c.size == self.frontier.size()) {
            if checkpoint.root != self.frontier.root() {
                report.add(self.epoch, Finding::Fork(checkpoint.size));
            }
        }
    }

    async fn compare_subtrees(&mut self, report: &mut Report) -> Result<(), StoreError> {
        let computed = std::mem::take(&mut self.subtrees);
        for level in 1..=5u32 {
            let of_level: Vec<(u64, Hash)> =
                computed.iter().filter(|(l, ..)| *l == level).map(|(_, n, hash)| (*n, *hash)).collect();
            let (Some(first), Some(last)) = (of_level.first(), of_level.last()) else { continue };
            let base = position(self.epoch, 0) >> (8 * level);
            let (low, high) = (base + first.0.cast_signed(), base + last.0.cast_signed() + 1);
            let stored: HashMap<i64, Vec<u8>> =
                read::subtrees(self.db, i64::from(level), low, high).await?.into_iter().collect();
            for (n, hash) in of_level {
                if stored.get(&(base + n.cast_signed())).is_none_or(|stored| stored[..] != hash) {
                    report.add(self.epoch, Finding::Subtree(level, n));
                }
            }
        }
        Ok(())
    }

    /// What can only be said at the end of an epoch.
    fn finish(&mut self, report: &mut Report) {
        for checkpoint in std::mem::take(&mut self.checkpoints) {
            let size = self.frontier.size();
            report.add(self.epoch, Finding::Rollback { checkpoint: checkpoint.size, size });
        }
        let root = self.frontier.root();
        report.epochs.push(EpochReport { epoch: self.epoch, size: self.frontier.size(), root });
    }
}

/// Whatever is gone must be explained by an entry, which may be a later one, or one of a later epoch. Or one that was
/// recorded while the passes ran: what is gone from a row was said before the row was read.
async fn explain(
    db: &Db,
    log_key: Option<&[u8; 32]>,
    passes: &mut [Pass<'_>],
    report: &mut Report,
) -> Result<(), StoreError> {
    let mut open = unexplained(passes);
    if !open.is_empty()
        && let Some(last) = passes.last_mut()
    {
        let later = removals_after(db, log_key, last.epoch, last.frontier.clone()).await?;
        last.removals.extend(later);
        open = unexplained(passes);
    }
    for (epoch, finding) in open {
        report.add(epoch, finding);
    }
    Ok(())
}

/// What is gone, and no entry of the passes says so.
fn unexplained(passes: &[Pass<'_>]) -> Vec<(u32, Finding)> {
    let mut out = Vec::new();
    for pass in passes {
        let removals: Vec<&Removed> = passes
            .iter()
            .flat_map(|by| {
                by.removals.iter().map(move |removal| (removal.epoch.unwrap_or(by.epoch), removal))
            })
            .filter(|(epoch, _)| *epoch == pass.epoch)
            .map(|(_, removal)| &removal.what)
            .collect();
        let pruned = |index: u64| {
            removals.iter().any(|removal| matches!(removal, Removed::Prune(below) if index < *below))
        };
        let erased = |index: u64, name: &str| {
            removals.iter().any(|removal| match removal {
                Removed::Erase(fields, ranges) => {
                    fields.iter().any(|field| field == name)
                        && ranges.iter().any(|(low, high)| (*low..=*high).contains(&index))
                }
                Removed::Prune(below) => index < *below,
            })
        };
        for (first, last) in &pass.pruned {
            if !pruned(*last) {
                out.push((pass.epoch, Finding::Pruned(*first, *last)));
            }
        }
        for (index, name) in &pass.gone {
            if !erased(*index, name) {
                out.push((pass.epoch, Finding::Erased(*index, name)));
            }
        }
    }
    out
}

/// What the entries beyond `frontier` say was taken out, up to the newest head there is by now: nothing, where they do
/// not make that head.
async fn removals_after(
    db: &Db,
    log_key: Option<&[u8; 32]>,
    epoch: u32,
    mut frontier: Frontier,
) -> Result<Vec<Removal>, StoreError> {
    let (start, mut found) = (position(epoch, 0), Vec::new());
    let newest = read::head_at_or_before(db, start, start + EPOCH_SPAN).await?;
    let Some(newest) = newest.filter(|head| log_key.is_none_or(|key| vouches_for(key, head))) else {
        return Ok(found);
    };
    while let Some(entries) = fetch(db, position(epoch, frontier.size()), newest.size).await? {
        for entry in entries.iter().map(check) {
            if entry.index != frontier.size() {
                return Ok(Vec::new());
            }
            frontier.push(entry.leaf, |_, _, _| ());
            // its leaf is in the tree; that its body is what was hashed says `findings`
            found.extend(entry.removal.filter(|_| entry.findings.is_empty()));
        }
    }
    let holds = Head::read(&newest).is_ok_and(|head| head.frontier == frontier);
    Ok(if holds { found } else { Vec::new() })
}

async fn fetch(db: &Db, from: i64, end: i64) -> Result<Option<Vec<FullEntry>>, StoreError> {
    if from >= end {
        return Ok(None);
    }
    let entries = full_entries(db, from, end, CHUNK).await?;
    Ok((!entries.is_empty()).then_some(entries))
}
