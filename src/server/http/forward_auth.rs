//! `/v1/forward_auth`: a proxy asks whether a request may pass; only 200, 401 and 403 are ever answered.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::App;
use super::edge::Unrecorded;
use super::oauth::decode;
use crate::guard::Identity;
use crate::server::gates::{Demand, Refused};
use crate::token::{Invalid, Scope};

/// The gate of the bare path.
const DEFAULT_GATE: &str = "default";

/// Why a request does not pass, for the proxy and for the developer behind it.
struct Refusal {
    status: StatusCode,
    error: Option<&'static str>,
    reason: String,
    scope: Option<Scope>,
}

/// Any method on `/v1/forward_auth[/{gate}[/…]]`.
pub async fn forward_auth(app: App, request: HttpRequest) -> HttpResponse {
    let gate = gate_of(request.path());
    let answer = demand(request.query_string())
        .and_then(|demand| Ok((credential(&request)?, demand)))
        .and_then(|(token, demand)| app.gates.check(gate, token, &demand).map_err(refusal));
    match answer {
        Ok(token) => {
            let who = Identity::new(token, false);
            if let Some(grant) = &who.grant {
                app.sightings.saw(grant, None, "forward_auth", None, &*app.clock);
            }
            passed(&who)
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The path's first segment after the endpoint names the gate; what follows is the proxy's and is ignored.
fn gate_of(path: &str) -> &str {
    path.strip_prefix("/v1/forward_auth")
        .map(|rest| rest.trim_start_matches('/'))
        .and_then(|rest| rest.split('/').next())
        .filter(|gate| !gate.is_empty())
        .unwrap_or(DEFAULT_GATE)
}

/// Query parameters can only tighten; an unknown or repeated one refuses, since it may be a typing error
/// that somebody relies on.
fn demand(query: &str) -> Result<Demand, Refusal> {
    let bad = |what: &str| Refusal {
        status: StatusCode::FORBIDDEN,
        error: Some("invalid_request"),
        reason: format!("query_{what}"),
        scope: None,
    };
    let mut demand = Demand::default();
    let mut seen = BTreeSet::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !seen.insert(name) {
            return Err(bad("parameter_repeated"));
        }
        let value = decode(value).ok_or_else(|| bad("parameter_malformed"))?;
        match (name, value.as_str()) {
            ("scope", scope) => demand.scope = Scope::parse(scope).map_err(|_| bad("scope_malformed"))?,
            ("impersonation", "refuse") => demand.refuse_impersonation = true,
            ("assurance", "verified") => demand.verified_actor = true,
            _ => return Err(bad("parameter_unknown")),
        }
    }
    Ok(demand)
}

/// The one bearer token of the request.
fn credential(request: &HttpRequest) -> Result<&str, Refusal> {
    super::caller::bearer(request).map_err(|problem| {
        let missing = problem.code == super::problem::Code::AuthorizationHeaderMissing;
        Refusal {
            status: StatusCode::UNAUTHORIZED,
            // BE-2: no error code where no credential was sent.
            error: (!missing).then_some("invalid_request"),
            reason: if missing { "token_missing".into() } else { "authorization_malformed".into() },
            scope: None,
        }
    })
}

fn refusal(refused: Refused) -> Refusal {
    let (status, error, reason, scope) = match refused {
        Refused::Token(invalid) => {
            (StatusCode::UNAUTHORIZED, Some("invalid_token"), Invalid::reason(invalid).to_owned(), None)
        }
        Refused::NoGate => (StatusCode::FORBIDDEN, None, "gate_unknown".to_owned(), None),
        Refused::Impersonation => {
            (StatusCode::FORBIDDEN, Some("insufficient_scope"), "impersonation_refused".to_owned(), None)
        }
        Refused::Assurance => {
            (StatusCode::FORBIDDEN, Some("insufficient_scope"), "actor_not_verified".to_owned(), None)
        }
        Refused::Scope(scope) => {
            (StatusCode::FORBIDDEN, Some("insufficient_scope"), "scope_missing".to_owned(), Some(scope))
        }
    };
    Refusal { status, error, reason, scope }
}

fn refused(refusal: &Refusal) -> HttpResponse {
    let mut challenge = String::from(r#"Bearer realm="stagedoor""#);
    // Writing to a String cannot fail.
    if let Some(error) = refusal.error {
        let _ = write!(challenge, r#", error="{error}", error_description="{}""#, refusal.reason);
    }
    if let Some(scope) = &refusal.scope {
        let _ = write!(challenge, r#", scope="{scope}""#);
    }
    let mut response = HttpResponse::build(refusal.status)
        .insert_header((header::WWW_AUTHENTICATE, challenge))
        .content_type("application/json")
        .body(json!({ "error": refusal.error, "reason": refusal.reason }).to_string());
    response.extensions_mut().insert(Unrecorded);
    response
}

/// Every identity header on every 200, so that a proxy never lets the caller's own through: the same five that
/// the guards show.
fn passed(who: &Identity) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    for header in who.headers() {
        response.insert_header(header);
    }
    response.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::identity::encoded;

    #[test]
    fn the_gate_is_the_first_segment_and_the_rest_is_ignored() {
        for (path, gate) in [
            ("/v1/forward_auth", "default"),
            ("/v1/forward_auth/", "default"),
            ("/v1/forward_auth/billing", "billing"),
            ("/v1/forward_auth/billing/invoices/7", "billing"),
        ] {
            assert_eq!(gate_of(path), gate, "{path}");
        }
    }

    #[test]
    fn query_parameters_only_tighten_and_unknown_ones_refuse() {
        let read = |query| demand(query).map_err(|r| (r.status.as_u16(), r.reason)).ok();
        assert_eq!(read(""), Some(Demand::default()));
        assert!(read("scope=read+billing%3Awrite").is_some_and(|d| d.scope.contains("billing:write")));
        assert!(read("impersonation=refuse&assurance=verified").is_some_and(|d| d.refuse_impersonation));
        for bad in
            ["impersonation=allow", "scop=read", "scope=a&scope=b", "scope=%zz", "assurance=asserted", "x"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_are_encoded_so_that_no_header_can_be_forged() {
        assert_eq!(encoded("user_42"), "user_42");
        assert_eq!(encoded("a b\r\n\"é"), "a%20b%0D%0A%22%C3%A9");
        assert_eq!(encoded("-"), "%2D");
    }
}
