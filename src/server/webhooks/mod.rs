//! Tells others what the log records: at least once, in the order of the log, and only what is durable.
//!
//! A webhook follows the log from a position that the database keeps. One process delivers at a time; it holds
//! the webhook's row for a few seconds and goes on holding it while it works. Nothing waits for a receiver but
//! its own webhook.

mod event;
mod sign;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::{WebhookConfig, WebhookEvent};
use super::log::head::locate;
use super::log::{Log, LogEntry, LogError};
use super::outbound::{Call, Outbound, OutboundError};
use super::store::StoreError;
use crate::token::{Clock, Entropy, Issuer};
use event::{Beside, MOST_GRANTS, Source};
use sign::Keys;

/// How long a process may deliver without saying so again.
const HOLD: Duration = Duration::from_secs(8);
/// With less than this left of it nothing more is sent: a call takes three seconds at most.
const MARGIN: Duration = Duration::from_secs(4);
/// How often the log is looked at for what other replicas recorded.
const POLL: Duration = Duration::from_secs(1);
/// How often a busy webhook keeps how far it is: what is in between may come twice after a crash.
const KEEP_EVERY: Duration = Duration::from_millis(250);
/// Entries fetched at a time.
const CHUNK: u32 = 64;
/// The wait after the first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// Every configured webhook. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    hooks: Arc<[Arc<Hook>]>,
    closing: Arc<watch::Sender<bool>>,
}

/// How a webhook stands, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookStatus {
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

struct Hook {
    config: WebhookConfig,
    keys: Keys,
    source: Source,
    log: Log,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    /// What this process is called in the webhook's row.
    holder: String,
    backlog: AtomicU64,
    /// When the oldest entry of the backlog was recorded, microseconds; 0: there is none.
    oldest_us: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
}

