//! The check at start: the newest entries make the newest heads.

use std::collections::VecDeque;

use super::Finding;
use crate::server::log::head::{Head, locate, position};
use crate::server::log::tree::{Frontier, leaf_hash};
use crate::server::store::{Db, StoreError, read};

/// Entries and heads fetched at a time.
const CHUNK: i64 = 1024;

/// How many of the newest entries are recomputed before the service starts.
pub const STARTUP_ENTRIES: u64 = 1000;

/// Up to `limit` of the newest entries in `[low, high)` that no head covers. Others may append meanwhile: an entry and
/// its head are committed at once, so whatever head is read after an entry was seen covers it.
///
/// # Errors
/// The database could not be asked.
pub(super) async fn beyond(db: &Db, low: i64, high: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    let mut newest = read::newest_positions(db, low, high, limit).await?;
    let end = read::head_at_or_before(db, low, high).await?.map_or(low, |head| head.size);
    newest.retain(|idx| *idx >= end);
    Ok(newest)
}

/// Recomputes the newest `count` entries (or a few more, back to a head) up to `head`.
///
/// # Errors
/// The database could not be asked.
pub async fn tail(db: &Db, head: &Head, count: u64) -> Result<Option<Finding>, StoreError> {
    let (start, end) = (position(head.epoch, 0), head.end());
    if let Some(beyond) = beyond(db, start, i64::MAX, 1).await?.first() {
        return Ok(Some(Finding::Beyond(locate(*beyond).1)));
    }
    let from = end.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).max(start);
    let mut frontier = match read::head_at_or_before(db, start, from).await? {
        Some(stored) => Head::read(&stored)?.frontier,
        None => Frontier::default(),
    };
    let mut heads = VecDeque::new();
    let mut next = position(head.epoch, frontier.size());
    while next < end {
        let rows = read::entries_ascending(db, next, end, CHUNK).await?;
        let Some(last) = rows.last() else { break };
        next = last.idx + 1;
        for row in rows {
            let index = frontier.size();
            if row.idx != position(head.epoch, index) {
                return Ok(Some(Finding::Missing(index)));
            }
            let hash = leaf_hash(&row.body);
            if row.leaf[..] != hash {
                return Ok(Some(Finding::Body(index)));
            }
            if heads.is_empty() {
                heads = read::heads(db, row.idx, CHUNK).await?.into();
            }
            frontier.push(hash, |_, _, _| ());
            if let Some((_, sealed)) = heads.pop_front_if(|(_, sealed)| sealed.size == row.idx + 1)
                && Head::read(&sealed)?.root != frontier.root()
            {
                return Ok(Some(Finding::Head(frontier.size())));
            }
        }
    }
    if frontier.size() < head.size() {
        return Ok(Some(Finding::Missing(frontier.size())));
    }
    Ok((frontier.root() != head.root).then_some(Finding::Head(head.size())))
}
