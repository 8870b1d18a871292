//! The one client for calls that leave the service: only where configured, small, quick, and never led elsewhere.

mod address;
mod resolver;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::header::{HeaderName, HeaderValue, RETRY_AFTER};
pub use reqwest::{Method, Url};

use tracing::Instrument as _;

use super::telemetry::trace;
use address::AddressRules;
use resolver::FilteringResolver;

/// The most bytes of an answer that are read (contract.md §2).
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The longest a call may take, from the name look-up to the last byte of the answer (contract.md §2).
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call was not made or its answer not taken. Names hosts at most: never a path, a header or a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Not an absolute http(s) URL, or one with a user name, password or fragment.
    #[error("not a plain http or https URL")]
    BadUrl,
    /// Plain http is for loopback, and only when that was asked for.
    #[error("{host}: https is needed (plain http only to loopback, with allow_http)")]
    NotHttps {
        /// The host that was to be called.
        host: String,
    },
    /// Nobody configured this scheme, host and port.
    #[error("{host} is not among the configured hosts")]
    NotConfigured {
        /// The host that was to be called.
        host: String,
    },
    /// The host is, or resolves to, an address that is not public and was not configured.
    #[error("{host} has no address that may be called (private, loopback or link-local)")]
    ForbiddenAddress {
        /// The host that was to be called.
        host: String,
    },
    /// The name could not be resolved.
    #[error("{host} cannot be resolved")]
    Unresolved {
        /// The host that was to be called.
        host: String,
    },
    /// The answer did not come in time.
    #[error("{host} did not answer within {} s", TOTAL_TIMEOUT.as_secs())]
    Timeout {
        /// The host that was called.
        host: String,
    },
    /// The connection failed or broke (TLS included).
    #[error("the call to {host} failed: {what}")]
    Transport {
        /// The host that was called.
        host: String,
        /// What failed, without the URL.
        what: String,
    },
    /// The answer is a redirect; none is followed.
    #[error("{host} answered with a redirect")]
    Redirect {
        /// The host that was called.
        host: String,
    },
    /// The answer is longer than [`MAX_ANSWER_BYTES`].
    #[error("the answer of {host} is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLarge {
        /// The host that was called.
        host: String,
    },
    /// The answer is compressed although that was refused.
    #[error("the answer of {host} has a content encoding nobody asked for")]
    Encoded {
        /// The host that was called.
        host: String,
    },
    /// A header that cannot be sent.
    #[error("a header of the request cannot be sent")]
    BadHeader,
    /// A value that cannot be one path segment.
    #[error("a value cannot stand in a path")]
    BadSegment,
    /// The client could not be made: a CA bundle that is none, or a machine without CA certificates.
    #[error("the outbound client cannot be made (configure a CA bundle, or install ca-certificates): {0}")]
    Build(String),
}

/// Where calls may go.
#[derive(Debug, Clone, Default)]
pub struct OutboundConfig {
    /// Every configured URL (issuers, SCIM, ticket, webhooks, witnesses): scheme, host and port of each may be called.
    pub destinations: Vec<String>,
    /// Networks that are not public and may be called all the same; link-local never.
    pub private_networks: Vec<IpNet>,
    /// Hosts (names, or addresses as URLs write them) that may be called though their address is not public.
    pub private_hosts: Vec<String>,
    /// Whether plain http to loopback is allowed; it also opens loopback for those destinations.
    pub allow_http: bool,
    /// PEM certificates to trust *instead of* the machine's.
    pub ca_bundle_pem: Option<Vec<u8>>,
}

