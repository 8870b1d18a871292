//! From an entry of the log to the event a receiver is told: a `CloudEvent` in its JSON form.

use serde_json::{Map, Value, json};

use crate::server::config::{WebhookEvent, WebhookPersonal};
use crate::server::log::checkpoint::origin;
use crate::server::log::{CODE_REUSED, LogEntry};

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

/// The event. `ended`: the grants that a revocation ended and that still lived.
pub(super) fn render(
    entry: &LogEntry,
    kind: WebhookEvent,
    source: &Source,
    personal: WebhookPersonal,
    ended: Option<Vec<String>>,
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
        ("actor_assurance", "assurance"),
        ("kid", "kid"),
    ] {
        put(name, member(from));
    }
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
        put("grants", ended.map(Value::from));
    }
    let told = |name: &str| entry.personal.as_ref().and_then(|told| told.get(name)).cloned();
    if personal >= WebhookPersonal::Ids {
        put("user_id", told("sub"));
        put("actor", told("act"));
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
