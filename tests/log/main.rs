//! The log's conformance suite: every test runs on SQLite and on PostgreSQL.

#[path = "../support/pg.rs"]
mod pg;
#[path = "../support/sql.rs"]
mod sql;

mod append;
mod exporting;
mod faults;
mod harness;
mod reads;
mod removal;
mod schema;
mod sighting;
mod verifying;
mod witnessing;
