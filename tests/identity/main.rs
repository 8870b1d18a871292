//! Trusted issuers and the directory against real counterparts: npm `oidc-provider` and a SCIM 2.0 server of npm
//! `scimmy`. Only faults that those cannot be made to show come from a server written here (`faulty`).
#![cfg(feature = "server")]

#[path = "../support/dice.rs"]
#[expect(dead_code, reason = "shared with the fuzzing of the API")]
mod dice;
mod directory;
mod faulty;
mod fuzz;
mod hostile_issuers;
mod issuers;
mod parts;
