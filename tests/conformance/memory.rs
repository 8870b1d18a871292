//! What remembers an acceptance, and what must end it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use stagedoor::token::{
    FixedClock, Invalid, RevocationList, Revocations, Standing, TrustedIssuer, Verified, Verifier,
};

use crate::fixtures::{
    API, ES256, HOME, HOME_KEY, NOW, RS256, STAGEDOOR, claims, header, home_claims, issuer, keys, sign,
    verifier, with,
};

#[test]
fn a_payload_swapped_under_a_kept_jti_and_signature_is_refused() {
    // contract.md §6: what remembers an acceptance is keyed on the whole text.
    let (verifier, _) = verifier();
    let token = sign(&ES256, &header(&ES256), &claims());
    verifier.verify(&token).unwrap();
    let other = sign(&ES256, &header(&ES256), &with(claims(), &[("sub", json!("user_1"))]));
    let parts: Vec<&str> = token.split('.').collect();
    let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
    assert_eq!(verifier.verify(&swapped).unwrap_err(), Invalid::Signature);
    assert_eq!(verifier.verify(&token).unwrap().sub.as_str(), "user_42");
}

#[test]
fn a_remembered_token_ends_with_its_expiry() {
    let (verifier, clock) = verifier();
    let token = sign(&ES256, &header(&ES256), &claims());
    let first = verifier.verify(&token).unwrap();
    clock.advance(Duration::from_secs(599));
    assert!(Arc::ptr_eq(&first, &verifier.verify(&token).unwrap()), "it was remembered");
    clock.advance(Duration::from_secs(1));
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::Expired);
}

#[test]
fn a_remembered_token_ends_with_its_key_or_its_issuer() {
    let (verifier, _) = verifier();
    let token = sign(&ES256, &header(&ES256), &claims());
    verifier.verify(&token).unwrap();
    assert!(verifier.set_keys(&issuer(STAGEDOOR), keys(&[&RS256])));
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::KeyUnknown);
    assert!(verifier.set_keys(&issuer(STAGEDOOR), keys(&[&RS256, &ES256])));
    verifier.verify(&token).unwrap();
    verifier.remove_issuer(&issuer(STAGEDOOR));
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::Issuer);
    assert!(!verifier.set_keys(&issuer(STAGEDOOR), keys(&[&ES256])), "nobody is trusted by setting keys");
}

#[test]
fn fetching_the_same_keys_again_forgets_nothing() {
    let (verifier, _) = verifier();
    let token = sign(&HOME_KEY, &header(&HOME_KEY), &home_claims());
    let first = verifier.verify(&token).unwrap();
    verifier.set_keys(&issuer(HOME), keys(&[&HOME_KEY]));
    assert!(Arc::ptr_eq(&first, &verifier.verify(&token).unwrap()));
}

struct Switch(Mutex<RevocationList>);

impl Revocations for Switch {
    fn standing(&self, token: &Verified, now: DateTime<Utc>) -> Standing {
        self.0.lock().unwrap().standing(token, now)
    }
}

fn revocable() -> (Verifier, Arc<Switch>, Arc<FixedClock>) {
    let switch = Arc::new(Switch(Mutex::default()));
    let clock = Arc::new(FixedClock::at_seconds(NOW));
    let ours = TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(API.parse().unwrap());
    let home = TrustedIssuer::home(issuer(HOME)).audience(API.parse().unwrap());
    let verifier = Verifier::builder()
        .issuer_with_keys(ours, keys(&[&ES256]))
        .issuer_with_keys(home, keys(&[&HOME_KEY]))
        .revocations(switch.clone())
        .clock(clock.clone())
        .build()
        .unwrap();
    (verifier, switch, clock)
}

#[test]
fn a_revocation_ends_a_remembered_token_whatever_it_names() {
    let token = sign(&ES256, &header(&ES256), &claims());
    let set = |text: &str| HashSet::from([text.to_owned()]);
    let jti = claims()["jti"].as_str().unwrap().to_owned();
    for list in [
        RevocationList { sids: set("act_1"), ..Default::default() },
        RevocationList { kids: set(header(&ES256)["kid"].as_str().unwrap()), ..Default::default() },
        RevocationList { tokens: HashSet::from([(STAGEDOOR.to_owned(), jti)]), ..Default::default() },
        RevocationList { clients: [("client_a".to_owned(), NOW)].into(), ..Default::default() },
        RevocationList { all_until: Some(NOW), ..Default::default() },
    ] {
        let (verifier, switch, _) = revocable();
        verifier.verify(&token).unwrap();
        *switch.0.lock().unwrap() = list;
        assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::Revoked);
    }
}

#[test]
fn a_revocation_of_others_ends_nothing() {
    let (verifier, switch, _) = revocable();
    let token = sign(&ES256, &header(&ES256), &claims());
    let jti = claims()["jti"].as_str().unwrap().to_owned();
    *switch.0.lock().unwrap() = RevocationList {
        sids: HashSet::from(["act_2".to_owned()]),
        tokens: HashSet::from([(HOME.to_owned(), jti)]),
        clients: [("client_a".to_owned(), NOW - 1), ("client_b".to_owned(), NOW)].into(),
        all_until: Some(NOW - 1),
        ..Default::default()
    };
    verifier.verify(&token).unwrap();
}

#[test]
fn knowledge_that_is_too_old_refuses_actor_tokens_and_leaves_ordinary_ones() {
    let (verifier, switch, clock) = revocable();
    switch.0.lock().unwrap().as_of = DateTime::from_timestamp(NOW, 0);
    switch.0.lock().unwrap().max_age = TimeDelta::seconds(5);
    let actors = sign(&ES256, &header(&ES256), &claims());
    let users = sign(&HOME_KEY, &header(&HOME_KEY), &home_claims());
    clock.advance(Duration::from_secs(5));
    verifier.verify(&actors).unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(verifier.verify(&actors).unwrap_err(), Invalid::RevocationsStale);
    verifier.verify(&users).unwrap();
    clock.jump_to(DateTime::from_timestamp(NOW - 6, 0).unwrap());
    assert!(verifier.verify(&actors).is_err(), "knowledge from the future is none");
}
