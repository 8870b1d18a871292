//! Token exchange (RFC 8693) and introspection (RFC 7662).

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::super::App;
use super::super::caller::Caller;
use super::super::once;
use super::super::verify;
use super::client_auth::authenticate;
use super::error::OAuthError;
use super::form::Form;
use crate::server::actors::Declared;
use crate::server::clients::ClientScope;
use crate::server::http::problem::chain;
use crate::server::issue::{
    self, AUDIENCE_WITHDRAWN, Ask, Denial, DenialKind, Minted, Outcome, Requested, Subject,
};
use crate::server::policy::{Refusal, builtin};
use crate::token::{Audience, GrantId, Scope, Sub};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TYPE_USER_ID: &str = "urn:stagedoor:params:oauth:token-type:user-id";
/// The longest token in a form, bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// POST `/oauth/token`.
pub async fn token(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, OAuthError> {
    let form = Form::parse(&request, &body)?;
    let caller = authenticate(&app, &request, &form)?;
    match form.get("grant_type") {
        Some(EXCHANGE) => {}
        Some(_) => {
            return Err(OAuthError::new(
                "unsupported_grant_type",
                "only token exchange (RFC 8693) is offered",
            ));
        }
        None => return Err(OAuthError::invalid_request("grant_type is missing")),
    }
    let ask = read_ask(&form)?;
    let key = once::key(&app, &caller.client, &request, &body)
        .map_err(|problem| OAuthError::invalid_request(problem.detail.into_owned()))?;
    let issue_caller = issue::Caller {
        client: &caller.client,
        request: &caller.arrival.id,
        address: caller.arrival.address,
    };
    match app.desk.mint(&issue_caller, ask, key).await {
        Ok(Ok(Outcome::Granted(minted))) => {
            app.metrics.mint("granted");
            Ok(answer(&exchanged(&minted, app.clock.now())))
        }
        // RFC 8628's word for it: ask again, with this `approval` or under the same Idempotency-Key
        Ok(Ok(Outcome::Waiting(waiting))) => {
            app.metrics.mint("pending");
            let wait = format!("a colleague has to approve first: ask again with approval={}", waiting.id);
            Err(OAuthError::new("authorization_pending", wait).recorded())
        }
        Ok(Err(denial)) => {
            app.metrics.mint("denied");
            Err(denied(denial))
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "nothing was issued");
            Err(OAuthError::unavailable("the issuance log cannot record, so nothing was issued", 1))
        }
    }
}

/// OA-11: no-store (the edge sets it), no-cache for old caches, plain JSON.
fn answer(body: &Value) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::PRAGMA, "no-cache"))
        .body(body.to_string())
}

/// A retry is given the token that was issued before: what is left of its life counts from now (RFC 6749 §5.1).
fn exchanged(minted: &Minted, now: DateTime<Utc>) -> Value {
    let claims = minted.token.claims();
    json!({
        "access_token": minted.token.as_str(),
        "issued_token_type": TYPE_ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": (claims.exp - now).num_seconds().max(1),
        "scope": claims.scope,
    })
}

fn read_ask(form: &Form) -> Result<Ask, OAuthError> {
    match form.get("requested_token_type") {
        None | Some(TYPE_ACCESS_TOKEN | TYPE_JWT) => {}
        Some(_) => {
            return Err(OAuthError::invalid_request("requested_token_type must be access_token or jwt"));
        }
    }
    let subject = bounded(form.need("subject_token")?)?;
    let subject = match form.need("subject_token_type")? {
        TYPE_USER_ID => Subject::Id(
            Sub::try_from(subject)
                .map_err(|_| OAuthError::invalid_request("subject_token is not a user id"))?,
        ),
        TYPE_JWT => Subject::SignedByClient(subject.to_owned()),
        TYPE_ACCESS_TOKEN => Subject::ActorToken(subject.to_owned()),
        _ => {
            return Err(OAuthError::invalid_request(
                "subject_token_type must be user-id (urn:stagedoor:params:oauth:token-type:user-id), jwt or access_token",
            ));
        }
    };
    let actor = match (form.get("actor_token"), form.get("actor_token_type")) {
        (None, None) => Requested::TheClient,
        (Some(token), Some(typ @ (TYPE_ACCESS_TOKEN | TYPE_JWT | TYPE_ID_TOKEN))) => Requested::Proven {
            token: bounded(token)?.to_owned(),
            claimed: None,
            // TE-4: each token is validated by the procedure of its declared type.
            declared: match typ {
                TYPE_ACCESS_TOKEN => Declared::AccessToken,
                TYPE_ID_TOKEN => Declared::IdToken,
                _ => Declared::Jwt,
            },
        },
        (Some(_), Some(_)) => {
            return Err(OAuthError::invalid_request(
                "actor_token_type must be access_token, id_token or jwt",
            ));
        }
        (Some(_), None) => return Err(OAuthError::invalid_request("actor_token_type is missing")),
        (None, Some(_)) => {
            return Err(OAuthError::invalid_request("actor_token_type stands without actor_token"));
        }
    };
    let scope = form
        .get("scope")
        .map(Scope::parse)
        .transpose()
        .map_err(|_| OAuthError::new("invalid_scope", "scope is malformed"))?;
    Ok(Ask {
        by_code: false,
        subject,
        actor,
        reason: prose(form, "reason", 1000)?,
        ticket: ticket(form)?,
        expires_in_seconds: None,
        audience: audience(form)?,
        scope,
        approval: form
            .get("approval")
            .map(GrantId::try_from)
            .transpose()
            .map_err(|_| OAuthError::invalid_request("approval names no request"))?,
    })
}