/// A call to be made. `Debug` shows no header and no body.
pub struct Call {
    method: Method,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Vec<u8>>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("host", &host_of(&self.url))
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A GET of `url`.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: Vec::new(), body: None }
    }

    /// A POST of `body` to `url`.
    #[must_use]
    pub fn post(url: Url, content_type: &'static str, body: Vec<u8>) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { method: Method::POST, url, headers, body: Some(body) }
    }

    /// Says which answer is wanted.
    #[must_use]
    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.headers.push((ACCEPT, HeaderValue::from_static(media_type)));
        self
    }

    /// Adds a header.
    ///
    /// # Errors
    /// [`OutboundError::BadHeader`] when the value has characters a header cannot carry.
    pub fn header(mut self, name: &'static str, value: &str) -> Result<Self, OutboundError> {
        let name = HeaderName::try_from(name).map_err(|_| OutboundError::BadHeader)?;
        self.headers.push((name, HeaderValue::from_str(value).map_err(|_| OutboundError::BadHeader)?));
        Ok(self)
    }

    /// Adds `Authorization: Bearer …`, marked so that nothing prints it.
    ///
    /// # Errors
    /// [`OutboundError::BadHeader`] when the secret has characters a header cannot carry.
    pub fn bearer(self, secret: &str) -> Result<Self, OutboundError> {
        self.authorization(&zeroize::Zeroizing::new(format!("Bearer {secret}")))
    }

    /// Adds `Authorization` as given, marked so that nothing prints it.
    ///
    /// # Errors
    /// [`OutboundError::BadHeader`] when it has characters a header cannot carry.
    pub fn authorization(mut self, credentials: &str) -> Result<Self, OutboundError> {
        let mut value = HeaderValue::from_str(credentials).map_err(|_| OutboundError::BadHeader)?;
        value.set_sensitive(true);
        self.headers.push((AUTHORIZATION, value));
        Ok(self)
    }
}

/// What came back: any status but a redirect.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type, without parameters, in lower case.
    pub content_type: Option<String>,
    /// `Retry-After` in seconds, where it is a number.
    pub retry_after_seconds: Option<u32>,
    /// The whole body, at most [`MAX_ANSWER_BYTES`].
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Scheme, host and port: what the allow-list compares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_ascii_lowercase(),
            port: url.port_or_known_default()?,
        })
    }
}

/// The client; one for the whole process, shared by reference.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: reqwest::Client,
    allowed: Arc<HashSet<Origin>>,
    rules: Arc<AddressRules>,
    allow_http: bool,
}

impl Outbound {
    /// Makes the client for the destinations given; nothing else will ever be called through it.
    ///
    /// # Errors
    /// [`OutboundError::BadUrl`] or [`OutboundError::NotHttps`] for a destination that could never be called,
    /// [`OutboundError::Build`] when TLS cannot be set up.
    pub fn new(config: &OutboundConfig) -> Result<Self, OutboundError> {
        let mut allowed = HashSet::new();
        let mut plain_hosts = HashSet::new();
        for text in &config.destinations {
            let url = plain_url(text)?;
            check_scheme(&url, config.allow_http)?;
            let origin = Origin::of(&url).ok_or(OutboundError::BadUrl)?;
            if origin.scheme == "http" {
                plain_hosts.insert(origin.host.clone());
            }
            allowed.insert(origin);
        }
        let needs_tls = allowed.iter().any(|origin| origin.scheme == "https");
        let private_hosts = config.private_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let rules = Arc::new(AddressRules::new(config.private_networks.clone(), private_hosts, plain_hosts));
        let client = build_client(Arc::clone(&rules), config.ca_bundle_pem.as_deref(), needs_tls)?;
        Ok(Self { client, allowed: Arc::new(allowed), rules, allow_http: config.allow_http })
    }

    /// Reads a URL and checks that it may be called.
    ///
    /// # Errors
    /// [`OutboundError::BadUrl`], [`OutboundError::NotHttps`], [`OutboundError::NotConfigured`] or, for an
    /// address written out, [`OutboundError::ForbiddenAddress`].
    pub fn destination(&self, text: &str) -> Result<Url, OutboundError> {
        let url = plain_url(text)?;
        self.check(&url)?;
        Ok(url)
    }

    fn check(&self, url: &Url) -> Result<(), OutboundError> {
        check_scheme(url, self.allow_http)?;
        let host = host_of(url);
        let origin = Origin::of(url).ok_or(OutboundError::BadUrl)?;
        if !self.allowed.contains(&origin) {
            return Err(OutboundError::NotConfigured { host });
        }
        // A name is checked when it is resolved; an address written out never reaches the resolver.
        if let Some(ip) = literal_ip(url)
            && !self.rules.allows(&origin.host, ip)
        {
            return Err(OutboundError::ForbiddenAddress { host });
        }
        Ok(())
    }

    /// Makes the call and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// Every [`OutboundError`] but `Build`; a redirect is an error, and so is an answer too long, too late or compressed.
    pub async fn send(&self, call: Call) -> Result<Answer, OutboundError> {
        self.check(&call.url)?;
        let host = host_of(&call.url);
        let span = tracing::debug_span!("call", host, method = %call.method);
        let exchange = self.exchange(call, &host).instrument(span);
        match tokio::time::timeout(TOTAL_TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(_elapsed) => Err(OutboundError::Timeout { host }),
        }
    }

