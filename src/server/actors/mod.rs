//! Who the actor is: tokens of trusted issuers, verified.

mod claims;
mod issuer_keys;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::server::outbound::{Outbound, OutboundError};
use crate::server::policy::ActorFacts;
use crate::server::remembered::Remembered;
use crate::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use crate::token::signer::sha256;
use crate::token::{Alg, Audience, Clock, Invalid, Issuer, Jti, KeySet, Role, Sub, Verified, VerifyingKey};

use issuer_keys::IssuerKeys;
pub use issuer_keys::{KEEP_SECONDS, KeyStatus, MIN_FETCH_INTERVAL_SECONDS, REFRESH_SECONDS};

/// How old an actor token may be (`iat`) unless configured, seconds.
pub const DEFAULT_MAX_AGE_SECONDS: u32 = 900;
/// How far an issuer's clock may be ahead of ours for `iat` and `nbf`, seconds. `exp` gets no grace.
pub const CLOCK_SKEW_SECONDS: i64 = 5;
/// The most verified tokens remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The address of its metadata, which must name the issuer and the key set.
    Discovery(String),
    /// The address of its key set.
    JwksUrl(String),
    /// A file with its key set, read again as often as a URL would be.
    JwksFile(PathBuf),
}

/// An issuer whose tokens prove who an actor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// `iss`, compared byte for byte.
    pub iss: Issuer,
    /// Where its keys come from.
    pub source: KeySource,
    /// Accepted `aud` of access tokens; at least one.
    pub audiences: Vec<Audience>,
    /// Accepted clients (`azp`, `client_id`, `cid`, `appid`: whichever are there); at least one, or a low-value
    /// application could replay the login of an admin.
    pub clients: Vec<String>,
    /// Accepted algorithms; at least one.
    pub algs: Vec<Alg>,
    /// Accepted header `typ` of access tokens, compared without case and `application/`; `""` stands for none at
    /// all. Empty means `at+jwt` only.
    pub typ: Vec<String>,
    /// Where roles are, as `realm_access.roles`.
    pub roles_path: Option<String>,
    /// Where groups are.
    pub groups_path: Option<String>,
    /// Where the organisation is.
    pub org_path: Option<String>,
    /// Where the id is under which the directory knows the person; `None`: his `sub` is that id.
    pub directory_path: Option<String>,
    /// Whether ID tokens of the accepted clients are taken too.
    pub id_token: bool,
    /// How old `iat` may be, seconds; see [`DEFAULT_MAX_AGE_SECONDS`].
    pub max_age_seconds: u32,
}

/// Which kind of token the caller says it is (RFC 8693's `actor_token_type`): checked by that kind's rules (TE-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Declared {
    /// A JWT: an access token, or an ID token where that is configured.
    #[default]
    Jwt,
    /// `…:access_token`
    AccessToken,
    /// `…:id_token`
    IdToken,
}

/// Which kind of token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An access token.
    Access,
    /// An ID token.
    Id,
}

/// Who may act for the subject, as its issuer says (RFC 8693 §4.4); what is absent is not demanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MayAct {
    /// The actor's id.
    pub sub: Option<Sub>,
    /// The actor's issuer.
    pub iss: Option<Issuer>,
    /// The actor's client.
    pub client_id: Option<String>,
}

/// An actor who proved himself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedActor {
    /// For the policy; `person` is for the directory to fill. `act` is nested when the token has an `act` itself.
    pub facts: ActorFacts,
    /// Who issued the token: also `facts.act.iss`.
    pub issuer: Issuer,
    /// Which kind of token it was.
    pub kind: TokenKind,
    /// The client it was issued to.
    pub client_id: String,
    /// What it was issued for.
    pub audience: Vec<Audience>,
    /// Its id, where it has one.
    pub jti: Option<Jti>,
    /// When it was issued.
    pub issued_at: DateTime<Utc>,
    /// When it ends: nothing delegated from it may live longer.
    pub expires_at: DateTime<Utc>,
    /// Whether the actor acts for somebody already (`act`): refused unless the policy permits delegation.
    pub acts_for_others: bool,
    /// Whom the issuer lets act for this person, if it says so.
    pub may_act: Option<MayAct>,
}

/// Why an actor token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActorTokenError {
    /// The token is not good, and asking again will not make it so.
    #[error("the actor token is not acceptable: {0}")]
    NotAcceptable(Reason),
    /// The issuer is trusted but its keys are not known (any more): try again later.
    #[error("the keys of {issuer} are not available")]
    Unreachable {
        /// Whose keys.
        issuer: Issuer,
    },
}

