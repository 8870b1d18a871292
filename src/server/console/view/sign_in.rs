//! Signing in: the door to the provider, and the demo's own page.

use maud::{Markup, html};

use super::{notice, said};
use crate::server::policy::Person;

/// The page of who is not signed in.
#[must_use]
pub fn at_the_provider(issuer: &str, back: &str, message: Option<&str>) -> Markup {
    html! {
        h1 { "Sign in" }
        @if let Some(message) = message { (notice("bad", message)) }
        p { "The console uses the sign-in of your company: " (said(issuer)) }
        p { a.button.primary href=(format!("/console/sign-in/start?back={}", encoded(back))) { "Sign in" } }
    }
}

/// The demo's page: anybody in the directory, without a password.
#[must_use]
pub fn local(people: &[Person], back: &str, message: Option<&str>) -> Markup {
    html! {
        h1 { "Sign in to the demo" }
        p.notice.warn {
            strong { "This page is part of " code { "stagedoor dev" } ". " }
            "There is no password: pick who you want to be. " code { "stagedoor serve" }
            " does not have this page; there people sign in at the company's identity provider."
        }
        @if let Some(message) = message { (notice("bad", message)) }
        form.cards method="post" action="/console/sign-in" {
            input type="hidden" name="back" value=(back);
            @for person in people {
                @if let Some(id) = &person.id {
                    button.card type="submit" name="sub" value=(id.as_str()) {
                        strong { (said(person.display_name.as_deref().unwrap_or(id.as_str()))) }
                        span { (said(id.as_str())) " · " (said(&person.roles.join(", "))) }
                    }
                }
            }
        }
        form.row method="post" action="/console/sign-in" {
            input type="hidden" name="back" value=(back);
            label for="sub" { "Or anybody else, by id" }
            input #sub name="sub" required maxlength="255" autocomplete="off" spellcheck="false";
            button type="submit" { "Sign in" }
        }
    }
}

fn encoded(text: &str) -> String {
    crate::server::outbound::percent_encode(text)
}
