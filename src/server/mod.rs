//! The issuing service: mints actor tokens, records every attempt, proves the record.
//!
//! Imports run downward: `app, http, cli → issue → {actors, directory, policy, keyring, log, revoke, clients} → store`.

pub mod actors;
pub mod app;
pub mod cli;
pub mod clients;
pub mod config;
pub mod directory;
pub mod http;
pub mod issue;
pub mod keyring;
pub mod log;
pub mod master_key;
pub mod outbound;
pub mod policy;
pub mod revoke;
pub mod store;
pub mod telemetry;
