//! `/v1/revocations`: ending grants by person, client, key or all, and the signed feed of what is ended.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::json;

use super::App;
use super::actor_tokens::json_answer;
use super::caller::{Caller, authenticate, scope_missing};
use super::edge::arrival;
use super::fields::{Fields, invalid, missing};
use super::problem::{Code, Problem, chain};
use crate::server::keyring::KeyPurpose;
use crate::server::log::LogError;
use crate::server::revoke::{Ask, By, FeedError, LastEvent, MAX_HOLD_SECONDS, Refused, RevokeError, Target};
use crate::token::{ClientId, Issuer, Kid, Sub};

/// The longest reason, characters (contract.md §3).
const MAX_REASON: usize = 1000;
/// How long a guard does well to wait when there is no place, seconds.
const NO_PLACE_SECONDS: u32 = 5;
const MEMBERS: &[&str] = &["actor", "user_id", "client_id", "kid", "all", "reason", "hold_seconds"];

pub(super) fn by(caller: &Caller) -> By<'_> {
    By { client: &caller.client, request: &caller.arrival.id, address: caller.arrival.address }
}

/// POST `/v1/revocations`.
pub async fn revoke(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    super::edge::json_body(&request, &body)?;
    let ask = read_ask(Fields::parse(&body)?)?;
    let revoked = app.revoker.revoke(by(&caller), ask).await.map_err(not_carried_out)?;
    let revocation = revoked.map_err(refused)?;
    json_answer(&json!({
        "object": "revocation",
        "id": revocation.id,
        "matched": revocation.matched,
        "audit": { "index": revocation.index },
    }))
}

fn read_ask(mut fields: Fields) -> Result<Ask, Problem> {
    let mut targets = Vec::new();
    if let Some(mut actor) = fields.object("actor", "actor.")? {
        let sub = actor.id::<Sub>("sub")?.ok_or_else(|| missing("actor.sub", "Name the actor."))?;
        let iss = actor.id::<Issuer>("iss")?;
        actor.finish(&["sub", "iss"])?;
        targets.push(Target::Actor { sub, iss });
    }
    targets.extend(fields.id::<Sub>("user_id")?.map(Target::User));
    targets.extend(fields.id::<ClientId>("client_id")?.map(Target::Client));
    targets.extend(fields.id::<Kid>("kid")?.map(Target::Kid));
    match fields.take("all") {
        None => {}
        Some(serde_json::Value::Bool(true)) => targets.push(Target::All),
        Some(_) => return Err(invalid("all", "must be true, or left out")),
    }
    let reason = fields.prose("reason", MAX_REASON)?;
    let hold_seconds = fields.positive("hold_seconds")?;
    fields.finish(MEMBERS)?;
    let target = match (targets.pop(), targets.is_empty()) {
        (Some(target), true) => target,
        (None, _) => {
            return Err(missing("actor", "Name what ends: one of actor, user_id, client_id, kid, all."));
        }
        (Some(_), false) => {
            let message = "Name one of actor, user_id, client_id, kid, all at a time.";
            return Err(Problem::new(Code::FormParamValueInvalid, message).param("actor"));
        }
    };
    if hold_seconds.is_some_and(|seconds| seconds > MAX_HOLD_SECONDS) {
        return Err(invalid("hold_seconds", &format!("must be at most {MAX_HOLD_SECONDS}")));
    }
    if hold_seconds.is_some() && matches!(target, Target::Kid(_)) {
        return Err(invalid("hold_seconds", "does not go with kid: a refused key never signs again"));
    }
    let reason = reason
        .filter(|reason| !reason.trim().is_empty())
        .ok_or_else(|| missing("reason", "Say why: it is what the log keeps."))?;
    Ok(Ask { target, reason, hold_seconds })
}