/// What is wrong with an actor token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Its form, its signature, or a claim that every token needs.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// `iat` is longer ago than accepted: the person must sign in again.
    #[error("the token was issued too long ago")]
    TooOld,
    /// An ID token, where access tokens are asked for.
    #[error("it is an ID token, and only access tokens are accepted")]
    IdToken,
    /// An access token, where an ID token was announced.
    #[error("it is no ID token")]
    NotAnIdToken,
    /// Roles, groups, organisation or the directory's id do not have the configured form.
    #[error("the configured claim for {0} has another form than text or a list of texts")]
    Path(&'static str),
}

impl Reason {
    /// A word for programs; never changes its meaning.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.reason(),
            Self::TooOld => "too_old",
            Self::IdToken => "id_token_not_accepted",
            Self::NotAnIdToken => "not_an_id_token",
            Self::Path(_) => "claim_path_invalid",
        }
    }
}

impl From<Invalid> for ActorTokenError {
    fn from(invalid: Invalid) -> Self {
        Self::NotAcceptable(Reason::Invalid(invalid))
    }
}

/// Why the issuers configured cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuersError {
    /// Our own tokens are known without configuration; a foreign key must never speak for us.
    #[error("{0} is this service's own issuer and cannot be a trusted one")]
    Ourselves(Issuer),
    /// The same issuer twice.
    #[error("{0} is configured twice")]
    Twice(Issuer),
    /// Something is missing.
    #[error("{iss}: {what} must not be empty")]
    Empty {
        /// Which issuer.
        iss: Issuer,
        /// What is missing.
        what: &'static str,
    },
    /// The key source may not be called.
    #[error("{iss}: its keys cannot be fetched")]
    Source {
        /// Which issuer.
        iss: Issuer,
        /// Why.
        #[source]
        error: OutboundError,
    },
}

/// What was verified once, and by which key.
#[derive(Clone)]
struct Seen {
    actor: Arc<VerifiedActor>,
    key: Arc<VerifyingKey>,
}

/// One trusted issuer.
struct TrustedIssuer {
    config: IssuerConfig,
    keys: Arc<IssuerKeys>,
}

