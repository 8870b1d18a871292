//! Who may listen to the feed at a time: caps per address and in all, with a share kept for known clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::server::limits::network_of;

/// How many connections at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceLimits {
    /// In all.
    pub all: usize,
    /// Without a client secret: the rest is kept for those with one.
    pub anonymous: usize,
    /// Without a client secret, from one address (IPv6: one /64).
    pub per_address: usize,
}

impl Default for PlaceLimits {
    fn default() -> Self {
        Self { all: 8000, anonymous: 6000, per_address: 256 }
    }
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    anonymous: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The places of one process.
#[derive(Debug)]
pub(super) struct Places {
    limits: PlaceLimits,
    taken: Mutex<Taken>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    /// `None`: it came with a client secret.
    anonymous: Option<Option<IpAddr>>,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place, if there is one; `known`: the connection came with a client secret.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>, known: bool) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.limits.all {
            return None;
        }
        let anonymous = (!known).then(|| address.map(network_of));
        if let Some(from) = anonymous {
            if taken.anonymous >= self.limits.anonymous {
                return None;
            }
            if let Some(from) = from {
                let count = taken.by_address.entry(from).or_default();
                if *count >= self.limits.per_address {
                    return None;
                }
                *count += 1;
            }
            taken.anonymous += 1;
        }
        taken.all += 1;
        Some(Place { places: Arc::clone(self), anonymous })
    }

    /// How many listen.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        let Some(from) = self.anonymous else { return };
        taken.anonymous -= 1;
        if let Some(from) = from
            && let Some(count) = taken.by_address.get_mut(&from)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_leaves_places_for_known_clients_and_other_addresses() {
        let places = Places::new(PlaceLimits { all: 10, anonymous: 6, per_address: 4 });
        let address = |text: &str| Some(text.parse().unwrap());
        let mut flood: Vec<Place> =
            (0..4).map(|_| places.take(address("192.0.2.1"), false).unwrap()).collect();
        assert!(places.take(address("192.0.2.1"), false).is_none(), "per address");
        flood.extend((0..2).map(|_| places.take(address("192.0.2.2"), false).unwrap()));
        assert!(places.take(address("192.0.2.3"), false).is_none(), "all strangers");
        let known: Vec<Place> = (0..4).map(|_| places.take(address("192.0.2.1"), true).unwrap()).collect();
        assert!(places.take(None, true).is_none(), "in all");
        drop((flood, known));
        assert_eq!(places.taken(), 0);
        assert!(places.take(address("192.0.2.1"), false).is_some(), "places are given back");
    }
}
