//! Stopping, on SQLite and on PostgreSQL: revocations, cut-offs, holds, handoff codes, idempotency keys, the feed.

#[path = "../log/harness.rs"]
#[expect(dead_code, reason = "shared with the log's tests, which use all of it")]
mod harness;
#[path = "../support/mod.rs"]
mod support;
use support::pg;

mod following;
mod handing;
mod hostile_feed;
mod ordering;
mod retrying;
mod revoking;
mod rotating;
mod site;
