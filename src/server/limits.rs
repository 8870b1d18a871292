//! What a process remembers of those who ask: failures by address, assertions already used, attempts by client and actor.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::token::{Act, ClientId};

/// Failed credentials that one address may send in a minute.
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not zero");

/// How far two machines' clocks may differ.
const LEEWAY: TimeDelta = TimeDelta::seconds(5);
/// The most assertions of one client that are remembered; over that none of its own is accepted until some have expired.
const MAX_REMEMBERED: usize = 10_000;

/// Failures by address. A valid credential is never asked this (contract.md §3).
pub struct FailureLimit(RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>);

impl Default for FailureLimit {
    fn default() -> Self {
        Self(RateLimiter::dashmap(Quota::per_minute(FAILURES_PER_MINUTE)))
    }
}

impl FailureLimit {
    /// Counts one failure; how long to wait when there have been too many. Those whose address is not known are
    /// one.
    pub fn failed(&self, address: Option<IpAddr>) -> Option<Duration> {
        let network = address.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network_of);
        let refused = self.0.check_key(&network).err()?;
        Some(refused.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets addresses that have been quiet, so that memory stays bounded.
    pub fn forget_quiet(&self) {
        self.0.retain_recent();
    }
}

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// How often a client may try what is recorded, and an actor to have a token minted: over it nothing is evaluated.
#[derive(Default)]
pub struct MintLimits {
    clients: Option<Keyed<ClientId>>,
    actors: Option<Keyed<(String, String)>>,
}

impl MintLimits {
    /// Limits by the minute; `None`: none.
    pub fn per_minute(client: Option<NonZeroU32>, actor: Option<NonZeroU32>) -> Self {
        Self {
            clients: client.map(|n| RateLimiter::dashmap(Quota::per_minute(n))),
            actors: actor.map(|n| RateLimiter::dashmap(Quota::per_minute(n))),
        }
    }

    /// Counts one attempt of a client; how long to wait when there have been too many.
    pub fn client(&self, client: &ClientId) -> Option<Duration> {
        wait(self.clients.as_ref()?, client)
    }

    /// Counts one attempt of an actor. One that a client only names counts for that client: naming somebody often does
    /// not lock him out elsewhere.
    pub fn actor(&self, actor: &Act, named_by: Option<&ClientId>) -> Option<Duration> {
        let issuer = actor.iss.as_ref().map(crate::token::Issuer::as_str);
        let vouches = issuer.or_else(|| named_by.map(ClientId::as_str)).unwrap_or("");
        wait(self.actors.as_ref()?, &(vouches.to_owned(), actor.sub.as_str().to_owned()))
    }

    /// Forgets who has been quiet, so that memory stays bounded.
    pub fn forget_quiet(&self) {
        if let Some(clients) = &self.clients {
            clients.retain_recent();
        }
        if let Some(actors) = &self.actors {
            actors.retain_recent();
        }
    }
}

fn wait<K: std::hash::Hash + Eq + Clone>(limit: &Keyed<K>, key: &K) -> Option<Duration> {
    let refused = limit.check_key(key).err()?;
    Some(refused.wait_time_from(DefaultClock::default().now()))
}

/// A wait as `Retry-After` says it: whole seconds, never too few.
pub fn seconds_to_wait(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(60).saturating_add(1)
}

/// One household is one address: IPv6 counts by /64.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

/// Assertions that were used, by client, until they expire: a second use is refused. Per process.
#[derive(Debug, Default)]
pub struct UsedAssertions(Mutex<HashMap<ClientId, HashMap<String, DateTime<Utc>>>>);

impl UsedAssertions {
    /// Whether `client` uses `jti` for the first time.
    pub fn first_use(&self, client: &ClientId, jti: &str, exp: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.entry(client.clone()).or_default();
        if used.len() >= MAX_REMEMBERED {
            used.retain(|_, exp| *exp + LEEWAY > now);
            if used.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        match used.entry(jti.to_owned()) {
            Entry::Occupied(mut seen) => {
                let over = *seen.get() + LEEWAY <= now;
                seen.insert(exp);
                over
            }
            Entry::Vacant(slot) => {
                slot.insert(exp);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_to_wait_and_its_neighbour_is_not() {
        let limit = FailureLimit::default();
        let one = Some("2001:db8::1".parse().unwrap());
        for _ in 0..30 {
            assert_eq!(limit.failed(one), None);
        }
        assert!(limit.failed(Some("2001:db8::2".parse().unwrap())).is_some(), "the same /64");
        assert_eq!(limit.failed(Some("2001:db8:0:1::1".parse().unwrap())), None, "another /64");
        for _ in 0..30 {
            assert_eq!(limit.failed(None), None);
        }
        assert!(limit.failed(None).is_some(), "to have no address is no way around it");
    }

    #[test]
    fn a_client_and_an_actor_are_told_to_wait_each_for_himself() {
        let limits = MintLimits::per_minute(NonZeroU32::new(2), NonZeroU32::new(1));
        let (a, b) = (ClientId::try_from("client_a").unwrap(), ClientId::try_from("client_b").unwrap());
        assert!(limits.client(&a).is_none() && limits.client(&a).is_none());
        assert!(limits.client(&a).is_some());
        assert_eq!(limits.client(&b), None);
        let actor = |sub: &str, iss: Option<&str>| Act {
            sub: sub.parse().unwrap(),
            iss: iss.map(|i| i.parse().unwrap()),
            act: None,
        };
        assert_eq!(limits.actor(&actor("x", None), Some(&a)), None);
        assert!(limits.actor(&actor("x", None), Some(&a)).is_some());
        assert_eq!(
            limits.actor(&actor("x", None), Some(&b)),
            None,
            "whom one client names, another may name, too"
        );
        let proven = actor("x", Some("https://idp.example"));
        assert_eq!(limits.actor(&proven, Some(&a)), None, "another issuer's x is another");
        assert!(limits.actor(&proven, None).is_some(), "wherever he comes from");
        assert_eq!(MintLimits::default().client(&a), None, "no limit unless configured");
    }

    #[test]
    fn an_assertion_is_used_once_until_it_expires() {
        let used = UsedAssertions::default();
        let client = ClientId::try_from("client_a").unwrap();
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        assert!(used.first_use(&client, "j", at(100), at(50)));
        assert!(!used.first_use(&client, "j", at(100), at(104)), "leeway counts");
        assert!(used.first_use(&client, "k", at(100), at(50)));
        let other = ClientId::try_from("client_b").unwrap();
        assert!(used.first_use(&other, "j", at(100), at(50)));
        for n in 0..MAX_REMEMBERED {
            used.first_use(&client, &n.to_string(), at(100), at(50));
        }
        assert!(!used.first_use(&client, "one more", at(100), at(50)), "more than can be remembered");
        assert!(used.first_use(&other, "one more", at(100), at(50)), "no other client pays for it");
        assert!(used.first_use(&client, "one more", at(200), at(106)), "when they have expired");
    }
}
