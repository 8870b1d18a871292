//! The agent's pages: find a user, see whether one may act, start, stop.

use chrono::{DateTime, Utc};
use maud::{Markup, PreEscaped, html};

use super::{badge, countdown, cut, notice, said, word};
use crate::server::clients::Client;
use crate::server::console::draft::Delivery;
use crate::server::log::{ApprovalState, Grant, GrantStatus};
use crate::server::policy::{Limits, Person};

/// The longest reason of the form, characters: four bytes each still fit the draft's cookie.
pub const MAX_REASON: usize = 500;
/// The longest ticket of the form, characters.
pub const MAX_TICKET: usize = 100;
/// The lifetimes that can be chosen, minutes.
pub const MINUTES: [u32; 4] = [5, 10, 15, 30];

/// A product to open an impersonation in.
pub struct Product<'a> {
    /// The client behind it.
    pub client: &'a Client,
    /// Whether it is chosen.
    pub chosen: bool,
}

/// What the policy says before anything is asked for.
pub enum Answer {
    /// The agent may, within these limits.
    May(Limits),
    /// He may not, and why.
    MayNot {
        /// The rule that refuses.
        rule: String,
        /// In words.
        message: String,
    },
}

/// What is filled in.
#[derive(Debug, Default, Clone)]
pub struct Filled {
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: String,
    /// Minutes.
    pub minutes: u32,
    /// To do what.
    pub wish: Wish,
}

/// What somebody wants to do as the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// Look only.
    #[default]
    Look,
    /// Look and change, as far as the policy lets him.
    Change,
    /// Whatever the policy grants who asks for nothing in particular.
    Given,
}

impl Wish {
    /// From a form's field.
    #[must_use]
    pub fn read(word: &str) -> Self {
        match word {
            "change" => Self::Change,
            "given" => Self::Given,
            _ => Self::Look,
        }
    }

    /// The scopes it asks for; `None`: none in particular.
    #[must_use]
    pub const fn scope(self) -> Option<&'static str> {
        match self {
            Self::Look => Some("read"),
            Self::Change => Some("read write"),
            Self::Given => None,
        }
    }

    /// What was wished where this was asked for.
    #[must_use]
    pub fn of(scope: Option<&crate::token::Scope>) -> Self {
        match scope {
            None => Self::Given,
            Some(scope) if scope.contains("write") => Self::Change,
            Some(_) => Self::Look,
        }
    }
}

/// The support page: search and what runs.
#[must_use]
pub fn front(
    query: &str,
    found: Option<&[Person]>,
    (running, waiting): (&[Grant], &[Grant]),
    form_word: &str,
    message: Option<(&str, &str)>,
) -> Markup {
    html! {
        h1 { "Support" }
        @if let Some((class, text)) = message { (notice(class, text)) }
        (running_list(running, form_word))
        (waiting_list(waiting))
        section aria-labelledby="find" {
            h2 #find { "Find a user" }
            form.row role="search" method="get" action="/console/support" {
                label for="q" { "Name or id" }
                input #q type="search" name="q" value=(query) maxlength="100" autocomplete="off" spellcheck="false" autofocus[found.is_none()];
                button.primary type="submit" { "Search" }
            }
            @if let Some(found) = found {
                @if found.is_empty() {
                    p role="status" { "Nobody in the directory has a name or id with " strong { (said(query)) } ". Look for a part of the name, or type the exact id." }
                } @else {
                    p.sr role="status" { (found.len()) " found" }
                    ul.people {
                        @for person in found { (person_line(person)) }
                    }
                }
            }
        }
    }
}

fn person_line(person: &Person) -> Markup {
    let id = person.id.as_ref().map_or("", |id| id.as_str());
    html! {
        li {
            a href=(format!("/console/support/user?id={}", crate::server::outbound::percent_encode(id))) {
                strong { (cut(person.display_name.as_deref().unwrap_or(id))) }
                span { (said(id)) }
                @if let Some(org) = &person.org { span { (said(org)) } }
                @if !person.active { (badge("deactivated")) }
                @if person.roles.iter().any(|r| r == "protected") { (badge("protected")) }
            }
        }
    }
}

