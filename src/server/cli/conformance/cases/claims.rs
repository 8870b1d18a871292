//! `iss`, `aud`, `sub` and the rest: absent, of the wrong type, nearly right; and payloads that are no object.

use serde_json::{Value, json};

use super::super::forge::{Subject, b64, parts, text, text_with_first, text_with_last, with, without};
use super::{Case, Expect, Level, Sheet};

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("claim");
    absent_or_mistyped(subject, &mut sheet);
    near_issuers(subject, &mut sheet);
    near_audiences(subject, &mut sheet);
    others(subject, &mut sheet);
    repeated(subject, &mut sheet);
    misshapen(subject, &mut sheet);
    large(subject, &mut sheet);
    sheet.done()
}

fn absent_or_mistyped(subject: &Subject, sheet: &mut Sheet) {
    let good = subject.claims();
    for name in ["iss", "aud", "sub"] {
        let right = good[name].clone();
        sheet.must(&format!("{name}-missing"), &format!("no `{name}`"), subject.claims_without(name));
        let values: [(&str, Value); 7] = [
            ("null", Value::Null),
            ("number", json!(123)),
            ("true", json!(true)),
            ("empty", json!("")),
            ("object", json!({ "0": right })),
            ("empty-array", json!([])),
            ("nested-array", json!([[right]])),
        ];
        for (id, value) in values {
            sheet.must(
                &format!("{name}-{id}"),
                &format!("`{name}` is {value}"),
                subject.claims_with(name, value),
            );
        }
        if name != "aud" {
            let value = json!([right]);
            sheet.must(
                &format!("{name}-array"),
                &format!("`{name}` is an array with the right text in it"),
                subject.claims_with(name, value),
            );
        }
    }
}

fn near_issuers(subject: &Subject, sheet: &mut Sheet) {
    let right = subject.claims()["iss"].as_str().unwrap_or_default().to_owned();
    let (scheme, rest) = right.split_once("://").unwrap_or(("https", &right));
    let other_scheme = if scheme == "https" { "http" } else { "https" };
    let near: [(&str, String); 10] = [
        ("slash", format!("{right}/")),
        ("upper", right.to_uppercase()),
        ("scheme", format!("{other_scheme}://{rest}")),
        ("suffix", format!("{right}.evil.example")),
        ("prefix", shortened(&right)),
        ("userinfo", format!("{scheme}://{rest}@evil.example")),
        ("path", format!("{right}/../evil")),
        ("fragment", format!("{right}#evil")),
        ("space", format!(" {right}")),
        ("nul", format!("{right}\u{0}")),
    ];
    for (id, iss) in near {
        sheet.must(&format!("iss-{id}"), &format!("`iss` is {iss:?}"), subject.claims_with("iss", iss));
    }
    sheet.must(
        "iss-other",
        "`iss` is somebody else, the signature right",
        subject.claims_with("iss", "https://evil.example"),
    );
    sheet.must(
        "iss-list",
        "`iss` is an array of somebody else and the right one",
        subject.claims_with("iss", json!(["https://evil.example", right])),
    );
}

fn near_audiences(subject: &Subject, sheet: &mut Sheet) {
    let right = subject.audience.as_str();
    let near: [(&str, Value); 16] = [
        ("other", json!("https://elsewhere.example")),
        (
            "slash",
            json!(if right.ends_with('/') {
                right.trim_end_matches('/').to_owned()
            } else {
                format!("{right}/")
            }),
        ),
        ("upper", json!(right.to_uppercase())),
        ("suffix", json!(format!("{right}.evil.example"))),
        ("prefix", json!(shortened(right))),
        ("sub-path", json!(format!("{right}/v2"))),
        ("star", json!("*")),
        ("comma", json!(format!("https://elsewhere.example,{right}"))),
        ("spaces", json!(format!("https://elsewhere.example {right}"))),
        ("space", json!(format!("{right} "))),
        ("nul", json!(format!("{right}\u{0}"))),
        ("others", json!(["https://elsewhere.example", "https://third.example"])),
        ("inside", json!([format!("x{right}x")])),
        ("array-null", json!([null])),
        ("member-name", json!({ right: true })),
        ("issuer", json!(subject.issuer)),
    ];
    for (id, aud) in near {
        sheet.must(&format!("aud-{id}"), &format!("`aud` is {aud}"), subject.claims_with("aud", aud));
    }
    sheet.should(
        "aud-mixed",
        "`aud` holds the service and a number",
        subject.claims_with("aud", json!([right, 123])),
    );
}

