//! A published set of keys (JWKS), read one key at a time.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::alg::Alg;
use super::ids::Kid;
use super::json::{self, JsonError};
use super::keys::{KeyError, VerifyingKey};

/// The most keys of one issuer: more is a mistake or an attack on our memory.
pub const MAX_KEYS: usize = 64;

/// The largest key set that is read, in bytes.
pub const MAX_JWKS_BYTES: usize = 1024 * 1024;

/// Why a whole set was refused; single bad keys only appear in [`KeySet::skipped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// More than [`MAX_JWKS_BYTES`].
    #[error("the key set is larger than {MAX_JWKS_BYTES} bytes")]
    TooLarge,
    /// Not strict JSON.
    #[error("the key set {0}")]
    Json(JsonError),
    /// No array `keys`.
    #[error("the key set has no array `keys`")]
    NoKeys,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
}

/// A key that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// Its name, where it has one that can be shown.
    pub kid: Option<Kid>,
    /// What is wrong with it.
    pub reason: SkipReason,
}

/// Why a key was left out of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// The key itself.
    #[error("the key {0}")]
    Key(KeyError),
    /// Another usable key of the set has the same `kid`: neither is used, as it cannot be known which was meant.
    #[error("another key has the same kid")]
    DuplicateKid,
}

/// The keys of one issuer.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerifyingKey>>,
    skipped: Vec<SkippedKey>,
}

impl KeySet {
    /// A set of keys that are at hand. Of keys with one `kid`, none is kept.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        let mut set = Self { keys: keys.into_iter().map(Arc::new).collect(), skipped: Vec::new() };
        set.drop_namesakes();
        set
    }

    /// Reads a JWK set (RFC 7517 §5). A bad key is left out with a reason and never takes the others
    /// with it: issuers publish keys for encryption, and of kinds not known here, in the same set.
    pub fn from_jwks_json(bytes: &[u8]) -> Result<Self, KeySetError> {
        if bytes.len() > MAX_JWKS_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let document = json::parse_strict(bytes, json::MAX_DEPTH).map_err(KeySetError::Json)?;
        let jwks = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeys)?;
        if jwks.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self::default();
        for (index, jwk) in jwks.iter().enumerate() {
            match VerifyingKey::from_jwk(jwk) {
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(error) => set.skipped.push(SkippedKey {
                    index,
                    kid: jwk.get("kid").and_then(Value::as_str).and_then(|kid| Kid::try_from(kid).ok()),
                    reason: SkipReason::Key(error),
                }),
            }
        }
        set.drop_namesakes();
        Ok(set)
    }

    fn drop_namesakes(&mut self) {
        let twice: Vec<Kid> = (1..self.keys.len())
            .filter(|i| self.keys[..*i].iter().any(|k| k.kid() == self.keys[*i].kid()))
            .map(|i| self.keys[i].kid().clone())
            .collect();
        self.drop_named(&twice);
    }

    fn drop_named(&mut self, kids: &[Kid]) {
        let mut kept = Vec::with_capacity(self.keys.len());
        for (index, key) in std::mem::take(&mut self.keys).into_iter().enumerate() {
            if kids.contains(key.kid()) {
                let kid = Some(key.kid().clone());
                self.skipped.push(SkippedKey { index, kid, reason: SkipReason::DuplicateKid });
            } else {
                kept.push(key);
            }
        }
        self.keys = kept;
    }

    /// The key of this name.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&Arc<VerifyingKey>> {
        self.keys.iter().find(|key| key.kid().as_str() == kid)
    }

    /// The key of this algorithm where there is exactly one: what a token without `kid` may use.
    #[must_use]
    pub fn only_one_for(&self, alg: Alg) -> Option<&Arc<VerifyingKey>> {
        let mut of_alg = self.keys.iter().filter(|key| key.alg() == alg);
        of_alg.next().filter(|_| of_alg.next().is_none())
    }

    /// Those of this algorithm.
    #[must_use]
    pub fn of_alg(mut self, alg: Alg) -> Self {
        self.keys.retain(|key| key.alg() == alg);
        self
    }

    /// All keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VerifyingKey>> {
        self.keys.iter()
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that were left out.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// The public JWK set, for publication.
    #[must_use]
    pub fn to_jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|key| key.to_jwk()).collect::<Vec<_>>() })
    }
}

/// Equal when the same keys stand under the same names, in any order.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.keys.iter().all(|key| other.get(key.kid().as_str()).is_some_and(|same| same == key))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys).field("skipped", &self.skipped.len()).finish()
    }
}
