//! Lock-free buckets around the quota sums: hands out reservations.
//!
//! [`Limits::reserve`] takes requests, tokens and budget of a key and of its tenant, all or nothing, before a request may
//! queue. What it returns, [`Reservation`], gives everything back when dropped, or is settled once to what really
//! happened.
//!
//! Each bucket is one atomic; nothing is shared between tenants but the map of records, which is read without waiting
//! and swapped whole when the catalog changes. A record that changes keeps its buckets' state; budgets stand behind a
//! short lock of their own per tenant and key, taken only to hold, release or count.
//!
//! Beside them, `failures` damps who presents wrong credentials.
//!
//! Order: a key before its tenant, so that a key past its own limit never takes, even for a moment, what another key of
//! the tenant could have had.

mod account;
mod calendar;
mod estate;
mod failures;
mod heir;
mod past;
mod reservation;
mod shared;
mod show;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use estate::{Answer, Estate};
pub use failures::{Failures, TooMany};
pub use heir::{Correction, Heir, Parting, Reply, Standing, Tell};
pub use reservation::{Actual, Reservation};
pub use show::{RateView, Scope, Subject, Unit};

use crate::catalog::{ApiKey, Catalog, Principal, Table, Tenant};
use crate::id::{KeyId, ModelId, TenantId};
use crate::quota::estimate::{ExceedsQuota, MeanOutput};
use crate::quota::{Exhausted, Moment, Sum, estimate};
use crate::units::{PicoUsd, UnixMs};
use account::{Account, Amounts};
use calendar::Calendar;

/// What the room needs to begin.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The start of monotonic time, the same for everybody who tells this room `now`.
    pub epoch: Instant,
}

/// What a request would use, as far as it can be told beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Estimated input ([`estimate::input_tokens`]).
    pub input_tokens: u64,
    /// What the client allows; `None` if it did not say.
    pub max_tokens: Option<u64>,
    /// What [`Limits::learned_output`] says.
    pub learned_output: u64,
    /// Price of the estimated input and output.
    pub cost_estimate: PicoUsd,
}

/// Why a request may not queue. It has taken nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Exceeded {
    /// Requests or tokens of this minute are used up.
    #[error("the {scope} limit is used up for {retry_after:?}")]
    Rate {
        /// The least time after which the same request passes, if nobody else takes anything.
        retry_after: Duration,
        /// The limit that keeps it waiting longest.
        scope: Scope,
    },
    /// The input alone is larger than a whole minute's quota.
    #[error("the input alone is larger than the quota of a whole minute")]
    TooLarge,
    /// A budget is used up.
    #[error("the budget is used up")]
    Budget {
        /// Time to the end of the period; `None` is for ever.
        reset_after: Option<Duration>,
    },
    /// The limits were handed over to a process that is gone.
    #[error("the gateway is shutting down")]
    Elsewhere,
    /// The key left the catalog after it was authenticated.
    #[error("the key is gone")]
    Gone,
}

/// How often a reservation that lost a race to another one is tried again.
const RACES_MAX: u32 = 32;

/// What a request that lost every race is told to wait.
const RACES_PAUSE: Duration = Duration::from_millis(1);

/// The limits of every tenant and key.
#[derive(Debug)]
pub struct Limits {
    epoch: Instant,
    records: ArcSwap<Records>,
    calendar: Calendar,
    /// Held while the records are replaced.
    applying: Mutex<()>,
}

#[derive(Debug, Default)]
struct Records {
    /// Who keeps the limits, if this process does not any more.
    heir: Option<Arc<Heir>>,
    tenant_table: Table<TenantId, Tenant>,
    key_table: Table<KeyId, ApiKey>,
    tenants: HashMap<TenantId, Arc<TenantRecord>>,
    keys: HashMap<KeyId, Arc<KeyRecord>>,
}

#[derive(Debug)]
struct TenantRecord {
    source: Arc<Tenant>,
    account: Account,
    /// Mean outputs by model; a handful, so a list. Bounded by [`MODELS_MAX`].
    outputs: Arc<Mutex<Vec<(ModelId, MeanOutput)>>>,
}

#[derive(Debug)]
struct KeyRecord {
    source: Arc<ApiKey>,
    account: Account,
    tenant: Arc<TenantRecord>,
    /// Unix milliseconds of the minute in which the key last came in; 0 is never. Outlives changes of the key.
    last_used: Arc<AtomicI64>,
}

