//! The compact form: other encodings, other alphabets, other numbers of parts (RFC 7515 §7.1, RFC 8725 §3.13).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use serde_json::json;

use super::super::forge::{Subject, b64, parts, sign_parts, signature, text, with};
use super::{Case, Expect, Level, Sheet};

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("form");
    counts(subject, &mut sheet);
    encodings(subject, &mut sheet);
    surroundings(subject, &mut sheet);
    serializations(subject, &mut sheet);
    sheet.done()
}

fn counts(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let (header, payload, signature) = parts(&good);
    let mut must = |id: &str, why: &str, token: String| sheet.must(id, why, token);
    must("word", "a word", "hello".to_owned());
    must("dots", "two dots", "..".to_owned());
    must("one-part", "the payload alone", payload.to_owned());
    must("two-parts", "no signature and no dot for it", format!("{header}.{payload}"));
    must("detached", "no payload (detached)", format!("{header}..{signature}"));
    must("four-parts", "a fourth part", format!("{good}.{signature}"));
    must("four-parts-empty", "a dot at the end", format!("{good}."));
    must("leading-dot", "a dot at the beginning", format!(".{good}"));
    must("double-dot", "two dots after the header", format!("{header}..{payload}.{signature}"));
    let jwe = b64(r#"{"alg":"dir","enc":"A256GCM"}"#);
    must(
        "jwe",
        "five parts: an encrypted token",
        format!("{jwe}..{}.{}.{}", b64([7; 12]), b64("x".repeat(64)), b64([7; 16])),
    );
    let p2c = b64(r#"{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":2000000000,"p2s":"AAAAAAAAAAA"}"#);
    must(
        "jwe-p2c",
        "an encrypted token that asks for 2 000 000 000 rounds",
        format!("{p2c}.{}.{}.{}.{}", b64([7; 40]), b64([7; 12]), b64("x"), b64([7; 16])),
    );
    must("jwe-five", "five parts, three of them a good token", format!("{good}.{payload}.{signature}"));
}

/// The same bytes in another spelling. No claim changes; but a list of refused token *texts* misses them.
fn encodings(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let (header, payload, sig) = parts(&good);
    sheet.should("padded-signature", "the signature with `=`", format!("{header}.{payload}.{}", padded(sig)));
    sheet.should(
        "padded-header",
        "the header with `=`, signed so",
        sign_parts(subject.key(), &padded(&b64(mod3(text(&subject.header()), 1))), payload),
    );
    sheet.should(
        "padded-payload",
        "the payload with `=`, signed so",
        sign_parts(subject.key(), header, &padded(&b64(mod3(text(&subject.claims()), 1)))),
    );
    let token = with_both_signs(subject);
    let (header_, payload_, _) = parts(&token);
    let standard = STANDARD_NO_PAD.encode(signature(&token));
    sheet.should(
        "standard-alphabet",
        "the signature with `+` and `/`",
        format!("{header_}.{payload_}.{standard}"),
    );
    sheet.should(
        "trailing-bits-signature",
        "bits set after the signature's last byte",
        format!("{header}.{payload}.{}", noncanonical(&signature(&good))),
    );
    let header_bits = noncanonical(&mod3(text(&subject.header()), 1));
    sheet.should(
        "trailing-bits-header",
        "bits set after the header's last byte, signed so",
        sign_parts(subject.key(), &header_bits, payload),
    );
    let payload_bits = noncanonical(&mod3(text(&subject.claims()), 1));
    sheet.should(
        "trailing-bits-payload",
        "bits set after the payload's last byte, signed so",
        sign_parts(subject.key(), header, &payload_bits),
    );
    sheet.must(
        "length-1-mod-4",
        "a signature of 4n+1 characters",
        format!("{header}.{payload}.{}", &sig[..sig.len() / 4 * 4 - 3]),
    );
    let half = payload.len() / 2;
    let broken = |with: &str| format!("{header}.{}{with}{}.{sig}", &payload[..half], &payload[half..]);
    for (id, why, inserted) in [
        ("space-inside", "a space inside", " "),
        ("tab-inside", "a tab inside", "\t"),
        ("line-break-inside", "a line break inside", "\n"),
        ("percent", "a percent-encoded line break inside", "%0a"),
        ("not-ascii", "a letter outside ASCII inside", "é"),
        ("equals-inside", "`=` inside", "="),
    ] {
        sheet.should(id, why, broken(inserted));
    }
}

/// A good token with something before or after it.
fn surroundings(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let around = [
        ("quoted", "in quotes", format!("\"{good}\"")),
        ("scheme-twice", "`Bearer` twice", format!("Bearer {good}")),
        ("comma", "two good tokens and a comma", format!("{good},{good}")),
        ("comma-space", "two good tokens, as a proxy joins two headers", format!("{good}, {good}")),
        ("space-after-word", "a word after it", format!("{good} admin")),
        ("semicolon", "a parameter after it", format!("{good};user=admin")),
        ("emoji", "an emoji after it", format!("{good}🦀")),
        ("nul", "a NUL after it", format!("{good}\u{0}")),
        ("trailing-space", "a space after it", format!("{good} ")),
        ("leading-space", "a space before it", format!(" {good}")),
        ("line-break", "a line break after it", format!("{good}\n")),
        ("url-encoded", "its dots percent-encoded", good.replace('.', "%2E")),
    ];
    for (id, why, token) in around {
        sheet.should(id, why, token);
    }
}

/// RFC 7515 §7.2 is another serialization: never in a header.
fn serializations(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.good();
    let (header, payload, signature) = parts(&good);
    let flat = json!({ "protected": header, "payload": payload, "signature": signature });
    sheet.should("json-flat", "the flattened JSON serialization", flat.to_string());
    let general =
        json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] });
    sheet.should("json-general", "the general JSON serialization", general.to_string());
    let unprotected = json!({ "header": { "alg": "none" }, "payload": payload, "signature": "" });
    sheet.must(
        "json-unprotected",
        "JSON with an unprotected header and no signature",
        unprotected.to_string(),
    );
    let mixed = format!(
        r#"{{"payload":"{payload}","x":".{payload}.","protected":"{header}","signature":"{signature}"}}"#
    );
    sheet.should("json-mixed", "JSON that reads as a compact form too (rfc8725bis)", mixed);
    sheet.should("json-base64", "the JSON serialization in base64", b64(flat.to_string()));
    let nested = sign_parts(subject.key(), &b64(text(&with(subject.header(), "cty", "JWT"))), &b64(&good));
    sheet.bearer(Expect::Refuse, Level::Must, "nested", "a good token as another one's payload", nested);
}

