//! What a request has taken of its limits, until it is settled or dropped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::{Account, Amounts};
use super::heir::{Correction, HeirsShare, Parting};
use super::show::{Scope, Subject, Unit};
use super::{KeyRecord, Limits};
use crate::quota::{Exhausted, Held, Moment, Sum};
use crate::units::{PicoUsd, UnixMs};

/// What a request really used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Actual {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// What it cost, as on its ledger row.
    pub cost: PicoUsd,
}

/// A request's share of its key's and its tenant's limits.
///
/// Held => Settled (charged what it used; its request counts) | Dropped (everything given back). Both once: settling
/// consumes it.
#[derive(Debug)]
#[must_use = "dropping a reservation gives everything back"]
pub struct Reservation {
    limits: Arc<Limits>,
    record: Arc<KeyRecord>,
    key: Share,
    tenant: Share,
    wall: UnixMs,
    /// What was taken elsewhere, since the limits were handed over; nothing was taken here then.
    elsewhere: Option<HeirsShare>,
}

/// What was taken of one account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Share {
    taken: Amounts,
    held: Option<Held>,
}

impl Reservation {
    pub(super) fn empty(limits: Arc<Limits>, record: Arc<KeyRecord>, wall: UnixMs) -> Self {
        Self {
            limits,
            record,
            key: Share::default(),
            tenant: Share::default(),
            wall,
            elsewhere: None,
        }
    }

    pub(super) fn of_heir(limits: Arc<Limits>, record: Arc<KeyRecord>, share: HeirsShare, wall: UnixMs) -> Self {
        let mut reservation = Self::empty(limits, record, wall);
        reservation.elsewhere = Some(share);
        reservation
    }

    /// Takes from the buckets in order; stops at the first that refuses. What was taken is in `self`, to be dropped.
    pub(super) fn take_rates(&mut self, (key, tenant): (Amounts, Amounts), now: Moment) -> Result<(), Scope> {
        let of = |subject| move |unit| Scope { subject, unit };
        self.key.take(&self.record.account, key, now).map_err(of(Subject::Key))?;
        self.tenant
            .take(&self.record.tenant.account, tenant, now)
            .map_err(of(Subject::Tenant))
    }

    pub(super) fn hold_budgets(&mut self, input: u64, estimate: Sum) -> Result<(), Exhausted> {
        self.key.hold(&self.record.account, input, estimate, self.wall)?;
        self.tenant.hold(&self.record.tenant.account, input, estimate, self.wall)
    }

    /// Adjusts everything to what was used: the rest goes back, what was used beyond it is charged as debt.
    pub fn settle(self, actual: Actual) {
        let now = self.limits.now();
        self.settle_at(actual, now);
    }

    /// [`settle`](Self::settle) at a given time.
    pub fn settle_at(mut self, actual: Actual, now: Moment) {
        self.finish(actual, now, true);
    }

    /// Empties both shares, in reverse order. A second call finds nothing to do but would count `actual` again, so only
    /// `settle_at` passes one.
    fn finish(&mut self, actual: Actual, now: Moment, keeps_request: bool) {
        if let Some(mut share) = self.elsewhere.take() {
            share.end(keeps_request.then_some(actual));
            return;
        }
        // By the limits now in force: an old one has run on at its old speed, and would charge a changed bucket with that.
        let records = self.limits.records.load();
        if let Some(heir) = &records.heir {
            let (of_key, of_tenant) = (std::mem::take(&mut self.key), std::mem::take(&mut self.tenant));
            if keeps_request || of_key != Share::default() || of_tenant != Share::default() {
                heir.told(Parting::Corrects(Box::new(Correction {
                    key: self.record.source.id,
                    tenant: self.record.source.tenant_id,
                    of_key,
                    of_tenant,
                    actual,
                    keeps_request,
                    wall: self.wall,
                })));
            }
            return;
        }
        let record = records.keys.get(&self.record.source.id).unwrap_or(&self.record);
        for (share, account) in [(&mut self.tenant, &record.tenant.account), (&mut self.key, &record.account)] {
            share.finish(account, actual, keeps_request, now, self.wall);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Nothing used is never a debt, so the time does not matter.
        self.finish(Actual::default(), Moment::default(), false);
    }
}

impl Share {
    fn take(&mut self, account: &Account, amounts: Amounts, now: Moment) -> Result<(), Unit> {
        if let Some(bucket) = &account.requests {
            bucket.take(amounts.requests, now).then_some(()).ok_or(Unit::Requests)?;
            self.taken.requests = amounts.requests;
        }
        if let Some(bucket) = &account.tokens {
            bucket.take(amounts.tokens, now).then_some(()).ok_or(Unit::Tokens)?;
            self.taken.tokens = amounts.tokens;
        }
        Ok(())
    }

    fn hold(&mut self, account: &Account, input: u64, estimate: Sum, wall: UnixMs) -> Result<(), Exhausted> {
        if let Some(cap) = &account.cap {
            self.held = Some(account.spent.lock().hold(cap, input, estimate, wall)?);
        }
        Ok(())
    }

    /// What it holds of the budget.
    pub(super) fn held(&self) -> Option<Sum> {
        self.held.as_ref().map(Held::sum)
    }

    pub(super) fn finish(&mut self, account: &Account, actual: Actual, keeps_request: bool, now: Moment, wall: UnixMs) {
        let taken = std::mem::take(&mut self.taken);
        let used = actual.input.saturating_add(actual.output);
        let used_sum = Sum {
            cost: actual.cost,
            tokens: used,
        };
        let held = self.held.take();
        if held.is_some() || used_sum != Sum::default() {
            let mut spent = account.spent.lock();
            if let Some(held) = held {
                spent.release(held);
            }
            if used_sum != Sum::default() {
                spent.count(used_sum, wall);
            }
        }
        if let Some(bucket) = &account.tokens {
            if used > taken.tokens {
                bucket.charge(used - taken.tokens, now);
            } else if used < taken.tokens {
                bucket.give_back(taken.tokens - used);
            }
        }
        if !keeps_request && let Some(bucket) = &account.requests {
            bucket.give_back(taken.requests);
        }
    }
}
