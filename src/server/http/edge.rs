//! What every request passes: request id, address, host check, one span, one error body, cache and CORS headers.

use std::future::Future as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::{PayloadError, QueryPayloadError};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError as _, web};
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Sleep, sleep};
use tracing::Instrument;

use super::connections::{Connection, PIECE};
use super::console::Trouble;
use super::oauth::OAuthError;
use super::problem::{Code, Problem};
use super::query::Query;
use super::{Endpoint, Exposure, ROUTES};
use crate::server::service::Service;
use crate::server::telemetry;
use crate::server::telemetry::trace::{self, TraceContext};
use crate::token::RequestId;

/// The header that names a request in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers without an end.
pub const STREAM: &str = "/v1/revocations/stream";

/// How long a body may take to arrive whole: at most 16 KiB, and a connection that holds it up holds a place.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What is known of a request before anybody looks at it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its id.
    pub id: RequestId,
    /// Where it came from: the right-most hop that is not a trusted proxy.
    pub address: Option<IpAddr>,
}

/// Marks a refusal that is not in the log, so that it is counted in its sums.
pub struct Unrecorded;

/// The arrival of `request`.
///
/// # Panics
/// Never behind [`edge`], which puts it there.
pub fn arrival(request: &HttpRequest) -> Arrival {
    request.extensions().get::<Arrival>().cloned().expect("the edge wraps every route")
}

/// The outermost middleware: everything that is asked and answered passes it.
pub async fn edge(
    service: web::Data<Service>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let arrival = Arrival {
        id: RequestId::generate(service.clock.now(), &*service.entropy),
        address: client_address(&request, &service.trusted_proxies),
    };
    request.extensions_mut().insert(arrival.clone());
    if *request.method() == Method::HEAD && request.path() != STREAM {
        // as GET, whose body the encoder leaves out: it knows what was asked (RFC 9110 §9.3.2). A stream would be read to
        // its end for that, and has none.
        request.head_mut().method = Method::GET;
    }
    let (accept, method) = (request.headers().get(header::ACCEPT).cloned(), request.method().clone());
    let started = service.clock.monotonic();
    let (span, context) = begin(&service, &request, &arrival, &method);

    limit_the_body(&mut request);
    let busy = request.request().conn_data::<Arc<Connection>>().map(Connection::busy);
    let refused = host_refused(&service, &request)
        .or_else(|| encoding_refused(&request))
        .or_else(|| query_refused(&request));
    let preflight = method == Method::OPTIONS && public(request.path(), &method);
    let answered = if let Some(refused) = refused {
        request.into_response(refused)
    } else if preflight {
        request.into_response(
            HttpResponse::NoContent()
                .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET"))
                .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "if-none-match, last-event-id"))
                .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
                .finish(),
        )
    } else {
        match trace::within(context, next.call(request).instrument(span.clone())).await {
            Ok(response) => response.map_into_boxed_body(),
            // Only the framework's own rejections come this way; ours are answers.
            Err(error) => return Err(error),
        }
    };
    let response = finish(&service, answered, &arrival, accept.as_ref());
    let route = response.request().match_pattern().unwrap_or_else(|| "-".into());
    observe(
        &service,
        &span,
        &method,
        &route,
        response.status(),
        service.clock.monotonic().saturating_sub(started),
    );
    Ok(match (busy, response.response().body().size()) {
        (Some(busy), BodySize::Stream) => {
            busy.for_good();
            response
        }
        (Some(busy), BodySize::Sized(size)) if size > PIECE as u64 => {
            response.map_body(|_, body| busy.while_it_is_read(body))
        }
        _ => response,
    })
}

