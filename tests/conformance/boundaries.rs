//! The last value that is taken and the first that is not, and what knowledge of revocations names: what `cargo mutants`
//! found nobody to notice (`cargo mutants --no-default-features -f 'src/token/**' -C=--lib -C=--test -C=conformance`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use stagedoor::token::feed::{FeedError, GrowingSet};
use stagedoor::token::ids::MAX_ID_BYTES;
use stagedoor::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use stagedoor::token::key_set::{KeySetError, MAX_JWKS_BYTES, MAX_KEYS};
use stagedoor::token::verifier::VerifierError;
use stagedoor::token::{
    Alg, AudienceRule, FeedDocument, FeedKind, FixedClock, Invalid, InvalidId, KeySet, Known, LocalSigner,
    Scope, Signer, Standing, Sub, TrustedIssuer, Verifier, VerifyingKey,
};

use crate::fixtures::{
    API, EDDSA, ES256, HOME_KEY, NOW, STAGEDOOR, STRANGER, claims, header, home_claims, issuer, keys, sign,
    verifier, with,
};

/// So many milliseconds after `NOW`.
fn after_now(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(NOW * 1000 + millis).unwrap()
}

/// Trusts one issuer, at `NOW`.
fn trusting(issuer: TrustedIssuer, keys: KeySet) -> Verifier {
    let clock = Arc::new(FixedClock::at_seconds(NOW));
    Verifier::builder().issuer_with_keys(issuer, keys).clock(clock).build().unwrap()
}

fn document(kind: FeedKind, seq: i64) -> FeedDocument {
    FeedDocument {
        iss: issuer(STAGEDOOR),
        iat: NOW,
        read_ms: NOW * 1000,
        exp: NOW + 60,
        next_update: NOW + 1,
        kind,
        epoch: 1,
        seq,
        prev: (kind != FeedKind::Snapshot).then_some(seq - 1),
        kids: Vec::new(),
        clients: BTreeMap::new(),
        all: None,
        sids: Vec::new(),
    }
}

/// Names one thing in a document.
type Naming = fn(&mut FeedDocument);

/// The token is `act_1` of `client_a`, issued at `NOW` under ES256's key.
const NAMINGS: &[(&str, Naming, bool)] = &[
    ("nothing", |_| (), false),
    ("its grant", |d| d.sids.push("act_1".into()), true),
    ("another grant", |d| d.sids.push("act_2".into()), false),
    ("its key", |d| d.kids.push(ES256.kid().to_string()), true),
    ("another key", |d| d.kids.push(EDDSA.kid().to_string()), false),
    ("its client until its second", |d| d.clients.extend([("client_a".into(), NOW)]), true),
    ("its client until the second before", |d| d.clients.extend([("client_a".into(), NOW - 1)]), false),
    ("another client", |d| d.clients.extend([("client_b".into(), NOW + 9)]), false),
    ("everything until its second", |d| d.all = Some(NOW), true),
    ("everything until the second before", |d| d.all = Some(NOW - 1), false),
];

#[test]
fn what_is_known_ends_what_it_names_and_nothing_else() {
    let (verifier, _) = verifier();
    let token = verifier.verify(&sign(&ES256, &header(&ES256), &claims())).unwrap();
    let bound = TimeDelta::seconds(5);
    for (name, naming, revoked) in NAMINGS {
        let mut snapshot = document(FeedKind::Snapshot, 7);
        naming(&mut snapshot);
        let told = Known::after(None, &snapshot).unwrap();
        let mut news = document(FeedKind::Revocation, 8);
        naming(&mut news);
        let before = Known::after(None, &document(FeedKind::Snapshot, 7)).unwrap();
        let heard = Known::after(Some(&before), &news).unwrap();
        // what came after does not take it away
        let kept = Known::after(Some(&heard), &document(FeedKind::Heartbeat, 9)).unwrap();
        for known in [told, heard, kept] {
            assert_eq!(known.revokes(&token), *revoked, "{name}");
            let standing = if *revoked { Standing::Revoked } else { Standing::Good };
            assert_eq!(known.standing(&token, after_now(0), bound), standing, "{name}");
        }
        assert!(!before.revokes(&token), "{name}: knowledge is never changed in place");
    }
}

