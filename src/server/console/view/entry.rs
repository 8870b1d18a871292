//! One entry with its proof, and the life of one grant.

use maud::{Markup, html};

use super::{audit::personal, badge, moment, said};
use crate::server::log::read::{Stage, Step};
use crate::server::log::{Grant, LogEntry};

/// One entry: what is sealed, what is disclosed, and the button that proves it in the browser.
#[must_use]
pub fn entry(entry: &LogEntry) -> Markup {
    let members = entry.body.as_ref().and_then(|body| body.as_object());
    html! {
        p { a href="/console/audit" { "← Log" } }
        h1 { "Entry " (entry.index) }
        p { (moment(entry.time)) }
        section aria-labelledby="prove" {
            h2 #prove { "Is it in the log, unchanged?" }
            p.small {
                "Your browser hashes what it is shown, follows the path to the root of the tree, checks the signature of the log, and "
                "that the log of your last visit is the beginning of the log of today."
            }
            button.primary type="button" data-prove=(entry.index) { "Prove it" }
            " " a href=(format!("/console/audit/entry/{}/proof", entry.index)) download { "Download proof" }
            p.proof data-proof="" role="status" {}
        }
        section aria-labelledby="personal" {
            h2 #personal { "Disclosed" }
            @let shown = [("act", "Actor"), ("sub", "User"), ("reason", "Reason"), ("ticket", "Ticket"), ("addr", "Address")];
            @let there: Vec<_> = shown.iter().filter_map(|(name, label)| personal(entry, name).map(|text| (label, text))).collect();
            @if there.is_empty() { p { "Nothing about people, or it was erased." } } @else {
                dl.facts { @for (label, text) in there { dt { (label) } dd { (said(&text)) } } }
            }
        }
        section aria-labelledby="sealed" {
            h2 #sealed { "Sealed" }
            @if let Some(members) = members {
                dl.facts {
                    @for (name, value) in members {
                        dt { (name) }
                        dd {
                            @match (name.as_str(), value.as_str()) {
                                ("grant", Some(grant)) => a href=(format!("/console/audit/grant/{grant}")) { (grant) },
                                (_, Some(text)) => (said(text)),
                                (_, None) => code { (value.to_string()) },
                            }
                        }
                    }
                }
            } @else { p { "The body cannot be read as JSON." } }
            p.small { "Leaf " code.long { (entry.leaf_hex()) } }
        }
        script src="/console/assets/prove.js" defer {}
    }
}

/// Everything about one grant, in order: asked, issued, redeemed, used, stopped, expired.
#[must_use]
pub fn grant(grant: &Grant, stages: &[Stage]) -> Markup {
    let who = grant.actor.as_ref().map_or("(erased)", |act| act.sub.as_str());
    let whom = grant.subject.as_ref().map_or("(erased)", |sub| sub.as_str());
    html! {
        p { a href="/console/audit" { "← Log" } }
        h1 { "Grant" }
        p { (said(who)) " acting as " strong { (said(whom)) } " " (badge(grant.status.as_str())) }
        dl.facts {
            dt { "Grant" } dd { code.long { (grant.row.id.as_str()) } }
            dt { "Scope" } dd { (grant.row.scope.to_string()) }
            dt { "For" } dd { @for aud in &grant.row.aud { (said(aud.as_str())) " " } }
            dt { "Client" } dd { (grant.row.client.as_str()) }
            dt { "Actor is" } dd { (grant.row.assurance.as_str()) }
            dt { "Ends" } dd { (moment(grant.row.exp)) }
        }
        ol.timeline {
            @for stage in stages {
                li {
                    (moment(stage.at)) " "
                    @match &stage.entry {
                        Some(entry) => {
                            a href=(format!("/console/audit/entry/{}", entry.index)) { strong { (said_of(stage.step, entry)) } }
                            @if let Some(rule) = entry.body.as_ref().and_then(|b| b.get("rule")).and_then(|r| r.as_str()) { " by rule " code { (rule) } }
                            @if let Some(reason) = personal(entry, "reason") { p { (said(&reason)) } }
                            @if let Some(address) = personal(entry, "addr") { p.small { "from " (said(&address)) } }
                        },
                        None => strong { (words(stage.step)) },
                    }
                }
            }
        }
    }
}

const fn words(step: Step) -> &'static str {
    match step {
        Step::Asked => "Asked",
        Step::Approved => "Approved",
        Step::Refused => "A colleague refused",
        Step::ApproveRefused => "Deciding on it refused",
        Step::Issued => "Issued",
        Step::IssueRefused => "Issuing refused",
        Step::Redeemed => "Redeemed: the product took it",
        Step::RedeemRefused => "Redeeming refused",
        Step::Used => "Used",
        Step::UseRefused => "Used, and refused by the policy",
        Step::Stopped => "Stopped",
        Step::StopRefused => "Stopping refused: it lives on",
        Step::Expired => "Expired",
        Step::Other => "Recorded",
    }
}

fn said_of(step: Step, entry: &LogEntry) -> String {
    let body = |name: &str| entry.body.as_ref().and_then(|b| b.get(name)).and_then(|v| v.as_str());
    match (step, body("decision")) {
        (Step::Asked, Some("pending")) => "Asked, waiting for approval".to_owned(),
        (Step::Other, _) => body("typ").unwrap_or("?").to_owned(),
        (step, _) => words(step).to_owned(),
    }
}
