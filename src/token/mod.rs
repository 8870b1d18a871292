//! What a token is: identifiers, claims, keys and the one verifier. No I/O, no framework.

pub mod claims;
pub mod clock;
pub mod entropy;
pub mod ids;

pub use claims::{Act, ActorClaims, Assurance};
pub use clock::{Clock, FixedClock, SystemClock};
pub use entropy::{Entropy, SystemEntropy};
pub use ids::{Audience, ClientId, GrantId, InvalidId, Issuer, Jti, Kid, RequestId, Scope, Sub};