#[test]
fn a_token_that_does_not_say_when_it_was_issued_is_older_than_every_cut_off() {
    let (verifier, _) = verifier();
    let token = verifier.verify(&sign(&HOME_KEY, &header(&HOME_KEY), &home_claims())).unwrap();
    assert!(token.iat.is_none() && token.sid.is_none() && token.client_id.is_none());
    let known = |all| Known { all, ..Known::default() };
    assert!(known(Some(i64::MIN)).revokes(&token));
    assert!(!known(None).revokes(&token));
    let of_a_client = Known { clients: Arc::new([("client_a".into(), NOW)].into()), ..Known::default() };
    assert!(!of_a_client.revokes(&token), "it is nobody's");
}

#[test]
fn knowledge_is_fresh_up_to_its_bound_and_is_refreshed_by_what_was_read_later() {
    let bound = TimeDelta::seconds(5);
    let known = Known::after(None, &document(FeedKind::Snapshot, 7)).unwrap();
    for (millis, stale) in [(-5001, true), (-5000, false), (5000, false), (5001, true)] {
        assert_eq!(known.is_stale(after_now(millis), bound), stale, "{millis} ms");
    }
    let heartbeat =
        |seq, read_ms| FeedDocument { read_ms, prev: Some(7), ..document(FeedKind::Heartbeat, seq) };
    // the very same again is no step back; one that was read before is
    assert_eq!(Known::after(Some(&known), &heartbeat(7, NOW * 1000)).unwrap().as_of, after_now(0));
    assert_eq!(Known::after(Some(&known), &heartbeat(7, NOW * 1000 - 1)).unwrap_err(), FeedError::Older);
    assert_eq!(Known::after(Some(&known), &heartbeat(7, NOW * 1000 + 1)).unwrap().as_of, after_now(1));
    // a longer log that was read earlier, by another replica: what it tells is new, knowledge grows no older
    let next = Known::after(Some(&known), &heartbeat(8, NOW * 1000 - 1)).unwrap();
    assert_eq!((next.seq, next.as_of), (8, after_now(0)));
}

#[test]
fn a_growing_set_holds_what_was_put_in_wherever_it_keeps_it() {
    let empty = GrowingSet::default();
    assert!(empty.is_empty() && !empty.contains("act_0") && !empty.contains(""));
    let ids: Vec<String> = (0..1200).map(|n| format!("act_{n}")).collect();
    let mut set = empty;
    for (put, id) in ids.iter().enumerate() {
        assert!(!set.contains(id), "{id} is not there yet");
        // one that is there already counts once
        set = set.with([id.as_str(), "act_0"]);
        assert_eq!(set.len(), put + 1);
    }
    assert!(!set.is_empty() && ids.iter().all(|id| set.contains(id)));
    let at_once: GrowingSet = ids.iter().map(String::as_str).collect();
    assert!(!at_once.is_empty() && at_once.len() == 1200 && at_once.contains("act_1199"));
}

