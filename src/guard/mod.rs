//! What a downstream service puts before its routes to read a token.
//!
//! A route that has not opted in refuses actor tokens: whoever forgets to look at the actor gives
//! nobody anything. Reading is one argument of a handler:
//!
//! | argument | who gets in |
//! | --- | --- |
//! | [`Identity`] | the user himself (or whom a guard around the route admits) |
//! | [`Impersonable<A>`] | the user, and somebody acting as him with the scope that action `A` names |
//! | [`InPerson`] | the user himself, whatever a guard around the route admits |
//!
//! All rules live in files without a framework ([`admission`], [`refusal`], [`identity`], [`bearer`]);
//! `actix` and `axum` only carry them there and back.

pub mod admission;
#[cfg(any(feature = "actix", feature = "axum"))]
mod argument;
pub mod bearer;
pub mod identity;
pub mod refusal;
pub mod session;

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "remote")]
pub mod remote;

pub use admission::{Action, Admission, AnyAction, Impersonable, InPerson};
pub use bearer::identify;
pub use identity::{Actor, Identity};
pub use refusal::Refusal;
