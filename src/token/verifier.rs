//! The one verifier: trusted issuers, their keys, and every rule a token must keep.
//!
//! Strict by itself; `jsonwebtoken`'s own validation is not used, since it skips what is missing or
//! wrongly typed and reads the machine's clock (house.md §5).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};

use super::clock::{Clock, SystemClock};
use super::ids::{Audience, Issuer};
use super::invalid::Invalid;
use super::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use super::key_set::KeySet;
use super::revocation::{Revocations, Standing};
use super::seen::Seen;
use super::signer::sha256;
use super::trust::{AudienceRule, Role, TrustedIssuer};
use super::verified::{Verified, text};

/// How far `iat` and `nbf` may lie ahead: synchronised machines differ by less, and a fresh token must not
/// be refused for it. `exp` gets no leeway: when a permission ends is a promise, and a verifier whose
/// clock runs ahead only ends it sooner.
pub const CLOCK_LEEWAY_SECONDS: i64 = 5;

/// How many accepted tokens are remembered unless told otherwise: about 4 MiB.
pub const DEFAULT_SEEN: usize = 2048;

/// What one caller demands beyond the issuers' rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expect<'a> {
    /// These audiences instead of the issuer's own rule; `aud` must name at least one. A token of
    /// profile `clerk`, which has no `aud`, fails it.
    pub audiences: Option<&'a [Audience]>,
}

/// An accepted token.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What it says.
    pub token: Arc<Verified>,
    /// Its revocations are known too little ([`Standing::Stale`]): the caller must refuse, unless it
    /// decided to live without them.
    pub stale: bool,
}

/// Why a verifier could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Two entries for one issuer: our own must not also be configured as a foreign one.
    #[error("the issuer {0} is configured twice")]
    DuplicateIssuer(Issuer),
    /// Tokens for anybody would be accepted.
    #[error("the issuer {0} has no audience: name the ones that are yours")]
    NoAudience(Issuer),
    /// An issuer of another kind is known by this name: tokens of our own must not become a foreign issuer's.
    #[error("the issuer {0} is configured as another kind of issuer")]
    OtherRole(Issuer),
    /// No issuer at all.
    #[error("no trusted issuer is configured")]
    NoIssuer,
}

/// Called with the issuer and the name of a key that is not there; must not block.
pub type KeyWanted = Box<dyn Fn(&Issuer, &str) + Send + Sync>;

struct Entry {
    issuer: Arc<TrustedIssuer>,
    /// None until keys were set for the first time.
    keys: Option<Arc<KeySet>>,
}

impl Clone for Entry {
    fn clone(&self) -> Self {
        Self { issuer: Arc::clone(&self.issuer), keys: self.keys.clone() }
    }
}

/// Issuers and keys at one moment; a change makes a new one with the next number.
#[derive(Clone, Default)]
struct Trust {
    generation: u64,
    issuers: HashMap<String, Entry>,
}

/// Verifies tokens of the issuers it trusts. Cheap to share (`Arc`); keys can be replaced while in use.
///
/// ```
/// use stagedoor::token::{KeySet, TrustedIssuer, Verifier};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer: stagedoor::token::Issuer = "https://stagedoor.example".parse()?;
/// let verifier = Verifier::builder()
///     .issuer(TrustedIssuer::stagedoor(issuer.clone()).audience("https://api.example.com".parse()?))
///     .build()?;
/// verifier.set_keys(&issuer, KeySet::from_jwks_json(br#"{"keys":[]}"#)?);
/// assert_eq!(verifier.verify("nonsense").unwrap_err().reason(), "not_compact");
/// # Ok(()) }
/// ```
pub struct Verifier {
    trust: ArcSwap<Trust>,
    clock: Arc<dyn Clock>,
    revocations: Option<Arc<dyn Revocations>>,
    seen: Seen,
    max_token_bytes: usize,
    key_wanted: RwLock<Vec<KeyWanted>>,
}

/// Builds a [`Verifier`].
pub struct VerifierBuilder {
    issuers: Vec<(TrustedIssuer, Option<KeySet>)>,
    clock: Arc<dyn Clock>,
    revocations: Option<Arc<dyn Revocations>>,
    seen: usize,
    max_token_bytes: usize,
}

impl VerifierBuilder {
    /// Trusts an issuer whose keys are set later ([`Verifier::set_keys`]).
    #[must_use]
    pub fn issuer(mut self, issuer: TrustedIssuer) -> Self {
        self.issuers.push((issuer, None));
        self
    }

