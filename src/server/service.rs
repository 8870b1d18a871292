//! What the handlers work with: every part of the service, wired once by `app`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chrono::TimeDelta;

use super::checker::Checker;
use super::clients::Clients;
use super::console::Console;
use super::gates::Gates;
use super::issue::IssueDesk;
use super::keyring::Keyring;
use super::limits::{FailureLimit, UsedAssertions};
use super::log::Log;
use super::log::sightings::Sightings;
use super::log::witnessing::Witnesses;
use super::metrics::{Metrics, Noise, Observed, ObservedWebhook};
use super::revoke::{Feed, RevocationState, Revoker};
use super::store::Db;
use super::webhooks::Webhooks;
use crate::token::{Clock, Entropy};

/// The parts of a running service.
pub struct Service {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The database.
    pub db: Db,
    /// Who may call.
    pub clients: Arc<Clients>,
    /// What signs, and what is published.
    pub keyring: Arc<Keyring>,
    /// The issuance log.
    pub log: Log,
    /// Uses of tokens that were seen here.
    pub sightings: Sightings,
    /// Who cosigns the log's checkpoints.
    pub witnesses: Witnesses,
    /// How long an entry may wait for them before this replica is not ready.
    pub witness_deadline: Option<TimeDelta>,
    /// Where tokens are issued.
    pub desk: IssueDesk,
    /// Where tokens are verified online.
    pub checker: Arc<Checker>,
    /// What is known to be revoked.
    pub revocations: Arc<RevocationState>,
    /// What ends grants.
    pub revoker: Arc<Revoker>,
    /// What guards are told.
    pub feed: Arc<Feed>,
    /// Where proxies ask.
    pub gates: Gates,
    /// Who is told of what the log records.
    pub webhooks: Webhooks,
    /// Client assertions already used.
    pub assertions: UsedAssertions,
    /// Whether the process was told to stop: it answers, and asks to be left alone.
    pub draining: AtomicBool,
    /// What an operator watches.
    pub metrics: Metrics,
    /// Refusals counted in sums.
    pub noise: Noise,
    /// Failed credentials by address.
    pub failures: FailureLimit,
    /// Proxies whose forwarded addresses are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Only loopback names are answered (`dev`: DNS rebinding).
    pub loopback_hosts_only: bool,
    /// Whether `/metrics` is answered on the main listener.
    pub metrics_here: bool,
    /// The pages for people; `None`: not configured.
    pub console: Option<Console>,
}

impl Service {
    /// What the parts say of themselves to a scraper; asks no database.
    pub fn observed(&self) -> Observed {
        let (stats, load) = (self.log.stats(), self.log.load());
        let now = self.clock.now();
        let age = self.keyring.token_key_since().map_or(TimeDelta::zero(), |since| now - since);
        let whole = |age: TimeDelta| u64::try_from(age.num_seconds()).unwrap_or(0);
        let issuers = self.desk.actors.status();
        Observed {
            log_entries: self.log.known_size(),
            log_records: stats.records,
            log_commits: stats.commits,
            log_refused: stats.refused,
            log_waiting: load.waiting,
            log_shed: load.refused,
            unauthentic_rows: self.clients.ignored_rows()
                + self.keyring.ignored_rows()
                + self.revocations.vanished(),
            unwitnessed_seconds: whole(self.witnesses.unwitnessed(now)),
            witness_refusals: self.witnesses.refusals(),
            signing_key_age_seconds: whole(age),
            database_read_age_seconds: whole(now - self.revocations.known().as_of),
            issuer_keys_age_seconds: issuers
                .into_iter()
                .map(|(issuer, status)| (issuer.to_string(), status.age_seconds))
                .collect(),
            anomalies: self.desk.watch.count(),
            webhooks: self
                .webhooks
                .status()
                .into_iter()
                .map(|hook| ObservedWebhook {
                    name: hook.name,
                    backlog: hook.backlog,
                    backlog_age_seconds: hook.backlog_age_seconds,
                    delivered: hook.delivered,
                    failed: hook.failed,
                })
                .collect(),
        }
    }
}
