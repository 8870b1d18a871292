//! What leaves the service by itself: webhooks, anomalies, traces and metrics, and TLS it serves.

#[path = "../support/mod.rs"]
mod support;

mod anomaly;
#[path = "../support/processes.rs"]
#[expect(dead_code, reason = "shared with tests that start other programs")]
mod processes;
mod receiver;
mod service;
#[path = "../stop/site.rs"]
#[expect(dead_code, reason = "shared with the tests of stopping, which use all of it")]
mod site;
mod telemetry;
mod tls;
mod webhooks;
