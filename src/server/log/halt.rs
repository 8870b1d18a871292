//! A log that was found to be another than it was stays stopped: restarting a process makes nothing right.
//!
//! Without it a supervisor would start the process again, which knows nothing of what it saw before and would
//! continue the shorter log as if nothing had been lost. The mark names its epoch, so that a new one is free of it.

use super::Fatal;
use crate::server::store::{Db, StoreError};

/// The setting of the database that says so: `<epoch> <why>`.
const MARK: &str = "log_halted";

/// Writes down that the log of `epoch` is not the one this process wrote. A replica's word holds for all.
pub(super) async fn mark(db: &Db, epoch: u32, why: &Fatal) {
    if !matches!(why, Fatal::Rollback { .. } | Fatal::Fork { .. }) {
        return;
    }
    if let Err(error) = db.set_meta(MARK, &format!("{epoch} {why}")).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "that the log stopped could not be written down: do not start it again before `stagedoor audit verify`"
        );
    }
}

/// Why the log of `epoch` was stopped, if it was.
pub(super) async fn marked(db: &Db, epoch: u32) -> Result<Option<String>, StoreError> {
    let mark = db.meta(MARK).await?;
    Ok(mark.and_then(|mark| Some(mark.strip_prefix(&format!("{epoch} "))?.to_owned())))
}