/// A refusal that is in the log.
pub(super) fn refused(refused: Refused) -> Problem {
    match refused {
        Refused::Scope(permission) => scope_missing(permission),
        Refused::Unknown => Problem::not_found("No grant by this id belongs to this client."),
        Refused::Over => Problem::new(
            Code::ActorTokenCannotBeRevoked,
            "The grant has been revoked already, or has expired.",
        ),
        Refused::UnknownKey => invalid("kid", "names no key of this service that signs tokens"),
        Refused::UnknownClient => invalid("client_id", "names no client of this service"),
        Refused::TooOften(seconds) => {
            let detail = "This client was refused too often. A revocation that it may make still gets in.";
            return Problem::new(Code::TooManyRequests, detail).retry_after(seconds);
        }
    }
    .recorded()
}

/// Nothing may be relied on but that it has to be asked again.
pub(super) fn not_revoked(error: LogError) -> Problem {
    not_carried_out(RevokeError::Log(error))
}

fn not_carried_out(error: RevokeError) -> Problem {
    tracing::error!(error = %chain(&error), "a revocation was not carried through");
    let detail = match error {
        RevokeError::Log(_) => {
            "The revocation could not be recorded, so everything is still valid. Try again now."
        }
        RevokeError::Key(_) => {
            "The key is refused from now on, but none could take its place, so nothing is minted. Try again now."
        }
    };
    Problem::new(Code::LogUnavailable, detail).retry_after(error.retry_after_seconds())
}

/// GET `/v1/revocations`: everything that is revoked and not yet expired.
pub async fn snapshot(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let snapshot = app.feed.snapshot().await.map_err(|error| silent(&error))?;
    let gzip = accepts_gzip(&request);
    let etag =
        if gzip { format!("{}-gz\"", snapshot.etag.trim_end_matches('"')) } else { snapshot.etag.clone() };
    let same = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == etag);
    let mut response = if same { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, etag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::VARY, "Accept-Encoding"));
    if same {
        return Ok(response.finish());
    }
    response.content_type("application/jwt");
    Ok(if gzip {
        response.insert_header((header::CONTENT_ENCODING, "gzip")).body(snapshot.gzip.clone())
    } else {
        response.body(snapshot.text.clone())
    })
}

/// Whether the caller takes gzip (RFC 9110 §12.5.3, without weighing).
fn accepts_gzip(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let none = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !none
    })
}

/// GET `/v1/revocations/stream`: what is revoked as it happens, as server-sent events.
pub async fn stream(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    // A client secret is not needed; one that is sent has to be right, and keeps a place.
    let known = request.headers().contains_key(header::AUTHORIZATION);
    let arrival = if known { authenticate(&app, &request)?.arrival } else { arrival(&request) };
    let last = request.headers().get("last-event-id").and_then(|id| LastEvent::parse(id.to_str().ok()?));
    let listener = app.feed.listen(arrival.address, known, last).await.map_err(|error| silent(&error))?;
    let listener = listener.ok_or_else(|| {
        Problem::new(
            Code::TooManyRequests,
            "Too many listen already, here or from this address. Poll /v1/revocations.",
        )
        .retry_after(NO_PLACE_SECONDS)
    })?;
    let body = stream::unfold(listener, |mut listener| async move {
        listener.next().await.map(|event| (Ok::<_, actix_web::Error>(event), listener))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // for proxies that would hold events back
        .insert_header(("x-accel-buffering", HeaderValue::from_static("no")))
        .streaming(body))
}

/// GET `/v1/revocations/jwks`: what the feed verifies with.
pub async fn jwks(app: App) -> Result<HttpResponse, Problem> {
    let mut response = json_answer(&app.keyring.published(&KeyPurpose::Feed).to_jwks())?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    Ok(response)
}

/// This replica knows nothing that it may sign; guards ask another, or close.
fn silent(error: &FeedError) -> Problem {
    tracing::error!(error = %chain(error), "the feed says nothing");
    Problem::new(Code::LogUnavailable, "What is revoked cannot be read at the moment. Try again shortly.")
        .retry_after(1)
}