/// How many models' mean outputs are remembered per tenant; the one that was first seen longest ago goes.
const MODELS_MAX: usize = 256;

impl Limits {
    /// Limits for nobody yet: [`apply`](Self::apply) a catalog next.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            epoch: settings.epoch,
            records: ArcSwap::default(),
            calendar: Calendar::default(),
            applying: Mutex::new(()),
        })
    }

    /// Monotonic time as this room counts it.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_start(self.epoch.elapsed())
    }

    /// The time by which budgets are counted, when the wall clock says `wall`: the same, but for a while after a step
    /// ([`steady`](crate::quota::steady)).
    #[must_use]
    pub fn calendar(&self, wall: UnixMs, now: Moment) -> UnixMs {
        self.calendar.read(wall, now)
    }

    /// Follows the catalog: who stays keeps what they spent, also under a changed limit.
    pub fn apply(&self, catalog: &Catalog) {
        self.apply_at(catalog, self.now());
    }

    /// [`apply`](Self::apply) at a given time.
    pub fn apply_at(&self, catalog: &Catalog, now: Moment) {
        let _one_at_a_time = self.applying.lock();
        let before = self.records.load_full();
        if before.tenant_table.same(catalog.tenants()) && before.key_table.same(catalog.keys()) {
            return;
        }
        self.records.store(Arc::new(before.followed(catalog, now)));
    }

    /// Reserves what a request will use, in every scope or in none. `wall` ([`calendar`](Self::calendar) time) decides the
    /// budgets' period only.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is taken then.
    pub fn reserve(self: &Arc<Self>, who: &Principal, ask: &Ask, now: Moment, wall: UnixMs) -> Result<Reservation, Exceeded> {
        self.reserve_of(&self.records.load(), &who.key.id, ask, now, wall)
    }

    /// [`reserve`](Self::reserve) by records that are held until it is done.
    fn reserve_of(self: &Arc<Self>, records: &Records, key: &KeyId, ask: &Ask, now: Moment, wall: UnixMs) -> Result<Reservation, Exceeded> {
        if records.heir.is_some() {
            return Err(Exceeded::Elsewhere);
        }
        let record = records.keys.get(key).map(Arc::clone).ok_or(Exceeded::Gone)?;
        let output = estimate::output_tokens(ask.max_tokens, ask.learned_output);
        let want = |account: &Account| account.wanted(ask.input_tokens, output);
        let amounts = match (want(&record.account), want(&record.tenant.account)) {
            (Ok(key), Ok(tenant)) => (key, tenant),
            (Err(ExceedsQuota), _) | (_, Err(ExceedsQuota)) => return Err(Exceeded::TooLarge),
        };
        let estimate = Sum {
            cost: ask.cost_estimate,
            tokens: ask.input_tokens.saturating_add(output),
        };
        let mut lost_to = None;
        for _ in 0..RACES_MAX {
            if let Some((retry_after, scope)) = longest_wait(&record, amounts, now) {
                record.check_budgets(ask.input_tokens, estimate, wall)?;
                return Err(Exceeded::Rate { retry_after, scope });
            }
            let mut taken = Reservation::empty(Arc::clone(self), Arc::clone(&record), wall);
            match taken.take_rates(amounts, now) {
                Ok(()) => return Ok(taken.hold_budgets(ask.input_tokens, estimate).map(|()| taken)?),
                // Another request took it between the look and the grasp; `taken` is dropped and gives back what it has.
                Err(scope) => lost_to = Some(scope),
            }
        }
        Err(lost_to.map_or(Exceeded::Gone, |scope| Exceeded::Rate {
            retry_after: RACES_PAUSE,
            scope,
        }))
    }

    /// Notes that a key has come in. Whole minutes, so that a busy key is not written to at each request.
    pub fn touch(&self, key: &KeyId, wall: UnixMs) {
        let records = self.records.load();
        let Some(record) = records.keys.get(key) else { return };
        let minute = wall.0 - wall.0.rem_euclid(60_000);
        if record.last_used.load(Ordering::Relaxed) != minute {
            record.last_used.store(minute, Ordering::Relaxed);
        }
    }

    /// The minute in which a key last came in, since this process started.
    #[must_use]
    pub fn last_used(&self, key: &KeyId) -> Option<UnixMs> {
        let minute = self.records.load().keys.get(key)?.last_used.load(Ordering::Relaxed);
        (minute > 0).then_some(UnixMs(minute))
    }

    /// What the limits of a key and its tenant show: of each kind the one with least left. `None` where there is none.
    #[must_use]
    pub fn view(&self, who: &Principal, now: Moment) -> Option<RateView> {
        let records = self.records.load();
        let view = records.keys.get(&who.key.id)?.view(now);
        (view.requests.is_some() || view.tokens.is_some()).then_some(view)
    }

    /// The mean output of a tenant's requests to a model; 256 before anything was learned.
    #[must_use]
    pub fn learned_output(&self, tenant: &TenantId, model: &ModelId) -> u64 {
        let records = self.records.load();
        let mean = records.tenants.get(tenant).and_then(|record| {
            let outputs = record.outputs.lock();
            outputs.iter().find(|(id, _)| id == model).map(|(_, mean)| *mean)
        });
        mean.unwrap_or_default().tokens()
    }

    /// Learns from a finished answer. Not from a cut one: its length says nothing.
    pub fn learn_output(&self, tenant: &TenantId, model: &ModelId, output_tokens: u64) {
        let records = self.records.load();
        let Some(record) = records.tenants.get(tenant) else { return };
        let mut outputs = record.outputs.lock();
        if let Some((_, mean)) = outputs.iter_mut().find(|(id, _)| id == model) {
            *mean = mean.with(output_tokens);
            return;
        }
        if outputs.len() == MODELS_MAX {
            outputs.remove(0);
        }
        outputs.push((*model, MeanOutput::default().with(output_tokens)));
    }
}

