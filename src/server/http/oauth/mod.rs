//! `/oauth`: token exchange, introspection, revocation and their metadata, for clients that speak the standards.

pub mod client_auth;
mod error;
pub(super) use error::OAuthError;
mod form;
pub(super) use form::decode;
mod metadata;
mod token;

pub use metadata::metadata;
pub use token::{introspect, revoke, token};
