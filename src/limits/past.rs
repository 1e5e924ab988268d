//! Rebuilding after a restart: what the ledger remembers is charged again.

use std::time::Duration;

use super::Limits;
use super::account::Account;
use crate::quota::{Moment, Sum};
use crate::store::ledger::{Owner, Past, Use};
use crate::units::UnixMs;

/// How far back buckets can remember: a bucket in full debt is full again after this.
const MEMORY: Duration = Duration::from_mins(2);

impl Limits {
    /// Charges what the ledger remembers ([`Store::remembered`](crate::store::Store::remembered)): the last two minutes to
    /// the buckets, all to the budgets. Call after [`apply`](Self::apply) and before the first request.
    pub fn rebuild(&self, past: &Past, now: Moment, wall: UnixMs) {
        let records = self.records.load();
        for whole in &past.lifetimes {
            let account = match &whole.owner {
                Owner::Tenant(id) => records.tenants.get(id).map(|record| &record.account),
                Owner::Key(id) => records.keys.get(id).map(|record| &record.account),
            };
            if let Some(account) = account {
                account.spent.lock().count_for_life(Sum {
                    cost: whole.cost,
                    tokens: whole.tokens,
                });
            }
        }
        for entry in past.periods.iter().chain(&past.recent) {
            let used = Sum {
                cost: entry.cost,
                tokens: entry.tokens,
            };
            records.each_account(entry, |account| account.spent.lock().count_in_periods(used, entry.at));
        }
        for entry in &past.recent {
            let ago = Duration::from_millis(u64::try_from(wall.0.saturating_sub(entry.at.0)).unwrap_or(0));
            if ago < MEMORY {
                records.each_account(entry, |account| charge(account, entry, ago, now));
            }
        }
    }
}

impl super::Records {
    /// The accounts that an entry belongs to, as far as they still exist.
    fn each_account(&self, entry: &Use, mut each: impl FnMut(&Account)) {
        if let Some(tenant) = self.tenants.get(&entry.tenant) {
            each(&tenant.account);
        }
        if let Some(key) = self.keys.get(&entry.key) {
            each(&key.account);
        }
    }
}

fn charge(account: &Account, entry: &Use, ago: Duration, now: Moment) {
    for (bucket, amount) in [(&account.requests, entry.requests), (&account.tokens, entry.tokens)] {
        if let Some(bucket) = bucket {
            bucket.charge_past(amount, ago, now);
        }
    }
}
