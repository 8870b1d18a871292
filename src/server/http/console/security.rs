//! `/console/security`: live grants of all, revocations, the red button, keys and policy.

use actix_web::web::{Bytes, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::ending::{Whose, end};
use super::form::Form;
use super::page::{Trouble, go_to, log_away};
use super::visit::{Visit, console, visit};
use crate::server::console::view;
use crate::server::console::view::security::{STOP_WORDS, Shown};
use crate::server::http::App;
use crate::server::log::{EntryFilter, GrantFilter, GrantStatus};

/// Live grants shown.
const LIVE: u32 = 100;
/// The longest reason, characters.
const MAX_REASON: usize = 500;

/// What was done a moment ago, so that the page says it once more after its reload.
#[derive(Deserialize)]
pub struct Done {
    matched: Option<u64>,
    entry: Option<u64>,
}

async fn officer(app: &App, request: &HttpRequest) -> Result<Visit, Trouble> {
    let visit = visit(app, request).await?;
    visit.require(|may| may.revoke)?;
    Ok(visit)
}

/// GET `/console/security`.
pub async fn page(app: App, request: HttpRequest, done: Query<Done>) -> Result<HttpResponse, Trouble> {
    let visit = officer(&app, &request).await?;
    let message = done.entry.map(|entry| {
        let matched = done.matched.unwrap_or(0);
        format!("Done: {matched} live grants ended. It is entry {entry} of the log.")
    });
    shown(&app, &visit, message.as_deref().map(|text| ("good", text))).await
}

async fn shown(app: &App, visit: &Visit, message: Option<(&str, &str)>) -> Result<HttpResponse, Trouble> {
    let console = console(app)?;
    let filter = GrantFilter { status: Some(GrantStatus::Active), ..GrantFilter::default() };
    let live = app.log.grants(&filter, None, LIVE, visit.now).await.map_err(log_away)?;
    let changes = EntryFilter { typ: Some("policy".into()), ..EntryFilter::default() };
    let changed = app.log.entries(&changes, None, 1, false).await.map_err(log_away)?;
    visit.record_view(app, "live grants", live.rows.len(), None).await?;
    let policy = app.desk.policy.current();
    let shown = Shown {
        live: &live.rows,
        more: live.next.is_some(),
        keys: &app.keyring.infos(),
        policy: policy.version(),
        rules: policy.rule_count(),
        changed: changed.rows.first(),
        now: visit.now,
    };
    let body = view::security::page(&shown, &visit.word(console), message);
    Ok(visit.show(console, "Security", &body, &[]))
}

/// POST `/console/security/revoke`.
pub async fn revoke(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = officer(&app, &request).await?;
    let form = Form::of(&visit, console(&app)?, &request, &body)?;
    match Whose::read(form.text("kind"), form.text("value")) {
        Some(whose) => ended(&app, &visit, whose, form.text("reason")).await,
        None => shown(&app, &visit, Some(("bad", "This is no id of that kind. Nothing was revoked."))).await,
    }
}

/// POST `/console/security/stop`: the red button.
pub async fn stop_everything(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = officer(&app, &request).await?;
    let form = Form::of(&visit, console(&app)?, &request, &body)?;
    if !form.text("typed").eq_ignore_ascii_case(STOP_WORDS) {
        let message = format!("Nothing was stopped: type “{STOP_WORDS}” to confirm.");
        return shown(&app, &visit, Some(("bad", &message))).await;
    }
    ended(&app, &visit, Whose::All, form.text("reason")).await
}

async fn ended(app: &App, visit: &Visit, whose: Whose, reason: &str) -> Result<HttpResponse, Trouble> {
    if reason.is_empty() || reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
        return shown(
            app,
            visit,
            Some(("bad", "Give a reason of at most 500 characters. Nothing was revoked.")),
        )
        .await;
    }
    match end(app, visit, whose, reason).await? {
        Ok((matched, entry)) => Ok(go_to(&format!("/console/security?matched={matched}&entry={entry}"))),
        Err(message) => shown(app, visit, Some(("bad", message))).await,
    }
}
