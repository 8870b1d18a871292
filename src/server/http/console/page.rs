//! Answers of the console: pages with their headers, and what stands in the way as a page that says what to do.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use maud::Markup;

use crate::server::console::view;
use crate::server::log::LogError;

/// Why a page is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody is signed in; where to go on afterwards.
    SignIn {
        /// A path of the console.
        back: String,
    },
    /// The policy does not let this person see the page.
    MayNot(&'static str),
    /// There is no such thing.
    NotThere(&'static str),
    /// The address has parameters that cannot be read.
    Address,
    /// The form cannot be used.
    Form(&'static str),
    /// The form was sent by another site, or by an older session.
    Foreign,
    /// The log, the directory or the identity provider cannot be asked.
    Unavailable(&'static str),
    /// The console is not configured.
    Off,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.title())
    }
}

impl Trouble {
    const fn title(&self) -> &'static str {
        match self {
            Self::SignIn { .. } => "Sign in first",
            Self::MayNot(_) => "This page is not for you",
            Self::NotThere(_) => "Not found",
            Self::Address => "This address cannot be read",
            Self::Form(_) => "This form cannot be used",
            Self::Foreign => "This form is out of date",
            Self::Unavailable(_) => "Not possible at the moment",
            Self::Off => "The console is off",
        }
    }

    fn what_to_do(&self) -> &str {
        match self {
            Self::SignIn { .. } => "Your session is over. Sign in to go on.",
            Self::MayNot(what) | Self::NotThere(what) | Self::Form(what) | Self::Unavailable(what) => what,
            Self::Address => "Something in it is malformed, or there twice. Open the page again.",
            Self::Foreign => {
                "It belongs to another session, or came from another site. Nothing was done. Open the page again and repeat it."
            }
            Self::Off => {
                "Set [console] in stagedoor.toml: issuer, client_id, client_secret_file (docs/console.md)."
            }
        }
    }
}

/// The log could not record or read; nothing is shown or done without it.
pub fn log_away(error: LogError) -> Trouble {
    tracing::error!(error = %crate::server::http::problem::chain(&error), "a page needed the log");
    Trouble::Unavailable(
        "The issuance log cannot be used at the moment, so nothing was shown or done. Try again shortly.",
    )
}

impl ResponseError for Trouble {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::SignIn { .. } => StatusCode::SEE_OTHER,
            Self::MayNot(_) | Self::Foreign => StatusCode::FORBIDDEN,
            Self::NotThere(_) | Self::Off => StatusCode::NOT_FOUND,
            Self::Address => StatusCode::BAD_REQUEST,
            Self::Form(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::SignIn { back } = self {
            return go_to(&format!(
                "/console/sign-in?back={}",
                crate::server::outbound::percent_encode(back)
            ));
        }
        let body = view::trouble(self.title(), self.what_to_do(), None);
        let page = view::page(self.title(), None, "", false, &body);
        let mut response = answer(self.status_code(), &page, &[]);
        if let Self::Unavailable(_) = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// A page with the headers every page has. Its forms may be sent to `form_targets` beside the console itself.
pub fn answer(status: StatusCode, page: &Markup, form_targets: &[String]) -> HttpResponse {
    let forms = form_targets.iter().fold("'self'".to_owned(), |list, one| format!("{list} {one}"));
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, csp(&forms)))
        // Not `no-referrer`: a browser then sends `Origin: null` with our own forms, and they could not be told apart.
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("cross-origin-resource-policy", "same-origin"))
        .insert_header(("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"))
        .body(page.0.clone())
}

fn csp(forms: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// 303: the next page is asked for with GET, and going back sends nothing twice.
pub fn go_to(place: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, place)).finish()
}

/// What the console answers to a path that is not there.
pub async fn no_such_page() -> Result<HttpResponse, Trouble> {
    Err(Trouble::NotThere("There is no such page in the console."))
}
