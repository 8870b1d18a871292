//! Why a request is refused, as RFC 6750 wants it said: status, challenge and a body for programs.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::token::Invalid;

/// Why a request was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No bearer token at all (BE-2).
    #[error("this needs a bearer token")]
    NoCredentials,
    /// More than one `Authorization` header, or one that is malformed (BE-4).
    #[error("the Authorization header is malformed: {0}")]
    Malformed(&'static str),
    /// The token is not valid (BE-3), or it cannot be told now ([`Invalid::is_ours`]).
    #[error("{0}")]
    Token(Invalid),
    /// Somebody acts as the user, where only the user himself is let in.
    #[error("this cannot be done while acting as somebody else")]
    ImpersonationRefused,
    /// The actor was only named by a client, where one is needed who proved himself.
    #[error("this needs an actor who proved who he is")]
    ActorNotVerified,
    /// The token lacks a scope (BE-5).
    #[error("this needs the scope `{0}`")]
    ScopeMissing(Cow<'static, str>),
    /// The service has no verifier where the guard looks for one: its own mistake.
    #[error("the service is not set up to read tokens")]
    Misconfigured,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NoCredentials => 401,
            Self::Token(invalid) => {
                if invalid.is_ours() {
                    503
                } else {
                    401
                }
            }
            Self::ImpersonationRefused | Self::ActorNotVerified | Self::ScopeMissing(_) => 403,
            Self::Misconfigured => 500,
        }
    }

    /// A word for programs: [`Invalid::reason`] for tokens.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "credentials_missing",
            Self::Malformed(_) => "authorization_malformed",
            Self::Token(invalid) => invalid.reason(),
            Self::ImpersonationRefused => "impersonation_refused",
            Self::ActorNotVerified => "actor_not_verified",
            Self::ScopeMissing(_) => "scope_missing",
            Self::Misconfigured => "misconfigured",
        }
    }

    /// RFC 6750 §3.1's error code; none without credentials, and none where the fault is not the caller's.
    const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => Some("invalid_request"),
            Self::Token(invalid) if !invalid.is_ours() => Some("invalid_token"),
            Self::ImpersonationRefused | Self::ActorNotVerified | Self::ScopeMissing(_) => {
                Some("insufficient_scope")
            }
            Self::NoCredentials | Self::Token(_) | Self::Misconfigured => None,
        }
    }

    /// The value of `WWW-Authenticate`; none where no other token would help. The description is the
    /// [`Self::reason`]: nothing of the request is echoed (BE-7).
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        let Some(code) = self.code() else {
            return matches!(self, Self::NoCredentials).then(|| r#"Bearer realm="stagedoor""#.to_owned());
        };
        let scope = match self {
            Self::ScopeMissing(scope) => format!(r#", scope="{scope}""#),
            _ => String::new(),
        };
        let reason = self.reason();
        Some(format!(r#"Bearer realm="stagedoor", error="{code}", error_description="{reason}"{scope}"#))
    }

    /// Seconds after which asking again may help.
    #[must_use]
    pub const fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::Token(invalid) if invalid.is_ours() => Some(1),
            _ => None,
        }
    }

    /// The body: `{error?, reason, message, hint?}`.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({ "reason": self.reason(), "message": self.to_string() });
        if let Some(code) = self.code() {
            body["error"] = code.into();
        }
        let hint = match self {
            Self::ImpersonationRefused => Some(
                "Routes refuse actor tokens unless they opt in: take `Impersonable<…>` instead of \
                 `Identity` in the handler, or put a guard with `Admission::default().impersonable()` around it.",
            ),
            Self::ActorNotVerified => Some("Mint the actor token with `actor_token`, the actor's own token."),
            _ => None,
        };
        if let Some(hint) = hint {
            body["hint"] = hint.into();
        }
        body
    }

    /// Every header of the answer but its length.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())];
        headers.extend(self.challenge().map(|challenge| ("www-authenticate", challenge)));
        headers.extend(self.retry_after_seconds().map(|seconds| ("retry-after", seconds.to_string())));
        headers
    }

    /// Tells the operator what the caller is not told. Called once, where the request is answered.
    pub fn log(&self) {
        match self {
            Self::Misconfigured => tracing::error!(
                "no Verifier found: give the application one, with \
                 `.app_data(verifier)` where verifier is an `Arc<stagedoor::token::Verifier>`"
            ),
            Self::Token(invalid) if invalid.is_ours() => {
                tracing::warn!(reason = self.reason(), "a token could not be judged");
            }
            _ => tracing::debug!(reason = self.reason(), "a request was refused"),
        }
    }
}
