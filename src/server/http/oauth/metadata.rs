//! What this authorization server is (RFC 8414): one document at both well-known addresses.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use serde_json::json;

use super::super::App;
use super::super::actor_tokens::json_answer;
use super::super::problem::Problem;
use crate::server::clients::ClientScope;
use crate::token::Alg;

const CLIENT_AUTH: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// GET `/.well-known/oauth-authorization-server` and `/.well-known/openid-configuration` (MD-1 to MD-6).
pub async fn metadata(app: App) -> Result<HttpResponse, Problem> {
    let issuer = app.desk.issuer.as_str();
    let scopes: Vec<String> = ClientScope::ALL.iter().map(ToString::to_string).collect();
    // each that a client's key may be of
    let algs: Vec<&str> = Alg::ALL.iter().map(|alg| alg.name()).collect();
    let mut response = json_answer(&json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth/token"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "introspection_endpoint": format!("{issuer}/oauth/introspect"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "scopes_supported": scopes,
        // MD-5: required, and we have none; ["none"] is what every client tried accepts.
        "response_types_supported": ["none"],
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "token_endpoint_auth_methods_supported": CLIENT_AUTH,
        "token_endpoint_auth_signing_alg_values_supported": algs,
        "introspection_endpoint_auth_methods_supported": CLIENT_AUTH,
        "introspection_endpoint_auth_signing_alg_values_supported": algs,
        "revocation_endpoint_auth_methods_supported": CLIENT_AUTH,
        "revocation_endpoint_auth_signing_alg_values_supported": algs,
        "service_documentation": format!("{issuer}/openapi.yaml"),
    }))?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    Ok(response)
}
