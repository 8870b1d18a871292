//! From an entry of the log to the event a receiver is told: a `CloudEvent` in its JSON form.

use serde_json::{Map, Value, json};

use crate::server::config::{WebhookEvent, WebhookPersonal};
use crate::server::log::checkpoint::origin;
use crate::server::log::{CODE_REUSED, EventType, Grant, LogEntry};

/// The most grants that one event names.
pub(super) const MOST_GRANTS: i64 = 1000;

/// What an entry is to a receiver; `None`: nothing.
///
/// A token that comes by a handoff code begins when the code is redeemed, one that a colleague has to approve
/// when it is gone on with: until then there is none. A code that is used twice is refused *and* ends its grant, if that
/// is not over: the end is what somebody has to know.
pub(super) fn kind(entry: &LogEntry) -> Option<WebhookEvent> {
    let text = |name| entry.body.as_ref()?.get(name)?.as_str();
    let signed = entry.body.as_ref()?.get("signed_sha256").is_some();
    match (text("typ")?, text("decision")) {
        ("issue" | "redeem", Some("granted")) if signed => Some(WebhookEvent::GrantStarted),
        ("redeem", Some("denied")) if text("rule") == Some(CODE_REUSED) => Some(WebhookEvent::GrantEnded),
        ("issue", Some("pending")) => Some(WebhookEvent::GrantRequested),
        ("issue" | "redeem" | "approve", Some("denied")) => Some(WebhookEvent::GrantDenied),
        ("revoke", Some("granted")) => Some(WebhookEvent::GrantEnded),
        ("anomaly", _) => Some(WebhookEvent::AnomalyRaised),
        _ => None,
    }
}

/// What the log as a whole is called in events.
pub(super) struct Source {
    /// `iss` of the tokens.
    pub issuer: String,
    /// The log's name without its epoch.
    pub host: String,
}

/// What an event tells that its entry does not hold.
#[derive(Default)]
pub(super) struct Beside {
    /// The grants that a revocation ended and that still lived.
    pub ended: Option<Vec<String>>,
    /// The grant that a colleague was asked about: who asked stands in the entry of his request.
    pub asked: Option<Grant>,
}

/// Whether the entry is a colleague's word, or somebody's who may not be one.
pub(super) fn is_approval(entry: &LogEntry) -> bool {
    entry.body.as_ref().is_some_and(|body| body["typ"] == EventType::Approve.as_str())
}

/// The event.
pub(super) fn render(
    entry: &LogEntry,
    kind: WebhookEvent,
    source: &Source,
    personal: WebhookPersonal,
    beside: Beside,
) -> Value {
    let mut data = Map::new();
    let body = entry.body.as_ref().and_then(Value::as_object);
    let member = |name: &str| body.and_then(|body| body.get(name)).cloned();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            data.insert(name.to_owned(), value);
        }
    };
    put("index", Some(entry.index.into()));
    for (name, from) in [
        ("grant", "grant"),
        ("client_id", "client"),
        ("request_id", "req"),
        ("decision", "decision"),
        ("rule", "rule"),
        ("policy", "policy"),
        ("audience", "aud"),
        ("scope", "scope"),
        ("kid", "kid"),
    ] {
        put(name, member(from));
    }
    let (approval, asked) = (is_approval(entry), beside.asked.as_ref());
    let assurance = asked.map(|grant| grant.row.assurance.as_str().into());
    put("actor_assurance", if approval { assurance } else { member("assurance") });
    let number = |name: &str| member(name).and_then(|value| value.as_i64());
    if kind == WebhookEvent::GrantStarted {
        put("issued_at", number("iat").map(|iat| (iat * 1000).into()));
        put("expires_at", number("iat").zip(number("ttl")).map(|(iat, ttl)| ((iat + ttl) * 1000).into()));
        let break_glass = member("detail").is_some_and(|detail| detail["break_glass"] == true);
        put("break_glass", Some(break_glass.into()));
    } else {
        let detail = member("detail").unwrap_or_default();
        for (name, from) in [
            ("by", "by"),
            ("revocation", "id"),
            ("client", "client"),
            ("hold_seconds", "hold_seconds"),
            ("break_glass", "break_glass"),
            ("targets", "targets"),
            ("window_seconds", "window_seconds"),
        ] {
            put(name, detail.get(from).cloned());
        }
    }
    if kind == WebhookEvent::GrantEnded {
        put("grants", beside.ended.map(Value::from));
    }
    let told = |name: &str| entry.personal.as_ref().and_then(|told| told.get(name)).cloned();
    if personal >= WebhookPersonal::Ids {
        put("user_id", told("sub"));
        if approval {
            // whoever decides does not act: the event is about the one who asked
            put("actor", asked.and_then(|grant| grant.actor.as_ref()).map(|act| json!(act)));
            put("approver", told("act"));
        } else {
            put("actor", told("act"));
        }
    }
    if personal == WebhookPersonal::All {
        put("reason", told("reason"));
        put("ticket", told("ticket"));
        put("address", told("addr"));
    }
    let mut event = json!({
        "specversion": "1.0",
        "id": format!("{}#{}", origin(&source.host, entry.epoch), entry.index),
        "source": source.issuer,
        "type": kind.name(),
        "time": entry.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        "datacontenttype": "application/json",
    });
    if let Some(grant) = member("grant") {
        event["subject"] = grant;
    }
    event["data"] = Value::Object(data);
    event
}
