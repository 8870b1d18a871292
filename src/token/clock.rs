//! Time as an argument: nothing but this file asks the machine what time it is.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// Tells the time. Everything that compares times takes one.
pub trait Clock: Send + Sync {
    /// Wall-clock time, UTC.
    fn now(&self) -> DateTime<Utc>;

    /// Time since an arbitrary fixed point; never jumps with the wall clock.
    /// The log compares the two to notice a clock that was set.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands where it was put: for tests and known-answer checks.
#[derive(Debug)]
pub struct FixedClock(Mutex<(DateTime<Utc>, Duration)>);

impl FixedClock {
    /// A clock standing at `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self(Mutex::new((now, Duration::ZERO)))
    }

    /// A clock standing at `seconds` after the epoch.
    ///
    /// # Panics
    /// When `seconds` lies outside what a date can hold.
    #[must_use]
    pub fn at_seconds(seconds: i64) -> Self {
        Self::at(DateTime::from_timestamp(seconds, 0).expect("a representable time"))
    }

    /// Lets time pass: wall clock and monotonic clock together.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.lock();
        inner.0 += by;
        inner.1 += by;
    }

    /// Sets the wall clock alone, as an operator or NTP would: the monotonic clock stays.
    pub fn jump_to(&self, now: DateTime<Utc>) {
        self.lock().0 = now;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (DateTime<Utc>, Duration)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        self.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.lock().1
    }
}
