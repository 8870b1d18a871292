//! What records of revocations, handoff codes and idempotency keys depend on and change.

use chrono::{DateTime, Utc};

use super::clock_guard::micros;
use super::{Log, LogError};
pub use crate::server::store::stop::{StoredCode, StoredKey};
use crate::token::{ClientId, GrantId, Issuer, Kid, Scope, Sub};

/// A keyed hash that stands for something without saying it: a person, an idempotency key. Text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub Box<str>);

/// What a token about to be recorded names, as far as revocations look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The client.
    pub client: ClientId,
    /// The key that signs; `None` when nothing is signed yet.
    pub kid: Option<Kid>,
    /// Its `iat`.
    pub iat: DateTime<Utc>,
    /// Everybody of the chain of actors, and the target.
    pub people: Vec<Tag>,
}

/// A handoff code as stored: nothing with which it could be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRow {
    /// Whose code.
    pub grant: GrantId,
    /// What finds it.
    pub code_hash: Tag,
    /// Who may use it.
    pub redeem_client: ClientId,
    /// S256 of the verifier that goes with it.
    pub code_challenge: Option<String>,
    /// Facts for asking the policy again, sealed.
    pub sealed: Vec<u8>,
    /// Until when it may be used.
    pub exp: DateTime<Utc>,
    /// Until when a second use is noticed: as long as its token may live.
    pub keep_until: DateTime<Utc>,
}

/// An idempotency key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// HMAC of client, method, path and key.
    pub key: Tag,
    /// HMAC of the body.
    pub body: Tag,
    /// What it was answered with.
    pub grant: GrantId,
    /// Until when it is kept.
    pub exp: DateTime<Utc>,
}

/// What a redeemed grant's token says, where it may differ from what was minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedeemRow {
    /// The grant.
    pub grant: GrantId,
    /// The key that signed.
    pub kid: Kid,
    /// What it allows.
    pub scope: Scope,
    /// When its token was issued.
    pub iat: DateTime<Utc>,
    /// When it ends.
    pub exp: DateTime<Utc>,
}

/// What is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// One grant.
    Grant(GrantId),
    /// Every grant in whose chain this actor stands; without `iss`, whoever names him.
    Actor {
        /// His id.
        sub: Sub,
        /// Who names him.
        iss: Option<Issuer>,
        /// What stands for him in chains.
        chain: Tag,
    },
    /// Every grant on this target.
    Subject(Sub),
    /// Everything issued to a client.
    Client(ClientId),
    /// Everything a key signed.
    Kid(Kid),
    /// Everything.
    All,
}

/// A revocation: what ends, together with everything delegated from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// What.
    pub selector: Selector,
    /// Only grants of this client; `None`: whoever's.
    pub of_client: Option<ClientId>,
    /// Refuses new mints too, for as long; the tag names the person, where it is one.
    pub hold: Option<Hold>,
}

/// Until when what was revoked is not minted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// How long from the record's time, seconds.
    pub seconds: u32,
    /// The person; `None` for a client and for everything.
    pub person: Option<Tag>,
}

impl Log {
    /// The handoff code that `hash` finds, used or not; `None` when there is none.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn handoff_code(&self, hash: &Tag) -> Result<Option<StoredCode>, LogError> {
        Ok(self.db().handoff_code(&hash.0).await?)
    }

    /// What the policy is asked again with about `grant`, sealed; `None` when nothing was kept.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn grant_facts(&self, grant: &GrantId) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.db().grant_facts(grant.as_str()).await?)
    }

    /// What was answered under an idempotency key; `None` when nothing was, or it has expired at `now`.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn answered_under(&self, key: &Tag, now: DateTime<Utc>) -> Result<Option<StoredKey>, LogError> {
        Ok(self.db().idempotency(&key.0, micros(now)).await?)
    }
}
