//! One careful GET: https unless loopback, no redirects, three seconds, one mebibyte.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, StatusCode, Url, redirect};

/// How long one fetch may take in all.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The largest body that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// Why something elsewhere could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not an absolute URL that may be asked: https, or plain http to loopback.
    #[error("{0} is not an https URL (plain http is for loopback only)")]
    Url(String),
    /// The verifier does not trust this issuer.
    #[error("the verifier does not trust the issuer {0}")]
    Issuer(crate::token::Issuer),
    /// The HTTP client could not be set up (for instance: no CA certificates on the machine).
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
    /// The other side could not be reached, or not in time.
    #[error("no answer from {url}")]
    Unreachable {
        /// Where was asked.
        url: Url,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
    /// It answered something else than 200.
    #[error("{url} answered {status}")]
    Status {
        /// Where was asked.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// It answered more than is read.
    #[error("{0} answered more than is read")]
    TooLarge(Url),
    /// The answer is no document of the revocation feed.
    #[error("{url} answered no document of the revocation feed")]
    Feed {
        /// Where was asked.
        url: Url,
        /// What is wrong with it.
        #[source]
        source: crate::token::feed::FeedError,
    },
    /// What is revoked did not arrive in time.
    #[error("what is revoked did not arrive within {0:?}")]
    RevocationsNotReady(Duration),
    /// The answer is no key set.
    #[error("{url} answered no key set")]
    KeySet {
        /// Where was asked.
        url: Url,
        /// What is wrong with it.
        #[source]
        source: crate::token::key_set::KeySetError,
    },
    /// Not every issuer's keys arrived in time.
    #[error("the issuers' keys did not arrive within {0:?}")]
    NotReady(Duration),
}

/// A client for one address.
pub(super) struct Source {
    client: Client,
    url: Url,
}

/// A client for `address`, still to be given its timeouts: https, or plain http to loopback; no redirects.
pub(super) fn careful(address: &str) -> Result<(ClientBuilder, Url), RemoteError> {
    let refused = || RemoteError::Url(address.to_owned());
    let url = Url::parse(address).map_err(|_| refused())?;
    let loopback = match url.host_str() {
        None => return Err(refused()),
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    let mut builder = Client::builder().redirect(redirect::Policy::none()).https_only(!loopback);
    match (url.scheme(), loopback) {
        ("https", _) => {}
        // No TLS is spoken, so a machine without CA certificates is no obstacle; no proxy reaches our loopback.
        ("http", true) => builder = builder.no_proxy().tls_certs_only([]),
        _ => return Err(refused()),
    }
    Ok((builder, url))
}

impl Source {
    pub(super) fn new(address: &str) -> Result<Self, RemoteError> {
        let (builder, url) = careful(address)?;
        Ok(Self { client: builder.timeout(TIMEOUT).build().map_err(RemoteError::Client)?, url })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The body of a 200.
    pub(super) async fn get(&self) -> Result<Vec<u8>, RemoteError> {
        let unreachable = |source| RemoteError::Unreachable { url: self.url.clone(), source };
        let request =
            self.client.get(self.url.clone()).header("accept", "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(RemoteError::Status { url: self.url.clone(), status: response.status() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(RemoteError::TooLarge(self.url.clone()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn only_https_is_asked_or_loopback() {
        for good in [
            "https://issuer.example/jwks",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]:8080/jwks",
            "http://localhost/jwks",
        ] {
            assert!(Source::new(good).is_ok(), "{good}");
        }
        for bad in [
            "http://issuer.example/jwks",
            "http://127.0.0.1.evil.example/jwks",
            "http://localhost.evil.example/",
            "file:///etc/passwd",
            "jwks.json",
            "",
        ] {
            assert!(Source::new(bad).is_err(), "{bad}");
        }
    }
}
