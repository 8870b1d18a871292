//! Reading the log: entries for people and machines, grants, proofs and tiles.

mod entries;
mod grants;
mod handoffs;
mod history;
mod tiles;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use entries::{EntryFilter, LogEntry, PersonalData, Stretch};
pub use grants::{Grant, GrantFilter, GrantStatus};
pub(super) use handoffs::{Wanted, find_codes};
pub use history::{Stage, Step};
pub use tiles::{Consistency, Lookup, Tile, TileSource};

use super::LogError;
use super::head::Head;
use super::tree::sha256;
use crate::server::store::{Db, StoreError, read};

/// Why a read did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// What was asked for cannot be: out of range, wrong width, unknown level.
    #[error("{0}")]
    Range(&'static str),
    /// The body was dropped by `audit prune`; its hash is still there.
    #[error("the entry's body was pruned; its hash still stands")]
    Pruned,
    /// The log could not be read.
    #[error("the log could not be read")]
    Log(#[from] LogError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Log(error.into())
    }
}

/// One page of a list, newest first.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// A place in a list, bound to the filter it was made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(i64);

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not one of ours.
    #[error("is not a cursor of this service")]
    Malformed,
    /// Made under other filters.
    #[error("belongs to a query with other filters")]
    OtherQuery,
}

/// A filter that cursors can be bound to.
pub trait Fingerprint {
    /// Equal for equal filters.
    fn fingerprint(&self) -> [u8; 4];
}

fn fingerprint(filter: &dyn std::fmt::Debug) -> [u8; 4] {
    let hash = sha256(format!("{filter:?}").as_bytes());
    [hash[0], hash[1], hash[2], hash[3]]
}

impl Cursor {
    /// Reads a cursor that a page under `filter` gave; no text is no cursor.
    ///
    /// # Errors
    /// A text that is no cursor, or one of another query.
    pub fn read(text: Option<&str>, filter: &impl Fingerprint) -> Result<Option<Self>, CursorError> {
        let Some(text) = text else { return Ok(None) };
        if text.len() > 32 {
            return Err(CursorError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)?;
        let bytes: [u8; 12] = bytes.try_into().map_err(|_| CursorError::Malformed)?;
        let (position, query) = bytes.split_at(8);
        if query != filter.fingerprint() {
            return Err(CursorError::OtherQuery);
        }
        let position = i64::from_be_bytes(position.try_into().map_err(|_| CursorError::Malformed)?);
        if position < 0 { Err(CursorError::Malformed) } else { Ok(Some(Self(position))) }
    }

    fn text(position: i64, filter: &impl Fingerprint) -> String {
        let mut bytes = position.to_be_bytes().to_vec();
        bytes.extend(filter.fingerprint());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Everything older than this position is still to come.
    fn below(cursor: Option<Self>) -> i64 {
        cursor.map_or(i64::MAX, |cursor| cursor.0)
    }
}

/// The newest committed head; `None` when nothing was ever recorded.
///
/// # Errors
/// The database could not be asked, or the head does not hold together.
pub async fn newest_head(db: &Db) -> Result<Option<Head>, StoreError> {
    read::newest_head(db).await?.map(|stored| Head::read(&stored)).transpose()
}
