//! Online verification: the one verifier over our own keys and revocations, confined to what a client may see.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::clients::{Client, ClientScope};
use crate::token::revocation::Revocations;
use crate::token::verifier::{Expect, Verifier, VerifierError};
use crate::token::{Audience, AudienceRule, Clock, Invalid, Issuer, KeySet, Scope, TrustedIssuer, Verified};

/// Verifies our own tokens for `/verify`, introspection and forward-auth.
pub struct Checker {
    issuer: Issuer,
    verifier: Arc<Verifier>,
}

impl Checker {
    /// A checker of `issuer`'s tokens.
    ///
    /// # Errors
    /// The issuer cannot be trusted as configured.
    pub fn new(
        issuer: Issuer,
        keys: KeySet,
        revocations: Arc<dyn Revocations>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, VerifierError> {
        let ours = TrustedIssuer::stagedoor(issuer.clone()).audience_rule(AudienceRule::Any);
        let verifier =
            Verifier::builder().issuer_with_keys(ours, keys).clock(clock).revocations(revocations).build()?;
        Ok(Self { issuer, verifier: Arc::new(verifier) })
    }

    /// Takes the keys that are published now.
    pub fn set_keys(&self, keys: KeySet) {
        self.verifier.set_keys(&self.issuer, keys);
    }

    /// The verifier itself, for those who judge the audience by another rule.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// The claims of a token that is valid for this client; else the reason, as a word.
    ///
    /// A client is told nothing of tokens for others (contract.md §3): one whose signature holds is `audience_mismatch` to it,
    /// whatever else is wrong with it.
    pub fn check(
        &self,
        client: &Client,
        token: &str,
        audience: Option<&Audience>,
        scope: &Scope,
    ) -> Result<Map<String, Value>, &'static str> {
        let verified = self.verify_for(client, token, audience).map_err(Invalid::reason)?;
        if !scope.is_subset_of(&verified.scope) {
            return Err("scope_missing");
        }
        Ok(verified.claims.clone())
    }

    /// The token, if it is valid and for one of the client's audiences (or the one it names).
    pub fn verify_for(
        &self,
        client: &Client,
        token: &str,
        audience: Option<&Audience>,
    ) -> Result<Arc<Verified>, Invalid> {
        let admin = client.may(ClientScope::Admin);
        if audience.is_some_and(|a| !admin && !client.owns_audience(a)) {
            return Err(Invalid::Audience);
        }
        let demanded: Option<&[Audience]> = match audience {
            Some(one) => Some(std::slice::from_ref(one)),
            None if admin => None,
            None => Some(&client.audiences),
        };
        let accepted = self.verifier.verify_with(token, Expect { audiences: demanded })?;
        if accepted.stale { Err(Invalid::RevocationsStale) } else { Ok(accepted.token) }
    }
}
