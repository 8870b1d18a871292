//! Names of keys: unknown, stolen, or meant for whatever looks them up (RFC 8725 §3.10).

use serde_json::{Value, json};

use super::super::forge::{Subject, b64, sign_parts, text, with, without};
use super::super::keys::hmac;
use super::{Case, Expect, Level, Sheet};

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("kid");
    attackers(subject, &mut sheet);
    lookups(subject, &mut sheet);
    misnamed(subject, &mut sheet);
    sheet.done()
}

fn attackers(subject: &Subject, sheet: &mut Sheet) {
    let claims = b64(text(&subject.claims()));
    let attacker = &subject.attacker;
    let mut put =
        |id: &str, why: &str, header| sheet.must(id, why, sign_parts(attacker, &b64(text(&header)), &claims));
    put(
        "attacker",
        "signed by a key nobody published, under its own name",
        with(subject.header(), "kid", attacker.kid()),
    );
    put("stolen", "signed by a key nobody published, under the published name", subject.header());
    put(
        "attacker-missing",
        "signed by a key nobody published, without a name",
        without(subject.header(), "kid"),
    );
}

/// `kid` as a path, a query, a URL or a command; signed as if that had worked.
fn lookups(subject: &Subject, sheet: &mut Sheet) {
    let secrets: [(&str, &str, &[u8]); 10] = [
        ("path-null", "../../../../../../dev/null", b""),
        ("path-absolute", "/dev/null", b""),
        ("path-nul", "/dev/null\u{0}.pem", b""),
        ("path-proc", "/proc/sys/kernel/randomize_va_space", b"2\n"),
        ("sql-union", "x' UNION SELECT 'secret' -- ", b"secret"),
        ("sql-or", "x' OR '1'='1", b"secret"),
        ("sql-stacked", "x'; DROP TABLE keys; --", b"secret"),
        ("ldap", "*)(uid=*))(|(uid=*", b"secret"),
        ("command", "x|/bin/true", b""),
        ("jndi", "${jndi:ldap://127.0.0.1:9/a}", b"secret"),
    ];
    for (id, kid, secret) in secrets {
        let header = with(with(subject.header(), "kid", kid), "alg", "HS256");
        let input = format!("{}.{}", b64(text(&header)), b64(text(&subject.claims())));
        let token = format!("{input}.{}", b64(hmac("HS256", secret, input.as_bytes())));
        sheet.must(id, &format!("`kid` is {kid:?}, HS256 with what that would find"), token);
    }
    let claims = b64(text(&subject.claims()));
    for (id, kid) in
        [("url", subject.attacker_url.as_str()), ("prototype", "__proto__"), ("constructor", "constructor")]
    {
        let header = with(subject.header(), "kid", kid);
        sheet.must(
            id,
            &format!("`kid` is {kid:?}, signed by a key nobody published"),
            sign_parts(&subject.attacker, &b64(text(&header)), &claims),
        );
    }
}

/// A signature that is right under a name that is not: nobody can forge with it, but whoever takes it
/// does not look the key up by name.
fn misnamed(subject: &Subject, sheet: &mut Sheet) {
    let kid = subject.key().kid().to_owned();
    let names: [(&str, Value); 14] = [
        ("unknown", json!("no-such-key")),
        ("array", json!([kid])),
        ("object", json!({ "kid": kid })),
        ("number", json!(0)),
        ("null", Value::Null),
        ("true", json!(true)),
        ("empty", json!("")),
        ("suffix-nul", json!(format!("{kid}\u{0}"))),
        ("suffix-space", json!(format!("{kid} "))),
        ("suffix", json!(format!("{kid}x"))),
        ("prefix", json!(shortened(&kid))),
        ("case", json!(swapped_case(&kid))),
        ("long", json!("k".repeat(2_000))),
        ("thumbprint-uri", json!(format!("urn:ietf:params:oauth:jwk-thumbprint:sha-256:{kid}"))),
    ];
    for (id, name) in names {
        let shown: String = name.to_string().chars().take(60).collect();
        sheet.should(
            &format!("misnamed-{id}"),
            &format!("rightly signed, but `kid` is {shown}"),
            subject.header_with("kid", name),
        );
    }
    let token = subject.sign(&without(subject.header(), "kid"), &subject.claims());
    sheet.bearer(
        Expect::Either,
        Level::Should,
        "missing",
        "rightly signed, no `kid`: the key may be the only one",
        token,
    );
}

fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    text.pop();
    text
}

fn swapped_case(text: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().map(swap).collect()
}
