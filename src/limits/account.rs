//! What one tenant or one key may take: two buckets and the budget.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::{AtomicU64, Mutex};
use super::show::Unit;
use crate::catalog::{ApiKey, Budget, BudgetPeriod, Tenant};
use crate::quota::bucket::FULL;
use crate::quota::estimate::{self, ExceedsQuota};
use crate::quota::{Cap, Moment, Period, Rate, Spent, Window};

/// How much to take of each bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Amounts {
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) requests: Option<Bucket>,
    pub(super) tokens: Option<Bucket>,
    pub(super) cap: Option<Cap>,
    /// Counted with and without a budget, so that one set later knows what was spent.
    pub(super) spent: Arc<Mutex<Spent>>,
}

impl Account {
    pub(super) fn of_tenant(tenant: &Tenant, before: Option<&Self>, now: Moment) -> Self {
        Self::new(tenant.requests_per_minute, tenant.tokens_per_minute, &tenant.budget, before, now)
    }

    pub(super) fn of_key(key: &ApiKey, before: Option<&Self>, now: Moment) -> Self {
        Self::new(key.requests_per_minute, key.tokens_per_minute, &key.budget, before, now)
    }

    fn new(requests: u64, tokens: u64, budget: &Budget, before: Option<&Self>, now: Moment) -> Self {
        Self {
            requests: Bucket::new(requests, before.and_then(|before| before.requests.as_ref()), now),
            tokens: Bucket::new(tokens, before.and_then(|before| before.tokens.as_ref()), now),
            cap: (budget.cost.is_some() || budget.tokens.is_some()).then(|| cap(budget)),
            spent: before.map(|before| Arc::clone(&before.spent)).unwrap_or_default(),
        }
    }

    /// What a request of so many tokens takes here.
    pub(super) fn wanted(&self, input: u64, output: u64) -> Result<Amounts, ExceedsQuota> {
        let tokens = match &self.tokens {
            Some(bucket) => estimate::reservation(input, output, bucket.rate.limit())?,
            None => 0,
        };
        Ok(Amounts { requests: 1, tokens })
    }

    /// The longer of the waits of its buckets; `None` when both would give.
    pub(super) fn waits(&self, amounts: Amounts, now: Moment) -> Option<(Duration, Unit)> {
        let of = |bucket: &Option<Bucket>, amount, unit| bucket.as_ref()?.wait(amount, now).map(|wait| (wait, unit));
        let requests = of(&self.requests, amounts.requests, Unit::Requests);
        let tokens = of(&self.tokens, amounts.tokens, Unit::Tokens);
        requests.into_iter().chain(tokens).max_by_key(|(wait, _)| *wait)
    }
}

/// A token bucket: its rate, and the mark that every generation of the record shares.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) rate: Rate,
    mark: Arc<AtomicU64>,
}

impl Bucket {
    /// `None` for limit 0, which is unlimited. `before` hands its state on.
    fn new(limit: u64, before: Option<&Self>, now: Moment) -> Option<Self> {
        let limit = NonZeroU64::new(limit)?;
        let Some(before) = before else {
            return Some(Self {
                rate: Rate::new(limit, now),
                mark: Arc::new(AtomicU64::new(FULL)),
            });
        };
        let mark = Arc::clone(&before.mark);
        if limit.get() == before.rate.limit() {
            return Some(Self { rate: before.rate, mark });
        }
        let rate = before.rate.changed(limit, now);
        // What others take or give back meanwhile stays in the mark: this only moves it.
        mark.fetch_sub(rate.forgiven(&before.rate, mark.load(Ordering::Relaxed), now), Ordering::Relaxed);
        Some(Self { rate, mark })
    }

    fn wait(&self, amount: u64, now: Moment) -> Option<Duration> {
        self.rate
            .take(self.mark.load(Ordering::Relaxed), amount, now)
            .err()
            .map(|wait| wait.0)
    }

    /// Takes `amount`, or nothing.
    pub(super) fn take(&self, amount: u64, now: Moment) -> bool {
        // Relaxed everywhere: the mark guards no other memory, its own order of changes is all that counts.
        self.mark
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |mark| self.rate.take(mark, amount, now).ok())
            .is_ok()
    }

    /// Gives back what [`take`](Self::take) took.
    pub(super) fn give_back(&self, amount: u64) {
        self.mark.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Charges what was used beyond what was taken.
    pub(super) fn charge(&self, amount: u64, now: Moment) {
        self.mark
            .update(Ordering::Relaxed, Ordering::Relaxed, |mark| self.rate.charge(mark, amount, now));
    }

    /// Charges what was used some time ago.
    pub(super) fn charge_past(&self, amount: u64, ago: Duration, now: Moment) {
        self.mark.update(Ordering::Relaxed, Ordering::Relaxed, |mark| {
            self.rate.charge_past(mark, amount, ago, now)
        });
    }

    /// How much of it is used: more than its size while in debt.
    pub(super) fn used(&self, now: Moment) -> u64 {
        self.mark.load(Ordering::Relaxed).saturating_sub(self.rate.reached(now))
    }

    pub(super) fn window(&self, now: Moment) -> Window {
        self.rate.window(self.mark.load(Ordering::Relaxed), now)
    }
}

const fn cap(budget: &Budget) -> Cap {
    Cap {
        period: match budget.period {
            BudgetPeriod::Day => Period::Day,
            BudgetPeriod::Month => Period::Month,
            BudgetPeriod::Lifetime => Period::Lifetime,
        },
        cost: budget.cost,
        tokens: budget.tokens,
    }
}
