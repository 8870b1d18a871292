//! C2SP/wycheproof: exactly the refusals that `vectors/README.md` names, and no other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use stagedoor::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use stagedoor::token::{Alg, Invalid, KeySet, VerifyingKey};

use crate::fixtures::vector_file;

fn cases(file: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    file["testGroups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |case| (group, case)))
}

/// The group's key (set), public where it has one, as a published set.
fn published(group: &Value) -> KeySet {
    let key = if group["public"].is_null() { &group["private"] } else { &group["public"] };
    let set = if key["keys"].is_array() { key.clone() } else { json!({ "keys": [key] }) };
    KeySet::from_jwks_json(set.to_string().as_bytes()).unwrap()
}

fn accepts(group: &Value, token: &str) -> bool {
    let keys = published(group);
    UnverifiedJws::parse(token, MAX_TOKEN_BYTES).is_ok_and(|jws| jws.verify(&keys).is_ok())
}

fn disagreements(file: &Value) -> (usize, Vec<u64>, Vec<u64>) {
    let (mut total, mut refused, mut let_in) = (0, Vec::new(), Vec::new());
    for (group, case) in cases(file) {
        total += 1;
        let valid = case["result"] == "valid";
        let id = case["tcId"].as_u64().unwrap();
        match (valid, accepts(group, case["jws"].as_str().unwrap())) {
            (true, false) => refused.push(id),
            (false, true) => let_in.push(id),
            _ => {}
        }
    }
    (total, refused, let_in)
}

#[test]
fn of_401_signatures_exactly_the_named_14_valid_ones_are_refused() {
    let Some(file) = vector_file("wycheproof_jws", "wycheproof/json_web_signature_test.json") else { return };
    let (total, refused, let_in) = disagreements(&file);
    // HMAC: 1, 348, 352, 357-359, 376, 377. `?` inside base64url (and HMAC): 372, 373.
    // Key says PS256, header PS384: 346, 350. Key's algorithm misspelt "ES521": 347, 351.
    assert_eq!(refused, [1, 346, 347, 348, 350, 351, 352, 357, 358, 359, 372, 373, 376, 377]);
    assert_eq!(let_in, Vec::<u64>::new(), "an invalid case was accepted");
    assert_eq!((total, total - refused.len()), (401, 387));
}

#[test]
fn of_26_keys_four_hmac_ones_are_refused_by_design_and_one_needs_a_fingerprint() {
    let Some(file) = vector_file("wycheproof_jwk", "wycheproof/json_web_key_test.json") else { return };
    let (total, refused, let_in) = disagreements(&file);
    assert_eq!(refused, [2, 13, 14, 15], "HMAC keys (JW-1)");
    assert_eq!(let_in, [7], "ROCA: needs a fingerprint");
    assert_eq!((total, total - refused.len() - let_in.len()), (26, 21));
}

#[test]
fn every_encrypted_token_is_refused_before_any_cryptography() {
    // BP-9
    let Some(file) = vector_file("wycheproof_jwe", "wycheproof/json_web_encryption_test.json") else {
        return;
    };
    let mut seen = 0;
    for (_, case) in cases(&file) {
        let token = case["jwe"].as_str().map_or_else(|| case["jwe"].to_string(), str::to_owned);
        let error = UnverifiedJws::parse(&token, MAX_TOKEN_BYTES).err().expect("refused");
        assert!(
            matches!(error, Invalid::Encrypted | Invalid::NotCompact | Invalid::TooLong),
            "{}: {error:?}",
            case["tcId"]
        );
        seen += 1;
    }
    assert_eq!(seen, 139);
}

/// Runs a file of raw signatures: message and signature in hex, one key a group.
fn raw_signatures(test: &str, path: &str, alg: Alg, key: impl Fn(&Value) -> Option<VerifyingKey>) -> usize {
    let Some(file) = vector_file(test, path) else { return 0 };
    let hex = |value: &Value| unhex(value.as_str().unwrap());
    let mut seen = 0;
    for (group, case) in cases(&file) {
        let Some(key) = key(group) else { continue };
        assert_eq!(key.alg(), alg);
        let verdict = key.verifies(&hex(&case["msg"]), &hex(&case["sig"]));
        let id = &case["tcId"];
        match case["result"].as_str().unwrap() {
            "valid" => assert!(verdict, "{path} {id} is valid"),
            "invalid" => assert!(!verdict, "{path} {id} is invalid: {}", case["comment"]),
            _ => {} // "acceptable": either
        }
        seen += 1;
    }
    seen
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn raw_es256_signatures_get_their_verdicts() {
    // JW-7
    let path = "wycheproof/ecdsa_secp256r1_sha256_p1363_test.json";
    let seen = raw_signatures("wycheproof_es256", path, Alg::Es256, |group| {
        let raw = unhex(group["publicKey"]["uncompressed"].as_str().unwrap());
        VerifyingKey::from_raw(Alg::Es256, &raw).ok()
    });
    assert!(seen == 0 || seen == 262);
}

#[test]
fn raw_ed25519_signatures_get_their_verdicts() {
    let seen = raw_signatures("wycheproof_ed25519", "wycheproof/ed25519_test.json", Alg::EdDsa, |group| {
        VerifyingKey::from_raw(Alg::EdDsa, &unhex(group["publicKey"]["pk"].as_str().unwrap())).ok()
    });
    assert!(seen == 0 || seen == 151);
}

#[test]
fn raw_rs256_signatures_get_their_verdicts() {
    let path = "wycheproof/rsa_signature_2048_sha256_test.json";
    let seen = raw_signatures("wycheproof_rs256", path, Alg::Rs256, |group| {
        let component = |name: &str| {
            let bytes = unhex(group["publicKey"][name].as_str().unwrap());
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            URL_SAFE_NO_PAD.encode(&bytes[zeros..])
        };
        let jwk = json!({ "kty": "RSA", "alg": "RS256", "n": component("modulus"), "e": component("publicExponent") });
        // Two keys of one case each have the exponent 3, which is refused with the key.
        VerifyingKey::from_jwk(&jwk).ok()
    });
    assert!(seen == 0 || seen == 257);
}