impl From<Exhausted> for Exceeded {
    fn from(Exhausted { reset_after }: Exhausted) -> Self {
        Self::Budget { reset_after }
    }
}

impl KeyRecord {
    /// Whether the budgets have room, without holding any: a used-up budget is the truer refusal of a request that would
    /// have to wait for its rate as well.
    fn check_budgets(&self, input: u64, estimate: Sum, wall: UnixMs) -> Result<(), Exhausted> {
        for account in [&self.account, &self.tenant.account] {
            if let Some(cap) = &account.cap {
                account.spent.lock().check(cap, input, estimate, wall)?;
            }
        }
        Ok(())
    }
}

impl Records {
    /// The records of the next catalog. What did not change is shared.
    fn followed(&self, catalog: &Catalog, now: Moment) -> Self {
        let tenants: HashMap<_, _> = catalog
            .tenants()
            .values()
            .map(|tenant| {
                let before = self.tenants.get(&tenant.id);
                let record = match before {
                    Some(before) if Arc::ptr_eq(&before.source, tenant) => Arc::clone(before),
                    Some(_) | None => Arc::new(TenantRecord {
                        source: Arc::clone(tenant),
                        account: Account::of_tenant(tenant, before.map(|before| &before.account), now),
                        outputs: before.map(|before| Arc::clone(&before.outputs)).unwrap_or_default(),
                    }),
                };
                (tenant.id, record)
            })
            .collect();
        let keys = catalog.keys().values().filter_map(|key| {
            let tenant = tenants.get(&key.tenant_id)?;
            let before = self.keys.get(&key.id);
            let record = match before {
                Some(before) if Arc::ptr_eq(&before.source, key) && Arc::ptr_eq(&before.tenant, tenant) => Arc::clone(before),
                Some(_) | None => Arc::new(KeyRecord {
                    source: Arc::clone(key),
                    account: Account::of_key(key, before.map(|before| &before.account), now),
                    tenant: Arc::clone(tenant),
                    last_used: before.map(|before| Arc::clone(&before.last_used)).unwrap_or_default(),
                }),
            };
            Some((key.id, record))
        });
        Self {
            heir: self.heir.clone(),
            keys: keys.collect(),
            tenants,
            tenant_table: catalog.tenants().clone(),
            key_table: catalog.keys().clone(),
        }
    }
}

/// The longest wait over all buckets, and whose it is. `None` when the request passes now.
fn longest_wait(record: &KeyRecord, (key, tenant): (Amounts, Amounts), now: Moment) -> Option<(Duration, Scope)> {
    let of = |subject, account: &Account, amounts| account.waits(amounts, now).map(move |(wait, unit)| (wait, Scope { subject, unit }));
    of(Subject::Key, &record.account, key)
        .into_iter()
        .chain(of(Subject::Tenant, &record.tenant.account, tenant))
        .max_by_key(|(wait, _)| *wait)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
