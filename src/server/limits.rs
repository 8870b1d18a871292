//! What a process remembers of those who prove themselves: failures by address, assertions already used.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::token::ClientId;

/// Failed credentials that one address may send in a minute.
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not zero");

/// How far two machines' clocks may differ.
const LEEWAY: TimeDelta = TimeDelta::seconds(5);
/// The most assertions remembered; over that none is accepted until some have expired.
const MAX_REMEMBERED: usize = 100_000;

/// Failures by address. A valid credential is never asked this (contract.md §3).
pub struct FailureLimit(RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>);

impl Default for FailureLimit {
    fn default() -> Self {
        Self(RateLimiter::dashmap(Quota::per_minute(FAILURES_PER_MINUTE)))
    }
}

impl FailureLimit {
    /// Counts one failure; how long to wait when there have been too many.
    pub fn failed(&self, address: Option<IpAddr>) -> Option<Duration> {
        let refused = self.0.check_key(&network_of(address?)).err()?;
        Some(refused.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets addresses that have been quiet, so that memory stays bounded.
    pub fn forget_quiet(&self) {
        self.0.retain_recent();
    }
}

/// One household is one address: IPv6 counts by /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

/// Assertions that were used, until they expire: a second use is refused. Per process.
#[derive(Debug, Default)]
pub struct UsedAssertions(Mutex<HashMap<(ClientId, String), DateTime<Utc>>>);

impl UsedAssertions {
    /// Whether (client, jti) is used for the first time.
    pub fn first_use(&self, client: &ClientId, jti: &str, exp: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_REMEMBERED {
            used.retain(|_, exp| *exp + LEEWAY > now);
            if used.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        match used.entry((client.clone(), jti.to_owned())) {
            std::collections::hash_map::Entry::Occupied(mut seen) => {
                let over = *seen.get() + LEEWAY <= now;
                seen.insert(exp);
                over
            }
            std::collections::hash_map::Entry::Vacant(slot) => {
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
    }

    #[test]
    fn an_assertion_is_used_once_until_it_expires() {
        let used = UsedAssertions::default();
        let client = ClientId::try_from("client_a").unwrap();
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        assert!(used.first_use(&client, "j", at(100), at(50)));
        assert!(!used.first_use(&client, "j", at(100), at(104)), "leeway counts");
        assert!(used.first_use(&client, "k", at(100), at(50)));
        assert!(used.first_use(&ClientId::try_from("client_b").unwrap(), "j", at(100), at(50)));
    }
}
