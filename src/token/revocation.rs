//! Where the verifier asks whether a token has been revoked.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::verified::Verified;

/// What is known about a token that is otherwise valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Not revoked, as far as fresh knowledge goes.
    Good,
    /// Revoked.
    Revoked,
    /// Not among the revocations known, but they are too old to rely on.
    Stale,
}

/// Answers from memory whether a token was revoked. Asked for every token of our own issuers, also for
/// those remembered as accepted; so it must not block.
pub trait Revocations: Send + Sync {
    /// The standing of `token` at `now`. What refuses is keyed on ids, never on the token's text.
    fn standing(&self, token: &Verified, now: DateTime<Utc>) -> Standing;
}

/// A set of revocations and the time it was true at (contract.md §7).
#[derive(Debug, Clone, Default)]
pub struct RevocationList {
    /// Single tokens, by (`iss`, `jti`).
    pub tokens: HashSet<(String, String)>,
    /// Grants.
    pub sids: HashSet<String>,
    /// Keys: every token signed by one is refused.
    pub kids: HashSet<String>,
    /// Clients: tokens issued to one at or before the second given are refused.
    pub clients: HashMap<String, i64>,
    /// Every token issued at or before this second.
    pub all_until: Option<i64>,
    /// When the list was true. None: it always is (a list kept in the process that revokes).
    pub as_of: Option<DateTime<Utc>>,
    /// How old the list may be before it is stale.
    pub max_age: TimeDelta,
}

impl Revocations for RevocationList {
    fn standing(&self, token: &Verified, now: DateTime<Utc>) -> Standing {
        let issued = token.iat.map_or(i64::MIN, |iat| iat.timestamp());
        let client = token.client_id.as_deref().and_then(|client| self.clients.get(client));
        let revoked = token.sid.as_deref().is_some_and(|sid| self.sids.contains(sid))
            || self.kids.contains(token.kid.as_str())
            || client.is_some_and(|until| issued <= *until)
            || self.all_until.is_some_and(|until| issued <= until)
            || token.jti.as_ref().is_some_and(|jti| {
                // The set is empty on almost every request: no key is built for nothing.
                !self.tokens.is_empty()
                    && self.tokens.contains(&(token.iss.to_string(), jti.as_str().to_owned()))
            });
        if revoked {
            return Standing::Revoked;
        }
        // Older than allowed, or from further ahead than clocks differ: either way not to be relied on.
        let stale = self.as_of.is_some_and(|then| (now - then).abs() > self.max_age);
        if stale { Standing::Stale } else { Standing::Good }
    }
}
