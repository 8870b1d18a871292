//! Errors become HTTP here and nowhere else: one enum of public codes, one body for both conventions.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};

use super::accept::prefers;
pub use crate::server::outbound::chain;
use crate::server::policy::StepUp;
use crate::token::RequestId;

/// Where the problem types are described; the last path segment is the code.
const TYPE_BASE: &str = "https://stagedoor.dev/problems/";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident, $title:literal;)+) => {
        /// Every public error code; the same list stands in `openapi.yaml`, and a test compares them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code as it stands in the body.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The HTTP status it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The same few words every time.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

codes! {
    /// The body is not the JSON object this endpoint reads.
    RequestBodyInvalid = "request_body_invalid", BAD_REQUEST, "The request body cannot be read";
    /// The body is over the limit.
    RequestBodyTooLarge = "request_body_too_large", PAYLOAD_TOO_LARGE, "The request body is too large";
    /// A query parameter is unknown, repeated or malformed.
    QueryInvalid = "query_invalid", BAD_REQUEST, "A query parameter cannot be used";
    /// The grant has been revoked or has expired.
    ActorTokenCannotBeRevoked = "actor_token_cannot_be_revoked_code", BAD_REQUEST, "The grant is over already";
    /// No `Authorization` header.
    AuthorizationHeaderMissing = "authorization_header_missing", UNAUTHORIZED, "A credential is needed";
    /// An `Authorization` header that is not one Bearer credential.
    AuthorizationHeaderFormatInvalid = "authorization_header_format_invalid", UNAUTHORIZED, "The Authorization header cannot be read";
    /// No such client secret, or its client is disabled.
    ClientSecretInvalid = "client_secret_invalid", UNAUTHORIZED, "The client secret is not valid";
    /// Not an actor token of ours, or one that has expired.
    ActorTokenInvalid = "actor_token_invalid", UNAUTHORIZED, "The actor token is not valid";
    /// A rule refuses it.
    PolicyDenied = "policy_denied", FORBIDDEN, "The policy refuses it";
    /// A rule could not be evaluated, which is a refusal.
    PolicyError = "policy_error", FORBIDDEN, "The policy could not be evaluated";
    /// The client lacks a scope.
    ScopeMissing = "scope_missing", FORBIDDEN, "The client may not do this";
    /// The request names a host this server does not answer for.
    HostNotAllowed = "host_not_allowed", FORBIDDEN, "The Host header is not accepted";
    /// Nothing here by that name that this client may see.
    ResourceNotFound = "resource_not_found", NOT_FOUND, "Not found";
    /// The path takes other methods.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The same idempotency key is being worked on.
    IdempotencyInFlight = "idempotency_in_flight", CONFLICT, "The same request is under way";
    /// The grant made under this idempotency key is over.
    IdempotencyGrantEnded = "idempotency_grant_ended", CONFLICT, "The grant made under this key is over";
    /// The request waits for nobody's approval any more.
    ApprovalNotWaiting = "approval_not_waiting", CONFLICT, "The request waits for nobody";
    /// A required member is missing.
    FormParamMissing = "form_param_missing", UNPROCESSABLE_ENTITY, "A parameter is missing";
    /// A member's value cannot be used.
    FormParamValueInvalid = "form_param_value_invalid", UNPROCESSABLE_ENTITY, "A parameter's value cannot be used";
    /// A member nobody here knows.
    FormParamUnknown = "form_param_unknown", UNPROCESSABLE_ENTITY, "A parameter is unknown";
    /// The idempotency key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    /// Too many requests.
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "Too many requests";
    /// Our bug.
    InternalError = "internal_error", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
    /// The log cannot record, so nothing is answered but this.
    LogUnavailable = "log_unavailable", SERVICE_UNAVAILABLE, "The issuance log cannot record";
    /// The process was told to stop.
    Draining = "draining", SERVICE_UNAVAILABLE, "The process is stopping";
    /// Somebody who has to be asked cannot be reached.
    AuthorityUnavailable = "authority_unavailable", SERVICE_UNAVAILABLE, "An authority cannot be asked";
}

/// One error on its way out. The text is public: nothing of the source, no input echoed beyond names.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which error.
    pub code: Code,
    /// What happened and what to do, for a person.
    pub detail: Cow<'static, str>,
    /// In the log already, so not counted among the noise.
    pub recorded: bool,
    /// What few errors carry.
    more: Option<Box<More>>,
}

