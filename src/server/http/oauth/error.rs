//! OAuth's errors (RFC 6749 §5.2): the body that generic clients read, never problem details.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

/// One error of an OAuth endpoint.
#[derive(Debug, Clone)]
pub struct OAuthError {
    /// The code.
    pub error: &'static str,
    /// For the developer of the client; only characters that RFC 6749 allows.
    pub description: Cow<'static, str>,
    /// The HTTP status.
    pub status: StatusCode,
    /// The challenge, where the client used `Authorization` (OA-13).
    pub challenge: Option<&'static str>,
    /// Seconds to wait.
    pub retry_after_seconds: Option<u32>,
    /// In the log already, so not counted among the noise.
    pub recorded: bool,
}

impl OAuthError {
    /// An error with status 400.
    pub fn new(error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            error,
            description: description.into(),
            status: StatusCode::BAD_REQUEST,
            challenge: None,
            retry_after_seconds: None,
            recorded: false,
        }
    }

    /// The request is malformed, or a token in it is not acceptable for any reason (TE-1).
    pub fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid_request", description)
    }

    /// The target or audience is refused (TE-2).
    pub fn invalid_target(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid_target", description)
    }

    /// The client did not prove itself: always 401, with a challenge of the scheme it used (OA-13).
    pub fn invalid_client(description: &'static str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: Some(r#"Basic realm="stagedoor""#),
            ..Self::new("invalid_client", description)
        }
    }

    /// The endpoint is asked with another method than POST.
    pub fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Self::new("invalid_request", "This endpoint takes POST with a form.")
        }
    }

    /// Nothing can be recorded or asked at the moment (RFC 6749 names no code for it; RFC 7009 uses 503).
    pub fn unavailable(description: &'static str, retry_after_seconds: u32) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new("temporarily_unavailable", description)
        }
    }

    /// The same error, known to be in the log.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.recorded = true;
        self
    }

    /// OA-12: `%x20-21 %x23-5B %x5D-7E` only, so that no input is ever echoed into a header or a page.
    fn safe_description(&self) -> String {
        self.description
            .replace('…', "...")
            .chars()
            .map(|c| match c {
                '"' | '\\' => '\'',
                ' '..='~' => c,
                _ => '?',
            })
            .collect()
    }
}

impl std::fmt::Display for OAuthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error, self.description)
    }
}

impl ResponseError for OAuthError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/json").insert_header((header::PRAGMA, "no-cache"));
        if let Some(challenge) = self.challenge {
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.insert_header((header::ALLOW, "POST"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        let body = json!({ "error": self.error, "error_description": self.safe_description() });
        let mut response = response.body(body.to_string());
        if !self.recorded {
            response.extensions_mut().insert(super::super::edge::Unrecorded);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_ascii_that_can_still_be_read() {
        let said = OAuthError::invalid_request("set \"x\" with `stagedoor client update ID …`: é")
            .safe_description();
        assert_eq!(said, "set 'x' with `stagedoor client update ID ...`: ?");
    }
}
