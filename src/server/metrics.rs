//! What an operator watches: counters and histograms in the OpenMetrics format, without a person in them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Which request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

/// Which outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Histogram,
    mints: Family<OutcomeLabels, Counter>,
    /// The log's size, entries.
    pub log_size: Gauge,
    /// Rows of keys or clients that failed their authentication: somebody wrote to the database.
    pub unauthentic_rows: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stagedoor");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        let durations = Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        registry.register_with_unit(
            "http_request_duration",
            "Time from arrival to answer",
            Unit::Seconds,
            durations.clone(),
        );
        let mints = Family::<OutcomeLabels, Counter>::default();
        registry.register("mints", "Attempts to mint, by outcome", mints.clone());
        let log_size = Gauge::default();
        registry.register("log_entries", "Entries in the issuance log", log_size.clone());
        let unauthentic_rows = Gauge::<u64, AtomicU64>::default();
        registry.register(
            "unauthentic_rows",
            "Rows of keys or clients that fail their authentication; must be 0",
            unauthentic_rows.clone(),
        );
        Self { registry, requests, durations, mints, log_size, unauthentic_rows }
    }
}

impl Metrics {
    /// One request was answered.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels {
                method: known_method(method).into(),
                route: route.into(),
                status,
            })
            .inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// One attempt to mint ended so.
    pub fn mint(&self, outcome: &'static str) {
        self.mints.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The text that a scraper reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A method from outside must not become a label of its own.
fn known_method(method: &str) -> &str {
    match method {
        "GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH" => method,
        _ => "OTHER",
    }
}

/// Refusals that are counted, not recorded one by one: a flood must not fill the log.
#[derive(Debug, Default)]
pub struct Noise {
    kinds: [AtomicU64; 4],
}

impl Noise {
    const STATUSES: [u16; 4] = [400, 401, 422, 429];

    /// Counts one refusal, if its status is of those.
    pub fn count(&self, status: u16) {
        if let Some(i) = Self::STATUSES.iter().position(|s| *s == status) {
            self.kinds[i].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the sums since the last call; `None` when there was nothing.
    pub fn take(&self) -> Option<Vec<(u16, u64)>> {
        let sums: Vec<(u16, u64)> =
            Self::STATUSES.iter().zip(&self.kinds).map(|(s, n)| (*s, n.swap(0, Ordering::Relaxed))).collect();
        sums.iter().any(|(_, n)| *n > 0).then_some(sums)
    }
}
