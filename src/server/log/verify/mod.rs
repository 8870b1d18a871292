//! Recomputing the log: at start over its newest entries, by `audit verify` over all of it.

use super::head::{Head, position};
use super::tree::{Frontier, leaf_hash};
use crate::server::store::append::StoredHead;
use crate::server::store::{Db, StoreError, on_db};

/// How many of the newest entries are recomputed before the service starts.
pub const STARTUP_ENTRIES: u64 = 1000;

/// Something that is not as it was recorded, by index in the epoch's tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// An entry's body does not make its leaf.
    #[error("entry {0}: its body is not what was hashed")]
    Body(u64),
    /// An entry is missing.
    #[error("entry {0} is missing")]
    Missing(u64),
    /// There are rows beyond the newest head.
    #[error("entry {0} lies beyond the newest head")]
    Beyond(u64),
    /// A head's root is not that of the entries below it.
    #[error("the head of size {0} does not follow from the entries")]
    Head(u64),
}

/// Recomputes the newest `count` entries (or a few more, back to a head) up to `head`.
///
/// # Errors
/// The database could not be asked.
pub async fn tail(db: &Db, head: &Head, count: u64) -> Result<Option<Finding>, StoreError> {
    let end = head.end();
    let beyond: Option<(i64,)> = on_db!(
        db,
        read | pool | {
            sqlx::query_as("SELECT idx FROM audit_entry WHERE idx >= $1 ORDER BY idx LIMIT 1")
                .bind(end)
                .fetch_optional(pool)
                .await
        }
    )?;
    if let Some((idx,)) = beyond {
        return Ok(Some(Finding::Beyond(super::head::locate(idx).1)));
    }
    let start = position(head.epoch, 0);
    let from = end.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).max(start);
    let heads: Vec<(i64, Vec<u8>, Vec<u8>, i64)> = on_db!(
        db,
        read | pool | {
            sqlx::query_as(
                "SELECT size, root, frontier, t_us FROM audit_head WHERE size > $2 AND size >= \
             (SELECT COALESCE(max(size), 0) FROM audit_head WHERE size <= $1) ORDER BY size",
            )
            .bind(from)
            .bind(start)
            .fetch_all(pool)
            .await
        }
    )?;
    let mut heads = heads
        .into_iter()
        .map(|(size, root, frontier, t_us)| Head::read(&StoredHead { size, root, frontier, t_us }))
        .peekable();
    let mut frontier = match heads.next_if(|first| first.as_ref().is_ok_and(|head| head.end() <= from)) {
        Some(first) => first?.frontier,
        None => Frontier::default(),
    };
    for head in heads {
        let head = head?;
        let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = on_db!(
            db,
            read | pool | {
                sqlx::query_as(
                    "SELECT idx, leaf, body FROM audit_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx",
                )
                .bind(position(head.epoch, frontier.size()))
                .bind(head.end())
                .fetch_all(pool)
                .await
            }
        )?;
        for (idx, leaf, body) in rows {
            let next = frontier.size();
            if idx != position(head.epoch, next) {
                return Ok(Some(Finding::Missing(next)));
            }
            let hash = leaf_hash(&body);
            if leaf[..] != hash {
                return Ok(Some(Finding::Body(next)));
            }
            frontier.push(hash, |_, _, _| ());
        }
        if frontier.size() != head.size() {
            return Ok(Some(Finding::Missing(frontier.size())));
        }
        if frontier.root() != head.root {
            return Ok(Some(Finding::Head(head.size())));
        }
    }
    Ok(None)
}
