//! How many retries a model can afford, so that a failing upstream is not melted by them: pure, lock-free.
//!
//! Each first attempt saves a part of a retry, each retry spends a whole one, and a small allowance per second keeps quiet
//! models able to retry at all (the retry budgets of Finagle and tower). Savings are bounded, so a busy hour does not pay
//! for a storm.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Retries per hundred first attempts.
    pub percent: u32,
    /// Retries per second whatever the traffic.
    pub floor_per_sec: u32,
    /// So many retries can be saved up.
    pub saved_max: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            percent: 20,
            floor_per_sec: 3,
            saved_max: 100,
        }
    }
}

/// A model's savings. Time is counted from any fixed moment.
#[derive(Debug)]
pub struct RetryBudget {
    budget: Budget,
    /// In hundredths of a retry.
    saved: AtomicU64,
    /// Up to when the floor has been paid out, in milliseconds.
    paid_ms: AtomicU64,
}

const RETRY: u64 = 100;

impl RetryBudget {
    /// Starts with one second's floor.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            saved: AtomicU64::new(u64::from(budget.floor_per_sec) * RETRY),
            paid_ms: AtomicU64::new(0),
            budget,
        }
    }

    /// A request makes its first attempt.
    pub fn deposit(&self) {
        self.save(u64::from(self.budget.percent));
    }

    /// Asks for a retry. Returns whether it may be made; then it is spent.
    pub fn withdraw(&self, now: Duration) -> bool {
        self.pay_floor(now);
        let spend = |saved: u64| saved.checked_sub(RETRY);
        self.saved.try_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    fn save(&self, hundredths: u64) {
        let max = u64::from(self.budget.saved_max) * RETRY;
        let add = |saved: u64| (saved < max).then(|| (saved + hundredths).min(max));
        // Full already: nothing to save.
        let _full = self.saved.try_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Pays the floor for the time since it was last paid. Of two that come at once, one pays.
    fn pay_floor(&self, now: Duration) {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let paid = self.paid_ms.load(Ordering::Relaxed);
        let owed = now_ms.saturating_sub(paid).saturating_mul(u64::from(self.budget.floor_per_sec)) * RETRY / 1000;
        if owed == 0 {
            return;
        }
        if self
            .paid_ms
            .compare_exchange(paid, now_ms, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            self.save(owed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_five_may_be_retried_and_a_few_a_second_anyhow() {
        let budget = RetryBudget::new(Budget::default());
        let spend = |at: Duration| (0..1000).filter(|_| budget.withdraw(at)).count();
        assert_eq!(spend(Duration::ZERO), 3, "the floor of one second");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(spend(Duration::ZERO), 10, "a fifth of fifty");
        assert_eq!(spend(Duration::from_secs(2)), 6, "three a second");
    }

    #[test]
    fn savings_are_bounded() {
        let budget = RetryBudget::new(Budget::default());
        for _ in 0..100_000 {
            budget.deposit();
        }
        let spent = (0..1000).filter(|_| budget.withdraw(Duration::from_secs(3600))).count();
        assert_eq!(spent, 100);
    }
}
