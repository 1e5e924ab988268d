//! Rebuilding after a restart: what the ledger remembers is charged again.

use std::time::Duration;

use super::Limits;
use super::account::Account;
use crate::id::{KeyId, TenantId};
use crate::quota::{Moment, Sum};
use crate::store::ledger::Remembered;
use crate::units::{PicoUsd, UnixMs};

/// What was used before this process began: one request, or the sum over a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Whose.
    pub tenant: TenantId,
    /// With which key; it may be gone.
    pub key: KeyId,
    /// How many requests were dispatched.
    pub requests: u64,
    /// Input and output tokens together.
    pub tokens: u64,
    /// What they cost.
    pub cost: PicoUsd,
    /// When they began.
    pub at: UnixMs,
}

impl From<Remembered> for Past {
    fn from(of: Remembered) -> Self {
        Self {
            tenant: of.tenant,
            key: of.key,
            requests: of.requests,
            tokens: of.tokens,
            cost: of.cost,
            at: of.at,
        }
    }
}

/// How far back buckets can remember: a bucket in full debt is full again after this.
const MEMORY: Duration = Duration::from_mins(2);

impl Limits {
    /// Charges what the ledger remembers: requests of the last two minutes to the buckets, everything to the budgets of
    /// its period. Entries come in the order of time, each counted once: requests one by one for the last two minutes,
    /// sums for what lies before ([`Store::remembered`](crate::store::Store::remembered)). Call after [`apply`](Self::apply) and before the first request.
    pub fn rebuild(&self, past: impl IntoIterator<Item = Past>, now: Moment, wall: UnixMs) {
        let records = self.records.load();
        for entry in past {
            if let Some(tenant) = records.tenants.get(&entry.tenant) {
                remember(&tenant.account, &entry, now, wall);
            }
            if let Some(key) = records.keys.get(&entry.key) {
                remember(&key.account, &entry, now, wall);
            }
        }
    }
}

fn remember(account: &Account, entry: &Past, now: Moment, wall: UnixMs) {
    let used = Sum {
        cost: entry.cost,
        tokens: entry.tokens,
    };
    account.spent.lock().count(used, entry.at);
    let ago = Duration::from_millis(u64::try_from(wall.0.saturating_sub(entry.at.0)).unwrap_or(0));
    if ago >= MEMORY {
        return;
    }
    for (bucket, amount) in [(&account.requests, entry.requests), (&account.tokens, entry.tokens)] {
        if let Some(bucket) = bucket {
            bucket.charge_past(amount, ago, now);
        }
    }
}
