//! What anybody may read: keys, health, metrics, the contract itself.

use std::sync::atomic::Ordering;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::App;
use super::actor_tokens::json_answer;
use super::caller::authenticate;
use super::problem::{Code, Problem};
use crate::server::keyring::KeyPurpose;

/// How long keys and metadata may be kept, seconds (contract.md §4).
const KEYS_MAX_AGE: &str = "max-age=300";

/// GET `/.well-known/jwks.json` (RFC 7517; JW-1).
pub async fn jwks(app: App) -> Result<HttpResponse, Problem> {
    keys(&app.keyring.token_keys().to_jwks())
}

/// GET `/v1/jwks`: the same set; with the secret of a client in profile `clerk`, that client's key beside it,
/// since unmodified SDKs fetch their keys here.
pub async fn api_jwks(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut set = app.keyring.token_keys().to_jwks();
    if request.headers().contains_key(header::AUTHORIZATION) {
        let caller = authenticate(&app, &request)?;
        let own = app.keyring.published(&KeyPurpose::Clerk(caller.client.id.clone())).to_jwks();
        if let (Some(all), Some(own)) = (set["keys"].as_array_mut(), own["keys"].as_array()) {
            all.extend(own.iter().cloned());
        }
    }
    let mut response = keys(&set)?;
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("authorization"));
    Ok(response)
}

fn keys(set: &serde_json::Value) -> Result<HttpResponse, Problem> {
    let mut response = json_answer(set)?;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static(KEYS_MAX_AGE));
    Ok(response)
}

/// GET `/healthz`: the process runs.
pub async fn healthz() -> Result<HttpResponse, Problem> {
    json_answer(&json!({ "status": "ok" }))
}

/// GET `/readyz`: the process was not told to stop, the log is the one this process knows, the database answers, and no entry has waited longer
/// for its witnesses than `WITNESS_DEADLINE` allows.
pub async fn readyz(app: App) -> Result<HttpResponse, Problem> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(
            Problem::new(Code::Draining, "The process is about to stop. Ask another replica.").retry_after(1)
        );
    }
    app.log.checkpoint().await.map_err(super::actor_tokens::log_unreadable)?;
    let waited = app.witnesses.unwitnessed(app.clock.now());
    if app.witness_deadline.is_some_and(|deadline| waited >= deadline) {
        let detail = format!("An entry of the log has waited {} s for its witnesses.", waited.num_seconds());
        return Err(Problem::new(Code::LogUnavailable, detail).retry_after(10));
    }
    json_answer(&json!({ "status": "ready" }))
}

/// GET `/metrics`: on the main listener only where that is loopback.
pub async fn metrics(app: App) -> Result<HttpResponse, Problem> {
    if !app.metrics_here {
        return Err(Problem::not_found("Metrics have a listener of their own here: METRICS_LISTEN."));
    }
    Ok(metrics_text(app).await)
}

/// The metrics, on a listener of their own.
pub async fn metrics_text(app: App) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(app.metrics.render(&app.observed()))
}

/// GET `/openapi.yaml`.
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/yaml")
        .insert_header((header::CACHE_CONTROL, "max-age=300"))
        .body(include_str!("../../../openapi.yaml"))
}