    /// Trusts an issuer whose keys are at hand.
    #[must_use]
    pub fn issuer_with_keys(mut self, issuer: TrustedIssuer, keys: KeySet) -> Self {
        self.issuers.push((issuer, Some(keys)));
        self
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where revocations are looked up for tokens of our own issuers.
    #[must_use]
    pub fn revocations(mut self, revocations: Arc<dyn Revocations>) -> Self {
        self.revocations = Some(revocations);
        self
    }

    /// How many accepted tokens are remembered ([`DEFAULT_SEEN`]); 0 remembers none.
    #[must_use]
    pub fn remember(mut self, tokens: usize) -> Self {
        self.seen = tokens;
        self
    }

    /// The longest token that is looked at ([`MAX_TOKEN_BYTES`]).
    #[must_use]
    pub fn max_token_bytes(mut self, bytes: usize) -> Self {
        self.max_token_bytes = bytes;
        self
    }

    /// The verifier, if its configuration makes sense.
    pub fn build(self) -> Result<Verifier, VerifierError> {
        let mut trust = Trust::default();
        if self.issuers.is_empty() {
            return Err(VerifierError::NoIssuer);
        }
        for (issuer, keys) in self.issuers {
            let iss = issuer.iss().clone();
            let entry = Entry { issuer: Arc::new(checked(issuer)?), keys: keys.map(Arc::new) };
            if trust.issuers.insert(iss.as_str().to_owned(), entry).is_some() {
                return Err(VerifierError::DuplicateIssuer(iss));
            }
        }
        Ok(Verifier {
            trust: ArcSwap::from_pointee(trust),
            clock: self.clock,
            revocations: self.revocations,
            seen: Seen::new(self.seen),
            max_token_bytes: self.max_token_bytes,
            key_wanted: RwLock::default(),
        })
    }
}

fn checked(issuer: TrustedIssuer) -> Result<TrustedIssuer, VerifierError> {
    if *issuer.audiences() == AudienceRule::AnyOf(Vec::new()) {
        return Err(VerifierError::NoAudience(issuer.iss().clone()));
    }
    Ok(issuer)
}

impl Verifier {
    /// Starts building one.
    #[must_use]
    pub fn builder() -> VerifierBuilder {
        VerifierBuilder {
            issuers: Vec::new(),
            clock: Arc::new(SystemClock::default()),
            revocations: None,
            seen: DEFAULT_SEEN,
            max_token_bytes: MAX_TOKEN_BYTES,
        }
    }

    /// Verifies a token by its issuer's rules. Knowledge of revocations that is too old refuses.
    pub fn verify(&self, token: &str) -> Result<Arc<Verified>, Invalid> {
        let accepted = self.verify_with(token, Expect::default())?;
        if accepted.stale { Err(Invalid::RevocationsStale) } else { Ok(accepted.token) }
    }

    /// Verifies a token by its issuer's rules and a caller's demands. The caller must look at
    /// [`Accepted::stale`].
    pub fn verify_with(&self, token: &str, expect: Expect<'_>) -> Result<Accepted, Invalid> {
        if token.len() > self.max_token_bytes {
            return Err(Invalid::TooLong);
        }
        let trust = self.trust.load();
        let hash = sha256(token.as_bytes());
        let remembered = self.seen.get(&hash, trust.generation);
        let known = remembered.is_some();
        let verified = match remembered {
            Some(verified) => verified,
            None => Arc::new(self.verify_cold(token, &trust)?),
        };
        // Everything that depends on the time, the caller or revocations is asked every time.
        let now = self.clock.now();
        let rule = trust.issuers.get(verified.iss.as_str()).ok_or(Invalid::Issuer)?;
        // first: whoever a token is not for learns nothing else of it
        check_audience(&verified, rule.issuer.audiences(), expect.audiences)?;
        check_times(&verified, now)?;
        let standing = self.standing(&verified, now);
        if standing == Standing::Revoked {
            return Err(Invalid::Revoked);
        }
        if !known {
            self.seen.insert(hash, trust.generation, Arc::clone(&verified));
        }
        Ok(Accepted { token: verified, stale: standing == Standing::Stale })
    }

    fn verify_cold(&self, token: &str, trust: &Trust) -> Result<Verified, Invalid> {
        let jws = UnverifiedJws::parse(token, self.max_token_bytes)?;
        let claims = jws.unverified_claims()?;
        // The issuer is believed only as far as to choose whose key must have signed this.
        let iss = text(&claims, "iss")?.ok_or(Invalid::ClaimMissing("iss"))?;
        let Entry { issuer, keys } = trust.issuers.get(iss).ok_or(Invalid::Issuer)?;
        let header = jws.unverified_header();
        if !issuer.accepts_typ(header.typ.as_deref()) {
            return Err(Invalid::Type);
        }
        if !issuer.accepts_alg(header.alg) {
            return Err(Invalid::Algorithm);
        }
        let keys = keys.as_deref().ok_or(Invalid::KeysUnavailable)?;
        let key = jws.verify(keys).inspect_err(|error| {
            if *error == Invalid::KeyUnknown
                && let Some(kid) = &header.kid
            {
                for wanted in self.key_wanted.read().unwrap_or_else(PoisonError::into_inner).iter() {
                    wanted(issuer.iss(), kid);
                }
            }
        })?;
        if !issuer.accepts_client(&claims)? {
            return Err(Invalid::Client);
        }
        Verified::read(issuer.iss().clone(), issuer.role(), key.kid().clone(), claims)
    }

