//! Identifiers: text from outside becomes one of these at the edge, or is refused.
//!
//! Ids are kept byte for byte; nothing is trimmed, case-folded or normalised, because two ids that
//! look alike may be two people.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::entropy::Entropy;

/// The longest id of a person, an issuer or an audience, in bytes (contract.md §3).
pub const MAX_ID_BYTES: usize = 255;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Longer than the field allows.
    #[error("must be at most {max} bytes long")]
    TooLong {
        /// The most bytes the field takes.
        max: usize,
    },
    /// A control character, which would break logs and headers.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// More words than the field takes.
    #[error("must hold at most {max} words")]
    TooMany {
        /// The most words the field takes.
        max: usize,
    },
    /// It does not begin as such ids do.
    #[error("must be an id of the form {prefix}…")]
    Prefix {
        /// What they begin with.
        prefix: &'static str,
    },
    /// A character outside the field's alphabet.
    #[error("contains a character that is not allowed here")]
    Alphabet,
}

fn checked(text: &str, max: usize) -> Result<(), InvalidId> {
    if text.is_empty() {
        Err(InvalidId::Empty)
    } else if text.len() > max {
        Err(InvalidId::TooLong { max })
    } else if text.chars().any(char::is_control) {
        Err(InvalidId::ControlCharacter)
    } else {
        Ok(())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text, byte for byte as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;
            fn try_from(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> Result<(), InvalidId> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::try_from(text.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

id!(
    /// A person (or service, or agent) as an issuer names it: `sub` of the target user, `act.sub` of the actor.
    Sub, |t| checked(t, MAX_ID_BYTES)
);
id!(
    /// An issuer identifier (`iss`), compared byte for byte.
    Issuer, |t| checked(t, MAX_ID_BYTES)
);
id!(
    /// Who a token is for (`aud`).
    Audience, |t| checked(t, MAX_ID_BYTES)
);
id!(
    /// A key id. Ours are RFC 7638 thumbprints; a trusted issuer's may be any short text.
    Kid, |t| checked(t, MAX_ID_BYTES)
);
id!(
    /// A grant: `act_…`, also the token's `sid`.
    GrantId, |t| prefixed(t, "act_")
);
id!(
    /// An API client: `client_…`.
    ClientId, |t| prefixed(t, "client_")
);
id!(
    /// A token id (`jti`).
    Jti, |t| checked(t, MAX_ID_BYTES)
);
id!(
    /// One request, in answers as `trace_id` and in the log as `req`.
    RequestId, |t| checked(t, 64)
);

fn prefixed(text: &str, prefix: &'static str) -> Result<(), InvalidId> {
    checked(text, 64)?;
    let rest = text.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    let rest = rest.ok_or(InvalidId::Prefix { prefix })?;
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(InvalidId::Alphabet);
    }
    Ok(())
}

/// 26 characters of Crockford base32 (lower case) that sort by time: 48 bits of milliseconds, 80 random
/// bits, as a ULID. Neighbours in time are neighbours in an index, so inserts touch few pages.
fn time_ordered(now: DateTime<Utc>, entropy: &dyn Entropy) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = [0u8; 10];
    entropy.fill(&mut random);
    let millis = u128::try_from(now.timestamp_millis()).unwrap_or(0) & 0xffff_ffff_ffff;
    let mut bytes = [0u8; 16];
    bytes[6..].copy_from_slice(&random);
    let value = (millis << 80) | u128::from_be_bytes(bytes);
    (0..26).rev().map(|i| char::from(ALPHABET[((value >> (5 * i)) & 31) as usize])).collect()
}

impl GrantId {
    /// The least id that a grant made at `at` (to the millisecond) can have: where a range of time begins.
    #[must_use]
    pub fn first_of(at: DateTime<Utc>) -> Self {
        struct Zeros;
        impl Entropy for Zeros {
            fn fill(&self, buf: &mut [u8]) {
                buf.fill(0);
            }
        }
        Self::generate(at, &Zeros)
    }

    /// A new grant id, ordered by time.
    #[must_use]
    pub fn generate(now: DateTime<Utc>, entropy: &dyn Entropy) -> Self {
        Self(format!("act_{}", time_ordered(now, entropy)).into())
    }
}

impl ClientId {
    /// A new client id, ordered by time.
    #[must_use]
    pub fn generate(now: DateTime<Utc>, entropy: &dyn Entropy) -> Self {
        Self(format!("client_{}", time_ordered(now, entropy)).into())
    }
}

impl Jti {
    /// A new token id, ordered by time.
    #[must_use]
    pub fn generate(now: DateTime<Utc>, entropy: &dyn Entropy) -> Self {
        Self(time_ordered(now, entropy).into())
    }
}

impl RequestId {
    /// A new request id, ordered by time.
    #[must_use]
    pub fn generate(now: DateTime<Utc>, entropy: &dyn Entropy) -> Self {
        Self(time_ordered(now, entropy).into())
    }
}

/// A set of OAuth scopes (RFC 6749 §3.3): space-separated, order kept as first given, no repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(Vec<Box<str>>);

impl Scope {
    /// The most scopes one request or token may carry (contract.md §3).
    pub const MAX: usize = 50;

    /// Reads a space-separated scope string; an empty string is the empty set.
    ///
    /// # Errors
    /// A character outside RFC 6749's `scope-token`, more than [`Self::MAX`] scopes, or one over 255 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let mut out = Self::default();
        for word in text.split(' ').filter(|w| !w.is_empty()) {
            if word.len() > MAX_ID_BYTES {
                return Err(InvalidId::TooLong { max: MAX_ID_BYTES });
            }
            if !word.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                return Err(InvalidId::Alphabet);
            }
            if !out.contains(word) {
                out.0.push(word.into());
            }
        }
        if out.0.len() > Self::MAX {
            return Err(InvalidId::TooMany { max: Self::MAX });
        }
        Ok(out)
    }

    /// Whether the set holds `scope`.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.0.iter().any(|s| &**s == scope)
    }

    /// Whether there is no scope at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|s| &**s)
    }

    /// What both sets hold, in the order of `self`: scopes only ever shrink.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|s| other.contains(s)).cloned().collect())
    }

    /// Whether every scope of `self` is in `other`.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|s| other.contains(s))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SystemEntropy;

    #[test]
    fn ids_are_refused_by_rule_and_kept_byte_for_byte() {
        assert_eq!(Sub::try_from(""), Err(InvalidId::Empty));
        assert_eq!(Sub::try_from("a\u{7}b"), Err(InvalidId::ControlCharacter));
        assert_eq!(Sub::try_from("é".repeat(128)), Err(InvalidId::TooLong { max: 255 }));
        for kept in [" padded ", "ｕｓｅｒ", "user_42", "а@b.example"] {
            assert_eq!(Sub::try_from(kept).unwrap().as_str(), kept);
        }
        assert_eq!(GrantId::try_from("act_"), Err(InvalidId::Prefix { prefix: "act_" }));
        assert_eq!(ClientId::try_from("nope"), Err(InvalidId::Prefix { prefix: "client_" }));
        assert_eq!(GrantId::try_from("act_a-b"), Err(InvalidId::Alphabet));
    }

    #[test]
    fn generated_ids_sort_by_time() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let (a, b) =
            (GrantId::generate(at(1_000), &SystemEntropy), GrantId::generate(at(1_001), &SystemEntropy));
        assert!(a < b);
        assert_eq!(a.as_str().len(), 30);
        assert_eq!(GrantId::try_from(a.as_str()), Ok(a));
    }

    #[test]
    fn scopes_shrink_and_never_grow() {
        let a = Scope::parse("read  billing:write read").unwrap();
        assert_eq!(a.to_string(), "read billing:write");
        let both = a.intersection(&Scope::parse("billing:write admin").unwrap());
        assert_eq!(both.to_string(), "billing:write");
        assert!(both.is_subset_of(&a) && !a.is_subset_of(&both));
        assert!(Scope::parse("bad\"scope").is_err() && Scope::parse("tab\tscope").is_err());
    }
}
