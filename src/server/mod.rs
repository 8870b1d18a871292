//! The issuing service: mints actor tokens, records every attempt, proves the record.
//!
//! Imports run downward: `app → http, cli → service → issue, checker → {actors, directory, policy, keyring, log, revoke, clients} → store`.

pub mod actors;
pub mod app;
pub mod checker;
pub mod cli;
pub mod clients;
pub mod config;
pub mod console;
pub mod directory;
pub mod gates;
pub mod http;
pub mod issue;
pub mod keyring;
pub mod limits;
pub mod log;
pub mod master_key;
pub mod metrics;
pub mod outbound;
pub mod policy;
pub mod remembered;
pub mod revoke;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod ticket;
pub mod tls;
pub mod webhooks;