    async fn exchange(&self, call: Call, host: &str) -> Result<Answer, OutboundError> {
        let mut headers: HeaderMap = call.headers.into_iter().collect();
        // whoever is asked on behalf of a request sees which trace it belongs to, and nothing else of it
        if let Some(parent) = trace::current().and_then(|span| HeaderValue::try_from(span.to_string()).ok()) {
            headers.insert(trace::TRACEPARENT, parent);
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut request = self.client.request(call.method, call.url).headers(headers);
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|error| classify(host, error))?;
        let too_large = || OutboundError::TooLarge { host: host.to_owned() };
        if response.status().is_redirection() {
            return Err(OutboundError::Redirect { host: host.to_owned() });
        }
        if response
            .headers()
            .get(CONTENT_ENCODING)
            .is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(OutboundError::Encoded { host: host.to_owned() });
        }
        if response.content_length().is_some_and(|length| length > MAX_ANSWER_BYTES as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(host, error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Ok(Answer {
            status: response.status().as_u16(),
            content_type: text(CONTENT_TYPE)
                .map(|t| t.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()),
            retry_after_seconds: text(RETRY_AFTER).and_then(|t| t.trim().parse().ok()),
            body,
        })
    }
}

fn build_client(
    rules: Arc<AddressRules>,
    ca_bundle: Option<&[u8]>,
    needs_tls: bool,
) -> Result<reqwest::Client, OutboundError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("stagedoor/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(TOTAL_TIMEOUT)
        .timeout(TOTAL_TIMEOUT)
        .pool_max_idle_per_host(8)
        .dns_resolver(FilteringResolver::new(rules));
    let build = |what: &str| OutboundError::Build(what.to_owned());
    if let Some(pem) = ca_bundle {
        let certs =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|_| build("the CA bundle is not PEM"))?;
        if certs.is_empty() {
            return Err(build("the CA bundle holds no certificate"));
        }
        builder = builder.tls_certs_only(certs);
    } else if !needs_tls {
        // Nothing will be called over TLS, so a machine without CA certificates is no reason not to start.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| OutboundError::Build(chain(&error.without_url())))
}

/// Appends `value` to `base` as exactly one percent-encoded path segment.
///
/// # Errors
/// [`OutboundError::BadSegment`] for an empty value and for `.` and `..`, which URL parsers read as steps even
/// when they are percent-encoded.
pub fn with_segment(base: &Url, value: &str) -> Result<Url, OutboundError> {
    if matches!(value, "" | "." | "..") {
        return Err(OutboundError::BadSegment);
    }
    let mut url = base.clone();
    let path = format!("{}/{}", base.path().trim_end_matches('/'), percent_encode(value));
    url.set_path(&path);
    url.set_query(None);
    Ok(url)
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
#[must_use]
pub fn percent_encode(value: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

fn plain_url(text: &str) -> Result<Url, OutboundError> {
    if text.len() > 2048 {
        return Err(OutboundError::BadUrl);
    }
    let url = Url::parse(text).map_err(|_| OutboundError::BadUrl)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    if plain { Ok(url) } else { Err(OutboundError::BadUrl) }
}

fn check_scheme(url: &Url, allow_http: bool) -> Result<(), OutboundError> {
    let loopback = || match literal_ip(url) {
        Some(ip) => ip.to_canonical().is_loopback(),
        None => url.host_str() == Some("localhost"),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if allow_http && loopback() => Ok(()),
        "http" => Err(OutboundError::NotHttps { host: host_of(url) }),
        _ => Err(OutboundError::BadUrl),
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The address, when the host is one; URL parsing has already made `0x7f.1` and `2130706433` dotted.
fn literal_ip(url: &Url) -> Option<std::net::IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn classify(host: &str, error: reqwest::Error) -> OutboundError {
    let error = error.without_url();
    let host = host.to_owned();
    if resolver::was_forbidden(&error) {
        OutboundError::ForbiddenAddress { host }
    } else if error.is_dns() {
        OutboundError::Unresolved { host }
    } else if error.is_timeout() {
        OutboundError::Timeout { host }
    } else {
        OutboundError::Transport { host, what: chain(&error) }
    }
}

/// An error and its sources on one line, for the operator; a source that repeats what was said is left out.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
