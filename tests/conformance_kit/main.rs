//! The conformance kit (`stagedoor conformance`): its table is large and sound, our own doors keep all of it,
//! the recipes of `docs/languages` keep what matters, and a careless service is caught.
#![cfg(all(feature = "server", feature = "axum"))]

mod guards;
mod in_process;
mod kit;
#[path = "../support/processes.rs"]
mod processes;
#[path = "../support/recipes.rs"]
mod recipes;
mod services;
