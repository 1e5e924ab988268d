//! The scheduler against its specification: the naive twin, the invariants, the simulations.

mod basics;
mod fairness;
mod invariants;
mod simulation;
mod twin;

use std::sync::Arc;
use std::time::Duration;

use super::{Event, GroupIx, Handle, Moment, Scheduler, Settings, TenantIx, TenantTerms};
use crate::id::TenantId;
use crate::units::Weight;

/// Faults planted on purpose, to see that the twin finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    /// A branch's stale key is believed.
    StaleGroupKey,
    /// A lane's stale key is believed.
    StaleTenantKey,
    /// Pools without room are eligible.
    RoomIgnored,
    /// A tag that decreased is not listed again.
    DecreaseUnlisted,
}

fn weight(weight: u32) -> Weight {
    Weight::new(u64::from(weight)).unwrap()
}

fn at_ms(ms: u64) -> Moment {
    Moment::from_start(Duration::from_millis(ms))
}

fn group(scheduler: &mut Scheduler, name: &str, its_weight: u32) -> Handle<GroupIx> {
    scheduler.add_group(&Arc::from(name), weight(its_weight))
}

fn terms(group: Handle<GroupIx>, its_weight: u32) -> TenantTerms {
    TenantTerms {
        group,
        weight: weight(its_weight),
        max_in_flight: None,
        max_queued: None,
    }
}

fn tenant(scheduler: &mut Scheduler, terms: &TenantTerms) -> Handle<TenantIx> {
    scheduler.add_tenant(TenantId::mint(), terms).unwrap()
}

fn with_slots(slots: u32) -> Scheduler {
    let mut scheduler = Scheduler::new(Settings::default());
    scheduler.set_max_in_flight(slots);
    scheduler
}

fn events(scheduler: &mut Scheduler) -> Vec<Event> {
    std::iter::from_fn(|| scheduler.next_event()).collect()
}
