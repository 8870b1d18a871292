//! The guard for actix-web: arguments of handlers, and a middleware for scopes and applications.
//!
//! ```
//! use std::sync::Arc;
//! use actix_web::{App, web};
//! use stagedoor::guard::{Admission, Identity, Impersonable, InPerson, actix::Guard};
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
//! async fn delete_account(who: InPerson) -> String {
//!     format!("goodbye {}", who.user)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let issuer = TrustedIssuer::stagedoor("https://stagedoor.example".parse()?);
//! let verifier = Arc::new(Verifier::builder().issuer(issuer.audience("https://api.example".parse()?)).build()?);
//! let app = App::new()
//!     .app_data(verifier)
//!     .wrap(Guard::observe()) // both identities on log lines, `Impersonated` on answers
//!     .route("/me", web::get().to(me))
//!     .route("/orders", web::get().to(orders))
//!     .service(
//!         web::scope("/reports")
//!             .wrap(Guard::new(Admission::default().impersonable().actor_scope("read")))
//!             .route("/all", web::get().to(me)), // here `Identity` follows the guard
//!     )
//!     .route("/account", web::delete().to(delete_account));
//! # drop(app); Ok(()) }
//! ```

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError, web};
use tracing::Instrument as _;

use crate::token::Verifier;

use super::admission::{Action, Admission, Impersonable, InPerson};
use super::argument::{Admitted, Around};
use super::bearer::identify;
use super::identity::Identity;
use super::refusal::Refusal;

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.log();
        let mut response = HttpResponse::build(self.status_code());
        for header in self.headers() {
            response.insert_header(header);
        }
        response.body(self.body().to_string())
    }
}

/// The application's verifier, as `Arc<Verifier>` or `web::Data<Verifier>`. Where both forms are there and are two, nobody
/// can say which is nearer to the route, and nobody is let in.
fn verifier(request: &HttpRequest) -> Result<&Verifier, Refusal> {
    let shared: Option<&Verifier> = request.app_data::<Arc<Verifier>>().map(|verifier| &**verifier);
    let data: Option<&Verifier> = request.app_data::<web::Data<Verifier>>().map(|data| &***data);
    match (shared, data) {
        (Some(one), Some(other)) if !std::ptr::eq(one, other) => Err(Refusal::Misconfigured),
        _ => shared.or(data).ok_or(Refusal::Misconfigured),
    }
}

/// Who calls, by the verifier in force here and nobody else's word.
fn find(
    request: &HttpRequest,
    verifier: &Verifier,
    around: Option<&Around>,
) -> Result<Arc<Identity>, Refusal> {
    around
        .and_then(|around| around.found_by(verifier, authorization(request)))
        .unwrap_or_else(|| identify(verifier, authorization(request)).map(Arc::new))
}

fn authorization(request: &HttpRequest) -> impl Iterator<Item = &[u8]> {
    request.headers().get_all(AUTHORIZATION).map(HeaderValue::as_bytes)
}

fn extract<T: Admitted>(request: &HttpRequest) -> Ready<Result<T, Refusal>> {
    let around = request.extensions().get::<Around>().cloned();
    let found = verifier(request).and_then(|verifier| find(request, verifier, around.as_ref()));
    let admission = around.as_ref().and_then(|around| around.admission.as_ref());
    ready(found.and_then(|who| T::admit(Identity::clone(&who), admission)))
}

impl FromRequest for Identity {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        extract(request)
    }
}

impl<A: Action> FromRequest for Impersonable<A> {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        extract(request)
    }
}

impl FromRequest for InPerson {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        extract(request)
    }
}

/// A middleware around an application, a scope or a route. It marks the answer (`Impersonated: ?1` or `?0`,
/// `X-Stagedoor-User`, `X-Stagedoor-Actor`) and opens a span with both identities around the handler.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Option<Admission>>);

impl Guard {
    /// Lets in only whom `admission` admits.
    #[must_use]
    pub fn new(admission: Admission) -> Self {
        Self(Arc::new(Some(admission)))
    }

    /// Refuses nobody and only marks; the handlers' arguments decide.
    #[must_use]
    pub fn observe() -> Self {
        Self(Arc::new(None))
    }
}

impl<S, B> Transform<S, ServiceRequest> for Guard
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type InitError = ();
    type Transform = GuardService<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(GuardService { service, admission: Arc::clone(&self.0) }))
    }
}

/// What [`Guard`] makes of the service it wraps.
#[derive(Debug)]
pub struct GuardService<S> {
    service: S,
    admission: Arc<Option<Admission>>,
}

impl<S, B> Service<ServiceRequest> for GuardService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let outer = request.extensions().get::<Around>().cloned();
        let verifier = verifier(request.request());
        let found = verifier.clone().and_then(|verifier| find(request.request(), verifier, outer.as_ref()));
        if let Some(admission) = &*self.admission
            && let Err(refusal) = found.clone().and_then(|who| admission.check(&who))
        {
            let response = request.into_response(refusal.error_response());
            return Box::pin(ready(Ok(response.map_into_right_body())));
        }
        let who = found.clone().ok();
        if let Ok(verifier) = verifier {
            let admission = (*self.admission).clone().or(outer.and_then(|outer| outer.admission));
            let around = Around::new(found, verifier, authorization(request.request()), admission);
            request.extensions_mut().insert(around);
        }
        let Some(who) = who else {
            let inner = self.service.call(request);
            return Box::pin(async move { Ok(inner.await?.map_into_left_body()) });
        };
        let span = who.span();
        let inner = span.in_scope(|| self.service.call(request));
        Box::pin(
            async move {
                let mut response = inner.await?.map_into_left_body();
                mark(response.headers_mut(), &who);
                Ok(response)
            }
            .instrument(span),
        )
    }
}

fn mark(headers: &mut HeaderMap, who: &Identity) {
    for (name, value) in super::identity::marks(who) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
