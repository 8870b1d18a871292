//! Reads tokens of ours whether they are revoked or not: what the holder of one may do with it ends nothing
//! but the token itself.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::server::keyring::{KeyPurpose, Keyring};
use crate::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use crate::token::{ClientId, Issuer, Role, Verified};

/// Verifies signature, type, issuer and end of our own tokens, and nothing else.
pub struct OwnTokens {
    issuer: Issuer,
    keyring: Arc<Keyring>,
}

impl OwnTokens {
    pub(super) fn new(issuer: Issuer, keyring: Arc<Keyring>) -> Self {
        Self { issuer, keyring }
    }

    /// What the token says; `None` when it is none of ours, was changed, or has ended.
    #[must_use]
    pub fn read(&self, token: &str, now: DateTime<Utc>) -> Option<Verified> {
        let jws = UnverifiedJws::parse(token, MAX_TOKEN_BYTES).ok()?;
        let typ = jws.unverified_header().typ.clone()?;
        let unverified = jws.unverified_claims().ok()?;
        let iss = unverified.get("iss")?.as_str()?;
        let (purpose, role, wanted) = self.shape(iss)?;
        if !typ.eq_ignore_ascii_case(wanted) && !typ.eq_ignore_ascii_case(&format!("application/{wanted}")) {
            return None;
        }
        let keys = self.keyring.published(&purpose);
        let kid = jws.verify(&keys).ok()?.kid().clone();
        let iss = Issuer::try_from(iss).ok()?;
        Verified::read(iss, role, kid, unverified).ok().filter(|token| now < token.exp)
    }

    /// Which key signs under an issuer of ours, and as what.
    fn shape(&self, iss: &str) -> Option<(KeyPurpose, Role, &'static str)> {
        let rest = iss.strip_prefix(self.issuer.as_str())?;
        if rest.is_empty() {
            return Some((KeyPurpose::Token, Role::Stagedoor, "at+jwt"));
        }
        let client = ClientId::try_from(rest.strip_prefix("/clerk/")?).ok()?;
        Some((KeyPurpose::Clerk(client), Role::Clerk, "JWT"))
    }
}
