//! Who is calling: the user, and who acts as him if somebody does.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::token::{Act, Assurance, Audience, Issuer, Role, Scope, Sub, Verified};

/// Who acts as the user: the current actor, and behind him, in a chain of delegation, those before him
/// ([`Act::chain`]). Decide by the current one only (TE-8).
pub type Actor = Act;

/// The response header that lets analytics, billing and mail leave staff activity out (RFC 8941 boolean).
pub const IMPERSONATED: &str = "impersonated";

/// Both identities of a request, from a verified token.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The user the request is about; with an actor, who is impersonated.
    pub user: Sub,
    /// Who vouches for the user. Two issuers may use one id for two people.
    pub issuer: Issuer,
    /// Who acts as the user. Write both into every record you make.
    pub actor: Option<Actor>,
    /// What the token allows.
    pub scopes: Scope,
    /// The grant behind an actor token (`act_…`); none for ordinary tokens.
    pub grant: Option<String>,
    /// When the token ends.
    pub expires_at: DateTime<Utc>,
    /// Who the token is for.
    pub audience: Vec<Audience>,
    /// How well the actor is known: he proved himself, or a client named him. None where the token's issuer does not say.
    pub assurance: Option<Assurance>,
    /// The client the token was issued to.
    pub client: Option<String>,
    token: Arc<Verified>,
    stale: bool,
}

impl Identity {
    /// The identity a verified token stands for; `stale` as in [`crate::token::Accepted`].
    #[must_use]
    pub fn new(token: Arc<Verified>, stale: bool) -> Self {
        Self {
            user: token.sub.clone(),
            issuer: token.iss.clone(),
            actor: token.actor.clone(),
            scopes: token.scope.clone(),
            grant: if token.role == Role::Home { None } else { token.sid.clone() },
            expires_at: token.exp,
            audience: token.aud.clone(),
            assurance: token.assurance,
            client: token.client_id.clone(),
            token,
            stale,
        }
    }

    /// Whether somebody acts as the user.
    #[must_use]
    pub fn is_impersonated(&self) -> bool {
        self.actor.is_some()
    }

    /// Whether the token allows `scope`.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }

    /// Every claim of the token, as its issuer signed it.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.token.claims
    }

    /// Whether too little is known of revocations to rely on this token; an [`Admission`] refuses it then
    /// unless it was told not to.
    ///
    /// [`Admission`]: super::Admission
    #[must_use]
    pub fn revocations_stale(&self) -> bool {
        self.stale
    }

    /// The five identity headers of the contract, every one always there, so that a proxy that copies
    /// them never lets through what a caller sent under these names: `-` and `?0` say "none". Ids are
    /// percent-encoded (all but RFC 3986's unreserved characters).
    #[must_use]
    pub fn headers(&self) -> [(&'static str, String); 5] {
        let none = || "-".to_owned();
        [
            ("x-stagedoor-user", encoded(self.user.as_str())),
            ("x-stagedoor-actor", self.actor.as_ref().map_or_else(none, |actor| encoded(actor.sub.as_str()))),
            ("x-stagedoor-scopes", if self.scopes.is_empty() { none() } else { self.scopes.to_string() }),
            ("x-stagedoor-grant", self.grant.as_deref().map_or_else(none, encoded)),
            (IMPERSONATED, self.impersonated_header().to_owned()),
        ]
    }

    /// The value of the header `Impersonated`.
    #[must_use]
    pub fn impersonated_header(&self) -> &'static str {
        if self.is_impersonated() { "?1" } else { "?0" }
    }

    /// A span with both identities: every log line within it carries them.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "identity",
            user.id = self.user.as_str(),
            actor.id = self.actor.as_ref().map(|actor| actor.sub.as_str()),
            actor.iss = self.actor.as_ref().and_then(|actor| actor.iss.as_ref()).map(Issuer::as_str),
            grant.id = self.grant.as_deref(),
            impersonated = self.is_impersonated(),
        )
    }
}

/// The headers that answers of a guarded service carry, for its access log and its analytics.
#[cfg(any(feature = "actix", feature = "axum"))]
pub(crate) fn marks(who: &Identity) -> impl Iterator<Item = (&'static str, String)> {
    let wanted = ["x-stagedoor-user", "x-stagedoor-actor", IMPERSONATED];
    who.headers().into_iter().filter(move |(name, _)| wanted.contains(name))
}

/// Percent-encodes an id. An id that is just `-` becomes `%2D`, as a bare `-` says "none".
pub(crate) fn encoded(id: &str) -> String {
    use std::fmt::Write as _;
    if id == "-" {
        return "%2D".to_owned();
    }
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn ids_in_headers_can_be_told_from_none_and_break_no_header() {
        for (id, header) in [
            ("user_42", "user_42"),
            ("-", "%2D"),
            ("a-b", "a-b"),
            ("auth0|7", "auth0%7C7"),
            ("ä b", "%C3%A4%20b"),
            ("a%2D", "a%252D"),
        ] {
            assert_eq!(encoded(id), header);
        }
    }
}
