//! Who visits a page, and whether he may: the session from its cookie, the directory and the policy asked anew.

use std::net::IpAddr;

use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use maud::Markup;
use serde_json::{Map, json};

use super::form::cookie;
use super::page::{Trouble, answer, go_to, log_away};
use crate::server::console::session::{COOKIE, Session};
use crate::server::console::{Console, May, SignIn, Viewer, permissions, view};
use crate::server::http::App;
use crate::server::http::edge::arrival;
use crate::server::log::{Event, EventType, Record};
use crate::server::service::Service;
use crate::token::{RequestId, Sub};

/// A signed-in person's request.
pub struct Visit {
    /// Who.
    pub viewer: Viewer,
    /// The request.
    pub request: RequestId,
    /// From where.
    pub address: Option<IpAddr>,
    /// When.
    pub now: DateTime<Utc>,
}

/// The console of this service.
pub fn console(app: &Service) -> Result<&Console, Trouble> {
    app.console.as_ref().ok_or(Trouble::Off)
}

/// Who visits; nobody: the way to the sign-in.
pub async fn visit(app: &App, request: &HttpRequest) -> Result<Visit, Trouble> {
    let console = console(app)?;
    let (arrival, now) = (arrival(request), app.clock.now());
    let session = cookie(request, COOKIE).and_then(|text| Session::open(text, &console.seals, now));
    let session = session.filter(|session| !console.ended.has(session));
    let Some(session) = session else {
        let back = if request.method() == actix_web::http::Method::GET {
            request.uri().to_string()
        } else {
            "/console".into()
        };
        return Err(Trouble::SignIn { back });
    };
    let person = match &session.directory_id {
        None => None,
        Some(id) => app.desk.directory.look_up(id).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the directory could not be asked");
            Trouble::Unavailable(
                "The directory cannot be asked, so it is not known what you may see. Try again shortly.",
            )
        })?,
    };
    let may = permissions(&app.desk.policy.current(), &session, person.as_ref(), arrival.address, now);
    Ok(Visit { viewer: Viewer { session, person, may }, request: arrival.id, address: arrival.address, now })
}

impl Visit {
    /// Lets on whom `allowed` lets.
    pub fn require(&self, allowed: fn(&May) -> bool) -> Result<(), Trouble> {
        if allowed(&self.viewer.may) {
            Ok(())
        } else {
            Err(Trouble::MayNot(
                "The policy does not give you this page. If that is wrong, ask whoever keeps the policy.",
            ))
        }
    }

    /// The word of this session's forms.
    pub fn word(&self, console: &Console) -> String {
        console.seals.form_word(&self.viewer.session.id)
    }

    /// A page around `body`, for this visitor.
    pub fn show(
        &self,
        console: &Console,
        title: &str,
        body: &Markup,
        form_targets: &[String],
    ) -> HttpResponse {
        let dev = matches!(console.sign_in, SignIn::Local { .. });
        let page = view::page(title, Some(&self.viewer), &self.word(console), dev, body);
        answer(actix_web::http::StatusCode::OK, &page, form_targets)
    }

    /// Seeing personal data is an entry of its own, recorded before anything is shown.
    pub async fn record_view(
        &self,
        app: &App,
        page: &str,
        rows: usize,
        about: Option<Sub>,
    ) -> Result<(), Trouble> {
        let mut detail = Map::new();
        detail.insert("console".into(), json!(page));
        detail.insert("entries".into(), json!(rows));
        let mut event =
            Event { req: Some(self.request.clone()), detail: Some(detail), ..Event::new(EventType::View) };
        event.personal.actor = Some(self.viewer.session.act());
        event.personal.subject = about;
        event.personal.address = self.address;
        app.log.record(Record::of(event)).await.map(drop).map_err(log_away)
    }
}

/// GET `/console`: the first page that the visitor may see.
pub async fn front(app: App, request: HttpRequest) -> Result<HttpResponse, Trouble> {
    let visit = visit(&app, &request).await?;
    let may = visit.viewer.may;
    match may {
        May { support: true, .. } => Ok(go_to("/console/support")),
        May { audit: true, .. } => Ok(go_to("/console/audit")),
        May { revoke: true, .. } => Ok(go_to("/console/security")),
        _ => {
            let console = console(&app)?;
            let body = view::trouble(
                "Nothing here is for you",
                "You are signed in, but the policy gives you none of the console's pages. Ask whoever keeps the policy.",
                None,
            );
            Ok(visit.show(console, "Console", &body, &[]))
        }
    }
}