/// Why a round was given up.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the log could not be read")]
    Log(#[from] LogError),
    #[error("how far it is could not be read or kept")]
    Store(#[from] StoreError),
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the receiver could not be called")]
    Unreachable(#[source] OutboundError),
    #[error("the receiver answered with status {status}")]
    Status { status: u16, retry_after_seconds: Option<u32> },
}

/// What a round found.
enum Round {
    /// There may be more at once.
    More,
    /// Nothing more for now, or another process delivers.
    Idle,
    /// As [`Self::Idle`], but how far it is has to be kept shortly.
    IdleUnkept,
    /// The receiver did not take an event.
    Refused(NotTaken),
}

/// The webhook's row while this process delivers.
struct Held {
    next: i64,
    kept: i64,
    kept_at: Duration,
    until_us: i64,
}

impl Webhooks {
    /// The webhooks as configured; a new one begins with what is recorded from now on.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn open(
        configs: &[WebhookConfig],
        issuer: &Issuer,
        host: &str,
        log: &Log,
        outbound: &Outbound,
        (clock, entropy): (Arc<dyn Clock>, &dyn Entropy),
    ) -> Result<Self, LogError> {
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let holder = format!("{}-{:016x}", std::process::id(), u64::from_be_bytes(random));
        let mut hooks = Vec::with_capacity(configs.len());
        for config in configs {
            let end = log.stretch(i64::MAX, 0).await?.end;
            log.db().webhook_begin(&config.name, end).await?;
            hooks.push(Arc::new(Hook {
                keys: Keys::of(config),
                source: Source { issuer: issuer.to_string(), host: host.to_owned() },
                config: config.clone(),
                log: log.clone(),
                outbound: outbound.clone(),
                clock: clock.clone(),
                holder: holder.clone(),
                backlog: AtomicU64::new(0),
                oldest_us: AtomicU64::new(0),
                delivered: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            }));
        }
        Ok(Self { hooks: hooks.into(), closing: Arc::new(watch::channel(false).0) })
    }

    /// Whether somebody is told of tokens that are given out.
    #[must_use]
    pub fn tell_of_grants(&self) -> bool {
        self.hooks.iter().any(|hook| hook.config.events.contains(&WebhookEvent::GrantStarted))
    }

    /// How each stands.
    #[must_use]
    pub fn status(&self) -> Vec<WebhookStatus> {
        self.hooks.iter().map(|hook| hook.status()).collect()
    }

    /// Delivers until [`Self::close`].
    pub async fn run(&self) {
        let mut tasks = JoinSet::new();
        for hook in self.hooks.iter() {
            let (hook, closing) = (Arc::clone(hook), self.closing.subscribe());
            tasks.spawn(async move { hook.run(closing).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Lets deliveries under way finish and keeps how far they came; [`Self::run`] returns then.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl Hook {
    async fn run(&self, mut closing: watch::Receiver<bool>) {
        let mut growth = self.log.growth();
        let mut held: Option<Held> = None;
        let mut failures = 0;
        while !*closing.borrow() {
            let before = held.as_ref().map(|held| held.next);
            let wait = match self.round(&mut held, &closing).await {
                Ok(Round::More) => {
                    failures = 0;
                    continue;
                }
                Ok(Round::Idle) => POLL,
                Ok(Round::IdleUnkept) => KEEP_EVERY,
                Ok(Round::Refused(why)) => {
                    // what came through before it says that the receiver is there
                    let advanced = before.is_some() && held.as_ref().map(|held| held.next) > before;
                    failures = if advanced { 0 } else { failures };
                    let wait = self.refused(&why, failures);
                    failures += 1;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = closing.changed() => {}
                    }
                    continue;
                }
                Err(error) => {
                    held = None;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(webhook = %self.config.name, error, "a webhook goes on later");
                    POLL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = growth.next() => {}
                _ = closing.changed() => {}
            }
        }
        if let Some(held) = held {
            // others need not wait for the end of the hold
            if let Err(error) = self.keep(held.next, 0).await {
                tracing::warn!(webhook = %self.config.name, %error, "events may be delivered once more");
            }
        }
    }

    /// Delivers what is there, as far as one look at the log sees.
    async fn round(
        &self,
        held: &mut Option<Held>,
        closing: &watch::Receiver<bool>,
    ) -> Result<Round, RoundError> {
        let next = match held {
            Some(held) => held.next,
            // the row is made before the first request is served, and by nobody removed
            None => self.log.db().webhook_next(&self.config.name).await?.unwrap_or(i64::MAX),
        };
        let stretch = self.log.stretch(next, CHUNK).await?;
        self.see(next, stretch.end, stretch.entries.first());
        if stretch.entries.is_empty() {
            return self.keep_if_due(held).await;
        }
        for entry in &stretch.entries {
            if *closing.borrow() || !self.holds(held).await? {
                return Ok(Round::Idle);
            }
            let Some(mine) = held.as_mut() else { return Ok(Round::Idle) };
            if mine.next > entry.position() {
                // it was told by another process between the look and the hold
                continue;
            }
            if let Some(kind) = event::kind(entry).filter(|kind| self.config.events.contains(kind)) {
                if let Err(why) = self.deliver(entry, kind).await? {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    self.keep_now(held).await?;
                    return Ok(Round::Refused(why));
                }
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            mine.next = entry.position() + 1;
        }
        self.keep_if_due(held).await?;
        Ok(Round::More)
    }

    /// Takes the row, or holds it longer when little is left; `false`: another process delivers.
    async fn holds(&self, held: &mut Option<Held>) -> Result<bool, RoundError> {
        let now_us = self.clock.now().timestamp_micros();
        if held.as_ref().is_some_and(|held| held.until_us - now_us > micros(MARGIN)) {
            return Ok(true);
        }
        if held.is_some() {
            self.keep_now(held).await?;
            return Ok(held.is_some());
        }
        let until_us = now_us + micros(HOLD);
        let next = self.log.db().webhook_hold(&self.config.name, &self.holder, now_us, until_us).await?;
        *held = next.map(|next| Held { next, kept: next, kept_at: self.clock.monotonic(), until_us });
        Ok(held.is_some())
    }

    async fn keep_if_due(&self, held: &mut Option<Held>) -> Result<Round, RoundError> {
        let Some(mine) = held else { return Ok(Round::Idle) };
        if mine.next == mine.kept {
            return Ok(Round::Idle);
        }
        if self.clock.monotonic().saturating_sub(mine.kept_at) < KEEP_EVERY {
            return Ok(Round::IdleUnkept);
        }
        self.keep_now(held).await?;
        Ok(Round::Idle)
    }

    /// Keeps how far it is and holds on; a row that another took meanwhile is let go.
    async fn keep_now(&self, held: &mut Option<Held>) -> Result<(), RoundError> {
        let Some(mine) = held.as_mut() else { return Ok(()) };
        let until_us = self.clock.now().timestamp_micros() + micros(HOLD);
        if self.keep(mine.next, until_us).await? {
            (mine.kept, mine.kept_at, mine.until_us) = (mine.next, self.clock.monotonic(), until_us);
        } else {
            *held = None;
        }
        Ok(())
    }

    async fn keep(&self, next: i64, until_us: i64) -> Result<bool, StoreError> {
        self.log.db().webhook_advance(&self.config.name, &self.holder, next, until_us).await
    }

    /// Posts one event; any 2xx takes it.
    async fn deliver(
        &self,
        entry: &LogEntry,
        kind: WebhookEvent,
    ) -> Result<Result<(), NotTaken>, RoundError> {
        let beside = self.beside(entry, kind).await?;
        let event = event::render(entry, kind, &self.source, self.config.personal, beside);
        let (id, body) = (format!("msg_{}_{}", entry.epoch, entry.index), event.to_string().into_bytes());
        let timestamp = self.clock.now().timestamp();
        let signature = self.keys.sign(&id, timestamp, &body);
        let call = self.outbound.destination(&self.config.url).and_then(|url| {
            Call::post(url, "application/cloudevents+json", body)
                .header("webhook-id", &id)?
                .header("webhook-timestamp", &timestamp.to_string())?
                .header("webhook-signature", &signature)
        });
        let answer = match call {
            Ok(call) => self.outbound.send(call).await,
            Err(error) => Err(error),
        };
        Ok(match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(NotTaken::Status {
                status: answer.status,
                retry_after_seconds: answer.retry_after_seconds,
            }),
            Err(error) => Err(NotTaken::Unreachable(error)),
        })
    }

    /// What the event tells that its entry does not hold.
    async fn beside(&self, entry: &LogEntry, kind: WebhookEvent) -> Result<Beside, RoundError> {
        let mut beside = Beside::default();
        if kind == WebhookEvent::GrantEnded {
            beside.ended = Some(self.log.db().grants_ended_by(entry.position(), MOST_GRANTS).await?);
        }
        let grant = entry.body.as_ref().and_then(|body| body["grant"].as_str()?.parse().ok());
        if let Some(grant) = grant.filter(|_| event::is_approval(entry)) {
            beside.asked = self.log.grant(&grant).await?;
        }
        Ok(beside)
    }

    /// How long to wait after a failure, said aloud.
    fn refused(&self, why: &NotTaken, failures: u32) -> Duration {
        let asked = match why {
            NotTaken::Status { retry_after_seconds, .. } => retry_after_seconds.unwrap_or(0),
            NotTaken::Unreachable(_) => 0,
        };
        let wait = FIRST_WAIT.saturating_mul(1 << failures.min(16)).max(Duration::from_secs(asked.into()));
        let wait = wait.min(LONGEST_WAIT);
        let error = why as &dyn std::error::Error;
        tracing::warn!(webhook = %self.config.name, error, wait_seconds = wait.as_secs(), "an event was not taken");
        wait
    }

    fn see(&self, next: i64, end: i64, oldest: Option<&LogEntry>) {
        let ((epoch, index), (last_epoch, last)) = (locate(next.min(end)), locate(end));
        // an epoch that came in between ends nowhere near the next one's beginning
        let behind = if epoch == last_epoch { last - index } else { last };
        self.backlog.store(oldest.map_or(0, |_| behind.max(1)), Ordering::Relaxed);
        let oldest_us = oldest.map_or(0, |entry| entry.time.timestamp_micros());
        self.oldest_us.store(oldest_us.unsigned_abs(), Ordering::Relaxed);
    }

    fn status(&self) -> WebhookStatus {
        let age = match self.oldest_us.load(Ordering::Relaxed) {
            0 => TimeDelta::zero(),
            oldest => TimeDelta::microseconds(self.clock.now().timestamp_micros() - oldest.cast_signed()),
        };
        WebhookStatus {
            name: self.config.name.clone(),
            backlog: self.backlog.load(Ordering::Relaxed),
            backlog_age_seconds: u64::try_from(age.num_seconds()).unwrap_or(0),
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
