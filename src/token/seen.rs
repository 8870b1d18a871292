//! A bounded memory of accepted tokens, so that one seen again costs a hash and a look-up.
//!
//! Keyed on the SHA-256 of the *whole* token text and never on a part: a token with the same `jti` and
//! signature but another payload has another key. What is returned is what was verified then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::verified::Verified;

const SHARDS: usize = 16;

/// SHA-256 of a token's whole text.
pub(crate) type TokenHash = [u8; 32];

struct Entry {
    token: Arc<Verified>,
    /// The verifier's issuers and keys when the token was accepted: under any other it is verified anew.
    generation: u64,
}

/// Two halves: when the young one is full it becomes the old one and the old one is forgotten. What is
/// used moves back to the young half, so that floods of one-time tokens push out little that is in use.
#[derive(Default)]
struct Shard {
    young: HashMap<TokenHash, Entry>,
    old: HashMap<TokenHash, Entry>,
}

pub(crate) struct Seen {
    shards: [Mutex<Shard>; SHARDS],
    half: usize,
}

impl Seen {
    /// Remembers at most about `capacity` tokens; 0 remembers none.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), half: capacity / (2 * SHARDS) }
    }

    fn shard(&self, hash: &TokenHash) -> MutexGuard<'_, Shard> {
        // A panic while holding the lock leaves at worst an entry too few.
        self.shards[usize::from(hash[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, hash: &TokenHash, generation: u64) -> Option<Arc<Verified>> {
        let mut shard = self.shard(hash);
        if let Some(entry) = shard.young.get(hash) {
            return (entry.generation == generation).then(|| entry.token.clone());
        }
        let entry = shard.old.remove(hash)?;
        if entry.generation != generation {
            return None;
        }
        let token = entry.token.clone();
        self.put(&mut shard, *hash, entry);
        Some(token)
    }

    pub(crate) fn insert(&self, hash: TokenHash, generation: u64, token: Arc<Verified>) {
        self.put(&mut self.shard(&hash), hash, Entry { token, generation });
    }

    fn put(&self, shard: &mut Shard, hash: TokenHash, entry: Entry) {
        if self.half == 0 {
            return;
        }
        if shard.young.len() >= self.half {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(hash, entry);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.young.len() + shard.old.len()
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::signer::sha256;
    use crate::token::{Role, Scope};

    fn token() -> Arc<Verified> {
        Arc::new(Verified {
            iss: "https://stagedoor.example".parse().unwrap(),
            role: Role::Stagedoor,
            sub: "user_42".parse().unwrap(),
            aud: Vec::new(),
            exp: chrono::DateTime::<chrono::Utc>::MAX_UTC,
            nbf: None,
            iat: None,
            jti: None,
            client_id: None,
            scope: Scope::default(),
            sid: None,
            actor: None,
            assurance: None,
            kid: "kid".parse().unwrap(),
            claims: serde_json::Map::new(),
        })
    }

    #[test]
    fn a_flood_fills_no_more_than_the_capacity_and_what_is_used_survives_it() {
        let seen = Seen::new(512);
        let token = token();
        let mine = sha256(b"mine");
        seen.insert(mine, 1, token.clone());
        for i in 0..100_000u32 {
            seen.insert(sha256(&i.to_be_bytes()), 1, token.clone());
            assert!(i % 8 != 0 || seen.get(&mine, 1).is_some(), "pushed out by {i}");
        }
        assert!(seen.len() <= 512, "{}", seen.len());
        assert!(seen.get(&sha256(b"other"), 1).is_none());
    }

    #[test]
    fn another_generation_knows_nothing_of_the_last() {
        let seen = Seen::new(64);
        let hash = sha256(b"mine");
        seen.insert(hash, 1, token());
        assert!(seen.get(&hash, 2).is_none() && seen.get(&hash, 1).is_some());
        let none = Seen::new(0);
        none.insert(hash, 1, token());
        assert!(none.get(&hash, 1).is_none());
    }
}
