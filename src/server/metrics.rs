//! What an operator watches: counters and histograms in the `OpenMetrics` format, without a person in them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
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
    log_entries: Gauge,
    log_records: Counter,
    log_commits: Counter,
    log_refused: Counter,
    log_waiting: Gauge,
    log_shed: Counter,
    unauthentic_rows: Gauge,
    signing_key_age: Gauge,
    database_read_age: Gauge,
    issuer_keys_age: Family<IssuerLabels, Gauge>,
    log_unwitnessed: Gauge,
    witness_refuses: Family<WitnessLabels, Gauge>,
    anomalies: Counter,
    webhook_backlog: Family<WebhookLabels, Gauge>,
    webhook_backlog_age: Family<WebhookLabels, Gauge>,
    webhook_deliveries: Family<DeliveryLabels, Counter>,
}

/// What is read from the parts when somebody scrapes.
#[derive(Debug, Default)]
pub struct Observed {
    /// Entries in the log.
    pub log_entries: u64,
    /// Entries this process recorded since it started.
    pub log_records: u64,
    /// Transactions it took.
    pub log_commits: u64,
    /// Attempts that could not be recorded.
    pub log_refused: u64,
    /// Records that wait for their commit.
    pub log_waiting: u64,
    /// Attempts refused since the start, as they would have waited too long.
    pub log_shed: u64,
    /// Rows of keys or clients that fail their authentication.
    pub unauthentic_rows: u64,
    /// How long the oldest entry has waited for enough witnesses, seconds.
    pub unwitnessed_seconds: u64,
    /// Each witness, and whether it says that the log was cut or rewritten.
    pub witness_refusals: Vec<(String, bool)>,
    /// Since when the key that signs tokens does so, seconds.
    pub signing_key_age_seconds: u64,
    /// How long ago the database was read last, seconds: it is read four times a second.
    pub database_read_age_seconds: u64,
    /// How old the keys of each trusted issuer are, seconds; `None`: never fetched.
    pub issuer_keys_age_seconds: Vec<(String, Option<u64>)>,
    /// Anomalies this process raised.
    pub anomalies: u64,
    /// How each webhook stands.
    pub webhooks: Vec<ObservedWebhook>,
}

/// How a webhook stands.
#[derive(Debug)]
pub struct ObservedWebhook {
    /// Its name.
    pub name: String,
    /// Entries of the log it has not been told of.
    pub backlog: u64,
    /// How long ago the oldest of them was recorded, seconds.
    pub backlog_age_seconds: u64,
    /// Events this process delivered.
    pub delivered: u64,
    /// Deliveries of this process that failed.
    pub failed: u64,
}

/// Which issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

/// Which witness.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WitnessLabels {
    witness: String,
}

/// Which webhook.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    webhook: String,
}

