//! Whether the clock can be believed: a jump would put times into the log that never were.
//!
//! Wall clock and monotonic clock must agree since the last look; after a jump nothing but revocations and
//! stops is recorded until they have agreed for ten seconds and stand at or after the log's newest entry.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::body::ClockFlag;
use crate::token::Clock;

/// The most two clocks may differ, and the log's newest entry may lie ahead of now.
pub const TOLERANCE_US: i64 = 2_000_000;
/// Two readings of the clocks further apart than this are not one look.
const ONE_LOOK: Duration = Duration::from_millis(100);
/// How long the clocks have to agree after a jump.
const SETTLE: Duration = Duration::from_secs(10);

/// What the guard says of this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Record at this time, microseconds.
    Good(i64),
    /// Record only what must never wait, at this time, with this flag.
    Bad(i64, ClockFlag),
}

impl Verdict {
    /// The time of whatever is recorded, microseconds.
    pub const fn t_us(self) -> i64 {
        let (Self::Good(t_us) | Self::Bad(t_us, _)) = self;
        t_us
    }
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall_us: i64,
    mono: Duration,
}

impl Anchor {
    /// Both clocks at one moment: whoever was held up between the two looks looks again, or the pause would
    /// pass for a jump.
    fn of(clock: &dyn Clock) -> Self {
        loop {
            let before = clock.monotonic();
            let wall_us = micros(clock.now());
            let mono = clock.monotonic();
            if mono.saturating_sub(before) < ONE_LOOK {
                return Self { wall_us, mono };
            }
        }
    }

    /// What the wall clock should say at `mono` if nobody had set it.
    fn expected(&self, mono: Duration) -> i64 {
        let passed = mono.saturating_sub(self.mono).as_micros();
        self.wall_us.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

/// Remembers where the clocks stood.
#[derive(Debug)]
pub struct ClockGuard {
    /// The last moment both were believed.
    trusted: Anchor,
    /// After a jump: since when they agree again.
    settling: Option<Anchor>,
}

impl ClockGuard {
    /// Begins by believing `clock`.
    pub fn new(clock: &dyn Clock) -> Self {
        Self { trusted: Anchor::of(clock), settling: None }
    }

    /// Judges this moment, given the log's newest time and the database server's clock, where there are any.
    pub fn judge(&mut self, clock: &dyn Clock, newest_us: Option<i64>, database_us: Option<i64>) -> Verdict {
        let now = Anchor::of(clock);
        let newest = newest_us.unwrap_or(i64::MIN);
        if self.jumped(now, newest) || database_us.is_some_and(|db| differ(db, now.wall_us)) {
            let carried_on = self.trusted.expected(now.mono);
            return Verdict::Bad(carried_on.max(newest), ClockFlag::Jumped);
        }
        if now.wall_us < newest.saturating_sub(TOLERANCE_US) {
            return Verdict::Bad(newest, ClockFlag::Behind);
        }
        // slow drift of one clock against the other is no jump: the anchor follows
        self.trusted = now;
        Verdict::Good(now.wall_us.max(newest))
    }

    fn jumped(&mut self, now: Anchor, newest: i64) -> bool {
        let Some(since) = self.settling else {
            let jumped = differ(self.trusted.expected(now.mono), now.wall_us);
            if jumped {
                self.settling = Some(now);
            }
            return jumped;
        };
        if differ(since.expected(now.mono), now.wall_us) {
            self.settling = Some(now);
        } else if now.mono.saturating_sub(since.mono) >= SETTLE && now.wall_us >= newest {
            self.settling = None;
            self.trusted = now;
            return false;
        }
        true
    }
}

fn differ(a: i64, b: i64) -> bool {
    a.abs_diff(b) > TOLERANCE_US.unsigned_abs()
}

/// Microseconds since the epoch.
pub fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::FixedClock;

    const T: i64 = 1_795_333_985;

    #[test]
    fn time_passes_and_a_small_step_back_is_clamped() {
        // invariant 6
        let clock = FixedClock::at_seconds(T);
        let mut guard = ClockGuard::new(&clock);
        assert_eq!(guard.judge(&clock, None, None), Verdict::Good(T * 1_000_000));
        clock.advance(Duration::from_hours(1));
        let newest = (T + 3601) * 1_000_000;
        assert_eq!(guard.judge(&clock, Some(newest), None), Verdict::Good(newest));
        assert_eq!(
            guard.judge(&clock, Some(newest + 2_000_000), None),
            Verdict::Bad(newest + 2_000_000, ClockFlag::Behind)
        );
    }

    #[test]
    fn after_a_jump_only_what_must_not_wait_is_recorded_until_the_clocks_settle() {
        // invariant 6: −1 h, +1 day
        for jump in [-3600, 86_400] {
            let clock = FixedClock::at_seconds(T);
            let mut guard = ClockGuard::new(&clock);
            let newest = T * 1_000_000;
            clock.advance(Duration::from_secs(5));
            clock.jump_to(DateTime::from_timestamp(T + 5 + jump, 0).unwrap());
            let carried = (T + 5) * 1_000_000;
            let bad = Verdict::Bad(carried, ClockFlag::Jumped);
            assert_eq!(guard.judge(&clock, Some(newest), None), bad, "a jump of {jump} s");
            clock.advance(Duration::from_secs(11));
            let verdict = guard.judge(&clock, Some(newest), None);
            if jump > 0 {
                assert_eq!(verdict, Verdict::Good((T + 16 + jump) * 1_000_000), "settled at the new time");
            } else {
                let Verdict::Bad(t, _) = verdict else { panic!("before the newest entry: {verdict:?}") };
                assert!(t >= newest);
                clock.jump_to(DateTime::from_timestamp(T + 17, 0).unwrap());
                assert!(matches!(guard.judge(&clock, Some(newest), None), Verdict::Bad(..)));
                clock.advance(Duration::from_secs(10));
                assert_eq!(guard.judge(&clock, Some(newest), None), Verdict::Good((T + 27) * 1_000_000));
            }
        }
    }

    #[test]
    fn a_frozen_wall_clock_and_a_database_of_another_opinion_are_noticed() {
        // invariant 6: frozen
        let clock = FixedClock::at_seconds(T);
        let mut guard = ClockGuard::new(&clock);
        let db = (T + 3) * 1_000_000;
        assert!(matches!(guard.judge(&clock, None, Some(db)), Verdict::Bad(_, ClockFlag::Jumped)));
        assert!(matches!(guard.judge(&clock, None, Some(T * 1_000_000)), Verdict::Good(_)));
        clock.advance(Duration::from_secs(3));
        clock.jump_to(DateTime::from_timestamp(T, 0).unwrap());
        assert!(matches!(guard.judge(&clock, None, None), Verdict::Bad(_, ClockFlag::Jumped)));
    }
}
