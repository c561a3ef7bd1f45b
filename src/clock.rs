//! Time: whole milliseconds since the Unix epoch. Code receives a [`Clock`] as a parameter.
//!
//! Nothing else in the workspace reads the operating system's time of day.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

/// 9999-12-31T23:59:59.999Z, the last time that a protobuf timestamp can hold.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// Creates a time from milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the time `span` later; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Returns the time `span` earlier; saturates.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// Returns the span from `earlier` to this time; zero if this time is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Converts to a protobuf timestamp.
    pub fn to_timestamp(self) -> Timestamp {
        Timestamp {
            seconds: self.as_secs(),
            // A remainder of 1000 always fits.
            nanos: i32::try_from(self.0.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
        }
    }

    /// Converts from a protobuf timestamp, rounded down. `None` outside of the years 1970 to 9999, or if the
    /// nanoseconds are not between 0 and 999,999,999.
    pub fn from_timestamp(timestamp: &Timestamp) -> Option<Self> {
        if !(0..1_000_000_000).contains(&timestamp.nanos) {
            return None;
        }
        let whole = timestamp.seconds.checked_mul(1000)?;
        let total = whole.checked_add(i64::from(timestamp.nanos / 1_000_000))?;
        (0..=LAST_MILLIS).contains(&total).then_some(Self(total))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A source of time.
pub trait Clock: Send + Sync + Debug {
    /// Returns the current time.
    fn now(&self) -> UnixMillis;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    // The only place that reads the system's clock.
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> UnixMillis {
        // A clock set before 1970 reads as 1970.
        UnixMillis(millis(
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        ))
    }
}

/// Stands still, for what has happened at a known time.
impl Clock for UnixMillis {
    fn now(&self) -> UnixMillis {
        *self
    }
}

/// A clock that only tests move.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Creates a clock that shows `start`.
    pub fn new(start: UnixMillis) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward; saturates.
    pub fn advance(&self, span: Duration) {
        let later = |now| Some(UnixMillis(now).plus(span).0);
        // The closure always returns a value, so the update can't fail.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Sets the clock.
    pub fn set(&self, to: UnixMillis) {
        self.0.store(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn timestamps_round_trip_to_the_millisecond() {
        let time = UnixMillis::from_millis(1_800_000_000_123);
        assert_eq!(UnixMillis::from_timestamp(&time.to_timestamp()), Some(time));
    }

    #[test]
    fn timestamps_out_of_range_are_rejected() {
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (253_402_300_800, 0),
            (i64::MAX, 0),
        ] {
            assert_eq!(UnixMillis::from_timestamp(&Timestamp { seconds, nanos }), None);
        }
    }

    #[test]
    fn a_span_is_never_negative() {
        let (early, late) = (UnixMillis::from_millis(5), UnixMillis::from_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(UnixMillis::from_millis(-1).as_secs(), -1);
    }

    #[test]
    fn a_manual_clock_moves_only_on_request() {
        let clock = ManualClock::new(UnixMillis::from_millis(1000));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), UnixMillis::from_millis(2000));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), UnixMillis::from_millis(i64::MAX));
    }
}
