//! Talking to a running server, as a client of it.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::terminal;
use crate::server::config::{Environment, Secret, is_loopback};

/// The largest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a running server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Not an address a secret may travel to.
    #[error("--url {0}")]
    Url(String),
    /// No secret.
    #[error(
        "STAGEDOOR_CLIENT_SECRET is missing; set it to a client's secret (`stagedoor client create` prints one)"
    )]
    NoSecret,
    /// Nobody there, or too slow.
    #[error("{url} did not answer; check that the server runs, or name it with STAGEDOOR_URL")]
    Unreachable {
        /// Which server.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("{url} refused ({status}): {message}")]
    Refused {
        /// Which server.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// Not an answer of this service.
    #[error("{url} answered something else than this service does; check --url")]
    NotOurs {
        /// Which server.
        url: String,
    },
}

impl ApiError {
    /// Whether the same question may be answered a little later.
    pub const fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 429 | 503, .. })
    }
}

/// A server to talk to.
pub struct Api {
    base: Url,
    http: reqwest::Client,
    secret: Option<Secret>,
}

impl Api {
    /// The server at `url`, else at `STAGEDOOR_URL`; as `STAGEDOOR_CLIENT_SECRET` says.
    pub fn new(url: Option<&str>, environment: &Environment) -> Result<Self, super::CliError> {
        let url = url
            .or(environment.url())
            .ok_or_else(|| ApiError::Url("is missing; write https://…".to_owned()))?;
        let base = base(url)?;
        let http = client(base.scheme() == "http")
            .map_err(|source| ApiError::Unreachable { url: base.to_string(), source })?;
        Ok(Self { base, http, secret: environment.client_secret()? })
    }

    /// The same, for what needs a secret: the person at the terminal is asked for one that is not set.
    pub fn as_client(url: Option<&str>, environment: &Environment) -> Result<Self, super::CliError> {
        let mut api = Self::new(url, environment)?;
        if api.secret.is_none() && terminal::may_ask() {
            api.secret = Some(Secret::new(terminal::ask_hidden("Client secret (not shown)")?.to_string()));
        }
        Ok(api)
    }

    /// Whether a secret was given.
    pub const fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether the address is more than a server's.
    pub fn has_path(&self) -> bool {
        self.base.path() != "/"
    }

    /// The bytes at `path`, at most `limit`; `None` where there is nothing.
    pub async fn get(
        &self,
        path: &str,
        limit: usize,
        with_secret: bool,
    ) -> Result<Option<Vec<u8>>, ApiError> {
        let mut request = self.http.get(self.at(path));
        if with_secret {
            request = request.bearer_auth(self.secret.as_ref().ok_or(ApiError::NoSecret)?.expose());
        }
        let (status, bytes) = self.send(request, limit).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(bytes)),
            status => Err(refused(&self.base, status, &serde_json::from_slice(&bytes).unwrap_or_default())),
        }
    }

    /// Posts a JSON body to `path` and reads the JSON answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let secret = self.secret.as_ref().ok_or(ApiError::NoSecret)?;
        let request = self.http.post(self.at(path)).bearer_auth(secret.expose()).json(body);
        let (status, bytes) = self.send(request, MAX_ANSWER_BYTES).await?;
        let body: Value =
            serde_json::from_slice(&bytes).map_err(|_| ApiError::NotOurs { url: self.base.to_string() })?;
        if status.is_success() { Ok(body) } else { Err(refused(&self.base, status, &body)) }
    }

    /// The text at `path` in the media type `accept`.
    pub async fn read(&self, path: &str, accept: &str) -> Result<String, ApiError> {
        let secret = self.secret.as_ref().ok_or(ApiError::NoSecret)?;
        let request = self.http.get(self.at(path)).bearer_auth(secret.expose()).header("accept", accept);
        let (status, bytes) = self.send(request, MAX_ANSWER_BYTES).await?;
        if status.is_success() {
            String::from_utf8(bytes).map_err(|_| self.not_ours())
        } else {
            Err(refused(&self.base, status, &serde_json::from_slice(&bytes).unwrap_or_default()))
        }
    }

    /// What was answered is no answer of this service.
    pub fn not_ours(&self) -> ApiError {
        ApiError::NotOurs { url: self.base.to_string() }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>), ApiError> {
        let unreachable = |source| ApiError::Unreachable { url: self.base.to_string(), source };
        let mut answer = request.send().await.map_err(unreachable)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit {
                return Err(ApiError::NotOurs { url: self.base.to_string() });
            }
        }
        Ok((answer.status(), bytes))
    }
}

fn refused(base: &Url, status: StatusCode, body: &Value) -> ApiError {
    let message = body["detail"].as_str().or(body["title"].as_str()).unwrap_or("it gave no reason");
    ApiError::Refused { url: base.to_string(), status: status.as_u16(), message: message.to_owned() }
}

/// An HTTP client for one command: no redirects, which would carry the secret elsewhere.
pub fn client(plain: bool) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("stagedoor/", env!("CARGO_PKG_VERSION")));
    // Plain http needs no authorities, and an image without any could not build the client.
    if plain { builder.tls_certs_only([]).no_proxy() } else { builder.https_only(true) }.build()
}

fn base(text: &str) -> Result<Url, ApiError> {
    let url =
        Url::parse(text).map_err(|e| ApiError::Url(format!("is not an address ({e}); write https://…")))?;
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse().is_ok_and(is_loopback);
    if url.scheme() == "https" || (url.scheme() == "http" && local) {
        Ok(url)
    } else {
        Err(ApiError::Url("must be https, as a secret travels there (http for loopback only)".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_travels_encrypted_or_stays_on_this_machine() {
        for good in ["https://a.example", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1/x"] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in
            ["http://a.example", "http://10.0.0.1", "ftp://a", "a.example", "http://localhost.evil.example"]
        {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
