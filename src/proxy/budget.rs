//! The bytes of request bodies held in memory at once, over all requests: bounded, and given back by `Drop`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The gateway's budget for buffered bodies (`limits.max_buffered_bytes`).
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicU64::new(0),
        })
    }

    /// How many bytes are held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// An empty share, to be grown as the body arrives.
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// One body's share of the budget.
#[derive(Debug)]
pub(super) struct Hold {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Hold {
    /// Takes `bytes` more. Returns whether there was room; if not, nothing was taken.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.limit {
            self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_is_given_back_and_a_refused_growth_takes_nothing() {
        let budget = Budget::new(10);
        let mut hold = budget.hold();
        assert!(hold.grow(6));
        assert!(!hold.grow(5));
        assert_eq!(budget.held(), 6);
        assert!(hold.grow(4));
        drop(hold);
        assert_eq!(budget.held(), 0);
    }
}