#[test]
fn ids_and_scopes_are_taken_up_to_their_length() {
    let long = |length: usize| "x".repeat(length);
    assert!(Sub::try_from(long(MAX_ID_BYTES)).is_ok());
    assert_eq!(Sub::try_from(long(MAX_ID_BYTES + 1)).unwrap_err(), InvalidId::TooLong { max: MAX_ID_BYTES });
    assert!(Scope::parse(&long(MAX_ID_BYTES)).is_ok());
    assert_eq!(Scope::parse(&long(MAX_ID_BYTES + 1)).unwrap_err(), InvalidId::TooLong { max: MAX_ID_BYTES });
    let many = |count: usize| (0..count).map(|n| format!("s{n} ")).collect::<String>();
    assert_eq!(Scope::parse(&many(Scope::MAX)).unwrap().iter().count(), Scope::MAX);
    assert_eq!(Scope::parse(&many(Scope::MAX + 1)).unwrap_err(), InvalidId::TooMany { max: Scope::MAX });
    // what is said twice counts once
    let twice = Scope::parse(&many(Scope::MAX).repeat(2)).unwrap();
    assert!(!twice.is_empty() && Scope::parse("  ").unwrap().is_empty());
    assert_eq!(serde_json::from_value::<Scope>(json!("a b")).unwrap(), Scope::parse("a b").unwrap());
    assert!(serde_json::from_value::<Scope>(json!("a\"b")).is_err());
}

#[test]
fn tokens_are_taken_up_to_their_length_and_signed_over_what_is_sent() {
    let (verifier, _) = verifier();
    let padded = |length: usize| {
        sign(&ES256, &header(&ES256), &with(claims(), &[("pad", Value::from("x".repeat(length)))]))
    };
    // base64url has four characters for three bytes
    let about = (MAX_TOKEN_BYTES - padded(0).len()) * 3 / 4;
    let mut near = (about - 3..about + 3).map(padded).filter(|token| token.len() <= MAX_TOKEN_BYTES);
    let fitting = near.next_back().unwrap();
    assert!(fitting.len() > MAX_TOKEN_BYTES - 4);
    verifier.verify(&fitting).unwrap();
    let longer = padded(MAX_TOKEN_BYTES);
    assert_eq!(verifier.verify(&longer).unwrap_err(), Invalid::TooLong);

    let jws = UnverifiedJws::parse(&fitting, fitting.len()).unwrap();
    assert_eq!(jws.signing_input(), fitting.rsplit_once('.').unwrap().0.as_bytes());
    assert_eq!(UnverifiedJws::parse(&fitting, fitting.len() - 1).err(), Some(Invalid::TooLong));
    assert_eq!(UnverifiedJws::parse(&longer, MAX_TOKEN_BYTES).err(), Some(Invalid::TooLong));
}

#[test]
fn key_sets_are_read_up_to_their_size() {
    let jwk = |n: usize| {
        let mut jwk = ES256.verifying_key().to_jwk();
        jwk["kid"] = format!("key_{n}").into();
        jwk
    };
    let set = |count: usize| json!({ "keys": (0..count).map(jwk).collect::<Vec<_>>() }).to_string();
    let full = KeySet::from_jwks_json(set(MAX_KEYS).as_bytes()).unwrap();
    assert_eq!((full.len(), full.iter().count(), full.is_empty()), (MAX_KEYS, MAX_KEYS, false));
    assert_eq!(KeySet::from_jwks_json(set(MAX_KEYS + 1).as_bytes()).unwrap_err(), KeySetError::TooMany);
    assert!(KeySet::from_jwks_json(set(0).as_bytes()).unwrap().is_empty());
    let mut wide = set(1).into_bytes();
    wide.resize(MAX_JWKS_BYTES, b' ');
    assert_eq!(KeySet::from_jwks_json(&wide).unwrap().len(), 1);
    wide.push(b' ');
    assert_eq!(KeySet::from_jwks_json(&wide).unwrap_err(), KeySetError::TooLarge);
}

#[test]
fn keys_are_equal_when_name_and_material_are() {
    let key = ES256.verifying_key();
    let renamed = |jwk: Value| VerifyingKey::from_jwk(&jwk).unwrap();
    assert_eq!(*key, renamed(key.to_jwk()));
    let mut other_name = key.to_jwk();
    other_name["kid"] = "another".into();
    assert_ne!(*key, renamed(other_name), "another name");
    let mut same_name = LocalSigner::generate(Alg::Es256).unwrap().verifying_key().to_jwk();
    same_name["kid"] = key.kid().as_str().into();
    assert_ne!(*key, renamed(same_name), "another key under the name");
    assert_eq!(format!("{key:?}"), format!("VerifyingKey(ES256 {})", key.kid()));
}

