//! A log line that a flood must not repeat: at most one per interval, with the number of those left out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one line through per interval and counts the others.
#[derive(Debug)]
pub struct Seldom {
    every_ms: u64,
    began: Instant,
    /// Milliseconds from `began` until the next line may be written.
    next_ms: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// One line per `every`, to the millisecond; the first at once.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self {
            every_ms: whole_ms(every),
            began: Instant::now(),
            next_ms: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether the line may be written now; then, how many were left out since the last one.
    pub fn turn(&self) -> Option<u64> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<u64> {
        let now = whole_ms(now.saturating_duration_since(self.began));
        let next = self.next_ms.load(Ordering::Relaxed);
        let taken = now >= next
            && self
                .next_ms
                .compare_exchange(next, now.saturating_add(self.every_ms), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if taken {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_says_how_many_it_stands_for() {
        let seldom = Seldom::new(Duration::from_secs(1));
        let at = |ms| seldom.turn_at(seldom.began + Duration::from_millis(ms));
        assert_eq!(at(0), Some(0), "the first is never late");
        assert_eq!([at(1), at(500), at(999)], [None; 3]);
        assert_eq!(at(1_000), Some(3));
        assert_eq!(at(1_999), None);
        assert_eq!(at(60_000), Some(1));
    }
}
