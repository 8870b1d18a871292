//! What runs beside the requests: one small loop for each thing that is looked after.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use chrono::TimeDelta;
use tokio::task::JoinHandle;

use crate::server::config::Config;
use crate::server::http;
use crate::server::keyring::Keyring;
use crate::server::log::{Event, EventType, Record, witnessing};
use crate::server::policy::Reload;
use crate::server::revoke;
use crate::server::service::Service;
use crate::server::tls::Tls;

/// How often expired revocations, codes and keys are cleared.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether an issuer's keys are due.
const LOOK_AT_ISSUERS_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether the policy's text changed.
const LOOK_AT_POLICY_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the certificate was renewed.
const LOOK_AT_CERTIFICATE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether a key has signed for long enough.
const LOOK_AT_KEYS_EVERY: Duration = Duration::from_mins(1);
/// How often it is looked whether a key that is refused still signs.
const LOOK_AT_REFUSED_KEYS_EVERY: Duration = Duration::from_secs(2);
/// How often refused noise is summed into the log.
const NOISE_EVERY: Duration = Duration::from_mins(1);

/// What runs beside the requests.
pub(super) fn background(service: &Data<Service>, config: &Config) -> Vec<JoinHandle<()>> {
    let (policy, max_age, aging) = (config.policy_path.clone(), config.key_max_age, service.clone());
    let (noise, clients, keys, issuers) =
        (service.clone(), service.clone(), service.clone(), service.clone());
    let (rules, outward, uses) = (service.clone(), service.clone(), service.clone());
    let (state, feed, tidy, stopping) = (service.clone(), service.clone(), service.clone(), service.clone());
    vec![
        tokio::spawn(async move { state.revocations.follow().await }),
        tokio::spawn({
            let service = service.clone();
            async move { service.desk.watch.run().await }
        }),
        tokio::spawn(async move { feed.feed.run().await }),
        tokio::spawn(async move { uses.sightings.record(&uses.log, &*uses.clock).await }),
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                if let Err(error) = revoke::tidy(&tidy.db, &*tidy.clock).await {
                    tracing::warn!(error = %http::problem::chain(&error), "expired rows are cleared later");
                }
            }
        }),
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(NOISE_EVERY).await;
                noise.failures.forget_quiet();
                noise.desk.limits.forget_quiet();
                record_noise(&noise).await;
            }
        }),
        tokio::spawn(async move {
            let Some(path) = policy else { return };
            let mut said = Said::default();
            loop {
                tokio::time::sleep(LOOK_AT_POLICY_EVERY).await;
                reload_policy(&rules, &path, &mut said).await;
            }
        }),
        tokio::spawn(async move {
            let mut said = String::new();
            loop {
                publish(&outward, &mut said).await;
                tokio::time::sleep(witnessing::EVERY).await;
            }
        }),
        tokio::spawn(async move {
            let Some(max_age) = max_age else { return };
            loop {
                rotate_keys(&aging, max_age).await;
                tokio::time::sleep(LOOK_AT_KEYS_EVERY).await;
            }
        }),
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_AT_REFUSED_KEYS_EVERY).await;
                stopping.revoker.replace_refused_keys().await;
            }
        }),
        tokio::spawn(async move { clients.clients.follow(&clients.db).await }),
        tokio::spawn(async move {
            let publish = |keyring: &Keyring| {
                keys.checker.set_keys(keyring.token_keys());
                keys.gates.verifier().set_keys(&keys.desk.issuer, keyring.token_keys());
            };
            keys.keyring.follow(&keys.db, publish).await;
        }),
        tokio::spawn(async move {
            loop {
                issuers.desk.actors.refresh().await;
                for (issuer, keys) in issuers.desk.actors.keys() {
                    issuers.gates.verifier().set_keys(&issuer, keys);
                }
                tokio::time::sleep(LOOK_AT_ISSUERS_EVERY).await;
            }
        }),
    ]
}

