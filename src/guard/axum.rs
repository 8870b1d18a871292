//! The guard for axum and tower: arguments of handlers, and a layer for routers.
//!
//! The verifier is part of the router's state, so that a forgotten one does not compile.
//!
//! ```
//! use std::sync::Arc;
//! use axum::{Router, routing::get};
//! use stagedoor::guard::{Admission, Identity, Impersonable, axum::GuardLayer};
//! use stagedoor::token::{TrustedIssuer, Verifier};
//!
//! stagedoor::action!(Read = "read");
//!
//! async fn me(who: Identity) -> String {
//!     who.user.to_string()
//! }
//! async fn orders(who: Impersonable<Read>) -> String {
//!     format!("{} by {:?}", who.user, who.actor)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let issuer = TrustedIssuer::stagedoor("https://stagedoor.example".parse()?);
//! let verifier = Arc::new(Verifier::builder().issuer(issuer.audience("https://api.example".parse()?)).build()?);
//! let reads = Admission::default().impersonable().actor_scope("read");
//! let app: Router = Router::new()
//!     .route("/reports", get(me))
//!     .layer(GuardLayer::new(verifier.clone(), reads)) // here `Identity` follows the guard
//!     .route("/me", get(me))
//!     .route("/orders", get(orders))
//!     .layer(GuardLayer::observe(verifier.clone())) // both identities on log lines and answers
//!     .with_state(verifier);
//! # drop(app); Ok(()) }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;

use crate::token::Verifier;

use super::admission::{Action, Admission, Impersonable, InPerson};
use super::argument::{Admitted, Around};
use super::bearer::identify;
use super::identity::Identity;
use super::refusal::Refusal;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.log();
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        insert(response.headers_mut(), self.headers());
        response
    }
}

fn insert(headers: &mut HeaderMap, new: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in new {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Who calls, by the verifier in force here and nobody else's word.
fn find(verifier: &Verifier, headers: &HeaderMap, around: Option<&Around>) -> Result<Arc<Identity>, Refusal> {
    around
        .and_then(|around| around.found_by(verifier, authorization(headers)))
        .unwrap_or_else(|| identify(verifier, authorization(headers)).map(Arc::new))
}

fn authorization(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes)
}

fn extract<T: Admitted, S>(parts: &Parts, state: &S) -> Result<T, Refusal>
where
    Arc<Verifier>: FromRef<S>,
{
    let around = parts.extensions.get::<Around>();
    let found = find(&Arc::<Verifier>::from_ref(state), &parts.headers, around);
    let admission = around.and_then(|around| around.admission.as_ref());
    found.and_then(|who| T::admit(Identity::clone(&who), admission))
}

impl<S> FromRequestParts<S> for Identity
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        extract(parts, state)
    }
}

impl<S, A> FromRequestParts<S> for Impersonable<A>
where
    S: Send + Sync,
    A: Action + Send,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        extract(parts, state)
    }
}

impl<S> FromRequestParts<S> for InPerson
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        extract(parts, state)
    }
}

/// A layer around a router or a route. It marks the answer (`Impersonated: ?1` or `?0`, `X-Stagedoor-User`,
/// `X-Stagedoor-Actor`) and opens a span with both identities around the handler.
#[derive(Debug, Clone)]
pub struct GuardLayer {
    verifier: Arc<Verifier>,
    admission: Option<Admission>,
}

impl GuardLayer {
    /// Lets in only whom `admission` admits.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, admission: Admission) -> Self {
        Self { verifier, admission: Some(admission) }
    }

    /// Refuses nobody and only marks; the handlers' arguments decide.
    #[must_use]
    pub fn observe(verifier: Arc<Verifier>) -> Self {
        Self { verifier, admission: None }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = GuardService<S>;

    fn layer(&self, service: S) -> GuardService<S> {
        GuardService { service, guard: self.clone() }
    }
}

/// What [`GuardLayer`] makes of the service it wraps.
#[derive(Debug, Clone)]
pub struct GuardService<S> {
    service: S,
    guard: GuardLayer,
}

impl<S, B> Service<Request<B>> for GuardService<S>
where
    S: Service<Request<B>, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let outer = request.extensions_mut().remove::<Around>();
        let found = find(&self.guard.verifier, request.headers(), outer.as_ref());
        if let Some(admission) = &self.guard.admission
            && let Err(refusal) = found.clone().and_then(|who| admission.check(&who))
        {
            return Box::pin(async move { Ok(refusal.into_response()) });
        }
        let who = found.clone().ok();
        let admission = self.guard.admission.clone().or(outer.and_then(|outer| outer.admission));
        let around = Around::new(found, &self.guard.verifier, authorization(request.headers()), admission);
        request.extensions_mut().insert(around);
        let Some(who) = who else { return Box::pin(self.service.call(request)) };
        let span = who.span();
        let inner = span.in_scope(|| self.service.call(request));
        Box::pin(
            async move {
                let mut response = inner.await?;
                insert(response.headers_mut(), super::identity::marks(&who));
                Ok(response)
            }
            .instrument(span),
        )
    }
}