fn padded(part: &str) -> String {
    format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4))
}

/// `object` with white space before its last brace, until its length leaves `remainder` modulo 3.
fn mod3(object: String, remainder: usize) -> Vec<u8> {
    let mut text = object;
    while text.len() % 3 != remainder {
        text.insert(text.len() - 1, ' ');
    }
    text.into_bytes()
}

/// `bytes` in base64url with an unused bit of the last character set. `bytes.len() % 3` is not 0.
fn noncanonical(bytes: &[u8]) -> String {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    let lenient = GeneralPurpose::new(&alphabet::URL_SAFE, config);
    let mut text = b64(bytes);
    let canonical = text.pop();
    for last in alphabet::URL_SAFE.as_str().chars().filter(|c| Some(*c) != canonical) {
        text.push(last);
        if lenient.decode(&text).is_ok_and(|decoded| decoded == bytes) {
            break;
        }
        text.pop();
    }
    text
}

/// A good token whose signature has both characters that the two alphabets of base64 write differently.
fn with_both_signs(subject: &Subject) -> String {
    let mut last = subject.good();
    for n in 0..2_000 {
        let signature = parts(&last).2;
        if signature.contains('-') && signature.contains('_') {
            break;
        }
        last = subject.claims_with("jti", format!("conformance-{n}"));
    }
    last
}
