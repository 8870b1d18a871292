//! The HTTP face: JSON and forms in, values to one use case, JSON out; the only room on the server side that knows actix.

pub mod accept;
pub mod actor_tokens;
pub mod approve;
pub mod audit;
pub mod caller;
pub mod connections;
pub mod console;
pub mod edge;
pub mod ending;
pub mod fields;
pub mod forward_auth;
pub mod oauth;
pub mod once;
pub mod policy;
pub mod problem;
pub mod proofs;
pub mod public;
pub mod query;
pub mod redeem;
pub mod revocations;
pub mod verify;
pub mod witness;

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{Resource, Route};

use crate::server::service::Service;
use problem::{Code, Problem};

/// Who may read an answer of this route from a page of another origin, and how long it may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Needs a credential; never cached, no CORS.
    Private,
    /// Public and `no-store`, no CORS (health, metrics).
    Local,
    /// Public with `Access-Control-Allow-Origin: *`; the handler says how long it may be kept.
    Public,
}

/// One method on one path.
pub struct Endpoint {
    /// The method; `None`: any.
    pub method: Option<Method>,
    /// The path, parameters in braces as in `openapi.yaml`.
    pub path: &'static str,
    /// Who may read it.
    pub exposure: Exposure,
    /// Whether it reads a query string, strictly and by itself.
    pub reads_query: bool,
    handler: fn() -> Route,
}

macro_rules! method {
    (ANY) => {
        None
    };
    ($method:ident) => {
        Some(Method::$method)
    };
}

macro_rules! reads_query {
    () => {
        false
    };
    (query) => {
        true
    };
}

macro_rules! endpoints {
    ($($exposure:ident $method:ident $path:literal $([$query:ident])? => $handler:path;)+) => {
        /// Every endpoint of the service; a test holds this list equal to `openapi.yaml`.
        pub const ROUTES: &[Endpoint] = &[$(Endpoint {
            method: method!($method),
            path: $path,
            exposure: Exposure::$exposure,
            reads_query: reads_query!($($query)?),
            handler: || match method!($method) {
                Some(method) => web::method(method).to($handler),
                None => web::route().to($handler),
            },
        },)+];
    };
}

endpoints! {
    Private POST "/v1/actor_tokens" => actor_tokens::mint;
    Private GET "/v1/actor_tokens" [query] => actor_tokens::list;
    Private POST "/v1/actor_tokens/verify" => verify::verify;
    Private POST "/v1/actor_tokens/redeem" => redeem::redeem;
    Private POST "/v1/actor_tokens/stop" => ending::stop;
    Private GET "/v1/actor_tokens/{id}" [query] => actor_tokens::read;
    Private POST "/v1/actor_tokens/{id}/revoke" => ending::revoke;
    Private POST "/v1/actor_tokens/{id}/approve" => approve::approve;
    Private POST "/v1/revocations" => revocations::revoke;
    Public GET "/v1/revocations" => revocations::snapshot;
    Public GET "/v1/revocations/stream" => revocations::stream;
    Public GET "/v1/revocations/jwks" => revocations::jwks;
    Private POST "/v1/policy/explain" => policy::explain;
    Private GET "/v1/audit/entries" [query] => audit::entries;
    Private GET "/v1/audit/entries/{idx}/proof" => proofs::inclusion;
    Private GET "/v1/audit/grants/{id}" [query] => audit::grant;
    Private GET "/v1/audit/consistency" [query] => proofs::consistency;
    Private GET "/v1/audit/lookup" [query] => proofs::look_up;
    Private POST "/v1/audit/lookup" => proofs::look_up_token;
    Private GET "/v1/audit/log/tile/entries/{n:.*}" => proofs::entry_bundle;
    Public GET "/v1/audit/log/tile/{level}/{n:.*}" => proofs::hash_tile;
    Public GET "/v1/audit/log/checkpoint" => audit::checkpoint;
    Public GET "/v1/audit/log/witnessed" => audit::witnessed;
    Public GET "/v1/audit/log/vkey" => audit::vkey;
    Private ANY "/v1/forward_auth" [query] => forward_auth::forward_auth;
    Private ANY "/v1/forward_auth/{tail:.*}" [query] => forward_auth::forward_auth;
    Private POST "/oauth/token" => oauth::token;
    Private POST "/oauth/introspect" => oauth::introspect;
    Private POST "/oauth/revoke" => oauth::revoke;
    Public GET "/.well-known/oauth-authorization-server" => oauth::metadata;
    Public GET "/.well-known/openid-configuration" => oauth::metadata;
    Public GET "/.well-known/jwks.json" => public::jwks;
    Public GET "/v1/jwks" => public::api_jwks;
    Local GET "/healthz" => public::healthz;
    Local GET "/readyz" => public::readyz;
    Local GET "/metrics" => public::metrics;
    Public GET "/openapi.yaml" => public::openapi;
    Public GET "/banner.js" => console::banner;
    Public GET "/banner/{name}" => console::banner_by_hash;
}

/// Log targets that write a line at ERROR for every piece of nonsense that somebody sends.
pub const QUIET: &[&str] = &["actix_http::h1::dispatcher"];

/// Mounts every endpoint; a path asked with another method answers 405 and says which it takes.
pub fn configure(config: &mut ServiceConfig) {
    let mut paths: Vec<&'static str> = Vec::new();
    for endpoint in ROUTES {
        if !paths.contains(&endpoint.path) {
            paths.push(endpoint.path);
        }
    }
    // Fixed segments before parameters: `/verify` must not be read as an id.
    paths.sort_by_key(|path| path.matches('{').count());
    for path in paths {
        let mut resource: Resource = web::resource(path);
        for endpoint in ROUTES.iter().filter(|e| e.path == path) {
            resource = resource.route((endpoint.handler)());
        }
        let wrong_method = if path.starts_with("/oauth/") {
            web::to(async || Err::<&'static str, _>(oauth::OAuthError::method_not_allowed()))
        } else {
            web::to(async move || Err::<&'static str, _>(method_not_allowed(path)))
        };
        config.service(resource.default_service(wrong_method));
    }
    console::configure(config);
}

/// Mounts what the listener of `METRICS_LISTEN` answers.
pub fn configure_metrics(config: &mut ServiceConfig) {
    config.route("/metrics", web::get().to(public::metrics_text));
}

fn method_not_allowed(path: &'static str) -> Problem {
    let here = ROUTES.iter().filter(|e| e.path == path);
    let mut methods: Vec<&str> =
        here.clone().map(|e| e.method.as_ref().map_or("ANY", Method::as_str)).collect();
    // the edge answers these: GET's head, and whether a page of another origin may read it
    if methods.contains(&"GET") && path != edge::STREAM {
        methods.push("HEAD");
    }
    if here.clone().any(|e| e.exposure == Exposure::Public) {
        methods.push("OPTIONS");
    }
    let allow = methods.join(", ");
    Problem::new(Code::MethodNotAllowed, format!("This path takes {allow}.")).allow(allow)
}

/// What the application answers to a path that is not there.
pub async fn no_such_path() -> Result<&'static str, Problem> {
    Err(Problem::not_found("There is nothing at this path. The routes stand in /openapi.yaml."))
}

/// The service behind the routes.
pub(super) type App = web::Data<Service>;
