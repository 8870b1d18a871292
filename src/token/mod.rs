//! What a token is: identifiers, claims, keys and the one verifier. No I/O, no framework.

pub mod alg;
pub mod claims;
pub mod clock;
pub mod entropy;
pub mod feed;
pub mod ids;
pub mod invalid;
pub mod json;
pub mod jws;
pub mod key_set;
pub mod keys;
pub mod revocation;
mod seen;
pub mod signer;
pub mod trust;
pub mod verified;
pub mod verifier;

pub use alg::Alg;
pub use claims::{Act, ActorClaims, Assurance};
pub use clock::{Clock, FixedClock, SystemClock};
pub use entropy::{Entropy, SystemEntropy};
pub use feed::{FeedDocument, FeedKind, KNOWLEDGE_BOUND_SECONDS, Known};
pub use ids::{Audience, ClientId, GrantId, InvalidId, Issuer, Jti, Kid, RequestId, Scope, Sub};
pub use invalid::Invalid;
pub use key_set::KeySet;
pub use keys::VerifyingKey;
pub use revocation::{RevocationList, Revocations, Standing};
pub use signer::{LocalSigner, SignedJws, Signer, encode_jws};
pub use trust::{AudienceRule, Role, TrustedIssuer};
pub use verified::Verified;
pub use verifier::{Accepted, Expect, Verifier};