    fn standing(&self, token: &Verified, now: DateTime<Utc>) -> Standing {
        match &self.revocations {
            Some(revocations) if token.role != Role::Home => revocations.standing(token, now),
            _ => Standing::Good,
        }
    }

    /// Replaces an issuer's keys; tokens of keys that are gone are refused from now on, remembered or
    /// not. False when the issuer is not trusted here. The same keys again change nothing.
    pub fn set_keys(&self, iss: &Issuer, keys: KeySet) -> bool {
        let keys = Arc::new(keys);
        self.change(|trust| match trust.issuers.get_mut(iss.as_str()) {
            Some(entry) if entry.keys.as_ref().is_some_and(|old| *old == keys) => None,
            Some(entry) => {
                entry.keys = Some(Arc::clone(&keys));
                Some(())
            }
            None => None,
        });
        self.trust.load().issuers.contains_key(iss.as_str())
    }

    /// Trusts one more issuer, or one on new conditions, with these keys. What kind of issuer it is does not change.
    pub fn set_issuer(&self, issuer: TrustedIssuer, keys: KeySet) -> Result<(), VerifierError> {
        let issuer = Arc::new(checked(issuer)?);
        let known = self.trust.load().issuers.get(issuer.iss().as_str()).map(|known| known.issuer.role());
        if known.is_some_and(|role| role != issuer.role()) {
            return Err(VerifierError::OtherRole(issuer.iss().clone()));
        }
        let keys = Arc::new(keys);
        self.change(|trust| {
            let entry = Entry { issuer: Arc::clone(&issuer), keys: Some(Arc::clone(&keys)) };
            let same = trust.issuers.get(issuer.iss().as_str()).is_some_and(|old| {
                old.issuer == entry.issuer && old.keys.as_ref().is_some_and(|old| *old == keys)
            });
            if same {
                return None;
            }
            trust.issuers.insert(issuer.iss().as_str().to_owned(), entry);
            Some(())
        });
        Ok(())
    }

    /// Trusts an issuer no longer.
    pub fn remove_issuer(&self, iss: &Issuer) {
        self.change(|trust| trust.issuers.remove(iss.as_str()).map(|_| ()));
    }

    /// Applies a change and gives the trust the next number, unless `change` says that nothing changed.
    fn change(&self, change: impl Fn(&mut Trust) -> Option<()>) {
        self.trust.rcu(|trust| {
            let mut next = Trust::clone(trust);
            match change(&mut next) {
                Some(()) => {
                    next.generation += 1;
                    Arc::new(next)
                }
                None => Arc::clone(trust),
            }
        });
    }

    /// Forgets an issuer's keys, as before they were first set: its tokens get [`Invalid::KeysUnavailable`].
    pub fn forget_keys(&self, iss: &Issuer) {
        self.change(|trust| {
            let entry = trust.issuers.get_mut(iss.as_str())?;
            entry.keys.take().map(|_| ())
        });
    }

    /// The issuers trusted now.
    #[must_use]
    pub fn issuers(&self) -> Vec<Arc<TrustedIssuer>> {
        self.trust.load().issuers.values().map(|entry| Arc::clone(&entry.issuer)).collect()
    }

    /// Whether every issuer's keys were set at least once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.trust.load().issuers.values().all(|entry| entry.keys.is_some())
    }

    /// Asks to be told when a token names a key that is not there, to fetch anew: whoever fetches keys of some issuers,
    /// each for his own.
    pub fn on_key_wanted(&self, wanted: KeyWanted) {
        self.key_wanted.write().unwrap_or_else(PoisonError::into_inner).push(wanted);
    }

    /// The clock the verifier reads.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers()).finish_non_exhaustive()
    }
}

fn check_times(token: &Verified, now: DateTime<Utc>) -> Result<(), Invalid> {
    let leeway = TimeDelta::seconds(CLOCK_LEEWAY_SECONDS);
    if now >= token.exp {
        return Err(Invalid::Expired);
    }
    if token.nbf.is_some_and(|nbf| nbf > now + leeway) {
        return Err(Invalid::NotYetValid);
    }
    if token.iat.is_some_and(|iat| iat > now + leeway) {
        return Err(Invalid::IssuedInFuture);
    }
    Ok(())
}

fn check_audience(
    token: &Verified,
    rule: &AudienceRule,
    demanded: Option<&[Audience]>,
) -> Result<(), Invalid> {
    let names_one_of = |ours: &[Audience]| token.aud.iter().any(|aud| ours.contains(aud));
    let mine = match (demanded, rule) {
        (Some(demanded), _) => names_one_of(demanded),
        (None, AudienceRule::AnyOf(ours)) => names_one_of(ours),
        (None, AudienceRule::Any) => !token.aud.is_empty(),
        (None, AudienceRule::Absent) => token.aud.is_empty(),
    };
    if mine { Ok(()) } else { Err(Invalid::Audience) }
}
