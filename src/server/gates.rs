//! Forward-authentication points: one audience each, and whether impersonation is let in.

use std::collections::HashMap;
use std::sync::Arc;

use super::config::GateConfig;
use crate::token::verifier::{Expect, Verifier};
use crate::token::{Assurance, Invalid, Scope, Verified};

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The token is not valid here.
    Token(Invalid),
    /// There is no such gate.
    NoGate,
    /// Somebody acts as somebody else, and this gate does not let that in.
    Impersonation,
    /// The token lacks these scopes.
    Scope(Scope),
    /// The actor did not prove himself, which this request demands.
    Assurance,
}

/// What one request demands beyond its gate: it can only tighten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// Further scopes.
    pub scope: Scope,
    /// No impersonation, whatever the gate lets in.
    pub refuse_impersonation: bool,
    /// An actor must have proven himself.
    pub verified_actor: bool,
}

/// The configured gates over one verifier.
pub struct Gates {
    verifier: Arc<Verifier>,
    gates: HashMap<String, GateConfig>,
}

impl Gates {
    /// Gates by their names; `verifier` trusts our own issuer and the company's.
    pub fn new(verifier: Arc<Verifier>, gates: &[GateConfig]) -> Self {
        Self { verifier, gates: gates.iter().map(|g| (g.name.clone(), g.clone())).collect() }
    }

    /// The verifier, whose keys somebody has to keep fresh.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// The token, if it passes the gate.
    pub fn check(&self, gate: &str, token: &str, demand: &Demand) -> Result<Arc<Verified>, Refused> {
        let gate = self.gates.get(gate).ok_or(Refused::NoGate)?;
        let expect = Expect { audiences: Some(std::slice::from_ref(&gate.audience)) };
        let accepted = self.verifier.verify_with(token, expect).map_err(Refused::Token)?;
        if accepted.stale {
            return Err(Refused::Token(Invalid::RevocationsStale));
        }
        let token = accepted.token;
        if token.is_impersonation() {
            if !gate.impersonation || demand.refuse_impersonation {
                return Err(Refused::Impersonation);
            }
            if demand.verified_actor && token.assurance != Some(Assurance::Verified) {
                return Err(Refused::Assurance);
            }
        }
        let lacking: Vec<&str> =
            gate.scopes.iter().chain(demand.scope.iter()).filter(|s| !token.scope.contains(s)).collect();
        if !lacking.is_empty() {
            return Err(Refused::Scope(Scope::parse(&lacking.join(" ")).unwrap_or_default()));
        }
        Ok(token)
    }

    /// Whether a gate of this name is configured.
    pub fn has(&self, gate: &str) -> bool {
        self.gates.contains_key(gate)
    }
}
