//! Why a token is not valid: one list of reasons for `/verify`, the guards and forward-auth.

use super::json::JsonError;

/// Why a token was refused. [`Self::reason`] is stable and made for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Invalid {
    /// Longer than the limit, before anything was decoded.
    #[error("the token is longer than allowed")]
    TooLong,
    /// Not three parts of base64url characters (BP-8).
    #[error("the token is not a compact JWS")]
    NotCompact,
    /// Five parts: an encrypted token is refused before any cryptography (BP-9).
    #[error("encrypted tokens are not accepted")]
    Encrypted,
    /// A part is not canonical base64url (JW-8).
    #[error("a part of the token is not canonical base64url")]
    Encoding,
    /// The header is not strict JSON, not an object, or a member of it has the wrong type.
    #[error("the token's header is malformed")]
    Header,
    /// The header carries `crit`, `b64`, `jku`, `x5u`, `jwk`, `x5c` (JW-4, JW-5, JW-11) or is one of a JWE.
    #[error("the token's header carries `{0}`, which is never accepted")]
    HeaderMember(&'static str),
    /// A member name appears twice in header or payload (JW-6).
    #[error("the token repeats a member name")]
    DuplicateMember,
    /// `alg` is not known, or not one of the issuer's, or not the key's (BP-1, BP-2).
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// `typ` is not one the issuer's tokens have here (BP-6, BP-7).
    #[error("the token is of another type than is accepted here")]
    Type,
    /// The payload is not a strict JSON object.
    #[error("the token's claims are malformed")]
    Claims,
    /// `iss` names nobody who is trusted here (BP-4).
    #[error("the token's issuer is not trusted here")]
    Issuer,
    /// The issuer's keys were never fetched: it is not known whether the token is good.
    #[error("the issuer's keys are not known yet")]
    KeysUnavailable,
    /// No key of the issuer has this `kid`.
    #[error("the issuer has no such key")]
    KeyUnknown,
    /// No `kid`, and not exactly one key it could be.
    #[error("the token does not say which key signed it")]
    KeyAmbiguous,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim that must be there is not.
    #[error("the token has no claim `{0}`")]
    ClaimMissing(&'static str),
    /// A claim is of the wrong type or out of its range (JW-10 for times).
    #[error("the token's claim `{0}` is malformed")]
    ClaimInvalid(&'static str),
    /// The token is for somebody else (BP-5).
    #[error("the token is for another audience")]
    Audience,
    /// The token was issued to a client that is not accepted.
    #[error("the token was issued to a client that is not accepted here")]
    Client,
    /// `exp` has come.
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` lies ahead.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// An actor token without actor.
    #[error("the token names no actor")]
    ActorMissing,
    /// `act` is not an object of identity claims (TE-7).
    #[error("the token's actor is malformed")]
    ActorInvalid,
    /// The chain of `act` is longer than [`super::claims::MAX_ACT_DEPTH`].
    #[error("the token's chain of actors is too long")]
    ActorTooDeep,
    /// One actor appears twice in the chain.
    #[error("the token's chain of actors runs in a circle")]
    ActorCycle,
    /// `cnf`: the token is bound to a key and is no bearer token (DP-4).
    #[error("the token is bound to a key and cannot be used as a bearer token")]
    KeyBound,
    /// Revoked.
    #[error("the token has been revoked")]
    Revoked,
    /// It is not known recently enough what has been revoked.
    #[error("it cannot be told whether the token has been revoked")]
    RevocationsStale,
}

impl Invalid {
    /// A word for programs; never changes its meaning.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::NotCompact => "not_compact",
            Self::Encrypted => "encrypted",
            Self::Encoding => "encoding_invalid",
            Self::Header => "header_invalid",
            Self::HeaderMember(_) => "header_member_refused",
            Self::DuplicateMember => "duplicate_member",
            Self::Algorithm => "alg_not_accepted",
            Self::Type => "typ_not_accepted",
            Self::Claims => "claims_invalid",
            Self::Issuer => "issuer_not_trusted",
            Self::KeysUnavailable => "keys_unavailable",
            Self::KeyUnknown => "key_unknown",
            Self::KeyAmbiguous => "key_ambiguous",
            Self::Signature => "signature_invalid",
            Self::ClaimMissing(_) => "claim_missing",
            Self::ClaimInvalid(_) => "claim_invalid",
            Self::Audience => "audience_mismatch",
            Self::Client => "client_not_accepted",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::ActorMissing => "actor_missing",
            Self::ActorInvalid => "actor_invalid",
            Self::ActorTooDeep => "actor_too_deep",
            Self::ActorCycle => "actor_cycle",
            Self::KeyBound => "key_bound",
            Self::Revoked => "revoked",
            Self::RevocationsStale => "revocations_stale",
        }
    }

    /// Whether the fault is not the token's: the verifier lacks knowledge it should have, and asking
    /// again may help. An HTTP server answers 503 then, not 401.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::RevocationsStale)
    }

    pub(crate) const fn of_json(error: JsonError, otherwise: Self) -> Self {
        match error {
            JsonError::DuplicateMember => Self::DuplicateMember,
            JsonError::NotUtf8 | JsonError::TooDeep | JsonError::Syntax => otherwise,
        }
    }
}
