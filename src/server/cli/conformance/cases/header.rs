//! The JOSE header: critical extensions, keys the sender brings along, other kinds of token, strange JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::forge::{
    Subject, b64, object, parts, sign_parts, text, text_with_first, text_with_last, with, without,
};
use super::{Case, Sheet};

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("header");
    critical(subject, &mut sheet);
    brought_keys(subject, &mut sheet);
    other_types(subject, &mut sheet);
    repeated(subject, &mut sheet);
    misshapen(subject, &mut sheet);
    sheet.done()
}

/// RFC 7515 §4.1.11: what is critical and not understood is refused; RFC 7797: `b64` is never understood.
fn critical(subject: &Subject, sheet: &mut Sheet) {
    let claims = subject.claims();
    let sign = |members: Value| {
        let mut header = subject.header();
        if let Value::Object(members) = members {
            header.extend(members);
        }
        subject.sign(&header, &claims)
    };
    sheet.must(
        "crit-unknown",
        "`crit` names an extension nobody knows",
        sign(json!({ "crit": ["urn:example:x"], "urn:example:x": true })),
    );
    sheet.must(
        "crit-b64",
        "an unencoded payload (`b64: false`) is another kind of token",
        sign(json!({ "crit": ["b64"], "b64": false })),
    );
    sheet.should(
        "crit-absent-member",
        "`crit` names a member that is not there",
        sign(json!({ "crit": ["urn:example:x"] })),
    );
    sheet.should("crit-empty", "`crit` is empty", sign(json!({ "crit": [] })));
    sheet.should("crit-text", "`crit` is not an array", sign(json!({ "crit": "exp" })));
    sheet.should(
        "crit-registered",
        "`crit` names a member of the standard",
        sign(json!({ "crit": ["alg"] })),
    );
    sheet.should("crit-null", "`crit` is null", sign(json!({ "crit": null })));
    sheet.should("b64-alone", "`b64: false` without `crit`", sign(json!({ "b64": false })));
    sheet.should("zip", "a JWS is never compressed", sign(json!({ "zip": "DEF" })));
    sheet.should("enc", "a JWS has no `enc`", sign(json!({ "enc": "A256GCM" })));
    let header = with(with(subject.header(), "crit", json!(["b64"])), "b64", false);
    let header = b64(text(&header));
    let payload = text(&claims).replace('.', "%2e");
    let input = format!("{header}.{payload}");
    let signature = b64(subject.key().sign(input.as_bytes()));
    sheet.must("crit-b64-raw", "an unencoded payload, on the wire as it is", format!("{input}.{signature}"));
}

/// RFC 8725 §3.10: a token cannot bring the key that verifies it.
fn brought_keys(subject: &Subject, sheet: &mut Sheet) {
    let claims = b64(text(&subject.claims()));
    let attacker = &subject.attacker;
    let chain = json!([STANDARD.encode(attacker.public_der())]);
    let members: [(&str, Value); 6] = [
        ("jwk", attacker.jwk()),
        ("jku", json!(subject.attacker_url)),
        ("x5u", json!(subject.attacker_url)),
        ("x5c", chain),
        ("x5t", json!(attacker.kid())),
        ("pem", json!(attacker.public_pem())),
    ];
    for (name, value) in members {
        for (id, kid) in [("own-name", attacker.kid()), ("stolen-name", subject.key().kid())] {
            let header = with(with(subject.header(), name, value.clone()), "kid", kid);
            let why = format!("`{name}` brings the key that signed ({})", id.replace('-', " "));
            sheet.must(&format!("{name}-{id}"), &why, sign_parts(attacker, &b64(text(&header)), &claims));
        }
        if !matches!(name, "x5t" | "pem") {
            sheet.should(
                &format!("{name}-idle"),
                &format!("rightly signed, but `{name}` is there"),
                subject.header_with(name, value),
            );
        }
    }
    let header = without(with(subject.header(), "jwk", attacker.jwk()), "kid");
    sheet.must(
        "jwk-nameless",
        "`jwk` brings the key that signed, no `kid`",
        sign_parts(attacker, &b64(text(&header)), &claims),
    );
    let inside = with(object(attacker.jwk()), "alg", "none");
    let header = with(subject.header(), "jwk", inside);
    sheet.must(
        "jwk-none",
        "`jwk` brings a key whose algorithm is `none`",
        sign_parts(attacker, &b64(text(&header)), &claims),
    );
}

