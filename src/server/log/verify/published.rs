//! `audit verify --url` and `--dir`: a log as anybody outside sees it, tile by tile.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::{EpochReport, Finding, Report};
use crate::server::log::checkpoint::Checkpoint;
use crate::server::log::note::{NoteError, NoteVerifier};
use crate::server::log::tile_path::TilePath;
use crate::server::log::tree::{Frontier, Hash, leaf_hash};

/// The longest file read: a bundle of 256 entries of 65 535 bytes.
pub const MAX_FILE_BYTES: u64 = 256 * (65_535 + 2);

/// Why a published log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// A file could not be fetched.
    #[error("{path} could not be read")]
    Fetch {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that has to be there is not.
    #[error("{0} is missing")]
    Missing(String),
    /// A file is not of the right form.
    #[error("{0} is malformed")]
    Malformed(String),
    /// The checkpoint is not signed by the given key.
    #[error("the checkpoint is not acceptable")]
    Checkpoint(#[from] NoteError),
}

/// Where a log's files are: relative paths as C2SP tlog-tiles names them.
#[async_trait::async_trait]
pub trait Published: Send + Sync {
    /// The file at `path`, at most [`MAX_FILE_BYTES`] long; `None` when there is none (or one may not see it).
    ///
    /// # Errors
    /// It could not be looked for.
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, PublishedError>;
}

/// A directory made by `audit export --format tiles`.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

#[async_trait::async_trait]
impl Published for Directory {
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, PublishedError> {
        let fetch =
            |error: std::io::Error| PublishedError::Fetch { path: path.to_owned(), source: error.into() };
        let file = self.0.join(path);
        match std::fs::metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fetch(error)),
            Ok(meta) if meta.len() > MAX_FILE_BYTES => Err(PublishedError::Malformed(path.to_owned())),
            Ok(_) => std::fs::read(&file).map(Some).map_err(fetch),
        }
    }
}

/// Verifies a published log under `verifier`, and that it grew from `earlier` checkpoints (whose signatures
/// the caller has checked). Bodies are recomputed where they can be had. `progress` is told (done, all).
///
/// # Errors
/// Nothing is known then.
pub async fn published(
    source: &dyn Published,
    verifier: &NoteVerifier,
    earlier: &[Checkpoint],
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Report, PublishedError> {
    let note = get(source, "checkpoint").await?;
    let note = String::from_utf8(note).map_err(|_| PublishedError::Malformed("checkpoint".into()))?;
    let newest = Checkpoint::open(&note, verifier)?;
    let epoch = newest.origin.rsplit_once("/audit/").and_then(|(_, epoch)| epoch.parse().ok()).unwrap_or(1);
    let mut report = Report::default();
    let mut earlier = sorted(earlier, &newest, epoch, &mut report);
    let mut frontier = Frontier::default();
    let mut uppers: Vec<Vec<Hash>> = vec![Vec::new(); 6];
    compare(&mut earlier, &frontier, epoch, &mut report);
    for n in 0..newest.size.div_ceil(256) {
        let width = (newest.size - n * 256).min(256);
        let leaves = tile(source, 0, n, width).await?;
        if !check_bundle(source, n, &leaves, epoch, &mut report).await? {
            report.bodies_unseen += width;
        }
        for leaf in leaves {
            frontier.push(leaf, |height, _, hash| {
                if height > 0 && height % 8 == 0 && height <= 40 {
                    uppers[height as usize / 8].push(hash);
                }
            });
            compare(&mut earlier, &frontier, epoch, &mut report);
        }
        report.entries += width;
        progress(frontier.size(), newest.size);
    }
    for (level, hashes) in (0u32..).zip(&uppers) {
        for (n, computed) in (0u64..).zip(hashes.chunks(256)) {
            if tile(source, level, n, computed.len() as u64).await? != computed {
                report.add(epoch, Finding::Subtree(level, n));
            }
        }
    }
    if frontier.root() != newest.root {
        report.add(epoch, Finding::Head(newest.size));
    }
    for checkpoint in earlier {
        report.add(epoch, Finding::Rollback { checkpoint: checkpoint.size, size: newest.size });
    }
    report.epochs.push(EpochReport { epoch, size: newest.size, root: frontier.root() });
    Ok(report)
}

/// Earlier checkpoints of this log, smallest first.
fn sorted(
    earlier: &[Checkpoint],
    newest: &Checkpoint,
    epoch: u32,
    report: &mut Report,
) -> VecDeque<Checkpoint> {
    let mut out: Vec<Checkpoint> = Vec::new();
    for checkpoint in earlier {
        if checkpoint.origin == newest.origin {
            out.push(checkpoint.clone());
        } else {
            report.add(epoch, Finding::OtherLog(checkpoint.origin.clone()));
        }
    }
    out.sort_by_key(|checkpoint| checkpoint.size);
    out.into()
}

fn compare(earlier: &mut VecDeque<Checkpoint>, frontier: &Frontier, epoch: u32, report: &mut Report) {
    while let Some(checkpoint) = earlier.pop_front_if(|c| c.size == frontier.size()) {
        if checkpoint.root != frontier.root() {
            report.add(epoch, Finding::Fork(checkpoint.size));
        }
    }
}

async fn get(source: &dyn Published, path: &str) -> Result<Vec<u8>, PublishedError> {
    source.get(path).await?.ok_or_else(|| PublishedError::Missing(path.to_owned()))
}

/// The first `width` hashes of a tile; a log that grew meanwhile may offer only a wider one.
async fn tile(source: &dyn Published, level: u32, n: u64, width: u64) -> Result<Vec<Hash>, PublishedError> {
    let full = TilePath { level: Some(level), n, width: None };
    let exact = TilePath { width: (width < 256).then_some(width), ..full };
    let bytes = match source.get(&exact.text()).await? {
        Some(bytes) => bytes,
        None => get(source, &full.text()).await?,
    };
    let (hashes, rest) = bytes.as_chunks::<32>();
    let wanted = usize::try_from(width).unwrap_or(usize::MAX);
    match hashes.get(..wanted) {
        Some(hashes) if rest.is_empty() => Ok(hashes.to_vec()),
        _ => Err(PublishedError::Malformed(exact.text())),
    }
}

/// False when the bodies cannot be had.
async fn check_bundle(
    source: &dyn Published,
    n: u64,
    leaves: &[Hash],
    epoch: u32,
    report: &mut Report,
) -> Result<bool, PublishedError> {
    let width = leaves.len() as u64;
    let path = TilePath { level: None, n, width: (width < 256).then_some(width) };
    let Some(bundle) = source.get(&path.text()).await? else { return Ok(false) };
    let mut rest = bundle.as_slice();
    for (index, leaf) in (n * 256..).zip(leaves) {
        let body = rest
            .split_first_chunk::<2>()
            .and_then(|(length, after)| after.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        let Some((body, after)) = body else { return Err(PublishedError::Malformed(path.text())) };
        if leaf_hash(body) != *leaf {
            report.add(epoch, Finding::Body(index));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(true) } else { Err(PublishedError::Malformed(path.text())) }
}