/// The signed checkpoint goes to the log stream when it changed, and to the witnesses.
async fn publish(service: &Service, said: &mut String) {
    match service.log.checkpoint().await {
        Ok(checkpoint) if checkpoint != *said => {
            // as a string: escaped in lines for people, whole in JSON
            tracing::info!(checkpoint = checkpoint.as_str(), "signed checkpoint");
            *said = checkpoint;
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(error = %http::problem::chain(&error), "no checkpoint can be signed"),
    }
    if let Err(error) = service.witnesses.round(&service.log, service.clock.now()).await {
        tracing::warn!(error = %http::problem::chain(&error), "witnesses cannot be asked");
    }
}

/// Takes over a certificate that was renewed; one that cannot be used leaves the old one in place.
pub(super) async fn follow_certificate(tls: Arc<Tls>) {
    let mut said = Said::default();
    loop {
        tokio::time::sleep(LOOK_AT_CERTIFICATE_EVERY).await;
        let looked = tls.look();
        let is_new = said.is_new(looked.as_ref().err());
        match looked {
            Ok(true) => tracing::info!("the TLS certificate was renewed"),
            Err(error) if is_new => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the new TLS certificate cannot be used; the old one is served on"
            ),
            Ok(false) | Err(_) => {}
        }
    }
}

/// What was complained of last: a file that is gone is not said every second.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    /// Whether `error` is another one than last time; none ends the complaint.
    fn is_new<E: std::error::Error>(&mut self, error: Option<&E>) -> bool {
        let text = error.map(ToString::to_string);
        let is_new = text.is_some() && text != self.0;
        self.0 = text;
        is_new
    }
}

/// Publishes the next key where one has signed for `max_age`, and records that it did. Whatever fails is tried
/// again: the old key goes on.
async fn rotate_keys(service: &Service, max_age: TimeDelta) {
    let made = service.keyring.rotate_aged(&service.db, max_age, &*service.entropy).await;
    let made = made.unwrap_or_else(|error| {
        tracing::error!(error = %http::problem::chain(&error), "a key that has signed for long could not be rotated");
        Vec::new()
    });
    for key in made {
        tracing::info!(key.id = %key.kid, purpose = %key.purpose, "the next key is published and signs in ten minutes");
        let record = Record::of(Event::key(&key.kid, "rotate", &key.purpose.to_string())).from_the_reserve();
        if let Err(error) = service.log.record(record).await {
            tracing::error!(%error, "the rotation of a key could not be recorded");
        }
    }
}

/// Takes over a policy that changed and validates, and records that it did; else the old one stays.
async fn reload_policy(service: &Service, path: &Path, said: &mut Said) {
    let reloaded = service.desk.policy.reload_from(path);
    let is_new = said.is_new(reloaded.as_ref().err());
    match reloaded {
        Ok(Reload::Unchanged) => {}
        Ok(Reload::Changed { old, new }) => {
            tracing::info!(%old, %new, "the policy changed");
            let detail = std::iter::once(("replaces".to_owned(), old.into())).collect();
            let event = Event { policy: Some(new), detail: Some(detail), ..Event::new(EventType::Policy) };
            if let Err(error) = service.log.record(Record::of(event)).await {
                tracing::error!(%error, "the change of the policy could not be recorded");
            }
            warn_of_untold_glass(service);
        }
        Err(_) if !is_new => {}
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the new policy cannot be used; the old one stays"
            );
        }
    }
}

/// Who breaks the glass is always told of; where nobody listens the permit grants nothing.
pub(super) fn warn_of_untold_glass(service: &Service) {
    if service.desk.policy.current().breaks_glass() && !service.webhooks.tell_of_grants() {
        tracing::warn!(
            "the policy has a @break_glass permit, and no webhook takes grant.started: it grants nothing until one does"
        );
    }
}

/// Refusals that are counted, not recorded one by one, go into the log as sums.
pub(super) async fn record_noise(service: &Service) {
    let Some(sums) = service.noise.take() else { return };
    let detail = sums.iter().map(|(status, n)| (format!("http_{status}"), (*n).into())).collect();
    let event = Event { detail: Some(detail), ..Event::new(EventType::Suppressed) };
    if let Err(error) = service.log.record(Record::of(event)).await {
        service.noise.put_back(&sums);
        tracing::warn!(%error, "sums of refused requests are recorded later");
    }
}
