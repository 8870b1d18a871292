//! The tree as others read it: tiles (C2SP tlog-tiles), entry bundles, inclusion and consistency proofs.
//!
//! Leaves stand beside the bodies (or, pruned, as whole tiles); complete subtrees of 256^level leaves have
//! a row each. Any node is at most one tile away.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{LogEntry, ReadError};
use crate::server::log::body::signed8;
use crate::server::log::head::{Head, locate, position};
use crate::server::log::tree::{self, Hash, node_hash};
use crate::server::log::{Checkpoint, Log, LogError, proof};
use crate::server::store::read::{self, Key, Search};
use crate::server::store::{Db, StoreError};

/// Hashes in a full tile.
const WIDTH: u64 = 256;

/// A tile as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Its bytes: concatenated hashes, or a bundle of entries.
    pub bytes: Vec<u8>,
    /// Whether it is full and will never change.
    pub full: bool,
}

/// The answer to "is this token in the log?".
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The entry that released it.
    pub entry: LogEntry,
    /// Its receipt under the newest checkpoint.
    pub proof: String,
}

/// A proof that the log only grew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// The older size.
    pub from: u64,
    /// The newer size.
    pub to: u64,
    /// RFC 6962 §2.1.2, in base64.
    pub hashes: Vec<String>,
    /// The newest signed checkpoint, of a size of at least `to`.
    pub checkpoint: String,
}

/// Nodes of one epoch's tree, fetched a tile at a time.
#[derive(Debug)]
pub struct TileSource<'d> {
    db: &'d Db,
    epoch: u32,
    /// Level and number of a tile, to its hashes.
    tiles: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'d> TileSource<'d> {
    /// The tree of `epoch`.
    #[must_use]
    pub fn new(db: &'d Db, epoch: u32) -> Self {
        Self { db, epoch, tiles: HashMap::new() }
    }

    /// Drops what was fetched, so that walking a whole log takes no more memory than a tile.
    pub fn forget(&mut self) {
        self.tiles.clear();
    }

    /// The hashes of a tile, as many as there are.
    ///
    /// # Errors
    /// The database could not be asked, or a hash is missing or out of order.
    pub async fn tile(&mut self, level: u32, n: u64) -> Result<&[Hash], StoreError> {
        if !self.tiles.contains_key(&(level, n)) {
            let hashes = self.load(level, n).await?;
            self.tiles.insert((level, n), hashes);
        }
        Ok(&self.tiles[&(level, n)])
    }

    async fn load(&self, level: u32, n: u64) -> Result<Vec<Hash>, StoreError> {
        let first = (position(self.epoch, 0) >> (8 * level)) + (n * WIDTH).cast_signed();
        let last = first + WIDTH.cast_signed();
        let rows = if level == 0 {
            let rows = read::leaves(self.db, first, last).await?;
            // kept hashes stand in for leaves that are gone, and for no others
            if rows.is_empty()
                && let Some(kept) = read::pruned_tile(self.db, first >> 8).await?
            {
                return Ok(kept.as_chunks::<32>().0.to_vec());
            }
            rows
        } else {
            read::subtrees(self.db, i64::from(level), first, last).await?
        };
        let mut out = Vec::with_capacity(rows.len());
        for ((at, hash), expected) in rows.into_iter().zip(first..) {
            if at != expected {
                return Err(StoreError::Corrupt("a hash is missing from the log"));
            }
            out.push(hash.try_into().map_err(|_| StoreError::Corrupt("a hash"))?);
        }
        Ok(out)
    }

    /// Loads the tiles that `prove` reads, then lets it prove.
    ///
    /// # Errors
    /// The database could not be asked, or does not hold what the tree needs.
    pub async fn prove(
        &mut self,
        prove: impl Fn(&mut dyn FnMut(u32, u64) -> Hash) -> Vec<Hash>,
    ) -> Result<Vec<Hash>, StoreError> {
        let mut wanted = Vec::new();
        prove(&mut |height, n| {
            wanted.push((height, n));
            [0; 32]
        });
        let mut nodes = HashMap::with_capacity(wanted.len());
        for (height, n) in wanted {
            let node = self.node(height, n).await?;
            nodes.insert((height, n), node);
        }
        Ok(prove(&mut |height, n| nodes[&(height, n)]))
    }

    async fn node(&mut self, height: u32, n: u64) -> Result<Hash, StoreError> {
        let (level, within) = (height / 8, height % 8);
        let first = n << within;
        let tile = self.tile(level, first / WIDTH).await?;
        let at = usize::try_from(first % WIDTH).map_err(|_| StoreError::Corrupt("a tile"))?;
        let leaves = tile.get(at..at + (1 << within)).ok_or(StoreError::Corrupt("a tile is too short"))?;
        Ok(complete(leaves))
    }
}

