//! Known answers of RFC 7520, 7638, 7797, 8037 and 9449.

use serde_json::{Value, json};
use stagedoor::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use stagedoor::token::{Invalid, KeySet, VerifyingKey};

use crate::fixtures::vector_file;

/// The public half of a JWK of the cookbook, which gives private ones.
fn public(key: &Value, alg: &Value) -> Value {
    let mut key = key.clone();
    for name in ["d", "p", "q", "dp", "dq", "qi"] {
        key.as_object_mut().unwrap().remove(name);
    }
    key["alg"] = alg.clone();
    key
}

fn verdict(token: &str, jwk: &Value) -> Result<Vec<u8>, Invalid> {
    let keys = KeySet::from_jwks_json(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let jws = UnverifiedJws::parse(token, MAX_TOKEN_BYTES)?;
    jws.verify(&keys)?;
    Ok(jws.into_payload())
}

#[test]
fn the_cookbooks_rsa_and_ed25519_signatures_verify() {
    for path in [
        "rfc7520-cookbook/jws/4_1.rsa_v15_signature.json",
        "rfc7520-cookbook/jws/4_2.rsa-pss_signature.json",
        "rfc7520-cookbook/curve25519/jws.json",
    ] {
        let Some(file) = vector_file("cookbook", path) else { return };
        let jwk = public(&file["input"]["key"], &file["input"]["alg"]);
        let payload = verdict(file["output"]["compact"].as_str().unwrap(), &jwk).unwrap();
        assert_eq!(payload, file["input"]["payload"].as_str().unwrap().as_bytes(), "{path}");
    }
}

#[test]
fn the_cookbooks_other_algorithms_and_serializations_are_refused() {
    for path in [
        "rfc7520-cookbook/jws/4_3.ecdsa_signature.json",
        "rfc7520-cookbook/jws/4_4.hmac-sha2_integrity_protection.json",
        "rfc7520-cookbook/jws/4_5.signature_with_detached_content.json",
    ] {
        let Some(file) = vector_file("cookbook", path) else { return };
        let key = public(&file["input"]["key"], &file["input"]["alg"]);
        assert!(verdict(file["output"]["compact"].as_str().unwrap(), &key).is_err(), "{path}");
    }
    let Some(file) = vector_file("cookbook", "rfc7520-cookbook/jws/4_1.rsa_v15_signature.json") else {
        return;
    };
    for form in ["json", "json_flat"] {
        // BP-8: compact form only.
        let jwk = public(&file["input"]["key"], &file["input"]["alg"]);
        assert_eq!(verdict(&file["output"][form].to_string(), &jwk), Err(Invalid::NotCompact));
    }
}

#[test]
fn unencoded_payloads_are_refused() {
    // JW-5, RFC 7797
    for path in [
        "rfc7520-cookbook/rfc7797/hmac-sha2_b64_false.json",
        "rfc7520-cookbook/rfc7797/4.2.hmac-sha2_b64_false.json",
    ] {
        let Some(file) = vector_file("cookbook_b64", path) else { return };
        let Some(token) = file["output"]["compact"].as_str() else { continue };
        assert!(UnverifiedJws::parse(token, MAX_TOKEN_BYTES).is_err(), "{path}");
    }
}

#[test]
fn public_keys_of_the_cookbook_are_read_and_private_ones_refused() {
    let read = |path: &str| vector_file("cookbook_jwk", &format!("rfc7520-cookbook/jwk/{path}"));
    let Some(rsa) = read("3_3.rsa_public_key.json") else { return };
    assert!(VerifyingKey::from_jwk(&rsa).is_ok());
    for path in [
        "3_1.ec_public_key.json", // P-521: not used here
        "3_2.ec_private_key.json",
        "3_4.rsa_private_key.json",
        "3_5.symmetric_key_mac_computation.json",
        "3_6.symmetric_key_encryption.json",
    ] {
        assert!(VerifyingKey::from_jwk(&read(path).unwrap()).is_err(), "{path}");
    }
}

#[test]
fn thumbprints_are_the_rfcs() {
    // JW-2: RFC 7638 §3.1, RFC 8037 A.3
    let Some(file) = vector_file("thumbprints", "rfc-examples/rfc-vectors.json") else { return };
    for known in file["jwk_thumbprint"].as_array().unwrap() {
        let key = VerifyingKey::from_jwk(&known["jwk"]).unwrap();
        assert_eq!(key.thumbprint().as_str(), known["sha256"].as_str().unwrap());
        assert_eq!(key.kid(), &key.thumbprint(), "a key without a name is named by its thumbprint");
    }
    for proof in file["dpop"].as_array().unwrap() {
        let Some(jkt) = proof["jkt"].as_str() else { continue };
        let key = VerifyingKey::from_jwk(&proof["header"]["jwk"]).unwrap();
        assert_eq!(key.thumbprint().as_str(), jkt);
        // JW-11: a proof carries its own key, which no token may.
        let refused = UnverifiedJws::parse(proof["jws"].as_str().unwrap(), MAX_TOKEN_BYTES).err();
        assert_eq!(refused, Some(Invalid::HeaderMember("jwk")));
    }
    let eddsa = &file["eddsa_jws"];
    assert!(verdict(eddsa["jws"].as_str().unwrap(), &eddsa["jwk"]).is_ok(), "RFC 8037 A.4");
}
