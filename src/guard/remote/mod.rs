//! Knowledge that lives elsewhere, kept fresh in the background: no request ever waits for the network.
//!
//! Here: issuers' keys ([`RemoteKeys`]). The revocation feed (contract.md §7) belongs beside it; a verifier
//! already asks whatever was given to [`VerifierBuilder::revocations`] for every actor token.
//!
//! [`VerifierBuilder::revocations`]: crate::token::verifier::VerifierBuilder::revocations

mod client;
mod keys;

pub use client::RemoteError;
pub use keys::{RemoteKeys, RemoteKeysHandle};