/// The request's span: a part of its caller's trace where `traceparent` names one, else of one of its own.
fn begin(
    service: &Service,
    request: &ServiceRequest,
    arrival: &Arrival,
    method: &Method,
) -> (tracing::Span, TraceContext) {
    use tracing::field::Empty;
    let span = tracing::info_span!(
        "request",
        id = %arrival.id,
        method = %method,
        route = Empty,
        status = Empty,
        trace_id = Empty,
        span_id = Empty
    );
    let mut named = request.headers().get_all(trace::TRACEPARENT);
    let parent = named.next().and_then(|text| TraceContext::parse(text.to_str().ok()?));
    // two of them name no trace
    let parent = parent.filter(|_| named.next().is_none());
    let ours = telemetry::join(&span, parent).unwrap_or_else(|| match parent {
        Some(parent) => parent.child(&*service.entropy),
        None => TraceContext::root(&*service.entropy),
    });
    // together: a layer that writes JSON reads and writes all of a span's fields for each record
    tracing::record_all!(span, trace_id = %ours.trace(), span_id = %ours.span());
    (span, ours)
}

/// Renders a problem, then the headers that every answer carries.
fn finish(
    service: &Service,
    response: ServiceResponse<BoxBody>,
    arrival: &Arrival,
    accept: Option<&HeaderValue>,
) -> ServiceResponse<BoxBody> {
    let (request, mut response) = response.into_parts();
    if let Some(ours) = in_our_words(request.path(), &response) {
        response = ours;
    }
    let carried = response.extensions().get::<Problem>().cloned();
    if let Some(problem) = carried {
        let closes = response.head().connection_type() == ConnectionType::Close;
        response = problem.render(&arrival.id, accept);
        if closes {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        if !problem.recorded {
            response.extensions_mut().insert(Unrecorded);
        }
    }
    if response.extensions().get::<Unrecorded>().is_some() {
        service.noise.count(response.status().as_u16());
    }
    if service.draining.load(Ordering::Relaxed) {
        // the next request goes to a replica that stays, and not into a connection that is about to be closed
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if public(request.path(), request.method()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(arrival.id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    ServiceResponse::new(request, response)
}

/// What the framework refused by itself, such as a body over the limit, in the words of the path's own errors.
fn in_our_words(path: &str, response: &HttpResponse) -> Option<HttpResponse> {
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let error = response.error().filter(|_| media.starts_with("text/plain"))?;
    let query = error.as_error::<QueryPayloadError>().is_some();
    let page = path == "/console" || path.starts_with("/console/");
    if page && response.status().is_client_error() {
        let arrived = "It is too long, or did not arrive whole. Open the page again.";
        return Some(if query { Trouble::Address } else { Trouble::Form(arrived) }.error_response());
    }
    let (code, detail) = match response.status() {
        _ if query => (Code::QueryInvalid, "The query string cannot be read."),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::RequestBodyTooLarge, "The body is over 16 KiB."),
        status if status.is_client_error() => (Code::RequestBodyInvalid, "The body did not arrive whole."),
        _ => (Code::InternalError, "The request could not be served. Tell the operator the trace_id."),
    };
    let mut ours = refusal(path, code, detail);
    // what of the body is still to come is not waited for
    ours.head_mut().set_connection_type(ConnectionType::Close);
    Some(ours)
}

/// A body that is still on its way gets [`BODY_WITHIN`], then it counts as one that did not arrive.
fn limit_the_body(request: &mut ServiceRequest) {
    match request.take_payload() {
        Payload::None => {}
        payload => {
            let payload = Box::pin(InTime { payload, late: None });
            request.set_payload(Payload::Stream { payload });
        }
    }
}

struct InTime {
    payload: Payload,
    /// Set when something had to be waited for: most bodies arrive with their head.
    late: Option<Pin<Box<Sleep>>>,
}

impl Stream for InTime {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.payload).poll_next(context);
        if next.is_ready() {
            return next;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(BODY_WITHIN)));
        late.as_mut().poll(context).map(|()| Some(Err(PayloadError::Io(std::io::ErrorKind::TimedOut.into()))))
    }
}

/// What answers at `path`, a method each: of the routes that fit, that with the fewest parameters.
fn endpoints_at(path: &str) -> impl Iterator<Item = &'static Endpoint> + Clone {
    let parameters = |e: &&Endpoint| e.path.matches('{').count();
    let answers = ROUTES.iter().filter(|e| matches(e.path, path)).min_by_key(parameters).map(|e| e.path);
    ROUTES.iter().filter(move |e| Some(e.path) == answers)
}

