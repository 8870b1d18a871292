//! `act` (RFC 8693 §4.1): forgotten, hidden, malformed, endless. What this whole kit is for.

use serde_json::{Value, json};

use super::super::forge::{Object, Subject, with, without};
use super::{Case, Expect, Level, Sheet};

pub(super) fn cases(subject: &Subject) -> Vec<Case> {
    let mut sheet = Sheet::new("act");
    missing(subject, &mut sheet);
    malformed(subject, &subject.actor_claims(), "", &mut sheet);
    if let Some(ordinary) = subject.ordinary_claims() {
        malformed(subject, &ordinary, "home-", &mut sheet);
    }
    chains(subject, &mut sheet);
    sheet.done()
}

/// A token of a Stagedoor without `act` is no token (contract.md §6).
fn missing(subject: &Subject, sheet: &mut Sheet) {
    let bare = without(subject.actor_claims(), "act");
    let mut put =
        |id: &str, why: &str, claims: Object| sheet.must(id, why, subject.sign(&subject.header(), &claims));
    put("missing", "the actor tokens' issuer, but nobody acts", bare.clone());
    let act = json!({ "sub": subject.actor });
    for (id, name) in
        [("capital", "Act"), ("upper", "ACT"), ("actor", "actor"), ("space", "act "), ("may-act", "may_act")]
    {
        put(id, &format!("`{name}` in the place of `act`"), with(bare.clone(), name, act.clone()));
    }
    put("inside", "`act` inside another claim", with(bare, "ext", json!({ "act": act })));
}

/// An `act` that says nobody: who takes it for "no actor" takes the impersonator for the user.
fn malformed(subject: &Subject, claims: &Object, prefix: &str, sheet: &mut Sheet) {
    let actor = &subject.actor;
    let acts: [(&str, Value); 24] = [
        ("null", Value::Null),
        ("false", json!(false)),
        ("true", json!(true)),
        ("zero", json!(0)),
        ("empty-text", json!("")),
        ("text", json!(actor)),
        ("empty-array", json!([])),
        ("array", json!([{ "sub": actor }])),
        ("empty-object", json!({})),
        ("no-sub", json!({ "iss": "https://people.example" })),
        ("sub-null", json!({ "sub": null })),
        ("sub-empty", json!({ "sub": "" })),
        ("sub-number", json!({ "sub": 7 })),
        ("sub-array", json!({ "sub": [actor] })),
        ("sub-object", json!({ "sub": { "sub": actor } })),
        ("sub-line-break", json!({ "sub": format!("{actor}\r\nx") })),
        ("sub-long", json!({ "sub": "a".repeat(5_000) })),
        ("iss-number", json!({ "sub": actor, "iss": 1 })),
        ("iss-array", json!({ "sub": actor, "iss": ["https://people.example"] })),
        ("exp", json!({ "sub": actor, "exp": subject.now.timestamp() + 600 })),
        ("aud", json!({ "sub": actor, "aud": subject.audience })),
        ("cnf", json!({ "sub": actor, "cnf": { "jkt": "x" } })),
        ("nested-null", json!({ "sub": actor, "act": null })),
        ("nested-text", json!({ "sub": actor, "act": "agent_1" })),
    ];
    for (id, act) in acts {
        let shown: String = act.to_string().chars().take(60).collect();
        let token = subject.sign(&subject.header(), &with(claims.clone(), "act", act));
        // These hide nobody: the one who acts is still named.
        let named = ["exp", "aud", "cnf", "iss-", "nested-", "sub-line-break", "sub-long"];
        let grave = !named.iter().any(|prefix| id.starts_with(prefix));
        let level = if grave { Level::Must } else { Level::Should };
        sheet.bearer(
            Expect::RefuseOrForbid,
            level,
            &format!("{prefix}{id}"),
            &format!("`act` is {shown}"),
            token,
        );
    }
}

fn chains(subject: &Subject, sheet: &mut Sheet) {
    let chain = |names: &[String]| {
        names.iter().fold(Value::Null, |inner, name| {
            if inner.is_null() { json!({ "sub": name }) } else { json!({ "sub": name, "act": inner }) }
        })
    };
    let mut put = |id: &str, why: &str, names: &[String]| {
        let claims = with(subject.actor_claims(), "act", chain(names));
        sheet.bearer(
            Expect::RefuseOrForbid,
            Level::Should,
            id,
            why,
            subject.sign(&subject.header(), &claims),
        );
    };
    let names = |n: usize| (0..n).map(|i| format!("agent_{i}")).collect::<Vec<_>>();
    put("chain-5", "a chain of five actors: four are allowed", &names(5));
    put("chain-60", "a chain of sixty actors", &names(60));
    let circle = ["a", "b", "a"].map(str::to_owned);
    put("chain-circle", "a chain of actors that runs in a circle", &circle);
    put("chain-self", "an actor who acts for himself", &["a", "a"].map(str::to_owned));
}
