//! `/console/approvals`: requests of colleagues that the visitor may decide on, and his word.

use actix_web::web::{Bytes, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::form::Form;
use super::page::{Trouble, go_to, log_away};
use super::visit::{Visit, console, visit};
use crate::server::console::view;
use crate::server::console::view::approvals::Request;
use crate::server::http::App;
use crate::server::issue::{ApproveAsk, IssueError};
use crate::token::GrantId;

/// Requests looked at for one page.
const MOST: usize = 50;

/// The query of the page.
#[derive(Deserialize)]
pub struct Done {
    done: Option<String>,
}

/// GET `/console/approvals`: for everybody who is signed in; who may decide on nothing sees nothing.
pub async fn page(app: App, request: HttpRequest, done: Query<Done>) -> Result<HttpResponse, Trouble> {
    let visit = visit(&app, &request).await?;
    let message = match done.done.as_deref() {
        Some("approve") => Some(("good", "Approved. Your colleague can go on.")),
        Some("refuse") => Some(("good", "Refused. Nothing is started.")),
        _ => None,
    };
    show(&app, &visit, message).await
}

async fn show(app: &App, visit: &Visit, message: Option<(&str, &str)>) -> Result<HttpResponse, Trouble> {
    let console = console(app)?;
    let approver = visit.viewer.session.facts();
    let found = app.desk.requests_for(&approver, visit.address, MOST).await.map_err(log_away)?;
    let Some(found) = found else {
        return Err(Trouble::Unavailable("The directory cannot be asked at the moment. Try again."));
    };
    let mut requests = Vec::with_capacity(found.len());
    for grant in found {
        let user = match &grant.subject {
            // asked a moment ago, for the policy
            Some(id) => app.desk.directory.look_up(id).await.ok().flatten(),
            None => None,
        };
        let product = app.clients.get(&grant.row.client).map(|client| client.name.clone());
        requests.push(Request { grant, user, product: product.unwrap_or_default() });
    }
    if !requests.is_empty() {
        visit.record_view(app, "approvals", requests.len(), None).await?;
    }
    let body = view::approvals::page(&requests, &visit.word(console), message);
    Ok(visit.show(console, "Approvals", &body, &[]))
}

/// POST `/console/approvals/decide`.
pub async fn decide(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = visit(&app, &request).await?;
    let form = Form::of(&visit, console(&app)?, &request, &body)?;
    let grant =
        GrantId::try_from(form.text("grant")).map_err(|_| Trouble::NotThere("There is no such request."))?;
    let decision @ ("approve" | "refuse") = form.text("decision") else {
        return Err(Trouble::Form("It says neither approve nor refuse. Open the page again."));
    };
    let ask = ApproveAsk {
        grant,
        approver: visit.viewer.session.facts(),
        approve: decision == "approve",
        reason: None,
        request: visit.request.clone(),
        address: visit.address,
    };
    match app.desk.approve(ask).await {
        Ok(Ok(_)) => Ok(go_to(&format!("/console/approvals?done={decision}"))),
        Ok(Err(denial)) => show(&app, &visit, Some(("bad", &denial.message))).await,
        Err(IssueError::Log(error)) => Err(log_away(error)),
        Err(error) => {
            tracing::error!(error = %crate::server::http::problem::chain(&error), "nothing was decided");
            Err(Trouble::Unavailable("Nothing can be decided at the moment. Tell whoever runs Stagedoor."))
        }
    }
}