/// Whether pages of other origins may read this path (contract.md §4, CORS). One that also takes a method which needs a
/// credential gives nothing away to that.
fn public(path: &str, method: &Method) -> bool {
    let mut here = endpoints_at(path);
    let private =
        |e: &&Endpoint| e.exposure != Exposure::Public && e.method.as_ref().is_none_or(|m| m == method);
    here.clone().any(|e| e.exposure == Exposure::Public) && !here.any(|e| private(&e))
}

/// Whether `path` fits a route's pattern; a last `{name:.*}` takes all the rest.
fn matches(pattern: &str, path: &str) -> bool {
    // asked of every route for every answer: most are told apart by how they begin
    let Some((literal, _)) = pattern.split_once('{') else { return pattern == path };
    if !path.starts_with(literal) {
        return false;
    }
    let mut rest = Some(path);
    for segment in pattern.split('/') {
        let Some(here) = rest else { return false };
        if segment.ends_with(":.*}") {
            return !here.is_empty();
        }
        let (first, after) = here.split_once('/').map_or((here, None), |(first, after)| (first, Some(after)));
        let parameter = segment.starts_with('{') && !first.is_empty();
        if segment != first && !parameter {
            return false;
        }
        rest = after;
    }
    rest.is_none()
}

fn observe(
    service: &Service,
    span: &tracing::Span,
    method: &Method,
    route: &str,
    status: StatusCode,
    took: Duration,
) {
    tracing::record_all!(span, route = route, status = status.as_u16());
    service.metrics.request(method.as_str(), route, status.as_u16(), took);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    span.in_scope(|| {
        if status.is_server_error() {
            tracing::warn!(duration_us = micros, "answered");
        } else {
            tracing::debug!(duration_us = micros, "answered");
        }
    });
}

/// In `dev` only loopback names are served: a page that resolves its own name to 127.0.0.1 gets nothing.
fn host_refused(service: &Service, request: &ServiceRequest) -> Option<HttpResponse> {
    if !service.loopback_hosts_only {
        return None;
    }
    let mut hosts = request.headers().get_all(header::HOST);
    let host = hosts.next().and_then(|h| h.to_str().ok()).unwrap_or("");
    (hosts.next().is_some() || !is_loopback_host(host)).then(|| {
        let detail =
            "`stagedoor dev` answers only to localhost, 127.0.0.1 and [::1]. Use `stagedoor serve` for other names.";
        Problem::new(Code::HostNotAllowed, detail).error_response()
    })
}

/// A body is limited as it arrives: unpacked, it could be a thousand times as long.
fn encoding_refused(request: &ServiceRequest) -> Option<HttpResponse> {
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    let packed = |encoding: &HeaderValue| !encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    encodings.into_iter().any(packed).then(|| {
        let detail = "Send the body as it is, without Content-Encoding.";
        refusal(request.path(), Code::RequestBodyInvalid, detail)
    })
}

/// A parameter that nobody reads is refused, not dropped: who sends `personal=false` relies on it. Outside of `/v1`
/// caches and proxies add some of their own.
fn query_refused(request: &ServiceRequest) -> Option<HttpResponse> {
    let takes_none = |e: &Endpoint| {
        e.path.starts_with("/v1/") && !e.reads_query && e.method.as_ref() == Some(request.method())
    };
    if request.query_string().is_empty() || !endpoints_at(request.path()).any(takes_none) {
        return None;
    }
    Query::parse(request.query_string(), &[]).err().map(|problem| problem.error_response())
}

/// A refusal in the words of the path's own errors.
fn refusal(path: &str, code: Code, detail: &'static str) -> HttpResponse {
    if path.starts_with("/oauth/") {
        OAuthError { status: code.status(), ..OAuthError::invalid_request(detail) }.error_response()
    } else {
        Problem::new(code, detail).error_response()
    }
}

