//! Remembers answers for a stated time, and never more of them than a stated number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A bounded memory with an end time per entry; times are [`crate::token::Clock::monotonic`].
///
/// Two halves: when the young one is full it becomes the old one and the old one is forgotten. What is asked
/// for moves to the young half, so what is used stays, and no operation walks the whole memory.
pub struct Remembered<K, V> {
    half: usize,
    halves: Mutex<Halves<K, V>>,
}

struct Halves<K, V> {
    young: HashMap<K, (V, Duration)>,
    old: HashMap<K, (V, Duration)>,
}

impl<K: Hash + Eq + Clone, V: Clone> Remembered<K, V> {
    /// A memory for at most `most` entries (at least two).
    #[must_use]
    pub fn at_most(most: usize) -> Self {
        let halves = Halves { young: HashMap::new(), old: HashMap::new() };
        Self { half: (most / 2).max(1), halves: Mutex::new(halves) }
    }

    /// What was put under `key`, unless its time is over.
    #[must_use]
    pub fn get(&self, key: &K, now: Duration) -> Option<V> {
        let mut halves = self.lock();
        if let Some((value, until)) = halves.young.get(key) {
            return (now < *until).then(|| value.clone());
        }
        let (value, until) = halves.old.remove(key)?;
        if now >= until {
            return None;
        }
        self.insert(&mut halves, key.clone(), value.clone(), until);
        Some(value)
    }

    /// Remembers `value` under `key` until `until`, in place of what was there.
    pub fn put(&self, key: K, value: V, until: Duration) {
        let mut halves = self.lock();
        halves.old.remove(&key);
        self.insert(&mut halves, key, value, until);
    }

    /// Forgets what was put under `key`.
    pub fn forget(&self, key: &K) {
        let mut halves = self.lock();
        halves.young.remove(key);
        halves.old.remove(key);
    }

    fn insert(&self, halves: &mut Halves<K, V>, key: K, value: V, until: Duration) {
        if halves.young.len() >= self.half && !halves.young.contains_key(&key) {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, (value, until));
    }

    fn lock(&self) -> MutexGuard<'_, Halves<K, V>> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(10);

    #[test]
    fn an_answer_is_forgotten_when_its_time_is_over() {
        let memory = Remembered::at_most(4);
        memory.put("a", 1, LATER);
        assert_eq!(memory.get(&"a", LATER.checked_sub(Duration::from_nanos(1)).unwrap()), Some(1));
        assert_eq!(memory.get(&"a", LATER), None);
        memory.put("a", 2, LATER * 2);
        assert_eq!(memory.get(&"a", LATER), Some(2));
        memory.forget(&"a");
        assert_eq!(memory.get(&"a", LATER), None);
    }

    #[test]
    fn a_flood_never_fills_more_than_the_bound_and_keeps_what_is_used() {
        let memory = Remembered::at_most(100);
        memory.put(0, 0, LATER);
        for key in 1..10_000 {
            memory.put(key, key, LATER);
            assert_eq!(memory.get(&0, Duration::ZERO), Some(0));
        }
        let halves = memory.lock();
        assert!(halves.young.len() + halves.old.len() <= 100);
    }
}
