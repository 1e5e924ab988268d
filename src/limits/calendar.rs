//! The calendar of the budgets: [`steady`] time, shared by all requests without a lock that any of them waits for.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::quota::Moment;
use crate::quota::steady::{self, Course, Doubt};
use crate::units::UnixMs;

/// Before the first look at the wall clock.
const UNKNOWN: i64 = i64::MIN;

/// How far the wall clock drifts before the offset is written anew, in milliseconds: below this, looks only read.
const WRITE_MS: u64 = 50;

#[derive(Debug)]
pub(super) struct Calendar {
    offset_ms: AtomicI64,
    /// Looked at only while the wall clock is off its course, and never waited for.
    doubt: Mutex<Option<Doubt>>,
    /// Whether there is one, so that a clock on its course need not look.
    doubted: AtomicBool,
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            offset_ms: AtomicI64::new(UNKNOWN),
            doubt: Mutex::new(None),
            doubted: AtomicBool::new(false),
        }
    }
}

impl Calendar {
    /// The time, when the wall clock says `wall`.
    pub(super) fn read(&self, wall: UnixMs, now: Moment) -> UnixMs {
        // Relaxed: the offset guards nothing else, and either of two that are written at once will do.
        let offset = self.offset_ms.load(Ordering::Relaxed);
        if offset == UNKNOWN {
            self.offset_ms.store(steady::offset_ms(wall, now), Ordering::Relaxed);
            return wall;
        }
        if let Course::Even(told) = steady::judge(offset, None, wall, now) {
            if told.abs_diff(offset) > WRITE_MS {
                self.offset_ms.store(told, Ordering::Relaxed);
            }
            if self.doubted.load(Ordering::Relaxed)
                && let Some(mut doubt) = self.doubt.try_lock()
            {
                *doubt = None;
                self.doubted.store(false, Ordering::Relaxed);
            }
            return wall;
        }
        // Whoever finds the lock taken takes the time that is believed.
        if let Some(mut doubt) = self.doubt.try_lock() {
            match steady::judge(offset, *doubt, wall, now) {
                Course::Even(told) => {
                    *doubt = None;
                    self.doubted.store(false, Ordering::Relaxed);
                    self.offset_ms.store(told, Ordering::Relaxed);
                    return wall;
                }
                Course::Doubted(step) => {
                    *doubt = Some(step);
                    self.doubted.store(true, Ordering::Relaxed);
                }
            }
        }
        steady::at_offset(offset, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::steady::TRUST_NS;

    #[test]
    fn a_step_is_ignored_for_an_hour_and_then_believed() {
        let calendar = Calendar::default();
        let (start, ahead) = (1_795_500_000_000, 36_000_000);
        assert_eq!(calendar.read(UnixMs(start), Moment(0)), UnixMs(start));
        let minute = Moment(60_000_000_000);
        assert_eq!(calendar.read(UnixMs(start + ahead + 60_000), minute), UnixMs(start + 60_000));
        assert_eq!(calendar.read(UnixMs(start + 60_000), minute), UnixMs(start + 60_000), "taken back");
        let later = Moment(minute.0 + TRUST_NS);
        let even = start + 3_660_000;
        assert_eq!(calendar.read(UnixMs(even + ahead), later), UnixMs(even), "this hour begins now");
        let later = Moment(later.0 + TRUST_NS);
        let wall = UnixMs(even + 3_600_000 + ahead);
        assert_eq!(calendar.read(wall, later), wall);
        assert_eq!(calendar.read(wall, later), wall, "and stays so");
    }
}
