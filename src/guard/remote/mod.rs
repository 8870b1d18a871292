//! Knowledge that lives elsewhere, kept fresh in the background: no request ever waits for the network.
//!
//! Issuers' keys ([`RemoteKeys`]), and what a Stagedoor service has revoked ([`RemoteRevocations`]).

mod client;
mod events;
mod feed;
mod keys;
mod knowledge;

pub use client::RemoteError;
pub use feed::{FeedSignal, RemoteRevocations, RevocationsHandle};
pub use keys::{RemoteKeys, RemoteKeysHandle};
pub use knowledge::Knowledge;
