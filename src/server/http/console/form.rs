//! Forms and cookies as browsers send them: small, each field once, from our own pages only.

use std::collections::BTreeMap;

use actix_web::HttpRequest;
use actix_web::http::header;

use super::page::Trouble;
use super::visit::Visit;
use crate::server::console::Console;

/// The most cookies looked at.
const MAX_COOKIE_BYTES: usize = 16 * 1024;

/// A form's fields.
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a form that one of our own pages sent; its word must be that of the visitor's session.
    pub fn of(visit: &Visit, console: &Console, request: &HttpRequest, body: &[u8]) -> Result<Self, Trouble> {
        let form = Self::without_session(console, request, body)?;
        if console.seals.is_form_word(&visit.viewer.session.id, form.text("word")) {
            Ok(form)
        } else {
            Err(Trouble::Foreign)
        }
    }

    /// Reads a form that one of our own pages sent, where nobody is signed in yet.
    pub fn without_session(console: &Console, request: &HttpRequest, body: &[u8]) -> Result<Self, Trouble> {
        if !is_own(console, request) {
            return Err(Trouble::Foreign);
        }
        let text =
            std::str::from_utf8(body).map_err(|_| Trouble::Form("It is not text. Open the page again."))?;
        let mut fields = BTreeMap::new();
        for (name, value) in pairs(text)? {
            if fields.insert(name, value).is_some() {
                return Err(Trouble::Form("A field is there twice. Open the page again."));
            }
        }
        Ok(Self(fields))
    }

    /// A field's text, trimmed; empty when it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |text| text.trim())
    }
}

/// Names and values of a form or query.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, Trouble> {
    actix_web::web::Query::<Vec<(String, String)>>::from_query(text)
        .map(actix_web::web::Query::into_inner)
        .map_err(|_| Trouble::Form("It cannot be decoded. Open the page again."))
}

/// Whether a request that changes something comes from the console's own pages: `Origin` must be ours, and where
/// a browser sends none, `Sec-Fetch-Site` must say same-origin.
fn is_own(console: &Console, request: &HttpRequest) -> bool {
    let text = |name: header::HeaderName| {
        let mut values = request.headers().get_all(name);
        match (values.next(), values.next()) {
            (Some(one), None) => one.to_str().ok(),
            _ => None,
        }
    };
    match text(header::ORIGIN) {
        Some(origin) => {
            let here = text(header::HOST).unwrap_or_default();
            let same_host = origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(here));
            origin.eq_ignore_ascii_case(&console.origin) || (!here.is_empty() && same_host)
        }
        None => request.headers().get("sec-fetch-site").is_some_and(|site| site == "same-origin"),
    }
}

/// The only cookie of this name; two of them mean that somebody planted one, and neither counts.
pub fn cookie<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let headers = request.headers().get_all(header::COOKIE).filter_map(|h| h.to_str().ok());
    let mut found = headers
        .filter(|header| header.len() <= MAX_COOKIE_BYTES)
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value);
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

/// A cookie of this host alone. Lax, not Strict: people come back from their provider and from products by a
/// redirect of another site, and every form has a word of its own anyway.
pub fn set_cookie(name: &str, value: &str, seconds: i64) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::test::TestRequest;

    use super::*;
    use crate::server::console::SignIn;
    use crate::server::console::draft::UsedDrafts;
    use crate::server::console::seal::Seals;
    use crate::server::master_key::MasterKey;
    use crate::token::SystemEntropy;

    fn console() -> Console {
        Console {
            sign_in: SignIn::Local { iss: "https://stagedoor.example/console/demo".parse().unwrap() },
            seals: Seals::new(MasterKey::from_bytes([1; 32]), Arc::new(SystemEntropy)),
            used_drafts: UsedDrafts::default(),
            ended: crate::server::console::session::EndedSessions::default(),
            origin: "https://stagedoor.example".into(),
        }
    }

    #[test]
    fn only_the_consoles_own_pages_may_send_forms() {
        let own = |headers: &[(&'static str, &'static str)]| {
            let request =
                headers.iter().fold(TestRequest::post(), |r, h| r.append_header(*h)).to_http_request();
            Form::without_session(&console(), &request, b"a=1").is_ok()
        };
        assert!(own(&[("origin", "https://stagedoor.example"), ("host", "10.0.0.1:8080")]), "behind a proxy");
        assert!(
            own(&[("origin", "http://localhost:8080"), ("host", "localhost:8080")]),
            "the demo by another name"
        );
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        for foreign in [
            &[("origin", "https://evil.example"), ("host", "stagedoor.example")][..],
            &[("origin", "null"), ("sec-fetch-site", "same-origin"), ("host", "stagedoor.example")],
            &[
                ("origin", "https://stagedoor.example"),
                ("origin", "https://evil.example"),
                ("host", "stagedoor.example"),
            ],
            &[("sec-fetch-site", "same-site")],
            &[("host", "stagedoor.example")],
            &[("origin", "https://"), ("host", "")],
        ] {
            assert!(!own(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn a_field_or_a_cookie_that_is_there_twice_counts_for_nothing() {
        let request = TestRequest::post().append_header(("sec-fetch-site", "same-origin")).to_http_request();
        assert!(Form::without_session(&console(), &request, b"a=1&a=2").is_err());
        let cookies =
            |text: &'static str| TestRequest::get().append_header(("cookie", text)).to_http_request();
        assert_eq!(cookie(&cookies("x=1; a=2"), "a"), Some("2"));
        assert_eq!(cookie(&cookies("a=1; a=2"), "a"), None);
    }
}
