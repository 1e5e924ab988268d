//! What goes wrong here is counted each time and said now and then: a disk that is full fails every request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::Seldom;

/// How often each kind of trouble is worth a line.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// One kind of trouble.
#[derive(Debug)]
pub(super) struct Trouble {
    count: AtomicU64,
    told: Seldom,
}

impl Trouble {
    /// It happened again. `Some` if it is to be said, with how many times it was not since it last was.
    pub(super) fn again(&self) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.told.turn()
    }

    /// How many times it happened.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            told: Seldom::new(TELL_EVERY),
        }
    }
}
