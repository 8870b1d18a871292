//! What colleagues ask to be approved: who, whom, why, for how long.

use maud::{Markup, html};

use super::{badge, countdown, notice, said, word};
use crate::server::log::Grant;
use crate::server::policy::Person;

/// A request with what the directory and the clients say of it.
pub struct Request {
    /// The request.
    pub grant: Grant,
    /// The user whom it is about.
    pub user: Option<Person>,
    /// The product's name.
    pub product: String,
}

/// The page of requests that the visitor may decide on.
#[must_use]
pub fn page(requests: &[Request], form_word: &str, message: Option<(&str, &str)>) -> Markup {
    html! {
        h1 { "Approvals" }
        @if let Some((class, text)) = message { (notice(class, text)) }
        @if requests.is_empty() {
            p { "No request waits for you." }
        } @else {
            p { "These colleagues may not act alone. Approve only what you would answer for: your name stands in the log." }
            @for request in requests { (one(request, form_word)) }
        }
    }
}

fn one(request: &Request, form_word: &str) -> Markup {
    let grant = &request.grant;
    let id = grant.row.id.as_str();
    let user = grant.subject.as_ref().map_or("(erased)", |sub| sub.as_str());
    let asker = grant.actor.as_ref().map_or("(erased)", |act| act.sub.as_str());
    html! {
        section.verdict aria-labelledby=(id) {
            h2 id=(id) { (said(asker)) " asks to act as " (said(user)) }
            dl.facts {
                @if let Some(name) = request.user.as_ref().and_then(|p| p.display_name.as_deref()) {
                    dt { "User" } dd { (said(name)) }
                }
                dt { "Reason" } dd { (said(grant.reason.as_deref().unwrap_or("(erased)"))) }
                @if let Some(ticket) = &grant.ticket { dt { "Ticket" } dd { (said(ticket)) } }
                dt { "In" } dd { (said(&request.product)) }
                dt { "To do what" } dd { code { (grant.row.scope.to_string()) } }
                @if let Some(approval) = &grant.approval {
                    dt { "For how long" } dd { (approval.lifetime_seconds / 60) " minutes" }
                }
                dt { "Asker" } dd { (badge(grant.row.assurance.as_str())) }
                dt { "Lapses" } dd { (countdown(grant.row.exp)) }
            }
            form.actions method="post" action="/console/approvals/decide" {
                (word(form_word))
                input type="hidden" name="grant" value=(id);
                button.primary type="submit" name="decision" value="approve" { "Approve" span.sr { " the request of " (said(asker)) } }
                button type="submit" name="decision" value="refuse" { "Refuse" span.sr { " the request of " (said(asker)) } }
            }
        }
    }
}
