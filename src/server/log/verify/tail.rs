//! The check at start: the newest entries make the newest heads.

use super::Finding;
use crate::server::log::head::{Head, locate, position};
use crate::server::log::tree::{Frontier, leaf_hash};
use crate::server::store::{Db, StoreError, read};

/// How many of the newest entries are recomputed before the service starts.
pub const STARTUP_ENTRIES: u64 = 1000;

/// Recomputes the newest `count` entries (or a few more, back to a head) up to `head`.
///
/// # Errors
/// The database could not be asked.
pub async fn tail(db: &Db, head: &Head, count: u64) -> Result<Option<Finding>, StoreError> {
    let (start, end) = (position(head.epoch, 0), head.end());
    if let Some(beyond) = read::newest_positions(db, end, i64::MAX, 1).await?.first() {
        return Ok(Some(Finding::Beyond(locate(*beyond).1)));
    }
    let from = end.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).max(start);
    let mut frontier = match read::head_at_or_before(db, start, from).await? {
        Some(stored) => Head::read(&stored)?.frontier,
        None => Frontier::default(),
    };
    loop {
        let after = position(head.epoch, frontier.size());
        let heads = read::heads(db, after, 256).await?;
        if heads.is_empty() {
            return Ok(None);
        }
        for (_, stored) in heads {
            let next = Head::read(&stored)?;
            let low = position(head.epoch, frontier.size());
            let rows = read::entries_ascending(db, low, next.end(), i64::MAX).await?;
            for row in rows {
                let index = frontier.size();
                if row.idx != position(head.epoch, index) {
                    return Ok(Some(Finding::Missing(index)));
                }
                let hash = leaf_hash(&row.body);
                if row.leaf[..] != hash {
                    return Ok(Some(Finding::Body(index)));
                }
                frontier.push(hash, |_, _, _| ());
            }
            if frontier.size() != next.size() {
                return Ok(Some(Finding::Missing(frontier.size())));
            }
            if frontier.root() != next.root {
                return Ok(Some(Finding::Head(next.size())));
            }
        }
    }
}
