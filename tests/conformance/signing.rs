//! Signers and published keys: what goes out is what comes in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stagedoor::token::key_set::{KeySetError, SkipReason};
use stagedoor::token::keys::KeyError;
use stagedoor::token::{Alg, KeySet, LocalSigner, Signer, VerifyingKey, encode_jws};

use crate::fixtures::{EDDSA, ES256, RS256, claims, keys, verifier};

#[test]
fn a_private_key_survives_its_storage_and_never_shows_itself() {
    for signer in [&*ES256, &*RS256, &*EDDSA] {
        let der = signer.to_pkcs8().unwrap();
        let again = LocalSigner::from_pkcs8(signer.alg(), &der).unwrap();
        assert_eq!(again.verifying_key(), signer.verifying_key());
        assert!(signer.verifying_key().verifies(b"probe", &again.sign(b"probe").unwrap()));
        let shown = format!("{signer:?}");
        assert!(shown.contains("[redacted]") && shown.len() < 120, "{shown}");
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(&*der)
        );
        assert_eq!(LocalSigner::from_pkcs8_pem(signer.alg(), &pem).unwrap().kid(), signer.kid());
        for other in Alg::SIGNING.into_iter().filter(|alg| *alg != signer.alg()) {
            assert!(LocalSigner::from_pkcs8(other, &der).is_err(), "{} read as {other}", signer.alg());
        }
    }
    assert!(LocalSigner::generate(Alg::Ps256).is_err(), "only three are signed with");
}

#[test]
fn a_token_has_exactly_the_header_of_the_contract_and_is_not_printed() {
    for signer in [&*ES256, &*RS256, &*EDDSA] {
        let jws = encode_jws(signer, "at+jwt", &claims()).unwrap();
        let header = jws.as_str().split('.').next().unwrap();
        let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        let expected = format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"{}"}}"#, signer.alg(), signer.kid());
        assert_eq!(header, expected);
        assert_eq!(format!("{jws:?}"), "SignedJws([redacted])");
        assert!(jws.as_str().starts_with(&format!("{}.", jws.signing_input())));
        assert_eq!(jws.signed_sha256(), stagedoor::token::signer::sha256(jws.signing_input().as_bytes()));
        let verified = verifier().0.verify(&jws.into_string()).unwrap();
        assert_eq!(&verified.kid, signer.kid());
    }
}

#[test]
fn published_keys_read_back_as_themselves_and_hold_nothing_private() {
    // JW-1, JW-2
    let set = keys(&[&ES256, &RS256, &EDDSA]);
    let published = set.to_jwks();
    for jwk in published["keys"].as_array().unwrap() {
        let names: Vec<&str> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(
            names.iter().all(|name| ["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"].contains(name))
        );
        assert_eq!(jwk["use"], "sig");
        assert_eq!(VerifyingKey::from_jwk(jwk).unwrap().thumbprint().as_str(), jwk["kid"].as_str().unwrap());
    }
    assert_eq!(KeySet::from_jwks_json(published.to_string().as_bytes()).unwrap(), set);
}

#[test]
fn one_bad_key_is_left_out_with_its_reason_and_the_others_work() {
    let good = ES256.verifying_key().to_jwk();
    let changed = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk["kid"] = "other".into();
        jwk[name] = value;
        jwk
    };
    let rsa = |name: &str, value: Value| {
        let mut jwk = RS256.verifying_key().to_jwk();
        jwk[name] = value;
        jwk
    };
    let short = URL_SAFE_NO_PAD.encode([vec![0xff; 127], vec![0xfd]].concat());
    let padded = URL_SAFE_NO_PAD.encode([vec![0x00], vec![0xff; 256]].concat());
    for (jwk, reason) in [
        (json!(7), KeyError::NotAnObject),
        (json!({}), KeyError::Member("kty")),
        (json!({ "kty": "oct", "k": "AAAA" }), KeyError::KeyType),
        (changed("kty", json!("RSA")), KeyError::Algorithm),
        (changed("use", json!("enc")), KeyError::NotForVerifying),
        (changed("use", json!(1)), KeyError::Member("use")),
        (changed("key_ops", json!("verify")), KeyError::Member("key_ops")),
        (changed("key_ops", json!(["sign"])), KeyError::NotForVerifying),
        (changed("alg", json!("RS256")), KeyError::Algorithm),
        (changed("alg", json!("ES521")), KeyError::Algorithm),
        (changed("crv", json!("P-384")), KeyError::Algorithm),
        (changed("d", json!("AAAA")), KeyError::Private),
        (changed("x", good["y"].clone()), KeyError::Unsound),
        (changed("x", json!("AAAA")), KeyError::Unsound),
        (changed("x", json!("A===")), KeyError::Member("x")),
        (changed("kid", json!(5)), KeyError::Member("kid")),
        (changed("kid", json!("a\u{0}b")), KeyError::Member("kid")),
        (rsa("n", json!(short)), KeyError::Unsound),
        (rsa("n", json!(padded)), KeyError::Unsound),
        (rsa("e", json!("AQ")), KeyError::Unsound),
        (rsa("e", json!("Aw")), KeyError::Unsound),
        (rsa("e", json!("AQAA")), KeyError::Unsound),
        (rsa("e", json!("AQAAAAAB")), KeyError::Unsound),
        (json!({ "kty": "OKP", "crv": "X25519", "x": "AAAA" }), KeyError::Algorithm),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }), KeyError::Unsound),
    ] {
        let set = json!({ "keys": [jwk, good] }).to_string();
        let read = KeySet::from_jwks_json(set.as_bytes()).unwrap();
        assert_eq!(read.len(), 1, "{jwk}");
        assert_eq!(read.skipped()[0].reason, SkipReason::Key(reason), "{jwk}");
    }
}

#[test]
fn a_name_that_stands_for_two_keys_stands_for_none() {
    let mut namesake = RS256.verifying_key().to_jwk();
    namesake["kid"] = ES256.kid().as_str().into();
    let set = json!({ "keys": [ES256.verifying_key().to_jwk(), namesake, EDDSA.verifying_key().to_jwk()] });
    let read = KeySet::from_jwks_json(set.to_string().as_bytes()).unwrap();
    assert_eq!(read.len(), 1);
    assert!(read.skipped().iter().all(|skipped| skipped.reason == SkipReason::DuplicateKid));
}

#[test]
fn a_set_that_is_too_large_or_no_set_is_refused_whole() {
    let many: Vec<Value> = (0..65).map(|_| json!({})).collect();
    for (text, error) in [
        (json!({ "keys": many }).to_string(), KeySetError::TooMany),
        (json!({ "keys": {} }).to_string(), KeySetError::NoKeys),
        ("[]".to_owned(), KeySetError::NoKeys),
        (" ".repeat(1024 * 1024 + 1), KeySetError::TooLarge),
    ] {
        assert_eq!(KeySet::from_jwks_json(text.as_bytes()).unwrap_err(), error);
    }
    assert!(matches!(KeySet::from_jwks_json(br#"{"keys":[],"keys":[]}"#), Err(KeySetError::Json(_))));
}
