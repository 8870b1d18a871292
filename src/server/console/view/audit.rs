//! The auditor's list: filters that live in the address, the chart, the entries.

use maud::{Markup, html};

use super::{badge, chart, cut, moment, notice};
use crate::server::console::figures::Figures;
use crate::server::log::LogEntry;

/// The types of entries that can be filtered by, as people look for them.
pub const TYPES: &[&str] = &[
    "issue",
    "redeem",
    "revoke",
    "approve",
    "use",
    "explain",
    "view",
    "policy",
    "config",
    "key",
    "erase",
    "prune",
    "anomaly",
    "epoch",
    "start",
    "stop",
    "heartbeat",
    "suppressed",
];
/// How attempts end.
pub const DECISIONS: &[&str] = &["granted", "denied", "pending"];

/// What the filter form holds, as text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The acting person.
    pub actor: String,
    /// The target.
    pub user_id: String,
    /// The ticket.
    pub ticket: String,
    /// The type of entry.
    pub typ: String,
    /// How it ended.
    pub decision: String,
    /// The rule.
    pub rule: String,
    /// The client.
    pub client: String,
    /// From when on.
    pub since: String,
    /// Until when.
    pub until: String,
}

impl Filled {
    /// The fields with their names in the address.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, &str); 9] {
        [
            ("actor", &self.actor),
            ("user_id", &self.user_id),
            ("ticket", &self.ticket),
            ("typ", &self.typ),
            ("decision", &self.decision),
            ("rule", &self.rule),
            ("client", &self.client),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    /// The address's query, without what is empty.
    #[must_use]
    pub fn query(&self) -> String {
        let encode = crate::server::outbound::percent_encode;
        let set = self.fields().into_iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
    }
}

/// The list.
#[must_use]
pub fn list(
    filled: &Filled,
    figures: Option<&Figures>,
    rows: &[LogEntry],
    next: Option<&str>,
    message: Option<&str>,
) -> Markup {
    let query = filled.query();
    html! {
        h1 { "Log" }
        @if let Some(message) = message { (notice("bad", message)) }
        (filters(filled))
        @if let Some(figures) = figures { (chart::figures(figures)) }
        section aria-labelledby="entries" {
            h2 #entries { "Entries" }
            p.actions {
                button.quiet type="button" data-watch="" { "Check that the log only grew" }
                a.button.quiet href=(format!("/console/audit/export?format=ndjson&{query}")) { "Export NDJSON" }
                a.button.quiet href=(format!("/console/audit/export?format=csv&{query}")) { "Export CSV" }
            }
            p.proof data-proof="" role="status" {}
            @if rows.is_empty() { p { "No entry fits these filters." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Entries" {
                    table {
                        thead { tr {
                            th scope="col" { "#" } th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Result" }
                            th scope="col" { "Actor" } th scope="col" { "User" } th scope="col" { "Rule" } th scope="col" { "Reason" }
                        } }
                        tbody { @for entry in rows { (row(entry)) } }
                    }
                }
            }
            @if let Some(next) = next {
                p { a.button href=(format!("/console/audit?{query}{}cursor={next}", if query.is_empty() { "" } else { "&" })) { "Older entries" } }
            }
        }
        script src="/console/assets/prove.js" defer {}
    }
}

fn row(entry: &LogEntry) -> Markup {
    let body = |name: &str| entry.body.as_ref().and_then(|b| b.get(name)).and_then(|v| v.as_str());
    html! {
        tr {
            th scope="row" { a href=(format!("/console/audit/entry/{}", entry.index)) { (entry.index) } }
            td { (moment(entry.time)) }
            td {
                @match body("grant") {
                    Some(grant) => a href=(format!("/console/audit/grant/{grant}")) title="Everything about this grant" { (body("typ").unwrap_or("?")) },
                    None => (body("typ").unwrap_or("?")),
                }
            }
            td { @if let Some(decision) = body("decision") { (badge(decision)) } }
            td { @if let Some(actor) = personal(entry, "act") { (cut(&actor)) } }
            td { @if let Some(user) = personal(entry, "sub") { (cut(&user)) } }
            td { @if let Some(rule) = body("rule") { code { (rule) } } }
            td { @if let Some(reason) = personal(entry, "reason") { (cut(&reason)) } }
        }
    }
}

/// A disclosed text of an entry; an actor with those he acted on behalf of.
#[must_use]
pub fn personal(entry: &LogEntry, name: &str) -> Option<String> {
    let value = entry.personal.as_ref()?.get(name)?;
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let mut names = Vec::new();
    let mut act = Some(value);
    while let Some(one) = act.filter(|_| names.len() < 8) {
        names.push(one.get("sub").and_then(|sub| sub.as_str())?.to_owned());
        act = one.get("act");
    }
    Some(names.join(" for "))
}

fn filters(filled: &Filled) -> Markup {
    let text = |name: &str, label: &str, value: &str, hint: &str| {
        html! {
            label { (label) input name=(name) value=(value) placeholder=(hint) maxlength="255" autocomplete="off" spellcheck="false"; }
        }
    };
    let choice = |name: &str, label: &str, value: &str, words: &[&str]| {
        html! {
            label { (label)
                select name=(name) {
                    option value="" { "any" }
                    @for word in words { option value=(word) selected[*word == value] { (word) } }
                }
            }
        }
    };
    html! {
        form.filters method="get" action="/console/audit" data-skip-empty="" {
            (text("actor", "Actor", &filled.actor, "agent_1"))
            (text("user_id", "User", &filled.user_id, "user_42"))
            (text("ticket", "Ticket", &filled.ticket, "4711"))
            (choice("typ", "What", &filled.typ, TYPES))
            (choice("decision", "Result", &filled.decision, DECISIONS))
            (text("rule", "Rule", &filled.rule, "support"))
            (text("client", "Client", &filled.client, "client_…"))
            (text("since", "From", &filled.since, "2026-11-22T00:00:00Z"))
            (text("until", "Until", &filled.until, "2026-11-23T00:00:00Z"))
            div.actions {
                button.primary type="submit" { "Filter" }
                a.button.quiet href="/console/audit" { "All entries" }
            }
        }
    }
}
