//! What the cache did, in numbers: since the process began, over all models.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::stored::Saved;
pub use crate::store::ledger::CacheStatus;
use crate::units::PicoUsd;

/// The numbers, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests answered from what was kept.
    pub hits: u64,
    /// Requests that went upstream for want of an answer.
    pub misses: u64,
    /// Requests that passed the cache by.
    pub bypasses: u64,
    /// Requests answered with the answer to another.
    pub coalesced: u64,
    /// Tokens that hits and coalesced requests did not use.
    pub tokens_saved: u64,
    /// What they did not cost.
    pub cost_saved: PicoUsd,
    /// Answers kept now.
    pub entries: u64,
    /// Bytes they take now.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    bypasses: AtomicU64,
    coalesced: AtomicU64,
    tokens_saved: AtomicU64,
    /// Money has 128 bits, for which there is no atomic.
    cost_saved: Mutex<PicoUsd>,
}

impl Tally {
    pub(super) fn count(&self, status: CacheStatus) {
        let counter = match status {
            CacheStatus::Off => return,
            CacheStatus::Miss => &self.misses,
            CacheStatus::Hit => &self.hits,
            CacheStatus::Coalesced => &self.coalesced,
            CacheStatus::Bypass => &self.bypasses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn save(&self, saved: &Saved) {
        self.tokens_saved.fetch_add(saved.tokens(), Ordering::Relaxed);
        if saved.cost != PicoUsd(0) {
            let mut sum = self.cost_saved.lock();
            sum.0 = sum.0.saturating_add(saved.cost.0);
        }
    }

    pub(super) fn read(&self, entries: u64, bytes: u64) -> Counters {
        Counters {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bypasses: self.bypasses.load(Ordering::Relaxed),
            coalesced: self.coalesced.load(Ordering::Relaxed),
            tokens_saved: self.tokens_saved.load(Ordering::Relaxed),
            cost_saved: *self.cost_saved.lock(),
            entries,
            bytes,
        }
    }
}
