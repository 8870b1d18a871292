//! `/v1/actor_tokens/{id}/revoke` and `/v1/actor_tokens/stop`: one grant ends before its time.

use actix_web::web::{Bytes, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::App;
use super::actor_tokens::{GrantBody, json_answer};
use super::caller::{authenticate, bearer};
use super::edge::arrival;
use super::fields::Fields;
use super::problem::{Code, Problem};
use super::revocations::{by, not_revoked, refused};
use crate::server::revoke::Refused;
use crate::token::GrantId;

/// The longest reason, characters (contract.md §3).
const MAX_REASON: usize = 1000;

/// POST `/v1/actor_tokens/{id}/revoke`: the body may be empty.
pub async fn revoke(
    app: App,
    request: HttpRequest,
    id: Path<String>,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    super::edge::json_body(&request, &body)?;
    let mut fields = Fields::parse_or_empty(&body)?;
    let reason = fields.prose("reason", MAX_REASON)?;
    fields.finish(&["reason"])?;
    // What is no id of ours names no grant, and there is nothing to record about it.
    let id = GrantId::try_from(id.as_str()).map_err(|_| refused(Refused::Unknown))?;
    let revoked = app.revoker.revoke_grant(by(&caller), &id, reason).await.map_err(not_revoked)?;
    json_answer(&GrantBody::from(revoked.map_err(refused)?))
}

/// POST `/v1/actor_tokens/stop`: with the actor token itself.
pub async fn stop(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let arrival = arrival(&request);
    let stopped = match bearer(&request) {
        Ok(token) => {
            super::edge::json_body(&request, &body)?;
            Fields::parse_or_empty(&body)?.finish(&[])?;
            app.revoker.stop(token, &arrival.id, arrival.address).await.map_err(not_revoked)?
        }
        Err(problem) if problem.code == Code::AuthorizationHeaderMissing => {
            return Err(Problem::new(
                Code::AuthorizationHeaderMissing,
                "Send the actor token: Authorization: Bearer eyJ…",
            ));
        }
        Err(problem) => return Err(problem),
    };
    let grant = stopped.ok_or_else(|| {
        Problem::new(Code::ActorTokenInvalid, "This is no actor token of this service that has not expired.")
    })?;
    json_answer(&GrantBody::from(grant))
}