/// What few errors carry.
#[derive(Debug, Clone, Default)]
struct More {
    param: Option<Cow<'static, str>>,
    retry_after_seconds: Option<u32>,
    rule: Option<String>,
    scope: Option<&'static str>,
    step_up: Option<StepUp>,
    allow: Option<String>,
}

impl Problem {
    /// A problem with its sentence.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), recorded: false, more: None }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// About this parameter.
    #[must_use]
    pub fn param(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.more().param = Some(name.into());
        self
    }

    /// To be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.more().retry_after_seconds = Some(seconds);
        self
    }

    /// For want of this scope.
    #[must_use]
    pub fn scope(mut self, scope: &'static str) -> Self {
        self.more().scope = Some(scope);
        self
    }

    /// Decided by this rule.
    #[must_use]
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.more().rule = Some(rule.into());
        self
    }

    /// A stronger or fresher login would help.
    #[must_use]
    pub fn step_up(mut self, step_up: StepUp) -> Self {
        self.more().step_up = Some(step_up);
        self
    }

    /// The path takes these methods.
    #[must_use]
    pub fn allow(mut self, methods: impl Into<String>) -> Self {
        self.more().allow = Some(methods.into());
        self
    }

    /// The same problem, known to be in the log.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.recorded = true;
        self
    }

    /// A 404 that says no more than that.
    pub fn not_found(detail: &'static str) -> Self {
        Self::new(Code::ResourceNotFound, detail)
    }

    /// Our own mistake: `source` goes to the operator's log, not to the caller.
    pub fn internal(source: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(source), "internal error");
        Self::new(Code::InternalError, "The request could not be served. Tell the operator the trace_id.")
    }

    fn meta(&self) -> Value {
        let mut meta = Map::new();
        let Some(more) = &self.more else { return Value::Object(meta) };
        if let Some(param) = &more.param {
            meta.insert("param_name".into(), json!(param));
        }
        if let Some(rule) = &more.rule {
            meta.insert("rule".into(), json!(rule));
        }
        if let Some(step_up) = &more.step_up {
            if !step_up.acr_values.is_empty() {
                meta.insert("acr_values".into(), json!(step_up.acr_values));
            }
            if let Some(max_age) = step_up.max_age_seconds {
                meta.insert("max_age".into(), json!(max_age));
            }
        }
        Value::Object(meta)
    }

    /// The body, serving RFC 9457 and Clerk's convention at once (contract.md §5).
    pub fn body(&self, request: &RequestId) -> Value {
        let code = self.code.as_str();
        json!({
            "type": format!("{TYPE_BASE}{code}"),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "instance": format!("/requests/{request}"),
            "errors": [{
                "code": code,
                "message": self.code.title(),
                "long_message": self.detail,
                "meta": self.meta(),
            }],
            "trace_id": request,
            "clerk_trace_id": request,
        })
    }

    /// The whole response, in the media type that `accept` names.
    pub fn render(&self, request: &RequestId, accept: Option<&HeaderValue>) -> HttpResponse {
        // named beside JSON it is asked for all the same (contract.md §5)
        let problem_json = prefers(accept, "application/problem+json", true);
        let mut response = HttpResponse::build(self.code.status());
        response.content_type(if problem_json { "application/problem+json" } else { "application/json" });
        if let Some(more) = &self.more {
            if let Some(seconds) = more.retry_after_seconds {
                response.insert_header((header::RETRY_AFTER, seconds.to_string()));
            }
            if let Some(allow) = &more.allow {
                response.insert_header((header::ALLOW, allow.clone()));
            }
        }
        if let Some(challenge) = self.challenge() {
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        response.body(self.body(request).to_string())
    }

    /// RFC 6750 §3: no `error` when no credential was sent (BE-2); a missing scope is named (BE-5).
    fn challenge(&self) -> Option<String> {
        let error = match self.code {
            Code::AuthorizationHeaderMissing => "",
            Code::AuthorizationHeaderFormatInvalid => r#", error="invalid_request""#,
            Code::ClientSecretInvalid | Code::ActorTokenInvalid => r#", error="invalid_token""#,
            Code::ScopeMissing => r#", error="insufficient_scope""#,
            _ => return None,
        };
        let scope = self.more.as_ref().and_then(|more| more.scope);
        let scope = scope.map_or(String::new(), |scope| format!(r#", scope="{scope}""#));
        Some(format!(r#"Bearer realm="stagedoor"{error}{scope}"#))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    /// Carries the problem to the outermost middleware, which alone knows the request's id and `Accept`.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::new(self.code.status());
        response.extensions_mut().insert(self.clone());
        response
    }
}
