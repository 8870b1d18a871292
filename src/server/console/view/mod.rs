//! How pages look: values in, HTML out; whatever people wrote is shown as text.

pub mod approvals;
pub mod audit;
pub mod chart;
pub mod entry;
pub mod security;
pub mod sign_in;
pub mod support;

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, html};

use super::Viewer;

/// The most characters of a text that a table shows; the rest is in the entry's own page.
const CUT: usize = 120;

/// A page around `body`.
#[must_use]
pub fn page(title: &str, viewer: Option<&Viewer>, form_word: &str, dev: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="same-origin";
                title { (title) " · Stagedoor" }
                link rel="stylesheet" href="/console/assets/console.css";
                link rel="icon" href="/console/assets/icon.svg";
                script src="/console/assets/console.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the page" }
                header {
                    a.brand href="/console" { "Stagedoor" }
                    @if dev { strong.demo { "Demo: anybody can sign in as anybody" } }
                    @if let Some(viewer) = viewer {
                        nav aria-label="Console" {
                            @for (there, path, name) in [
                                (viewer.may.support, "/console/support", "Support"),
                                (true, "/console/approvals", "Approvals"),
                                (viewer.may.audit, "/console/audit", "Log"),
                                (viewer.may.revoke, "/console/security", "Security"),
                            ] {
                                @if there { a href=(path) aria-current=[title.starts_with(name).then_some("page")] { (name) } }
                            }
                        }
                        form.who method="post" action="/console/sign-out" {
                            (word(form_word))
                            span { (said(viewer.name())) }
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                }
                main #main tabindex="-1" { (body) }
            }
        }
    }
}

/// The hidden field that ties a form to the session.
#[must_use]
pub fn word(form_word: &str) -> Markup {
    html! { input type="hidden" name="word" value=(form_word); }
}

/// A text from outside: isolated from the direction of what surrounds it, its invisible characters named.
#[must_use]
pub fn said(text: &str) -> Markup {
    html! { bdi { (named(text)) } }
}

/// As [`said`], cut to fit a table; the whole text is the element's title.
#[must_use]
pub fn cut(text: &str) -> Markup {
    if text.chars().count() <= CUT {
        return said(text);
    }
    let short: String = text.chars().take(CUT - 1).collect();
    html! { bdi title=(named(text)) { (named(&short)) "…" } }
}

/// Characters that change how their neighbours are read are shown by their code instead.
fn named(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let steers = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if steers && c != '\u{200d}' || (c.is_control() && !matches!(c, '\n' | '\t')) {
            out.push_str(&format!("⟨U+{:04X}⟩", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A moment, in UTC; the script shows it in the reader's own time as well.
#[must_use]
pub fn moment(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) { (at.format("%Y-%m-%d %H:%M:%S").to_string()) " UTC" } }
}

/// The time until `end`, counted down by the script; without it the end is shown.
#[must_use]
pub fn countdown(end: DateTime<Utc>) -> Markup {
    html! {
        time.countdown datetime=(end.to_rfc3339()) data-end=(end.timestamp_millis()) {
            "until " (end.format("%H:%M:%S").to_string()) " UTC"
        }
    }
}

/// How an attempt ended, as a word with a colour.
#[must_use]
pub fn badge(word: &str) -> Markup {
    let class = match word {
        "granted" | "active" | "accepted" | "approved" => "good",
        "denied" | "revoked" | "refused" => "bad",
        _ => "plain",
    };
    html! { span class=(format!("badge {class}")) { (word) } }
}

/// A message at the top of a page; `role` makes screen readers say it.
#[must_use]
pub fn notice(class: &str, text: &str) -> Markup {
    html! { p class=(format!("notice {class}")) role=(if class == "bad" { "alert" } else { "status" }) { (said(text)) } }
}

/// Something that stands in the way, and what to do about it.
#[must_use]
pub fn trouble(title: &str, what_to_do: &str, again: Option<&str>) -> Markup {
    html! {
        h1 { (title) }
        p { (what_to_do) }
        p {
            @if let Some(path) = again { a.button href=(path) { "Try again" } " " }
            a.button.quiet href="/console" { "To the console's front page" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_shown_as_text() {
        let shown = said("<script>alert(1)</script>\u{202e}gnp.exe 😀 👩\u{200d}🔧").into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert!(shown.contains("&lt;script&gt;") && shown.contains("⟨U+202E⟩"), "{shown}");
        assert!(shown.contains("👩\u{200d}🔧"), "joined emoji stay whole");
        let long = cut(&"ä".repeat(200)).into_string();
        assert!(long.contains(&format!("{}…", "ä".repeat(119))), "{long}");
    }
}