/// The trusted issuers and what is known of their keys.
pub struct Actors {
    issuers: HashMap<Issuer, TrustedIssuer>,
    /// By the kind declared and the SHA-256 of the token's complete text, never a part of it.
    seen: Remembered<(Declared, [u8; 32]), Seen>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Actors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actors").field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}

impl Actors {
    /// Takes the issuers over; fetches nothing yet ([`Self::refresh`] does).
    ///
    /// # Errors
    /// [`IssuersError`] for a configuration that could never be right.
    pub fn new(
        own: &Issuer,
        issuers: Vec<IssuerConfig>,
        outbound: &Outbound,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IssuersError> {
        let mut trusted = HashMap::with_capacity(issuers.len());
        for config in issuers {
            check_config(own, &config)?;
            let keys = IssuerKeys::new(&config, outbound.clone(), Arc::clone(&clock))
                .map_err(|error| IssuersError::Source { iss: config.iss.clone(), error })?;
            let iss = config.iss.clone();
            if trusted.insert(iss.clone(), TrustedIssuer { config, keys: Arc::new(keys) }).is_some() {
                return Err(IssuersError::Twice(iss));
            }
        }
        Ok(Self { issuers: trusted, seen: Remembered::at_most(MAX_REMEMBERED), clock })
    }

    /// Whether `issuer` is a trusted one.
    #[must_use]
    pub fn trusts(&self, issuer: &Issuer) -> bool {
        self.issuers.contains_key(issuer)
    }

    /// Fetches the keys that are due, all issuers at once; failures are logged and shown by [`Self::status`].
    pub async fn refresh(&self) {
        let due: Vec<_> = self.issuers.values().map(|issuer| Arc::clone(&issuer.keys)).collect();
        futures_util::future::join_all(due.iter().map(IssuerKeys::refresh_if_due)).await;
    }

    /// Keeps the keys fresh until dropped: the task that `app` spawns.
    pub async fn keep_fresh(&self) {
        loop {
            self.refresh().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    /// The keys of every issuer as they are known now; one whose keys are too old has none.
    #[must_use]
    pub fn keys(&self) -> Vec<(Issuer, KeySet)> {
        let current = |issuer: &TrustedIssuer| {
            issuer.keys.current().map(|set| set.as_ref().clone()).unwrap_or_default()
        };
        self.issuers.iter().map(|(iss, issuer)| (iss.clone(), current(issuer))).collect()
    }

    /// What is known of every issuer's keys, for `/readyz` and metrics.
    #[must_use]
    pub fn status(&self) -> Vec<(Issuer, KeyStatus)> {
        let mut all: Vec<_> = self.issuers.iter().map(|(iss, i)| (iss.clone(), i.keys.status())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Verifies the token of a trusted issuer, by the rules of its declared kind, at `now` (wall clock).
    ///
    /// A token verified before is remembered under the SHA-256 of its complete text until it expires or its key
    /// goes; the claims verified then are returned, and the times are compared anew.
    ///
    /// # Errors
    /// [`ActorTokenError::NotAcceptable`] when the token is not good, [`ActorTokenError::Unreachable`] when it
    /// cannot be told because the issuer's keys are not available.
    pub async fn verify_actor_token(
        &self,
        token: &str,
        declared: Declared,
        now: DateTime<Utc>,
    ) -> Result<Arc<VerifiedActor>, ActorTokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Invalid::TooLong.into());
        }
        let seen_as = (declared, sha256(token.as_bytes()));
        if let Some(actor) = self.recall(&seen_as, now)? {
            return Ok(actor);
        }
        let jws = UnverifiedJws::parse(token, MAX_TOKEN_BYTES)?;
        let unverified = jws.unverified_claims()?;
        let iss =
            unverified.get("iss").and_then(serde_json::Value::as_str).ok_or(Invalid::ClaimMissing("iss"))?;
        let iss = Issuer::try_from(iss).map_err(|_| Invalid::Issuer)?;
        let issuer = self.issuers.get(&iss).ok_or(Invalid::Issuer)?;
        if !issuer.config.algs.contains(&jws.unverified_header().alg) {
            return Err(Invalid::Algorithm.into());
        }
        let key = Self::verify_signature(issuer, &jws).await?;
        // From here on `unverified` is what the issuer signed.
        let token = Verified::read(iss, Role::Home, key.kid().clone(), unverified)?;
        let typ = jws.unverified_header().typ.as_deref();
        let actor = claims::check(&issuer.config, declared, typ, &token, now);
        let actor = Arc::new(actor.map_err(ActorTokenError::NotAcceptable)?);
        let left = (actor.expires_at - now).to_std().unwrap_or_default();
        self.seen.put(seen_as, Seen { actor: Arc::clone(&actor), key }, self.clock.monotonic() + left);
        Ok(actor)
    }

    /// What was verified before, if it still holds: same key, not expired, not too old.
    fn recall(
        &self,
        seen_as: &(Declared, [u8; 32]),
        now: DateTime<Utc>,
    ) -> Result<Option<Arc<VerifiedActor>>, ActorTokenError> {
        let Some(Seen { actor, key }) = self.seen.get(seen_as, self.clock.monotonic()) else {
            return Ok(None);
        };
        let Some(issuer) = self.issuers.get(&actor.issuer) else { return Ok(None) };
        // Gone, replaced, or not known any more: the long way says which.
        if !issuer.keys.current().is_some_and(|set| set.get(key.kid().as_str()) == Some(&key)) {
            self.seen.forget(seen_as);
            return Ok(None);
        }
        claims::check_times(&issuer.config, actor.issued_at, actor.expires_at, now)
            .map_err(ActorTokenError::NotAcceptable)?;
        Ok(Some(actor))
    }

    /// Checks the signature; an unknown key is looked for once more at the issuer, as often as its rate allows.
    async fn verify_signature(
        issuer: &TrustedIssuer,
        jws: &UnverifiedJws<'_>,
    ) -> Result<Arc<VerifyingKey>, ActorTokenError> {
        let unreachable = || ActorTokenError::Unreachable { issuer: issuer.config.iss.clone() };
        if let Some(set) = issuer.keys.current() {
            match jws.verify(&set) {
                Ok(key) => return Ok(Arc::clone(key)),
                Err(Invalid::KeyUnknown | Invalid::KeyAmbiguous) => {}
                Err(invalid) => return Err(invalid.into()),
            }
        }
        issuer.keys.look_again().await;
        let set = issuer.keys.current().ok_or_else(unreachable)?;
        match jws.verify(&set) {
            Ok(key) => Ok(Arc::clone(key)),
            // it may be a new key of an issuer that does not answer
            Err(Invalid::KeyUnknown | Invalid::KeyAmbiguous) if issuer.keys.failed() => Err(unreachable()),
            Err(invalid) => Err(invalid.into()),
        }
    }
}

fn check_config(own: &Issuer, config: &IssuerConfig) -> Result<(), IssuersError> {
    // Ours, and those under it: every client of profile `clerk` has one of its own.
    let ours = own.as_str().trim_end_matches('/');
    let theirs = config.iss.as_str().trim_end_matches('/');
    if theirs == ours || theirs.strip_prefix(ours).is_some_and(|rest| rest.starts_with('/')) {
        return Err(IssuersError::Ourselves(config.iss.clone()));
    }
    let empty = |what| Err(IssuersError::Empty { iss: config.iss.clone(), what });
    if config.audiences.is_empty() {
        return empty("audiences");
    }
    if config.clients.is_empty() || config.clients.iter().any(String::is_empty) {
        return empty("clients");
    }
    if config.algs.is_empty() {
        return empty("algs");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