/// Claims that some reader takes for something else than text.
fn others(subject: &Subject, sheet: &mut Sheet) {
    sheet.must(
        "cnf-jkt",
        "`cnf`: bound to a key, so no bearer token (RFC 9449 §7.2)",
        subject.claims_with("cnf", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" })),
    );
    sheet.must(
        "cnf-x5t",
        "`cnf`: bound to a certificate (RFC 8705 §3)",
        subject.claims_with("cnf", json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" })),
    );
    sheet.should("cnf-null", "`cnf` is null", subject.claims_with("cnf", Value::Null));
    sheet.should("sub-long", "`sub` of 5 000 bytes", subject.claims_with("sub", "u".repeat(5_000)));
    sheet.should(
        "sub-line-break",
        "`sub` with a line break: two lines in a log",
        subject.claims_with("sub", "user_42\r\nuser_1"),
    );
    sheet.should("sub-nul", "`sub` with a NUL", subject.claims_with("sub", "user_42\u{0}admin"));
    sheet.should("scope-array", "`scope` is an array", subject.claims_with("scope", json!(["read"])));
    sheet.should("scope-number", "`scope` is a number", subject.claims_with("scope", 1));
    sheet.should(
        "scope-quote",
        "`scope` with a quote: a second parameter in a challenge",
        subject.claims_with("scope", "read\" error=\"x"),
    );
    sheet.should(
        "client-array",
        "`client_id` is an array",
        subject.claims_with("client_id", json!(["client_conformance"])),
    );
    sheet.should("jti-number", "`jti` is a number", subject.claims_with("jti", 1));
    if subject.bends_actor_tokens() {
        for name in ["jti", "sid", "iat"] {
            sheet.should(
                &format!("{name}-missing"),
                &format!("no `{name}`: it could never be revoked"),
                subject.claims_without(name),
            );
        }
        sheet.should(
            "assurance-unknown",
            "`actor_assurance` is a word nobody knows",
            subject.claims_with("actor_assurance", "root"),
        );
        sheet.should("assurance-missing", "no `actor_assurance`", subject.claims_without("actor_assurance"));
    }
}

fn repeated(subject: &Subject, sheet: &mut Sheet) {
    let claims = subject.claims();
    let header = text(&subject.header());
    let past = subject.now.timestamp() - 3_600;
    let cases = [
        ("sub-first", r#""sub":"admin""#.to_owned(), true),
        ("sub-last", r#""sub":"admin""#.to_owned(), false),
        ("sub-escaped", r#""\u0073ub":"admin""#.to_owned(), false),
        ("aud-first", r#""aud":"https://elsewhere.example""#.to_owned(), true),
        ("aud-last", r#""aud":["https://elsewhere.example"]"#.to_owned(), false),
        ("iss-first", r#""iss":"https://evil.example""#.to_owned(), true),
        ("exp-first", format!(r#""exp":{past}"#), true),
        ("exp-last", format!(r#""exp":{past}"#), false),
        ("act", r#""act":{"sub":"a"},"act":{"sub":"b"}"#.to_owned(), false),
        ("inside-act", r#""act":{"sub":"a","sub":"b"}"#.to_owned(), false),
    ];
    for (id, members, first) in cases {
        let claims = if id.contains("act") { without(claims.clone(), "act") } else { claims.clone() };
        let payload =
            if first { text_with_first(&claims, &members) } else { text_with_last(&claims, &members) };
        let why = format!("a claim twice: {members} {}", if first { "before" } else { "after" });
        let expect = if id.contains("act") { Expect::RefuseOrForbid } else { Expect::Refuse };
        sheet.bearer(
            expect,
            Level::Should,
            &format!("twice-{id}"),
            &why,
            subject.sign_text(&header, payload),
        );
    }
}

/// Rightly signed, but no JSON object of claims.
fn misshapen(subject: &Subject, sheet: &mut Sheet) {
    let (header, claims) = (text(&subject.header()), text(&subject.claims()));
    let texts: [(&str, &str, Vec<u8>); 12] = [
        ("array", "an array", format!("[{claims}]").into_bytes()),
        ("text", "a text", serde_json::to_vec(&claims).unwrap_or_default()),
        ("number", "a number", b"42".to_vec()),
        ("null", "null", b"null".to_vec()),
        ("empty-object", "an empty object", b"{}".to_vec()),
        ("empty", "empty", Vec::new()),
        ("cut", "cut off", claims.as_bytes()[..claims.len() - 1].to_vec()),
        ("trailing", "followed by more", format!("{claims}x").into_bytes()),
        ("single-quotes", "written with single quotes", claims.replace('"', "'").into_bytes()),
        ("nan", "with a number that is none", claims.replacen('{', "{\"x\":NaN,", 1).into_bytes()),
        ("bom", "preceded by a byte-order mark", format!("\u{feff}{claims}").into_bytes()),
        (
            "not-utf8",
            "not UTF-8",
            claims
                .replacen('{', "{\"x\":\"\u{1}\",", 1)
                .bytes()
                .map(|b| if b == 1 { 0xff } else { b })
                .collect(),
        ),
    ];
    for (id, what, payload) in texts {
        let token = subject.sign_text(&header, payload);
        let why = format!("the payload is {what}");
        // Readers of Python take NaN, readers of JavaScript drop a byte-order mark.
        if matches!(id, "bom" | "not-utf8" | "nan") {
            sheet.should(&format!("payload-{id}"), &why, token);
        } else {
            sheet.must(&format!("payload-{id}"), &why, token);
        }
    }
}

fn large(subject: &Subject, sheet: &mut Sheet) {
    let deep = |n: usize| {
        let claims = text(&subject.claims());
        let payload = format!(r#"{{"x":{}{},{}"#, "[".repeat(n), "]".repeat(n), &claims[1..]);
        subject.sign_text(text(&subject.header()), payload)
    };
    sheet.should("deep-100", "a claim nested 100 deep", deep(100));
    sheet.should("deep-2000", "a claim nested 2 000 deep", deep(2_000));
    let long = |n: usize| subject.sign(&subject.header(), &with(subject.claims(), "pad", "p".repeat(n)));
    for (id, what, bytes) in
        [("over-8k", "9 KiB", 6_500), ("over-16k", "17 KiB", 12_500), ("over-64k", "65 KiB", 49_000)]
    {
        sheet.bearer(
            Expect::RefuseUnread,
            Level::Should,
            id,
            &format!("rightly signed, {what} long"),
            long(bytes),
        );
    }
    let good = subject.good();
    let (header, _, signature) = parts(&good);
    let endless = format!("{header}.{}.{signature}", b64("p".repeat(49_000)));
    sheet.bearer(Expect::RefuseUnread, Level::Must, "endless", "65 KiB of nothing, wrongly signed", endless);
    let dots = format!("{good}{}", ".".repeat(4_000));
    sheet.bearer(Expect::RefuseUnread, Level::Must, "dots", "4 000 dots", dots);
}

fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    text.pop();
    text
}
