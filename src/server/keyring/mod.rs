//! Signing keys: sealed at rest, rotated by the calendar, published before they sign and until what they
//! signed has ended.
//!
//! A key is a row authenticated under the master key; its private half is sealed to its `kid`, algorithm and
//! purpose. A row that fails is ignored and alarmed: whoever can write the database but lacks the master key
//! cannot publish a key of his own.
//!
//! Times decide, so that every replica changes keys at the same moment without being told: a key is published
//! from `created_at`, signs from `activated_at` until a newer one does, and is published for
//! [`PUBLISHED_AFTER_SECONDS`] after `retired_at`. The column `state` says what held when the row was written;
//! `revoked` alone counts on its own.

mod import;
mod loaded;
mod manage;
mod row;
#[cfg(test)]
mod tests;

pub use import::{ImportError, MAX_KEY_FILE_BYTES};
pub use loaded::Keyring;
pub use manage::{
    create, exist, import, list, make_initial, reseal, retire, revoke, rotate, rotate_aged, rotate_at,
};
pub use row::KeyInfo;

use std::fmt;

use super::clients::ClientError;
use super::store::StoreError;
use crate::token::signer::{SignError, SignerError};
use crate::token::{Alg, ClientId, Kid};

/// How long a new key is published before it signs: twice the 300 s for which verifiers may keep a key set.
pub const PUBLISHED_BEFORE_SECONDS: i64 = 600;
/// How long a retired key stays published: the longest token (3600 s), the longest cache (300 s), a minute for
/// clocks.
pub const PUBLISHED_AFTER_SECONDS: i64 = 3600 + 300 + 60;

/// What a key is for. No key is used for two purposes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPurpose {
    /// Actor tokens.
    Token,
    /// Tokens of one client in profile `clerk`.
    Clerk(ClientId),
    /// Checkpoints of the issuance log (Ed25519); belongs to the log's epoch and is not rotated.
    Log,
    /// The revocation feed.
    Feed,
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("token"),
            Self::Clerk(client) => write!(f, "clerk:{client}"),
            Self::Log => f.write_str("log"),
            Self::Feed => f.write_str("feed"),
        }
    }
}

impl KeyPurpose {
    /// Reads the word [`fmt::Display`] writes.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "token" => Some(Self::Token),
            "log" => Some(Self::Log),
            "feed" => Some(Self::Feed),
            _ => ClientId::try_from(word.strip_prefix("clerk:")?).ok().map(Self::Clerk),
        }
    }
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Active,
    /// Signs no more; published as long as what it signed may live.
    Retired,
    /// Compromised: not published, and nothing it signed is valid.
    Revoked,
}

impl KeyState {
    /// The word in the database and in lists.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }
}

/// What makes a key where there is none.
fn made_by(purpose: &KeyPurpose) -> String {
    match purpose {
        KeyPurpose::Clerk(_) => {
            format!("make one with `stagedoor key rotate --purpose {purpose} --alg RS256`")
        }
        _ => "run `stagedoor init`, or give the master key the keys were sealed under".to_owned(),
    }
}

/// Why the keys cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Nothing can sign for a purpose that needs it.
    #[error("there is no {0} key that signs; {made}", made = made_by(.0))]
    NoSigner(KeyPurpose),
    /// The probe failed: a signature does not verify, or the key cannot sign.
    #[error("the {purpose} key {kid} does not sign what its public half verifies; retire it")]
    Probe {
        /// What for.
        purpose: KeyPurpose,
        /// Which key.
        kid: Kid,
        /// What the key said, where it said something.
        #[source]
        source: Option<SignError>,
    },
    /// A key could not be made.
    #[error("the key could not be made")]
    Make(#[from] SignerError),
    /// A file with a key could not be taken.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// There is no such key.
    #[error("there is no key {0}; `stagedoor key list` shows those there are")]
    Unknown(Kid),
    /// The key is there already.
    #[error("the key {0} is there already; nothing was changed")]
    Exists(Kid),
    /// A row that was changed without the master key.
    #[error(
        "the row of key {0} is not authentic; restore the database or the master key it was written under"
    )]
    NotAuthentic(String),
    /// The only key that signs for its purpose.
    #[error("{0} is the key that signs; rotate first, or use --now if it is compromised")]
    InUse(Kid),
    /// The log's key.
    #[error("the log's key belongs to its epoch and cannot be changed; begin a new epoch instead")]
    LogKey,
    /// A rotation is under way already.
    #[error("the key {0} is published already and signs soon; wait for it")]
    Pending(Kid),
    /// A client could not be taken along to a new master key.
    #[error("the clients cannot be sealed again")]
    Clients(#[from] ClientError),
    /// Somebody changed a client or a key meanwhile; nothing was written.
    #[error("a client or key was changed at the same moment and nothing was written; try again")]
    Changing,
    /// The database could not be asked.
    #[error(
        "the keys could not be read or written; check that the database answers and its role may do this"
    )]
    Store(#[from] StoreError),
}

/// Whether tokens can be signed with it here.
const fn signs_with(alg: Alg) -> bool {
    matches!(alg, Alg::Es256 | Alg::Rs256 | Alg::EdDsa)
}
