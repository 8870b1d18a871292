//! Sends the cases one after another and notes what came back.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect};
use serde::Serialize;

use super::cases::{Case, Presented};

/// The service under test.
#[derive(Debug)]
pub struct Target {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not an absolute http(s) URL.
    #[error("the target is not an http or https URL")]
    Url,
    /// Not `Name: value`, or characters that a header cannot have.
    #[error("`{0}` is not a header (`Name: value`); `Authorization` is set by this program")]
    Header(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[source] reqwest::Error),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// An answer with this status.
    Status(u16),
    /// No answer: refused, closed or too slow.
    NoAnswer(String),
    /// HTTP cannot carry the case.
    NotSent,
}

impl Target {
    /// A target with headers that every request carries.
    pub fn new(url: &str, headers: &[String], timeout: Duration) -> Result<Self, TargetError> {
        let url = Url::parse(url).map_err(|_| TargetError::Url)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(TargetError::Url);
        }
        let mut map = HeaderMap::new();
        for line in headers {
            let (name, value) = header(line).ok_or_else(|| TargetError::Header(line.clone()))?;
            map.append(name, value);
        }
        // A new connection for each request: one that a service closes after a monstrous header is not the next one's.
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .user_agent(concat!("stagedoor-conformance/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(TargetError::Client)?;
        Ok(Self { client, url, headers: map })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Sends one case.
    pub async fn send(&self, case: &Case) -> Observed {
        let Some((url, headers)) = self.request(case) else { return Observed::NotSent };
        match self.client.get(url).headers(headers).send().await {
            Ok(answer) => Observed::Status(answer.status().as_u16()),
            Err(error) if error.is_timeout() => Observed::NoAnswer("no answer in time".to_owned()),
            Err(error) if error.is_connect() => Observed::NoAnswer("cannot connect".to_owned()),
            Err(_) => Observed::NoAnswer("closed the connection".to_owned()),
        }
    }

    fn request(&self, case: &Case) -> Option<(Url, HeaderMap)> {
        if !case.fits_http() {
            return None;
        }
        let (mut url, mut headers) = (self.url.clone(), self.headers.clone());
        match &case.presented {
            Presented::Bearer(token) => {
                headers.append(AUTHORIZATION, value(&format!("Bearer {token}"))?);
            }
            Presented::Request(request) => {
                for authorization in &request.authorization {
                    headers.append(AUTHORIZATION, value(authorization)?);
                }
                for (name, text) in &request.headers {
                    headers.append(HeaderName::from_static(name), value(text)?);
                }
                if let Some((name, text)) = &request.query {
                    url.query_pairs_mut().append_pair(name, text);
                }
            }
        }
        Some((url, headers))
    }
}

fn value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = line.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    if name == AUTHORIZATION { None } else { Some((name, value(text.trim())?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_web_address_and_its_headers_are_headers() {
        let target = |url: &str, headers: &[&str]| {
            Target::new(
                url,
                &headers.iter().map(ToString::to_string).collect::<Vec<_>>(),
                Duration::from_secs(1),
            )
        };
        assert!(target("http://127.0.0.1:1/x?y=z", &["X-Tenant: a", "Host: api.example"]).is_ok());
        for url in ["", "/x", "file:///etc/passwd", "localhost:80"] {
            assert!(matches!(target(url, &[]), Err(TargetError::Url)), "{url}");
        }
        for header in ["x", ": y", "a b: c", "Authorization: Bearer x", "x: \u{7}"] {
            assert!(matches!(target("http://127.0.0.1", &[header]), Err(TargetError::Header(_))), "{header}");
        }
    }
}