/// The root of a complete subtree.
fn complete(leaves: &[Hash]) -> Hash {
    match leaves {
        [one] => *one,
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            node_hash(&complete(left), &complete(right))
        }
    }
}

/// How many hashes a tile has in a tree of `size`; `None` when it has none.
fn width_of(level: u32, n: u64, size: u64) -> Option<u64> {
    let nodes = size.checked_shr(8 * level)?;
    let first = n.checked_mul(WIDTH)?;
    nodes.checked_sub(first).filter(|width| *width > 0).map(|width| width.min(WIDTH))
}

impl Log {
    /// The newest head, checked against what this process recorded itself.
    async fn durable_head(&self) -> Result<(Head, String), LogError> {
        let checkpoint = self.checkpoint().await?;
        let stated = Checkpoint::parse_unverified(&checkpoint)
            .map_err(|_| StoreError::Corrupt("the checkpoint just signed"))?;
        let at = position(self.epoch(), stated.size);
        let start = position(self.epoch(), 0);
        let head = match read::head_at_or_before(self.db(), start, at).await? {
            Some(stored) => Head::read(&stored)?,
            None => Head::empty(self.epoch()),
        };
        Ok((head, checkpoint))
    }

    /// The receipt of the entry at `index` under the newest checkpoint.
    ///
    /// # Errors
    /// No such entry, or the log could not be read.
    pub async fn proof(&self, index: u64) -> Result<String, ReadError> {
        let (head, checkpoint) = self.durable_head().await?;
        self.proof_under(index, &head, &checkpoint).await
    }

    async fn proof_under(&self, index: u64, head: &Head, checkpoint: &str) -> Result<String, ReadError> {
        let size = head.size();
        if index >= size {
            return Err(ReadError::Range("the log has no entry of this index"));
        }
        let mut source = TileSource::new(self.db(), head.epoch);
        let path = source.prove(|node| tree::inclusion(index, size, node)).await?;
        Ok(proof::format(index, &path, checkpoint))
    }

    /// The proof that the log of size `from` is the beginning of the log of size `to` (default: the newest).
    ///
    /// # Errors
    /// Sizes that cannot be, or the log could not be read.
    pub async fn consistency(&self, from: u64, to: Option<u64>) -> Result<Consistency, ReadError> {
        let (head, checkpoint) = self.durable_head().await?;
        let to = to.unwrap_or(head.size());
        if to > head.size() {
            return Err(ReadError::Range("`to` is larger than the log"));
        }
        if from > to {
            return Err(ReadError::Range("`from` is larger than `to`"));
        }
        let path = if from == 0 {
            Vec::new()
        } else {
            let mut source = TileSource::new(self.db(), head.epoch);
            source.prove(|node| tree::consistency(from, to, node)).await?
        };
        let hashes = path.iter().map(|hash| STANDARD.encode(hash)).collect();
        Ok(Consistency { from, to, hashes, checkpoint })
    }

