//! Issuers whose tokens are accepted, and on which conditions.

use serde_json::{Map, Value};

use super::alg::Alg;
use super::ids::{Audience, Issuer};
use super::invalid::Invalid;
use super::verified::text;

/// What an issuer is to this verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// This product's issuer: every token of it must carry `act`.
    Stagedoor,
    /// This product's issuer in profile `clerk` (contract.md §6): as above, without `aud`.
    Clerk,
    /// The company's own issuer: ordinary tokens of users. One that carries `act` is an impersonation too.
    Home,
}

/// Which audiences make a token one for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudienceRule {
    /// `aud` names at least one of these.
    AnyOf(Vec<Audience>),
    /// `aud` must be there, whatever it names: for an issuer that judges its own tokens and
    /// compares the audience for each caller ([`super::Expect::audiences`]).
    Any,
    /// There must be no `aud` (profile `clerk`).
    Absent,
}

/// An issuer whose tokens are accepted, and on which conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    iss: Issuer,
    role: Role,
    typ: Vec<String>,
    algs: Vec<Alg>,
    audience: AudienceRule,
    clients: Vec<String>,
}

impl TrustedIssuer {
    /// A Stagedoor service: `typ` is `at+jwt`, the algorithms are those it signs with.
    #[must_use]
    pub fn stagedoor(iss: Issuer) -> Self {
        Self::new(iss, Role::Stagedoor, &["at+jwt"], &Alg::SIGNING, AudienceRule::AnyOf(Vec::new()))
    }

    /// One client's issuer in profile `clerk`: `typ` is `JWT`, RS256 only, no `aud`.
    #[must_use]
    pub fn clerk(iss: Issuer) -> Self {
        Self::new(iss, Role::Clerk, &["JWT"], &[Alg::Rs256], AudienceRule::Absent)
    }

    /// The company's own issuer: `typ` is `at+jwt` or `JWT`, every algorithm of [`Alg::ALL`].
    #[must_use]
    pub fn home(iss: Issuer) -> Self {
        Self::new(iss, Role::Home, &["at+jwt", "JWT"], &Alg::ALL, AudienceRule::AnyOf(Vec::new()))
    }

    fn new(iss: Issuer, role: Role, typ: &[&str], algs: &[Alg], audience: AudienceRule) -> Self {
        let typ = typ.iter().map(|typ| canonical_typ(typ)).collect();
        Self { iss, role, typ, algs: algs.to_vec(), audience, clients: Vec::new() }
    }

    /// Adds an audience that is ours.
    #[must_use]
    pub fn audience(mut self, audience: Audience) -> Self {
        match &mut self.audience {
            AudienceRule::AnyOf(audiences) => audiences.push(audience),
            rule => *rule = AudienceRule::AnyOf(vec![audience]),
        }
        self
    }

    /// Sets the whole rule on audiences.
    #[must_use]
    pub fn audience_rule(mut self, rule: AudienceRule) -> Self {
        self.audience = rule;
        self
    }

    /// Replaces the accepted `typ`s, compared without case and with or without `application/`. An empty
    /// text stands for a token without `typ`.
    #[must_use]
    pub fn typ(mut self, typ: &[&str]) -> Self {
        self.typ = typ.iter().map(|typ| canonical_typ(typ)).collect();
        self
    }

    /// Replaces the accepted algorithms.
    #[must_use]
    pub fn algs(mut self, algs: &[Alg]) -> Self {
        self.algs = algs.to_vec();
        self
    }

    /// Accepts only tokens whose `client_id` and `azp`, as far as there, are among these; none given means any.
    #[must_use]
    pub fn clients(mut self, clients: &[&str]) -> Self {
        self.clients = clients.iter().map(|&client| client.to_owned()).collect();
        self
    }

    /// The issuer's identifier.
    #[must_use]
    pub fn iss(&self) -> &Issuer {
        &self.iss
    }

    /// What it is to this verifier.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    pub(super) fn audiences(&self) -> &AudienceRule {
        &self.audience
    }

    pub(super) fn accepts_typ(&self, typ: Option<&str>) -> bool {
        self.typ.contains(&canonical_typ(typ.unwrap_or_default()))
    }

    pub(super) fn accepts_alg(&self, alg: Alg) -> bool {
        self.algs.contains(&alg)
    }

    pub(super) fn accepts_client(&self, claims: &Map<String, Value>) -> Result<bool, Invalid> {
        let named = [text(claims, "client_id")?, text(claims, "azp")?];
        let mut named = named.into_iter().flatten().peekable();
        Ok(self.clients.is_empty()
            || (named.peek().is_some() && named.all(|client| self.clients.iter().any(|c| c == client))))
    }
}

/// BP-6: media types are compared without case, and `application/` is implied.
fn canonical_typ(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => lower,
    }
}