/// Which webhook, and whether the receiver took the event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    webhook: String,
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stagedoor");
        registry.register("build", "What runs", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        let durations = Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        registry.register_with_unit(
            "http_request_duration",
            "Time from arrival to answer",
            Unit::Seconds,
            durations.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let log_records = counter("log_records", "Entries this process recorded");
        let anomalies = counter("anomalies", "Entries raised about actors with unusually many targets");
        let log_commits = counter("log_commits", "Transactions that recorded them");
        let log_refused =
            counter("log_refused", "Attempts that could not be recorded, and were answered with 503");
        let log_shed = counter("log_shed", "Attempts refused with 503, as they would have waited too long");
        let mints = every_outcome();
        registry.register("mints", "Attempts to mint, by outcome", mints.clone());
        let mut gauge = |name: &str, help: &str, unit: Option<Unit>| {
            let gauge = Gauge::default();
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, gauge.clone()),
                None => registry.register(name, help, gauge.clone()),
            }
            gauge
        };
        let log_entries = gauge("log_entries", "Entries in the issuance log", None);
        let log_waiting = gauge("log_waiting", "Records that wait for their commit", None);
        let unauthentic_rows = gauge(
            "unauthentic_rows",
            "Rows of keys or clients that fail their authentication, and revocations that were deleted; must be 0",
            None,
        );
        let database_read_age =
            gauge("database_read_age", "How long ago the database was read", Some(Unit::Seconds));
        let signing_key_age =
            gauge("signing_key_age", "How long the current key has signed tokens", Some(Unit::Seconds));
        let log_unwitnessed = gauge(
            "log_unwitnessed",
            "How long the oldest entry has waited for enough witnesses; 0 without witnesses",
            Some(Unit::Seconds),
        );
        let issuer_keys_age = Family::<IssuerLabels, Gauge>::default();
        registry.register_with_unit(
            "issuer_keys_age",
            "Age of a trusted issuer's keys; -1: it has none",
            Unit::Seconds,
            issuer_keys_age.clone(),
        );
        let witness_refuses = Family::<WitnessLabels, Gauge>::default();
        registry.register(
            "witness_refuses",
            "1: the witness says that the log was cut or rewritten",
            witness_refuses.clone(),
        );
        let webhook_backlog = Family::<WebhookLabels, Gauge>::default();
        registry.register(
            "webhook_backlog",
            "Entries of the log that a webhook has not been told of",
            webhook_backlog.clone(),
        );
        let webhook_backlog_age = Family::<WebhookLabels, Gauge>::default();
        registry.register_with_unit(
            "webhook_backlog_age",
            "How long ago the oldest entry of the backlog was recorded; 0: there is none",
            Unit::Seconds,
            webhook_backlog_age.clone(),
        );
        let webhook_deliveries = Family::<DeliveryLabels, Counter>::default();
        registry.register("webhook_deliveries", "Events posted, by outcome", webhook_deliveries.clone());
        Self {
            registry,
            requests,
            durations,
            mints,
            log_entries,
            log_records,
            log_commits,
            log_refused,
            log_waiting,
            log_shed,
            unauthentic_rows,
            signing_key_age,
            database_read_age,
            issuer_keys_age,
            log_unwitnessed,
            witness_refuses,
            anomalies,
            webhook_backlog,
            webhook_backlog_age,
            webhook_deliveries,
        }
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
    pub fn render(&self, observed: &Observed) -> String {
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.log_entries.set(whole(observed.log_entries));
        self.log_records.inner().store(observed.log_records, Ordering::Relaxed);
        self.log_commits.inner().store(observed.log_commits, Ordering::Relaxed);
        self.log_refused.inner().store(observed.log_refused, Ordering::Relaxed);
        self.log_waiting.set(whole(observed.log_waiting));
        self.log_shed.inner().store(observed.log_shed, Ordering::Relaxed);
        self.unauthentic_rows.set(whole(observed.unauthentic_rows));
        self.signing_key_age.set(whole(observed.signing_key_age_seconds));
        self.database_read_age.set(whole(observed.database_read_age_seconds));
        for (issuer, age) in &observed.issuer_keys_age_seconds {
            let labels = IssuerLabels { issuer: issuer.clone() };
            self.issuer_keys_age.get_or_create(&labels).set(age.map_or(-1, whole));
        }
        self.log_unwitnessed.set(whole(observed.unwitnessed_seconds));
        for (witness, refuses) in &observed.witness_refusals {
            let labels = WitnessLabels { witness: witness.clone() };
            self.witness_refuses.get_or_create(&labels).set(i64::from(*refuses));
        }
        self.anomalies.inner().store(observed.anomalies, Ordering::Relaxed);
        for hook in &observed.webhooks {
            let labels = WebhookLabels { webhook: hook.name.clone() };
            self.webhook_backlog.get_or_create(&labels).set(whole(hook.backlog));
            self.webhook_backlog_age.get_or_create(&labels).set(whole(hook.backlog_age_seconds));
            for (outcome, n) in [("delivered", hook.delivered), ("failed", hook.failed)] {
                let labels = DeliveryLabels { webhook: hook.name.clone(), outcome };
                self.webhook_deliveries.get_or_create(&labels).inner().store(n, Ordering::Relaxed);
            }
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// All of them from the start on: an alert compares two, and rates see the first of each.
fn every_outcome() -> Family<OutcomeLabels, Counter> {
    let mints = Family::<OutcomeLabels, Counter>::default();
    for outcome in ["granted", "denied", "pending"] {
        drop(mints.get_or_create(&OutcomeLabels { outcome }));
    }
    mints
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

    /// Puts back what was taken and could not be recorded.
    pub fn put_back(&self, sums: &[(u16, u64)]) {
        for ((_, n), kind) in sums.iter().zip(&self.kinds) {
            kind.fetch_add(*n, Ordering::Relaxed);
        }
    }
}