    /// Tile `n` of `level`, partial with exactly `width` hashes when that is given.
    ///
    /// # Errors
    /// A tile the log does not have, or the log could not be read.
    pub async fn tile(&self, level: u32, n: u64, width: Option<u64>) -> Result<Tile, ReadError> {
        let (head, _) = self.durable_head().await?;
        let width = served_width(level, n, width, head.size())?;
        let mut source = TileSource::new(self.db(), head.epoch);
        let hashes = source.tile(level, n).await?;
        let hashes = hashes
            .get(..usize::try_from(width).unwrap_or(usize::MAX))
            .ok_or(StoreError::Corrupt("a tile is too short"))?;
        Ok(Tile { bytes: hashes.concat(), full: width == WIDTH })
    }

    /// The bundle of the entries under tile `n` of level 0: each body behind its 16-bit length.
    ///
    /// # Errors
    /// A tile the log does not have, bodies that were pruned, or the log could not be read.
    pub async fn entry_bundle(&self, n: u64, width: Option<u64>) -> Result<Tile, ReadError> {
        let (head, _) = self.durable_head().await?;
        let width = served_width(0, n, width, head.size())?;
        let first = position(head.epoch, n * WIDTH);
        let last = first + width.cast_signed();
        let rows = read::entries_ascending(self.db(), first, last, WIDTH.cast_signed()).await?;
        if rows.len() as u64 != width {
            return Err(ReadError::Pruned);
        }
        let mut bytes = Vec::new();
        for row in rows {
            let length = u16::try_from(row.body.len()).map_err(|_| StoreError::Corrupt("a body"))?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(row.body);
        }
        Ok(Tile { bytes, full: width == WIDTH })
    }

    /// The entry that released the token `jti`; `None` when the log has none.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn find_jti(&self, jti: &str, personal: bool) -> Result<Option<Lookup>, ReadError> {
        match read::position_of_jti(self.db(), jti).await? {
            Some(at) => self.found(at, personal).await,
            None => Ok(None),
        }
    }

    /// The entry that released the token with this `signed_sha256`; `None` when the log has none. A token
    /// that verifies under our key and is not found was made past this service.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn find_signed(&self, hash: &Hash, personal: bool) -> Result<Option<Lookup>, ReadError> {
        let search = Search {
            key: Key::Signed8,
            value: signed8(hash).to_string(),
            and: Vec::new(),
            also: String::new(),
        };
        let wanted = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash);
        for at in read::search_newest(self.db(), &search, 0, i64::MAX, 16).await? {
            if let Some(found) = self.found(at, personal).await? {
                let stated = found.entry.body.as_ref().and_then(|body| body.get("signed_sha256"));
                if stated.and_then(serde_json::Value::as_str) == Some(wanted.as_str()) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    async fn found(&self, at: i64, personal: bool) -> Result<Option<Lookup>, ReadError> {
        let (epoch, index) = locate(at);
        if epoch != self.epoch() {
            return Err(ReadError::Range("the entry belongs to an earlier epoch of the log"));
        }
        let Some(entry) = self.entry(index, personal).await? else { return Err(ReadError::Pruned) };
        Ok(Some(Lookup { entry, proof: self.proof(index).await? }))
    }
}

/// The width to serve: what is asked for, if the log has as much; a full tile otherwise.
fn served_width(level: u32, n: u64, width: Option<u64>, size: u64) -> Result<u64, ReadError> {
    let wanted = width.unwrap_or(WIDTH);
    if level > 5 {
        return Err(ReadError::Range("the log has no such level"));
    }
    if wanted == 0 || wanted > WIDTH || (width == Some(WIDTH)) {
        return Err(ReadError::Range("a partial tile has 1 to 255 hashes"));
    }
    match width_of(level, n, size) {
        Some(has) if has >= wanted => Ok(wanted),
        _ => Err(ReadError::Range("the log has no such tile yet")),
    }
}
