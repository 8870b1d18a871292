//! Signatures of no kind, of the wrong kind, or of a kind the key is not for (RFC 8725 §3.1, §3.2).

use serde_json::{Value, json};

use super::super::forge::{Subject, b64, parts, sign_parts, text, with, without};
use super::super::keys::{self, hmac};
use super::{Case, Sheet};
use crate::token::Alg;

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("alg");
    none(subject, &mut sheet);
    secrets(subject, &mut sheet);
    families(subject, &mut sheet);
    other_keys(subject, &mut sheet);
    sheet.done()
}

/// Unsigned, in every spelling somebody once let through.
fn none(subject: &Subject, sheet: &mut Sheet) {
    let payload = b64(text(&subject.claims()));
    let good = subject.good();
    let spellings: [(&str, Value); 12] = [
        ("none", json!("none")),
        ("none-capital", json!("None")),
        ("none-upper", json!("NONE")),
        ("none-mixed", json!("nOnE")),
        ("none-space", json!("none ")),
        ("none-nul", json!("none\u{0}")),
        ("empty", json!("")),
        ("null", Value::Null),
        ("false", json!(false)),
        ("zero", json!(0)),
        ("array-none", json!(["none"])),
        ("object", json!({ "none": true })),
    ];
    for (id, alg) in spellings {
        let why = format!("`alg` is {alg}, no signature");
        let header = b64(text(&with(subject.header(), "alg", alg.clone())));
        sheet.must(id, &why, format!("{header}.{payload}."));
        let why = format!("`alg` is {alg}, with another token's signature");
        sheet.must(&format!("{id}-signed"), &why, format!("{header}.{payload}.{}", parts(&good).2));
    }
    let header = without(without(subject.header(), "alg"), "kid");
    sheet.must("missing", "no `alg`, no signature", format!("{}.{payload}.", b64(text(&header))));
    sheet.must(
        "missing-signed",
        "no `alg`, rightly signed",
        subject.sign(&without(subject.header(), "alg"), &subject.claims()),
    );
    let bare = b64(r#"{"alg":"none"}"#);
    sheet.must("none-bare", "nothing in the header but `alg: none`", format!("{bare}.{payload}."));
    sheet.must("none-two-parts", "`alg: none` without the last dot", format!("{bare}.{payload}"));
}

/// HMAC under something public: the confusion of RFC 8725 §2.1.
fn secrets(subject: &Subject, sheet: &mut Sheet) {
    let key = subject.key();
    let pem = key.public_pem();
    let jwk = key.jwk();
    let secrets: [(&str, &str, Vec<u8>); 11] = [
        ("pem", "the public key in PEM", pem.clone().into_bytes()),
        (
            "pem-trimmed",
            "the public key in PEM without the last line break",
            pem.trim_end().as_bytes().to_vec(),
        ),
        (
            "pem-body",
            "the base64 lines of the public key",
            pem.lines().filter(|l| !l.starts_with('-')).collect::<String>().into_bytes(),
        ),
        ("der", "the public key in DER", key.public_der()),
        ("jwk", "the public JWK as JSON", jwk.to_string().into_bytes()),
        ("jwks", "the whole key set as JSON", keys::jwks(&subject.keys).to_string().into_bytes()),
        (
            "coordinate",
            "the first number of the public key",
            jwk.get("x").or(jwk.get("n")).and_then(Value::as_str).unwrap_or_default().as_bytes().to_vec(),
        ),
        ("kid", "the key's name", key.kid().as_bytes().to_vec()),
        ("empty", "the empty secret", Vec::new()),
        ("word", "the word `secret`", b"secret".to_vec()),
        ("issuer", "the issuer's name", subject.issuer.clone().into_bytes()),
    ];
    for name in ["HS256", "HS384", "HS512"] {
        for (id, what, secret) in &secrets {
            // One hash shows the confusion; the others only whether a list of names has a gap.
            if name != "HS256" && *id != "pem" {
                continue;
            }
            let header = with(subject.header(), "alg", name);
            let input = format!("{}.{}", b64(text(&header)), b64(text(&subject.claims())));
            let token = format!("{input}.{}", b64(hmac(name, secret, input.as_bytes())));
            sheet.must(
                &format!("{}-{id}", name.to_lowercase()),
                &format!("{name} with {what} as the secret"),
                token,
            );
        }
    }
}

/// Another algorithm's name over a signature that is right.
fn families(subject: &Subject, sheet: &mut Sheet) {
    let own = subject.key().alg();
    let names = [
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "Ed448",
        "ML-DSA-44",
        "HS256",
        "RSA-OAEP",
        "dir",
        "RS1",
    ];
    for name in names.into_iter().filter(|name| Alg::from_name(name) != Some(own)) {
        let why = format!("`alg` says {name}, the key and the signature are {own}");
        sheet.must(&format!("confused-{}", name.to_lowercase()), &why, subject.header_with("alg", name));
    }
    let spellings: [(&str, Value); 6] = [
        ("lower", json!(own.name().to_lowercase())),
        ("space", json!(format!("{own} "))),
        ("nul", json!(format!("{own}\u{0}"))),
        ("array", json!([own.name()])),
        ("list", json!(format!("{own},none"))),
        ("number", json!(256)),
    ];
    for (id, alg) in spellings {
        sheet.should(
            &format!("spelled-{id}"),
            &format!("`alg` is {alg}: names are exact"),
            subject.header_with("alg", alg),
        );
    }
}

/// A right signature of one published key under another one's name.
fn other_keys(subject: &Subject, sheet: &mut Sheet) {
    let own = subject.key();
    let claims = b64(text(&subject.claims()));
    for other in &subject.keys[1..] {
        let alg = other.alg().name();
        let id = alg.to_lowercase();
        let header = with(subject.header(), "alg", alg);
        let why = format!("signed by the {alg} key, named as the {} key", own.alg());
        sheet.must(&format!("{id}-as-other-key"), &why, sign_parts(other, &b64(text(&header)), &claims));
        let header = with(subject.header(), "kid", other.kid());
        let why = format!("signed by the {} key, named as the {alg} key", own.alg());
        sheet.must(&format!("as-{id}-key"), &why, sign_parts(own, &b64(text(&header)), &claims));
        let header = with(with(subject.header(), "kid", other.kid()), "alg", alg);
        let why = format!("`kid` and `alg` of the {alg} key, signature of the {} key", own.alg());
        sheet.must(&format!("as-{id}-key-and-alg"), &why, sign_parts(own, &b64(text(&header)), &claims));
    }
}
