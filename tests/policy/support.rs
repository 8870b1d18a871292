//! What the policy tests share: a question that the default policy grants, and ways to bend it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use stagedoor::server::policy::{
    Limits, Policy, PolicyError, Question, Refusal, Source, Verdict, question_from_json,
};

pub fn noon() -> DateTime<Utc> {
    "2026-01-05T12:00:00Z".parse().unwrap()
}

/// Facts of a verified support agent and a user of the same organisation, both in the directory.
pub fn facts() -> Value {
    json!({
        "actor": {
            "sub": "admin_7", "iss": "https://login.example.com",
            "directory": { "roles": ["support"], "org": "acme" }
        },
        "target": { "id": "user_42", "directory": { "roles": ["user"], "org": "acme" } },
        "client": { "id": "client_1", "name": "backoffice" },
        "reason": "Ticket 4711: invoice missing",
        "audience": ["https://api.example.com"]
    })
}

/// [`facts`] with members replaced: `("/actor/directory/org", json!("other"))`; a null takes one away.
pub fn with(changes: &[(&str, Value)]) -> Value {
    let mut facts = facts();
    for (path, value) in changes {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = facts.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(name);
        } else {
            parent.insert(name.to_owned(), value.clone());
        }
    }
    facts
}

pub fn question(facts: Value) -> Question {
    question_from_json(facts, noon()).unwrap()
}

pub fn ask(policy: &Policy, changes: &[(&str, Value)]) -> Verdict {
    policy.decide(&question(with(changes)))
}

pub fn load(text: &str) -> Result<Policy, PolicyError> {
    Policy::load("test", &[Source { file: "test.cedar", text }])
}

pub fn policy(text: &str) -> Policy {
    load(text).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
pub fn granted(verdict: Verdict) -> Limits {
    match verdict {
        Verdict::Granted { limits, .. } => limits,
        denied @ Verdict::Denied { .. } => panic!("expected a grant, got {denied:?}"),
    }
}

#[track_caller]
pub fn denied(verdict: Verdict) -> (String, Refusal) {
    match verdict {
        Verdict::Denied { rule, refusal, message } => {
            assert!(message.ends_with('.'), "a sentence: {message}");
            (rule, refusal)
        }
        granted @ Verdict::Granted { .. } => panic!("expected a denial, got {granted:?}"),
    }
}

#[track_caller]
pub fn denied_by(verdict: Verdict) -> String {
    let (rule, refusal) = denied(verdict);
    assert_eq!(refusal, Refusal::Denied, "{rule}");
    rule
}