#[test]
fn raw_keys_have_their_curves_length() {
    let point = |length: usize| [vec![4_u8], vec![7; length]].concat();
    for length in [0, 63, 65, 96, 128] {
        assert!(VerifyingKey::from_raw(Alg::Es256, &point(length)).is_err(), "{length}");
    }
}

#[test]
fn a_key_is_taken_when_it_may_verify() {
    for (ops, taken) in [
        (json!(["verify"]), true),
        (json!(["sign", "verify"]), true),
        (json!(["sign"]), false),
        (json!(["verify", 1]), false),
        (json!("verify"), false),
    ] {
        let mut jwk = ES256.verifying_key().to_jwk();
        jwk["key_ops"] = ops.clone();
        assert_eq!(VerifyingKey::from_jwk(&jwk).is_ok(), taken, "{ops}");
    }
}

#[test]
fn an_issuer_is_held_to_its_algorithms_and_types() {
    let held_to = |change: fn(TrustedIssuer) -> TrustedIssuer| {
        let issuer = TrustedIssuer::stagedoor(issuer(STAGEDOOR)).audience(API.parse().unwrap());
        trusting(change(issuer), keys(&[&ES256, &EDDSA]))
    };
    let only_eddsa = held_to(|issuer| issuer.algs(&[Alg::EdDsa]));
    only_eddsa.verify(&sign(&EDDSA, &header(&EDDSA), &claims())).unwrap();
    let by_es256 = sign(&ES256, &header(&ES256), &claims());
    assert_eq!(only_eddsa.verify(&by_es256).unwrap_err(), Invalid::Algorithm, "its key is in the set");
    // RFC 7515 §4.1.9: `application/` is left out only where no other slash is
    let typed = |typ: &str| sign(&ES256, &with(header(&ES256), &[("typ", typ.into())]), &claims());
    let with_slash = held_to(|issuer| issuer.typ(&["x/y"]));
    with_slash.verify(&typed("X/y")).unwrap();
    assert_eq!(with_slash.verify(&typed("application/x/y")).unwrap_err(), Invalid::Type);
    let usual = held_to(|issuer| issuer);
    usual.verify(&typed("Application/AT+jwt")).unwrap();
}

#[test]
fn somebody_acts_only_where_an_actor_is_named() {
    let (verifier, _) = verifier();
    assert!(verifier.verify(&sign(&ES256, &header(&ES256), &claims())).unwrap().is_impersonation());
    let ordinary = verifier.verify(&sign(&HOME_KEY, &header(&HOME_KEY), &home_claims())).unwrap();
    assert!(!ordinary.is_impersonation());
}

#[test]
fn a_shared_signer_signs_as_its_own() {
    let shared: Arc<LocalSigner> = Arc::new(LocalSigner::generate(Alg::Es256).unwrap());
    let signature = Signer::sign(&shared, b"text").unwrap();
    assert!(shared.verifying_key().verifies(b"text", &signature));
    assert_eq!(Signer::verifying_key(&shared).kid(), LocalSigner::verifying_key(&shared).kid());
}

#[test]
fn who_is_trusted_changes_while_it_verifies() {
    let (verifier, _) = verifier();
    let stranger = issuer("https://other.example");
    let token =
        sign(&STRANGER, &header(&STRANGER), &with(home_claims(), &[("iss", stranger.as_str().into())]));
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::Issuer);
    let trusted = || TrustedIssuer::home(stranger.clone()).audience(API.parse().unwrap());
    let set = |issuer, signer: &LocalSigner| verifier.set_issuer(issuer, keys(&[signer])).unwrap();
    set(trusted(), &STRANGER);
    let first = verifier.verify(&token).unwrap();
    assert!(verifier.is_ready() && verifier.issuers().iter().any(|known| *known.iss() == stranger));
    assert_eq!(verifier.issuers().len(), 3);
    set(trusted(), &STRANGER);
    assert!(Arc::ptr_eq(&first, &verifier.verify(&token).unwrap()), "the same again forgets nothing");
    set(trusted().algs(&[Alg::EdDsa]), &STRANGER);
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::Algorithm, "other terms, the same keys");
    set(trusted(), &ES256);
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::KeyUnknown, "the same terms, other keys");
    set(trusted(), &STRANGER);
    verifier.verify(&token).unwrap();
    verifier.forget_keys(&stranger);
    assert_eq!(verifier.verify(&token).unwrap_err(), Invalid::KeysUnavailable);
    assert!(!verifier.is_ready());
}