/// RFC 8725 §3.11, RFC 9068 §4: tokens of one kind are no tokens of another.
fn other_types(subject: &Subject, sheet: &mut Sheet) {
    let kinds = [
        "secevent+jwt",
        "statuslist+jwt",
        "stagedoor-revocations+jwt",
        "token-introspection+jwt",
        "dpop+jwt",
        "client-authentication+jwt",
        "txntoken+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "kb+jwt",
        "JOSE+JSON",
    ];
    for kind in kinds {
        sheet.must(
            &format!("typ-{}", kind.to_lowercase()),
            &format!("a token of type {kind}"),
            subject.header_with("typ", kind),
        );
    }
    let spellings: [(&str, Value); 9] = [
        ("prefix", json!("at+jw")),
        ("suffix", json!("at+jwt2")),
        ("inside", json!("xat+jwt")),
        ("twice", json!("application/application/at+jwt")),
        ("space", json!("at+jwt ")),
        ("empty", json!("")),
        ("array", json!(["at+jwt"])),
        ("number", json!(1)),
        ("null", Value::Null),
    ];
    for (id, typ) in spellings {
        sheet.must(&format!("typ-{id}"), &format!("`typ` is {typ}"), subject.header_with("typ", typ));
    }
    let missing = subject.sign(&without(subject.header(), "typ"), &subject.claims());
    if subject.bends_actor_tokens() {
        sheet.must(
            "typ-jwt",
            "an actor token is `at+jwt`, an ID token says `JWT`",
            subject.header_with("typ", "JWT"),
        );
        sheet.must("typ-missing", "an actor token says its type", missing);
    } else {
        sheet.should("typ-missing", "no `typ`", missing);
    }
}

/// RFC 8725 §2.11 and RFC 7515 §4: a member named twice is read differently by two readers.
fn repeated(subject: &Subject, sheet: &mut Sheet) {
    let (header, claims) = (subject.header(), text(&subject.claims()));
    let alg = subject.key().alg();
    let cases = [
        ("alg-first", "`alg: none` first, the right one after", text_with_first(&header, r#""alg":"none""#)),
        ("alg-last", "`alg: none` last, the right one before", text_with_last(&header, r#""alg":"none""#)),
        ("alg-same", "`alg` twice, the same", text_with_first(&header, &format!(r#""alg":"{alg}""#))),
        ("alg-escaped", "`alg` twice, once escaped", text_with_first(&header, r#""\u0061lg":"HS256""#)),
        ("kid", "`kid` twice", text_with_first(&header, r#""kid":"other""#)),
        ("typ", "`typ` twice", text_with_first(&header, r#""typ":"JWT""#)),
    ];
    for (id, why, header) in cases {
        sheet.should(
            &format!("twice-{id}"),
            &format!("{why}, rightly signed"),
            subject.sign_text(header, &claims),
        );
    }
    for (id, header) in [
        ("first", text_with_first(&header, r#""alg":"none""#)),
        ("last", text_with_last(&header, r#""alg":"none""#)),
    ] {
        let token = format!("{}.{}.", b64(header), b64(&claims));
        sheet.must(
            &format!("twice-alg-none-{id}"),
            &format!("`alg` twice, `none` {id}, no signature"),
            token,
        );
    }
}

/// Not the JSON object a header is.
fn misshapen(subject: &Subject, sheet: &mut Sheet) {
    let (header, claims) = (text(&subject.header()), text(&subject.claims()));
    let deep = format!(r#"{{"x":{}{},{}"#, "[".repeat(1_200), "]".repeat(1_200), &header[1..]);
    let texts: [(&str, &str, Vec<u8>); 11] = [
        ("array", "an array", format!("[{header}]").into_bytes()),
        ("text", "a text", b"\"ES256\"".to_vec()),
        ("null", "null", b"null".to_vec()),
        ("empty-object", "an empty object", b"{}".to_vec()),
        ("no-json", "no JSON", b"alg=ES256".to_vec()),
        ("cut", "cut off", header.as_bytes()[..header.len() - 1].to_vec()),
        ("trailing", "followed by more", format!("{header}{{}}").into_bytes()),
        ("bom", "preceded by a byte-order mark", format!("\u{feff}{header}").into_bytes()),
        (
            "not-utf8",
            "not UTF-8",
            header.replace("at+jwt", "at+jwt\u{1}").bytes().map(|b| if b == 1 { 0xff } else { b }).collect(),
        ),
        ("comment", "with a comment", header.replacen('{', "{/**/", 1).into_bytes()),
        ("deep", "nested 1 200 deep", deep.into_bytes()),
    ];
    for (id, what, header) in texts {
        let strict = matches!(id, "bom" | "not-utf8" | "deep");
        let token = subject.sign_text(header, &claims);
        if strict {
            sheet.should(&format!("is-{id}"), &format!("the header is {what}"), token);
        } else {
            sheet.must(&format!("is-{id}"), &format!("the header is {what}"), token);
        }
    }
    let good = subject.good();
    let (_, payload, signature) = parts(&good);
    sheet.must("is-empty", "the header is empty", format!(".{payload}.{signature}"));
}
