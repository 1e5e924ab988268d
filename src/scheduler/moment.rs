//! Time as the scheduler is told it.

use std::time::Duration;

/// A point of monotonic time, in nanoseconds since whatever moment the caller counts from. Lasts 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment that `elapsed` since the caller's beginning leads to.
    #[must_use]
    pub fn from_start(elapsed: Duration) -> Self {
        Self(elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos()))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same as nanoseconds, for sums on the request path.
    pub(super) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So much later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(Self::from_start(wait).0))
    }

    /// How many whole ticks of the timing wheel have begun.
    pub(super) fn ticks_begun(self) -> u32 {
        u32::try_from(self.0 / TICK_NANOS).unwrap_or(u32::MAX)
    }

    /// The first tick that begins no earlier.
    pub(super) fn tick_reached(self) -> u32 {
        u32::try_from(self.0.div_ceil(TICK_NANOS)).unwrap_or(u32::MAX)
    }
}

/// The grain of deadlines: a waiter leaves at most this long after its own.
pub const TICK: Duration = Duration::from_millis(50);
const TICK_NANOS: u64 = 50_000_000;
const _: () = assert!(TICK.as_nanos() == TICK_NANOS as u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_tick_and_never_before() {
        let deadline = Moment::from_start(Duration::from_millis(120));
        assert_eq!(deadline.ticks_begun(), 2);
        assert_eq!(deadline.tick_reached(), 3);
        let on_the_tick = Moment::from_start(Duration::from_millis(150));
        assert_eq!((on_the_tick.ticks_begun(), on_the_tick.tick_reached()), (3, 3));
    }
}
