//! How a client proves itself at an OAuth endpoint: basic, post, or a signed assertion (RFC 6749 §2.3, RFC 7523).

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};

use super::super::caller::Caller;
use super::super::edge::arrival;
use super::error::OAuthError;
use super::form::{Form, decode};
use crate::server::clients::Client;
use crate::server::limits::seconds_to_wait;
use crate::server::service::Service;
use crate::token::ClientId;
use crate::token::jws::UnverifiedJws;

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest assertion looked at, bytes.
const MAX_ASSERTION_BYTES: usize = 8 * 1024;
/// How far ahead `exp` of an assertion may lie (PK-3).
const MAX_ASSERTION_LIFE: TimeDelta = TimeDelta::minutes(5);
/// How far two machines' clocks may differ.
const LEEWAY: TimeDelta = TimeDelta::seconds(5);

/// The client behind a form, by exactly one of the three ways (OA-9).
///
/// # Errors
/// `invalid_client` (401), or `invalid_request` when two ways are used at once.
pub fn authenticate(service: &Service, request: &HttpRequest, form: &Form) -> Result<Caller, OAuthError> {
    let headers: Vec<_> = request.headers().get_all(header::AUTHORIZATION).collect();
    let ways = usize::from(!headers.is_empty())
        + usize::from(form.get("client_secret").is_some())
        + usize::from(form.get("client_assertion").is_some() || form.get("client_assertion_type").is_some());
    if headers.len() > 1 || ways > 1 {
        return Err(OAuthError::invalid_request("prove the client in one way, not in several at once"));
    }
    let client = match headers.first() {
        Some(value) => basic(service, value, form),
        None if form.get("client_secret").is_some() => post(service, form),
        None if form.get("client_assertion").is_some() => assertion(service, form),
        None => Err(OAuthError::invalid_client(
            "the client must prove itself: client_secret_basic, client_secret_post or private_key_jwt",
        )),
    };
    let arrival = arrival(request);
    match client {
        Ok(client) => Ok(Caller { client, arrival }),
        Err(error) => match service.failures.failed(arrival.address) {
            Some(wait) if error.error == "invalid_client" => Err(OAuthError {
                status: actix_web::http::StatusCode::TOO_MANY_REQUESTS,
                retry_after_seconds: Some(seconds_to_wait(wait)),
                ..OAuthError::new(
                    "temporarily_unavailable",
                    "too many failed credentials from this address; wait, then try again",
                )
            }),
            _ => Err(error),
        },
    }
}

/// OA-7: id and secret are form-encoded before base64; ours need no encoding, so both habits work.
fn basic(service: &Service, value: &header::HeaderValue, form: &Form) -> Result<Arc<Client>, OAuthError> {
    let wrong = || {
        OAuthError::invalid_client("the Authorization header is not one Basic credential of a known client")
    };
    let text = value.to_str().map_err(|_| wrong())?;
    let (scheme, rest) = text.split_once(' ').ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") || rest.len() > 2048 {
        return Err(wrong());
    }
    let bytes = STANDARD.decode(rest.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (id, secret) = text.split_once(':').ok_or_else(wrong)?;
    let (id, secret) = (decode(id).ok_or_else(wrong)?, decode(secret).ok_or_else(wrong)?);
    if form.get("client_id").is_some_and(|sent| sent != id) {
        return Err(OAuthError::invalid_request("client_id and the Authorization header name two clients"));
    }
    by_secret(service, &id, &secret)
}

fn post(service: &Service, form: &Form) -> Result<Arc<Client>, OAuthError> {
    by_secret(service, form.need("client_id")?, form.get("client_secret").unwrap_or(""))
}

fn by_secret(service: &Service, id: &str, secret: &str) -> Result<Arc<Client>, OAuthError> {
    service
        .clients
        .authenticate(secret, service.clock.now())
        .filter(|client| client.id.as_str() == id)
        .ok_or_else(|| OAuthError::invalid_client("the client is unknown, disabled, or its secret is wrong"))
}