fn running_list(running: &[Grant], form_word: &str) -> Markup {
    html! {
        @if !running.is_empty() {
            section.running aria-labelledby="running" {
                h2 #running { "You are acting as" }
                ul.people {
                    @for grant in running {
                        li {
                            div {
                                strong { (cut(grant.subject.as_ref().map_or("(erased)", |s| s.as_str()))) }
                                span { (grant.row.scope.to_string()) }
                                (countdown(grant.row.exp))
                                form method="post" action="/console/support/stop" {
                                    (word(form_word))
                                    input type="hidden" name="grant" value=(grant.row.id.as_str());
                                    button type="submit" { "Stop" span.sr { " acting as " (grant.subject.as_ref().map_or("", |s| s.as_str())) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn waiting_list(waiting: &[Grant]) -> Markup {
    html! {
        @if !waiting.is_empty() {
            section aria-labelledby="waiting" {
                h2 #waiting { "You asked a colleague" }
                ul.people {
                    @for grant in waiting {
                        li {
                            a href=(format!("/console/support/request?id={}", grant.row.id)) {
                                strong { (cut(grant.subject.as_ref().map_or("(erased)", |s| s.as_str()))) }
                                (badge(state(grant)))
                                (countdown(grant.row.exp))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn state(grant: &Grant) -> &'static str {
    grant.approval.as_ref().map_or("", |approval| approval.state.as_str())
}

/// One's own request: waiting, approved, refused, over.
#[must_use]
pub fn request(grant: &Grant, now: DateTime<Utc>, form_word: &str) -> Markup {
    let user = grant.subject.as_ref().map_or("(erased)", |s| s.as_str());
    let over = grant.status == GrantStatus::Revoked || grant.row.exp <= now;
    let state = grant.approval.as_ref().map(|approval| approval.state);
    html! {
        p { a href="/console/support" { "← Support" } }
        @match state {
            Some(ApprovalState::Refused) => {
                h1 { "A colleague refused" }
                p { "Nothing was started. Ask whoever refused, or ask anew with a better reason." }
            }
            Some(ApprovalState::Released) => {
                h1 { "This request was used" }
                p { "It became an impersonation already. Start again to ask anew." }
            }
            _ if over => {
                h1 { "This request is over" }
                p { "It lapsed after 30 minutes, or was revoked. Start again to ask anew." }
            }
            Some(ApprovalState::Approved) => {
                h1 { "A colleague approved" }
                form method="post" action="/console/support/go-on" data-send-at-once="" {
                    (word(form_word))
                    input type="hidden" name="grant" value=(grant.row.id.as_str());
                    button.primary type="submit" { "Act as " (cut(user)) }
                }
            }
            _ => {
                h1 { "Waiting for a colleague" }
                p role="status" data-waits="" {
                    "Somebody who may approve it finds it under Approvals. Leave this page open: it goes on by itself."
                }
                p { "It lapses in " (countdown(grant.row.exp)) }
            }
        }
        dl.facts {
            dt { "User" } dd { (said(user)) }
            dt { "Reason" } dd { (said(grant.reason.as_deref().unwrap_or("(erased)"))) }
            @if let Some(ticket) = &grant.ticket { dt { "Ticket" } dd { (said(ticket)) } }
            dt { "To do what" } dd { code { (grant.row.scope.to_string()) } }
            @if let Some(approval) = &grant.approval {
                dt { "For how long" } dd { (approval.lifetime_seconds / 60) " minutes from the start" }
            }
        }
    }
}

/// One user: may I, and the form to start.
#[must_use]
pub fn user(
    id: &str,
    person: Option<&Person>,
    products: &[Product<'_>],
    answer: &Answer,
    filled: &Filled,
    form_word: &str,
    message: Option<&str>,
) -> Markup {
    let name = person.and_then(|p| p.display_name.as_deref()).unwrap_or(id);
    html! {
        p { a href="/console/support" { "← Support" } }
        h1 { (cut(name)) }
        @if let Some(message) = message { (notice("bad", message)) }
        dl.facts {
            dt { "Id" } dd { (said(id)) }
            @if let Some(person) = person {
                @if let Some(org) = &person.org { dt { "Organisation" } dd { (said(org)) } }
                @if !person.roles.is_empty() { dt { "Roles" } dd { (said(&person.roles.join(", "))) } }
                dt { "Account" } dd { (if person.active { "active" } else { "deactivated" }) }
            } @else { dt { "Directory" } dd { "does not know this id" } }
        }
        @match answer {
            Answer::MayNot { rule, message } => {
                section.verdict.no aria-labelledby="may" {
                    h2 #may { "You may not act as this user" }
                    p { (said(message)) }
                    p.small { "Rule " code { (rule) } }
                }
            }
            Answer::May(limits) => {
                section.verdict.yes aria-labelledby="may" {
                    h2 #may { "You may act as this user" }
                    p {
                        "For at most " (limits.lifetime_seconds / 60) " minutes, with " code { (limits.scope.to_string()) } "."
                        @if limits.require_approval { " A colleague has to approve first." }
                    }
                    (start_form(id, products, limits, filled, form_word))
                }
            }
        }
    }
}

fn start_form(
    id: &str,
    products: &[Product<'_>],
    limits: &Limits,
    filled: &Filled,
    form_word: &str,
) -> Markup {
    let longest = limits.lifetime_seconds / 60;
    html! {
        @if products.is_empty() {
            p.notice.warn { "No product says where an impersonation opens. An operator can: " code { "stagedoor client update --handoff-url" } }
        } @else {
            form method="post" action="/console/support/start" {
                (word(form_word))
                input type="hidden" name="user" value=(id);
                @if let [only] = products {
                    input type="hidden" name="product" value=(only.client.id.as_str());
                } @else {
                    label for="product" { "Product" }
                    select #product name="product" {
                        @for product in products {
                            option value=(product.client.id.as_str()) selected[product.chosen] { (product.client.name) }
                        }
                    }
                }
                label for="reason" { "Reason" }
                textarea #reason name="reason" required maxlength=(MAX_REASON) rows="2" aria-describedby="reason-note" { (filled.reason) }
                p.small #reason-note { "It goes into the log, where auditors read it." }
                label for="ticket" { "Ticket" }
                input #ticket name="ticket" maxlength=(MAX_TICKET) autocomplete="off" value=(filled.ticket);
                fieldset {
                    legend { "For how long" }
                    @for minutes in MINUTES.iter().filter(|m| **m <= longest.max(MINUTES[0])) {
                        label.choice { input type="radio" name="minutes" value=(minutes) checked[*minutes == filled.minutes]; (minutes) " minutes" }
                    }
                }
                fieldset {
                    legend { "To do what" }
                    label.choice { input type="radio" name="scope" value="look" checked[filled.wish == Wish::Look]; "Look only" }
                    label.choice { input type="radio" name="scope" value="change" checked[filled.wish == Wish::Change]; "Look and change, as far as the policy lets me" }
                    @if limits.scope.to_string() != "read" {
                        label.choice { input type="radio" name="scope" value="given" checked[filled.wish == Wish::Given]; "What the policy gives: " code { (limits.scope.to_string()) } }
                    }
                }
                button.primary type="submit" { "Act as " (cut(id)) }
            }
        }
    }
}

/// The page that carries the code to the product; its script sends the form at once.
#[must_use]
pub fn handoff(product: &str, user: &str, code: &str, draft: &str, delivery: &Delivery) -> Markup {
    html! {
        h1 { "On the way to " (said(product)) }
        p { "You will act as " strong { (cut(user)) } ". The product opens with a banner; Stop ends it." }
        @match delivery {
            Delivery::Post(address) => form method="post" action=(address) data-send-at-once="" {
                input type="hidden" name="code" value=(code);
                input type="hidden" name="draft" value=(draft);
                button.primary type="submit" { "Go on" }
            },
            Delivery::Go(address) => a.button.primary href=(address) data-go-at-once="" { "Go on" },
        }
    }
}

/// When an impersonation ended by itself or was stopped.
#[must_use]
pub fn stopped(at: DateTime<Utc>) -> String {
    format!("Stopped at {} UTC. The token is dead everywhere within a second.", at.format("%H:%M:%S"))
}

/// An icon without a file of its own.
pub const ICON: PreEscaped<&str> = PreEscaped(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#7a1f00"/><path d="M5 13V4l6-1.5v12z" fill="#ffd9c4"/><circle cx="9.6" cy="8.6" r=".9" fill="#7a1f00"/></svg>"##,
);