/// Whether a `Host` header names this machine's loopback.
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.strip_suffix(".localhost").is_some_and(|n| !n.is_empty())
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The right-most hop that is not a trusted proxy; a forwarded address is believed from those only. What is no address
/// ends the walk: nothing in front of it is vouched for, and the nearest hop that is known counts.
fn client_address(request: &ServiceRequest, trusted: &[ipnet::IpNet]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if !is_trusted(peer) {
        return Some(peer);
    }
    // as bytes: what a caller put in front must not hide the hop that the proxy wrote behind it
    let lists: Vec<&[u8]> = request.headers().get_all("x-forwarded-for").map(HeaderValue::as_bytes).collect();
    let mut nearest = peer;
    for hop in lists.iter().rev().flat_map(|list| list.rsplit(|byte| *byte == b',')) {
        let Some(address) = hop_address(hop) else { break };
        nearest = address;
        if !is_trusted(nearest) {
            break;
        }
    }
    Some(nearest)
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address =
        bare.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    address.ok().map(|ip| ip.to_canonical())
}

/// Refuses a body that says it is something else than JSON.
pub fn json_body(request: &HttpRequest, body: &[u8]) -> Result<(), Problem> {
    let media = request.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?"));
    let essence = media.map(|m| m.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    match essence.as_deref() {
        None | Some("application/json" | "") => Ok(()),
        Some(other) if other.ends_with("+json") && other.starts_with("application/") => Ok(()),
        Some(_) if body.is_empty() => Ok(()),
        Some(_) => {
            Err(Problem::new(Code::RequestBodyInvalid, "Send the body as Content-Type: application/json."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn only_loopback_hosts_pass_in_dev() {
        for good in
            ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:8080", "as.localhost:80"]
        {
            assert!(is_loopback_host(good), "{good}");
        }
        for bad in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ".localhost"]
        {
            assert!(!is_loopback_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_forwarded_address_is_believed_from_trusted_proxies_only() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let ask = |peer: &str, forwarded: &[&str]| {
            let mut request = TestRequest::default().peer_addr(format!("{peer}:1").parse().unwrap());
            for f in forwarded {
                request = request.append_header(("x-forwarded-for", *f));
            }
            client_address(&request.to_srv_request(), &trusted).map_or("unknown".into(), |ip| ip.to_string())
        };
        assert_eq!(
            ask("192.0.2.1", &["203.0.113.9"]),
            "192.0.2.1",
            "an untrusted peer speaks for itself only"
        );
        assert_eq!(ask("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            ask("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"]),
            "203.0.113.9",
            "right-most untrusted hop"
        );
        assert_eq!(
            ask("10.0.0.1", &["1.1.1.1", "203.0.113.9"]),
            "203.0.113.9",
            "several headers are one list"
        );
        for (hop, address) in [
            ("203.0.113.9:5555", "203.0.113.9"),
            ("[2001:db8::9]:5555", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(ask("10.0.0.1", &[hop]), address);
        }
        for (nameless, nearest) in [
            ("garbage", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("203.0.113.9:", "10.0.0.1"),
            ("203.0.113.9,", "10.0.0.1"),
            ("8.8.8.8, evil", "10.0.0.1"),
            ("1.1.1.1, _hidden, 10.0.0.2", "10.0.0.2"),
            ("evil, 203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(ask("10.0.0.1", &[nameless]), nearest, "{nameless:?}: the nearest that is known");
        }
        assert_eq!(ask("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("/v1/actor_tokens/{id}", "/v1/actor_tokens/act_1"));
        assert!(!matches("/v1/actor_tokens/{id}", "/v1/actor_tokens/"));
        assert!(!matches("/v1/jwks", "/v1/jwks/x"));
        assert!(matches("/v1/t/{level}/{n:.*}", "/v1/t/0/x001/067.p/3"));
        assert!(!matches("/v1/t/{level}/{n:.*}", "/v1/t/0"));
        assert!(public("/v1/audit/log/tile/0/000", &Method::GET));
        assert!(!public("/v1/audit/log/tile/entries/000", &Method::GET));
    }
}