fn bounded(token: &str) -> Result<&str, OAuthError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(OAuthError::invalid_request("a token is longer than allowed"));
    }
    Ok(token)
}

fn prose(form: &Form, name: &'static str, max_chars: usize) -> Result<Option<String>, OAuthError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    if text.chars().count() > max_chars
        || text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
    {
        return Err(OAuthError::invalid_request(format!(
            "{name} is longer than allowed or has control characters"
        )));
    }
    Ok(Some(text.to_owned()))
}

/// An empty one counts as left out (OA-2), a blank one would stand in the log as a ticket.
fn ticket(form: &Form) -> Result<Option<String>, OAuthError> {
    let ticket = prose(form, "ticket", 100)?;
    if ticket.as_ref().is_some_and(|text| text.trim().is_empty()) {
        return Err(OAuthError::invalid_request("ticket is blank; leave it out where there is none"));
    }
    Ok(ticket)
}

/// `resource` (an absolute URI without fragment, RE-1) and `audience` together name who the token is for.
fn audience(form: &Form) -> Result<Option<Vec<Audience>>, OAuthError> {
    let (resources, audiences) = (form.all("resource"), form.all("audience"));
    if resources.len() + audiences.len() > 8 {
        return Err(OAuthError::invalid_target("at most 8 targets"));
    }
    if resources.iter().any(|r| r.contains('#') || !reqwest::Url::parse(r).is_ok_and(|u| u.has_host())) {
        return Err(OAuthError::invalid_target("resource must be an absolute URI without fragment"));
    }
    let mut out: Vec<Audience> = Vec::new();
    for text in resources.iter().chain(audiences) {
        let audience = Audience::try_from(text.as_str())
            .map_err(|_| OAuthError::invalid_target("a target is malformed"))?;
        if !out.contains(&audience) {
            out.push(audience);
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

fn denied(denial: Denial) -> OAuthError {
    let error = match denial.kind {
        // The one refusal that is counted instead of recorded.
        DenialKind::RateLimited { retry_after_seconds } => {
            return OAuthError {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after_seconds: Some(retry_after_seconds),
                ..OAuthError::new("temporarily_unavailable", denial.message)
            };
        }
        DenialKind::Scope(_) => OAuthError::new("unauthorized_client", denial.message),
        DenialKind::Parameter("audience") | DenialKind::Audience => {
            OAuthError::invalid_target(denial.message)
        }
        // RFC 8693 §2.2.2: too many, or such as the policy does not grant
        DenialKind::Policy(_) if matches!(&*denial.rule, builtin::AUDIENCE | AUDIENCE_WITHDRAWN) => {
            OAuthError::invalid_target(denial.message)
        }
        DenialKind::Unreachable => OAuthError::unavailable("an authority cannot be asked at the moment", 5),
        DenialKind::InFlight => OAuthError::unavailable("the same request is under way", 1),
        DenialKind::Parameter(_)
        | DenialKind::Condition
        | DenialKind::KeyReused
        | DenialKind::GrantEnded
        | DenialKind::NoSuchCode
        | DenialKind::NoSuchRequest
        | DenialKind::NotWaiting
        | DenialKind::Policy(
            Refusal::Denied | Refusal::Error | Refusal::UnknownTarget | Refusal::StepUp(_),
        ) => OAuthError::invalid_request(denial.message),
    };
    error.recorded()
}

/// POST `/oauth/revoke`: 200 and an empty body, whatever the token was (RV-3).
pub async fn revoke(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, OAuthError> {
    let form = Form::parse(&request, &body)?;
    let caller = authenticate(&app, &request, &form)?;
    require(&caller, ClientScope::Revoke)?;
    let token = form.need("token")?;
    let (id, address) = (&caller.arrival.id, caller.arrival.address);
    app.revoker.revoke_token(&caller.client, id, address, token).await.map_err(|error| {
        tracing::error!(error = %chain(&error), "a revocation could not be recorded");
        // RV-5: it is still valid.
        let detail = "the revocation could not be recorded; the token is still valid";
        OAuthError::unavailable(detail, error.retry_after_seconds())
    })?;
    Ok(HttpResponse::Ok().insert_header((header::PRAGMA, "no-cache")).finish())
}

fn require(caller: &Caller, permission: ClientScope) -> Result<(), OAuthError> {
    if caller.client.may(permission) {
        Ok(())
    } else {
        Err(OAuthError::new("unauthorized_client", format!("this client lacks the scope {permission}")))
    }
}

/// POST `/oauth/introspect`: the same verdict as `/v1/actor_tokens/verify`, in RFC 7662's form (IN-4: no reason).
pub async fn introspect(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, OAuthError> {
    let form = Form::parse(&request, &body)?;
    let caller = authenticate(&app, &request, &form)?;
    require(&caller, ClientScope::Verify)?;
    let token = form.need("token")?;
    let Ok(claims) = app.checker.check(&caller.client, token, None, &Scope::default()) else {
        return Ok(answer(&json!({ "active": false })));
    };
    if !verify::still_granted(&app, &caller, &claims, "introspect").await.map_err(denied)? {
        return Ok(answer(&json!({ "active": false })));
    }
    let mut body = verify::active(claims);
    body["token_type"] = json!("Bearer");
    Ok(answer(&body))
}
