//! `/v1/actor_tokens/{id}/approve`: a second person decides, with his own token from a trusted issuer.

use actix_web::web::{Bytes, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::App;
use super::actor_tokens::{GrantBody, denied, json_answer, not_answered};
use super::caller::{bearer, failed};
use super::edge::arrival;
use super::fields::{Fields, invalid};
use super::problem::{Code, Problem};
use crate::server::actors::{ActorTokenError, Declared};
use crate::server::issue::ApproveAsk;
use crate::server::policy::ActorFacts;
use crate::token::GrantId;

/// The longest reason, characters (contract.md §3).
const MAX_REASON: usize = 1000;

/// POST `/v1/actor_tokens/{id}/approve`: the body may be empty.
pub async fn approve(
    app: App,
    request: HttpRequest,
    id: Path<String>,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let arrival = arrival(&request);
    let approver = match approver(&app, &request).await {
        Ok(approver) => approver,
        Err(problem) => return Err(failed(&app, &arrival, problem)),
    };
    super::edge::json_body(&request, &body)?;
    let mut fields = Fields::parse_or_empty(&body)?;
    let approve = match fields.text("decision", 16)?.as_deref() {
        None | Some("approve") => true,
        Some("refuse") => false,
        Some(_) => return Err(invalid("decision", "must be \"approve\" or \"refuse\"")),
    };
    let reason = fields.prose("reason", MAX_REASON)?;
    fields.finish(&["decision", "reason"])?;
    let grant = GrantId::try_from(id.as_str())
        .map_err(|_| Problem::not_found("No request by this id waits for a colleague."))?;
    let ask = ApproveAsk { grant, approver, approve, reason, request: arrival.id, address: arrival.address };
    let decided = app.desk.approve(ask).await.map_err(not_answered)?.map_err(denied)?;
    json_answer(&GrantBody::from(app.revoker.seen(decided)))
}

/// Who decides: proven by the one credential of the request. Who acts for somebody else is nobody here.
async fn approver(app: &App, request: &HttpRequest) -> Result<ActorFacts, Problem> {
    let token = bearer(request).map_err(|problem| match problem.code {
        Code::AuthorizationHeaderMissing => Problem::new(
            Code::AuthorizationHeaderMissing,
            "Send the approver's own token from a trusted issuer: Authorization: Bearer eyJ…",
        ),
        _ => problem,
    })?;
    let proven = app.desk.actors.verify_actor_token(token, Declared::Jwt, app.clock.now()).await;
    let proven = proven.map_err(|error| match error {
        ActorTokenError::NotAcceptable(reason) => Problem::new(
            Code::ActorTokenInvalid,
            format!("This is no token of a trusted issuer that proves who approves: {reason}."),
        ),
        ActorTokenError::Unreachable { .. } => {
            Problem::new(Code::AuthorityUnavailable, "The approver's issuer cannot be asked at the moment.")
                .retry_after(5)
        }
    })?;
    if proven.acts_for_others {
        return Err(Problem::new(
            Code::ActorTokenInvalid,
            "Whoever acts for somebody else approves nothing: send the approver's own token.",
        ));
    }
    Ok(proven.facts.clone())
}
