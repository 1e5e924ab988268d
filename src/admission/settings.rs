//! The bounds of the queue.

use std::time::Duration;

use crate::scheduler;

/// What an operator can set, at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests that may wait at once. Default 10 000.
    pub max_queued: u32,
    /// Body bytes that may wait at once. Default 1 GiB.
    pub max_queued_bytes: u64,
    /// How long a request may wait. Default 60 s.
    pub queue_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let scheduler::Settings {
            max_queued,
            max_queued_bytes,
            queue_timeout,
            ..
        } = scheduler::Settings::default();
        Self {
            max_queued,
            max_queued_bytes,
            queue_timeout,
        }
    }
}

impl Settings {
    /// The scheduler's settings: overload begins at half the timeout, where waiters are about to be lost.
    pub(super) fn scheduler(&self) -> scheduler::Settings {
        scheduler::Settings {
            max_queued: self.max_queued,
            max_queued_bytes: self.max_queued_bytes,
            queue_timeout: self.queue_timeout,
            overload_wait: self.queue_timeout / 2,
            ..scheduler::Settings::default()
        }
    }
}
