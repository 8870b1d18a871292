//! Stagedoor lets one person act as another: briefly, provably, never unseen.
//!
//! Three rooms, imports running downward only (`server → guard → token`):
//!
//! * [`token`]: what an actor token is and how one is verified; no I/O, no framework.
//! * [`guard`]: what a downstream service puts before its routes.
//! * `server`: the issuing service (feature `server`).

pub mod guard;
#[cfg(feature = "server")]
pub mod server;
pub mod token;
