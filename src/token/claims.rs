//! The claims of an actor token, as this service signs them (contract.md §6).

use chrono::serde::ts_seconds;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{Audience, ClientId, GrantId, Issuer, Jti, Scope, Sub};

/// The most actors a chain of delegation may name (contract.md §6).
pub const MAX_ACT_DEPTH: usize = 4;

/// Who acts (RFC 8693 §4.1): the current actor outermost, earlier ones nested.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Act {
    /// The actor's id at its issuer.
    pub sub: Sub,
    /// The issuer that names him; absent when a client merely asserted him.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<Issuer>,
    /// Who acted before him, in a chain of delegation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Act>>,
}

impl Act {
    /// The chain from the current actor to the first one.
    pub fn chain(&self) -> impl Iterator<Item = &Act> {
        std::iter::successors(Some(self), |act| act.act.as_deref())
    }
}

/// How the service knows who the actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// The actor's own token from a trusted issuer was verified.
    Verified,
    /// A client that may do so named him.
    Asserted,
}

impl Assurance {
    /// The word used in claims, answers and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Asserted => "asserted",
        }
    }
}

/// What an actor token says. Field order is the order on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorClaims {
    /// This service.
    pub iss: Issuer,
    /// The target user.
    pub sub: Sub,
    /// Who the token is for: never empty, except in profile `clerk`.
    #[serde(serialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<Audience>,
    /// When it ends.
    #[serde(with = "ts_seconds")]
    pub exp: DateTime<Utc>,
    /// When it was issued.
    #[serde(with = "ts_seconds")]
    pub iat: DateTime<Utc>,
    /// When it begins; equals `iat`.
    #[serde(with = "ts_seconds")]
    pub nbf: DateTime<Utc>,
    /// The token's own id.
    pub jti: Jti,
    /// The client it was issued to.
    pub client_id: ClientId,
    /// What the holder may do.
    pub scope: Scope,
    /// The grant behind the token.
    pub sid: GrantId,
    /// Whether the actor proved himself.
    pub actor_assurance: Assurance,
    /// The client's origin, in profile `clerk` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azp: Option<String>,
    /// Whether it was granted in an emergency, without the colleague whom the policy asks for otherwise;
    /// left out when it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// Who acts.
    pub act: Act,
}

/// `aud` is a string when there is one (RFC 7519 §4.1.3), which every verifier reads.
fn one_or_many<S: serde::Serializer>(aud: &[Audience], serializer: S) -> Result<S::Ok, S::Error> {
    match aud {
        [one] => serializer.serialize_str(one.as_str()),
        many => serializer.collect_seq(many.iter().map(Audience::as_str)),
    }
}
