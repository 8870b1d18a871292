//! The token room against vectors nobody here wrote, hostile tables and properties; the guards over HTTP.

mod boundaries;
mod cookbook;
mod downstream;
mod fixtures;
#[cfg(all(feature = "server", feature = "axum"))]
mod guards;
mod hostile;
mod json_suite;
#[cfg(all(feature = "server", feature = "axum"))]
mod lines;
mod memory;
mod properties;
#[cfg(all(feature = "server", feature = "axum"))]
mod remote;
mod signing;
mod wycheproof;
