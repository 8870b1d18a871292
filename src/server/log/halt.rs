//! A log that was found to be another than it was stays stopped: restarting a process makes nothing right.
//!
//! Without it a supervisor would start the process again, which knows nothing of what it saw before and would
//! continue the shorter log as if nothing had been lost. The mark names its epoch, so that a new one is free of it.

use super::{Fatal, Head};
use crate::server::store::{Db, StoreError, read};

/// The setting of the database that says so: `<epoch> <why>`.
const MARK: &str = "log_halted";

/// Writes down that the log is not the one of which this process saw `seen`. A replica's word holds for all.
pub(super) async fn mark(db: &Db, seen: &Head, why: &Fatal) {
    if let Err(error) = write(db, seen, why).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "that the log stopped could not be written down: do not start it again before `stagedoor audit verify`"
        );
    }
}

async fn write(db: &Db, seen: &Head, why: &Fatal) -> Result<(), StoreError> {
    let epoch = seen.epoch;
    match why {
        Fatal::Rollback { .. } | Fatal::Fork { .. } => db.set_meta(MARK, &format!("{epoch} {why}")).await,
        // the next process opens the file that stands there now: whole, it may
        Fatal::Exchanged => {
            let now = db.opened_again().await?;
            let head = read::newest_head(&now).await?;
            let head = head.map_or_else(|| Ok(Head::empty(epoch)), |stored| Head::read(&stored))?;
            match head.is_seen_in(&now, seen).await? {
                Err(why @ (Fatal::Rollback { .. } | Fatal::Fork { .. })) => {
                    now.set_meta(MARK, &format!("{epoch} {why}")).await
                }
                _ => Ok(()),
            }
        }
        Fatal::Epoch { .. } | Fatal::Forged { .. } | Fatal::Corrupt(_) => Ok(()),
    }
}

/// Why the log of `epoch` was stopped, if it was.
pub(super) async fn marked(db: &Db, epoch: u32) -> Result<Option<String>, StoreError> {
    let mark = db.meta(MARK).await?;
    Ok(mark.and_then(|mark| Some(mark.strip_prefix(&format!("{epoch} "))?.to_owned())))
}
