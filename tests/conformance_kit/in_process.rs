//! The table itself, and the verifier without a server around it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stagedoor::server::cli::conformance::cases::{Case, Expect, Level, good_set, hostile_set};
use stagedoor::server::cli::conformance::forge::Subject;
use stagedoor::server::cli::conformance::keys::{TestKey, jwks};
use stagedoor::token::{Alg, FixedClock, Invalid, KeySet, TrustedIssuer, Verifier};

const NOW: i64 = 1_800_000_000;

/// Every way in which a run can be set up: the key that signs, and whether the route admits impersonators.
fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for alg in Alg::SIGNING {
        for (admits, home) in [(true, true), (false, true), (false, false)] {
            let others = Alg::SIGNING.into_iter().filter(|other| *other != alg);
            subjects.push(Subject {
                issuer: "https://stagedoor.example".to_owned(),
                home_issuer: home.then(|| "https://login.example".to_owned()),
                audience: "https://api.example.com".to_owned(),
                user: "user_42".to_owned(),
                actor: "admin_7".to_owned(),
                scope: "read".to_owned(),
                admits_impersonation: admits,
                keys: std::iter::once(alg).chain(others).map(|alg| TestKey::generate(alg).unwrap()).collect(),
                attacker: TestKey::generate(alg).unwrap(),
                attacker_url: "http://127.0.0.1:9/jwks.json".to_owned(),
                serves_feed: false,
                now: chrono::DateTime::from_timestamp(NOW, 0).unwrap(),
                leeway_seconds: 0,
            });
        }
    }
    subjects
}

fn verifier(subject: &Subject) -> Verifier {
    let keys = || KeySet::from_jwks_json(jwks(&subject.keys).to_string().as_bytes()).unwrap();
    let audience: stagedoor::token::Audience = subject.audience.parse().unwrap();
    let stagedoor = TrustedIssuer::stagedoor(subject.issuer.parse().unwrap()).audience(audience.clone());
    let mut builder =
        Verifier::builder().clock(Arc::new(FixedClock::at_seconds(NOW))).issuer_with_keys(stagedoor, keys());
    if let Some(home) = &subject.home_issuer {
        builder =
            builder.issuer_with_keys(TrustedIssuer::home(home.parse().unwrap()).audience(audience), keys());
    }
    builder.build().unwrap()
}

/// What a guard would answer, from the verifier's verdict alone.
fn answer(subject: &Subject, verdict: &Result<Arc<stagedoor::token::Verified>, Invalid>) -> u16 {
    match verdict {
        Err(_) => 401,
        Ok(token) if token.is_impersonation() && !subject.admits_impersonation => 403,
        Ok(_) => 200,
    }
}

fn right(expect: Expect, answer: u16) -> bool {
    match expect {
        Expect::Accept => answer == 200,
        Expect::Forbid => answer == 403,
        Expect::Refuse | Expect::RefuseUnread => answer == 401,
        Expect::RefuseOrForbid => answer != 200,
        Expect::Either => true,
    }
}

#[test]
fn the_table_has_at_least_150_hostile_cases_each_with_a_name_of_its_own() {
    for subject in subjects() {
        let hostile = hostile_set(&subject);
        let grave = hostile.iter().filter(|case| case.level == Level::Must).count();
        assert!(grave >= 150, "{grave} grave ones");
        assert!(hostile.iter().all(|case| case.expect != Expect::Accept));
        let all: Vec<Case> = good_set(&subject).into_iter().chain(hostile).collect();
        let names: HashSet<&str> = all.iter().map(|case| case.id.as_str()).collect();
        assert_eq!(names.len(), all.len(), "a name twice");
        let tame = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-+".contains(c);
        for case in &all {
            assert!(case.id.chars().all(tame) && !case.why.is_empty(), "{case:?}");
        }
    }
}

/// No two tokens are the same text, hostile or good: each is bent, and in a place of its own. RSA and
/// Ed25519 sign the same text alike, so with them a bend without effect is seen.
#[test]
fn no_bend_is_without_effect() {
    for subject in subjects() {
        let good: HashSet<String> =
            good_set(&subject).iter().filter_map(|case| case.token().map(str::to_owned)).collect();
        let mut seen = HashMap::new();
        for case in hostile_set(&subject) {
            let Some(token) = case.token() else { continue };
            assert!(!good.contains(token), "{} is a good token", case.id);
            if let Some(other) = seen.insert(token.to_owned(), case.id.clone()) {
                panic!("{} and {other} are the same", case.id);
            }
        }
    }
}

/// TE-7, BP-1 to BP-11, JW-4 to JW-11, DP-4: the verifier, cold and remembering, on the whole set.
#[test]
fn the_verifier_answers_every_token_as_the_table_says() {
    let mut wrong = Vec::new();
    for subject in subjects() {
        let verifier = verifier(&subject);
        for case in good_set(&subject).into_iter().chain(hostile_set(&subject)) {
            let Some(token) = case.token() else { continue };
            let first = verifier.verify(token);
            let again = verifier.verify(token);
            assert_eq!(first.as_ref().err(), again.as_ref().err(), "{} changed its verdict", case.id);
            if !right(case.expect, answer(&subject, &first)) {
                let key = subject.keys[0].alg();
                wrong.push(format!(
                    "{} ({key}, {}): {:?}, {:?}",
                    case.id,
                    case.why,
                    case.expect,
                    first.err()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
