//! `exp`, `nbf`, `iat`: over, not yet, or no number of seconds at all (RFC 7519 §2, §4.1).

use serde_json::{Value, json};

use super::super::forge::{Subject, and_a_half, text, without};
use super::{Case, Level, Sheet};

/// Nobody forgives more of clocks that differ.
const FAR_SECONDS: i64 = 300;

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("time");
    let now = subject.now.timestamp();
    let past = now - subject.leeway_seconds - 1;
    let number = |seconds: i64| json!(seconds);
    let exp: [(&str, Level, Value); 16] = [
        ("just-over", Level::Must, number(past)),
        ("over-by-half", Level::Must, and_a_half(past - 1)),
        ("long-over", Level::Must, number(now - FAR_SECONDS)),
        ("zero", Level::Must, number(0)),
        ("one", Level::Must, number(1)),
        ("negative", Level::Must, number(-1)),
        // PyJWT reads a number in a text.
        ("text", Level::Should, json!((now + 600).to_string())),
        ("text-never", Level::Must, json!("never")),
        ("date", Level::Must, json!("2099-01-01T00:00:00Z")),
        ("null", Level::Must, Value::Null),
        ("true", Level::Must, json!(true)),
        ("array", Level::Must, json!([now + 600])),
        ("object", Level::Must, json!({ "exp": now + 600 })),
        ("empty", Level::Must, json!("")),
        ("huge", Level::Should, json!(1e300)),
        ("beyond-2-53", Level::Should, json!(9_007_199_254_740_994_u64)),
    ];
    sheet.must("exp-missing", "no `exp`", subject.claims_without("exp"));
    put(&mut sheet, subject, "exp", exp);
    // JSON that is a number and that no 64-bit reader can hold.
    let claims = text(&without(subject.claims(), "exp"));
    let infinite = format!(r#"{{"exp":1e999,{}"#, &claims[1..]);
    sheet.should("exp-infinite", "`exp` is 1e999", subject.sign_text(text(&subject.header()), infinite));
    let nbf: [(&str, Level, Value); 9] = [
        ("soon", Level::Must, number(now + FAR_SECONDS)),
        ("far", Level::Must, number(now + 86_400)),
        ("text", Level::Should, json!((now - 10).to_string())),
        ("array", Level::Must, json!([now - 10])),
        ("true", Level::Should, json!(true)),
        ("null", Level::Should, Value::Null),
        ("object", Level::Must, json!({})),
        ("negative", Level::Should, number(-1)),
        ("huge", Level::Must, json!(1e300)),
    ];
    put(&mut sheet, subject, "nbf", nbf);
    let iat: [(&str, Level, Value); 8] = [
        ("soon", Level::Should, number(now + FAR_SECONDS)),
        ("far", Level::Should, number(now + 86_400)),
        ("text", Level::Should, json!((now - 10).to_string())),
        ("null", Level::Should, Value::Null),
        ("true", Level::Should, json!(true)),
        ("array", Level::Should, json!([now - 10])),
        ("negative", Level::Should, number(-1)),
        ("huge", Level::Should, json!(1e300)),
    ];
    put(&mut sheet, subject, "iat", iat);
    sheet.done()
}

fn put<const N: usize>(sheet: &mut Sheet, subject: &Subject, name: &str, cases: [(&str, Level, Value); N]) {
    for (id, level, value) in cases {
        let why = format!("`{name}` is {value} (now is {})", subject.now.timestamp());
        let token = subject.claims_with(name, value);
        match level {
            Level::Must => sheet.must(&format!("{name}-{id}"), &why, token),
            Level::Should => sheet.should(&format!("{name}-{id}"), &why, token),
        }
    }
}