/// `private_key_jwt`, PK-1 to PK-6.
fn assertion(service: &Service, form: &Form) -> Result<Arc<Client>, OAuthError> {
    let wrong = OAuthError::invalid_client;
    if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
        return Err(wrong("client_assertion_type must be the jwt-bearer one"));
    }
    let text = form.get("client_assertion").unwrap_or("");
    let jws = UnverifiedJws::parse(text, MAX_ASSERTION_BYTES)
        .map_err(|_| wrong("the assertion is not a signed JWT"))?;
    // PK-5: another explicit type is a token of another kind; none at all is common.
    match jws.unverified_header().typ.as_deref() {
        None => {}
        Some(typ)
            if typ.eq_ignore_ascii_case("jwt") || typ.eq_ignore_ascii_case("client-authentication+jwt") => {}
        Some(_) => return Err(wrong("the assertion's typ is of another kind of token")),
    }
    let claims = jws.unverified_claims().map_err(|_| wrong("the assertion's claims are malformed"))?;
    // whoever acts for another has no credential of his own in it (contract.md §3); `cnf` needs a proof that none asks for
    if claims.contains_key("act") || claims.contains_key("cnf") {
        return Err(wrong("an assertion that carries act or cnf is no credential"));
    }
    let issuer = claims.get("iss").and_then(|v| v.as_str()).unwrap_or("");
    if claims.get("sub").and_then(|v| v.as_str()) != Some(issuer)
        || form.get("client_id").is_some_and(|sent| sent != issuer)
    {
        return Err(wrong("iss, sub and client_id must all be the client's id"));
    }
    let id = ClientId::try_from(issuer).map_err(|_| wrong("the assertion names no client"))?;
    let client = service
        .clients
        .get(&id)
        .filter(|c| c.is_active())
        .ok_or_else(|| wrong("the assertion names no client"))?;
    let keys = client.assertion_keys().ok_or_else(|| wrong("this client has no keys registered"))?;
    jws.verify(&keys)
        .map_err(|_| wrong("the assertion's signature does not verify under the client's keys"))?;
    check_times(&claims, service.clock.now())?;
    // PK-4: our issuer identifier and nothing else; the token endpoint's address is not accepted.
    let audience = match claims.get("aud") {
        Some(serde_json::Value::String(one)) => Some(one.as_str()),
        Some(serde_json::Value::Array(list)) if list.len() == 1 => list[0].as_str(),
        _ => None,
    };
    if audience != Some(service.desk.issuer.as_str()) {
        return Err(wrong("aud must be this service's issuer identifier alone"));
    }
    let (jti, exp) =
        (claims.get("jti").and_then(|v| v.as_str()).unwrap_or(""), number(&claims, "exp").unwrap_or(0));
    let exp = DateTime::from_timestamp(exp, 0).unwrap_or_default();
    if jti.is_empty() || jti.len() > 255 || !service.assertions.first_use(&id, jti, exp, service.clock.now())
    {
        return Err(wrong("jti is missing, or the assertion was used before"));
    }
    Ok(client)
}

fn number(claims: &serde_json::Map<String, serde_json::Value>, name: &str) -> Option<i64> {
    claims.get(name).and_then(serde_json::Value::as_i64)
}

/// PK-3: exp required and near; nbf and iat honoured.
fn check_times(
    claims: &serde_json::Map<String, serde_json::Value>,
    now: DateTime<Utc>,
) -> Result<(), OAuthError> {
    let wrong = OAuthError::invalid_client;
    let exp = number(claims, "exp").ok_or_else(|| wrong("exp is missing from the assertion"))?;
    if exp <= (now - LEEWAY).timestamp() || exp > (now + MAX_ASSERTION_LIFE + LEEWAY).timestamp() {
        return Err(wrong("the assertion has expired, or lives longer than five minutes"));
    }
    for name in ["nbf", "iat"] {
        match claims.get(name) {
            None => {}
            Some(value) if value.as_i64().is_some_and(|t| t <= (now + LEEWAY).timestamp()) => {}
            Some(_) => return Err(wrong("the assertion is not valid yet")),
        }
    }
    Ok(())
}