#[test]
fn whoever_fetches_keys_is_told_of_those_that_are_missing_and_of_nothing_else() {
    let (verifier, _) = verifier();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    verifier.on_key_wanted(Box::new(move |iss, kid| {
        tell.lock().unwrap().push((iss.to_string(), kid.to_owned()));
    }));
    let also = Arc::new(Mutex::new(0));
    let count = Arc::clone(&also);
    verifier.on_key_wanted(Box::new(move |_, _| *count.lock().unwrap() += 1));
    let unknown = sign(&STRANGER, &header(&STRANGER), &claims());
    assert_eq!(verifier.verify(&unknown).unwrap_err(), Invalid::KeyUnknown);
    let forged = sign(&STRANGER, &header(&ES256), &claims());
    assert_eq!(verifier.verify(&forged).unwrap_err(), Invalid::Signature);
    verifier.verify(&sign(&ES256, &header(&ES256), &claims())).unwrap();
    assert_eq!(*told.lock().unwrap(), [(STAGEDOOR.to_owned(), STRANGER.kid().to_string())]);
    assert_eq!(*also.lock().unwrap(), 1, "and so is everybody else who fetches keys");
    let foreign = TrustedIssuer::home(issuer(STAGEDOOR)).audience(API.parse().unwrap());
    assert!(matches!(
        verifier.set_issuer(foreign, keys(&[&ES256])),
        Err(VerifierError::OtherRole(of)) if of == issuer(STAGEDOOR)
    ));
}

#[test]
fn an_audience_is_asked_for_as_configured() {
    let taken = |rule: AudienceRule, aud: Value| {
        // the only ones that may have none
        let issuer = TrustedIssuer::clerk(issuer(STAGEDOOR)).typ(&["at+jwt"]).algs(&[Alg::Es256]);
        let token = sign(&ES256, &header(&ES256), &with(claims(), &[("aud", aud)]));
        trusting(issuer.audience_rule(rule), keys(&[&ES256])).verify(&token).is_ok()
    };
    let ours = || AudienceRule::AnyOf(vec![API.parse().unwrap()]);
    for (aud, of_ours, of_any, of_none) in [
        (json!(API), true, true, false),
        (json!(["https://other.example", API]), true, true, false),
        (json!("https://other.example"), false, true, false),
        (json!("-"), false, false, true),
    ] {
        assert_eq!(taken(ours(), aud.clone()), of_ours, "{aud}");
        assert_eq!(taken(AudienceRule::Any, aud.clone()), of_any, "{aud}");
        assert_eq!(taken(AudienceRule::Absent, aud.clone()), of_none, "{aud}");
    }
}

#[test]
fn each_coordinate_has_its_whole_length() {
    let jwk = ES256.verifying_key().to_jwk();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [bytes("x"), bytes("y")].concat();
    for at in [0, 31, 32, 33, 64] {
        // the same point, divided elsewhere: one key must not have two forms (RFC 7518 §6.2.1.2)
        let mut divided = jwk.clone();
        divided["x"] = URL_SAFE_NO_PAD.encode(&point[..at]).into();
        divided["y"] = URL_SAFE_NO_PAD.encode(&point[at..]).into();
        assert_eq!(VerifyingKey::from_jwk(&divided).is_ok(), at == 32, "{at}");
    }
}
