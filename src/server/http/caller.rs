//! Who calls: a client secret becomes a client, or a 401 that says what is wrong.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};

use super::edge::{Arrival, arrival};
use super::problem::{Code, Problem};
use crate::server::clients::{Client, ClientScope};
use crate::server::limits::seconds_to_wait;
use crate::server::service::Service;

/// The longest `Authorization` value looked at, bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// A client that proved itself, and the request it came with.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client.
    pub client: Arc<Client>,
    /// Its request.
    pub arrival: Arrival,
}

impl Caller {
    /// Refuses a client that lacks `permission`.
    pub fn require(&self, permission: ClientScope) -> Result<(), Problem> {
        if self.client.may(permission) { Ok(()) } else { Err(scope_missing(permission)) }
    }

    /// Whether the client sees beyond what is its own.
    pub fn is_admin(&self) -> bool {
        self.client.may(ClientScope::Admin)
    }
}

/// The client lacks a scope.
pub fn scope_missing(permission: ClientScope) -> Problem {
    let detail = format!(
        "This client needs the scope `{permission}`. An operator gives it with `stagedoor client update ID --scopes …`, \
         naming all that the client is to have."
    );
    Problem::new(Code::ScopeMissing, detail).scope(permission.as_str())
}

/// Reads the one `Authorization: Bearer` credential of a request (BE-1).
pub fn bearer(request: &HttpRequest) -> Result<&str, Problem> {
    let format = |detail: &'static str| Problem::new(Code::AuthorizationHeaderFormatInvalid, detail);
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let Some(value) = headers.next() else {
        return Err(Problem::new(
            Code::AuthorizationHeaderMissing,
            "Send the client secret: Authorization: Bearer sk_live_…",
        ));
    };
    if headers.next().is_some() {
        return Err(format("Send one Authorization header, not several."));
    }
    if value.len() > MAX_HEADER_BYTES {
        return Err(format("The Authorization header is too long."));
    }
    let text = value.to_str().map_err(|_| format("The Authorization header must be plain ASCII."))?;
    let Some((scheme, rest)) = text.split_once(' ') else {
        return Err(format("The Authorization header must read: Bearer, a space, the client secret."));
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(format("The scheme must be Bearer."));
    }
    let credential = rest.trim_matches(' ');
    if credential.is_empty() || credential.contains([' ', ',']) {
        return Err(format("The Authorization header must hold one credential after Bearer."));
    }
    Ok(credential)
}

/// The client behind a request's secret.
pub fn authenticate(service: &Service, request: &HttpRequest) -> Result<Caller, Problem> {
    let arrival = arrival(request);
    let answer = bearer(request).and_then(|secret| {
        service.clients.authenticate(secret, service.clock.now()).ok_or_else(|| {
            Problem::new(
                Code::ClientSecretInvalid,
                "No client has this secret, or the client is disabled. A token is no credential here.",
            )
        })
    });
    match answer {
        Ok(client) => Ok(Caller { client, arrival }),
        Err(problem) => Err(failed(service, &arrival, problem)),
    }
}

/// A failed credential, counted against its address: over the limit it is told to wait instead.
pub fn failed(service: &Service, arrival: &Arrival, problem: Problem) -> Problem {
    if problem.code.status() != StatusCode::UNAUTHORIZED {
        return problem;
    }
    match service.failures.failed(arrival.address) {
        Some(wait) if problem.code != Code::AuthorizationHeaderMissing => Problem::new(
            Code::TooManyRequests,
            "Too many failed credentials from this address. Wait, then try again.",
        )
        .retry_after(seconds_to_wait(wait)),
        _ => problem,
    }
}
