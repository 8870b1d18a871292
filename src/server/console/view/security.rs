//! The page of those who can stop everything: live grants, revocations, the red button, keys, policy.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{badge, countdown, cut, moment, notice, said, word};
use crate::server::keyring::KeyInfo;
use crate::server::log::{Grant, LogEntry};

/// What has to be typed to stop everything.
pub const STOP_WORDS: &str = "stop everything";

/// What the page shows.
pub struct Shown<'a> {
    /// Live grants, newest first.
    pub live: &'a [Grant],
    /// Whether there are more.
    pub more: bool,
    /// The keys.
    pub keys: &'a [KeyInfo],
    /// The policy in force, `id@sha256`.
    pub policy: &'a str,
    /// How many rules it has.
    pub rules: usize,
    /// Its last change on record.
    pub changed: Option<&'a LogEntry>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// The page.
#[must_use]
pub fn page(shown: &Shown<'_>, form_word: &str, message: Option<(&str, &str)>) -> Markup {
    html! {
        h1 { "Security" }
        @if let Some((class, text)) = message { (notice(class, text)) }
        (live(shown, form_word))
        (revoke(form_word))
        (red_button(form_word))
        (keys(shown))
        section aria-labelledby="policy" {
            h2 #policy { "Policy" }
            dl.facts {
                dt { "In force" } dd { code.long { (shown.policy) } }
                dt { "Rules" } dd { (shown.rules) }
                dt { "Last change" }
                dd {
                    @match shown.changed {
                        Some(entry) => { (moment(entry.time)) ", " a href=(format!("/console/audit/entry/{}", entry.index)) { "entry " (entry.index) } },
                        None => "none on record since this log began",
                    }
                }
            }
        }
    }
}

fn live(shown: &Shown<'_>, form_word: &str) -> Markup {
    html! {
        section aria-labelledby="live" {
            h2 #live { "Live grants" }
            @if shown.live.is_empty() { p { "Nobody acts as anybody." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Live grants" {
                    table {
                        thead { tr { th scope="col" { "Actor" } th scope="col" { "User" } th scope="col" { "Scope" } th scope="col" { "Status" } th scope="col" { "Ends" } th scope="col" { "End it" } } }
                        tbody { @for grant in shown.live {
                            @let actor = grant.actor.as_ref().map_or("(erased)", |a| a.sub.as_str());
                            tr {
                                th scope="row" { (cut(actor)) }
                                td { (cut(grant.subject.as_ref().map_or("(erased)", |s| s.as_str()))) }
                                td { (grant.row.scope.to_string()) }
                                td { (badge(grant.status.as_str())) }
                                td { (countdown(grant.row.exp)) }
                                td {
                                    form method="post" action="/console/security/revoke" {
                                        (word(form_word))
                                        input type="hidden" name="kind" value="grant";
                                        input type="hidden" name="value" value=(grant.row.id.as_str());
                                        input type="hidden" name="reason" value="ended from the list of live grants";
                                        button type="submit" { "Revoke" span.sr { " " (said(actor)) } }
                                    }
                                }
                            }
                        } }
                    }
                }
                @if shown.more { p.small { "There are more; these are the newest." } }
            }
        }
    }
}

fn revoke(form_word: &str) -> Markup {
    html! {
        section aria-labelledby="revoke" {
            h2 #revoke { "Revoke" }
            form.filters method="post" action="/console/security/revoke" {
                (word(form_word))
                label { "Everything of"
                    select name="kind" {
                        option value="actor" { "an actor" }
                        option value="user_id" { "a user, as target" }
                        option value="client_id" { "a client" }
                        option value="kid" { "a key" }
                        option value="grant" { "one grant" }
                    }
                }
                label { "Id" input name="value" required maxlength="255" autocomplete="off" spellcheck="false"; }
                label { "Reason" input name="reason" required maxlength="500" autocomplete="off"; }
                div.actions { button type="submit" { "Revoke" } }
            }
        }
    }
}

fn red_button(form_word: &str) -> Markup {
    html! {
        section.red aria-labelledby="red" {
            h2 #red { "Stop everything" }
            p { "Every impersonation ends everywhere, now. New ones can be started afterwards." }
            form.filters method="post" action="/console/security/stop" {
                (word(form_word))
                label { "Reason" input name="reason" required maxlength="500" autocomplete="off"; }
                label { "Type “" (STOP_WORDS) "”"
                    input name="typed" required autocomplete="off" spellcheck="false" data-must-be=(STOP_WORDS);
                }
                div.actions { button.danger type="submit" { "Stop everything" } }
            }
        }
    }
}

fn keys(shown: &Shown<'_>) -> Markup {
    html! {
        section aria-labelledby="keys" {
            h2 #keys { "Keys" }
            div.scroll tabindex="0" role="region" aria-label="Keys" {
                table {
                    thead { tr { th scope="col" { "Key" } th scope="col" { "For" } th scope="col" { "Algorithm" } th scope="col" { "State" } th scope="col" { "Age" } } }
                    tbody { @for key in shown.keys {
                        tr {
                            th scope="row" { code.long { (key.kid.as_str()) } }
                            td { (key.purpose.to_string()) }
                            td { (key.alg.name()) }
                            td { (badge(key.state(shown.now).as_str())) }
                            td { (age(shown.now, key.created_at)) }
                        }
                    } }
                }
            }
        }
    }
}

fn age(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    let age = now - since;
    match (age.num_days(), age.num_hours()) {
        (0, 0) => "under an hour".to_owned(),
        (0, hours) => format!("{hours} h"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}
