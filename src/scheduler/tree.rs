//! What stands on the clocks: node, groups, tenants; and per pool of slots, branches and lanes.
//!
//! ```text
//!            node clock                     model clock (capped pools only)
//!   node      ── V                  pool     ── V
//!   group     ── S on node's V      branch   ── S on pool's V       branch = (group, pool)
//!             ── V                           ── V
//!   tenant    ── S on group's V     lane     ── S on branch's V     lane = (tenant, pool)
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::arena::{BranchIx, GroupIx, Ix, KeyIx, LaneIx, ModelIx, PoolIx, QueueIx, TenantIx};
use super::charge::Correction;
use super::cost::{Cost, Learned};
use super::heap::{Heap, Stamp};
use super::moment::Moment;
use super::tag::{BEGIN, Tag};
use super::ticket::Fifo;
use crate::id::{ModelId, TenantId};

/// "No cap" and "no bound" where a `u32` counts.
pub(super) const UNLIMITED: u32 = u32::MAX;

/// A clock: the start tag last served, and R5's floor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) v: u64,
    /// Where the clock stood when its resource last was not scarce; no tag counts for less.
    pub(super) floor: u64,
    /// Counts the moments when the resource was not scarce. An inner clock whose epoch is behind sets its floor then.
    pub(super) epoch: u64,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self {
            v: BEGIN,
            floor: BEGIN,
            epoch: 0,
        }
    }

    /// Start-time fair queueing's virtual time: the start tag in service. It never runs backwards (I5).
    pub(super) fn advance(&mut self, start: u64) {
        self.v = self.v.max(start);
    }

    /// R5: the resource has slots to spare.
    pub(super) const fn not_scarce(&mut self) {
        self.floor = self.v;
        self.epoch += 1;
    }

    /// R5 one level down, lazily.
    pub(super) const fn follow(&mut self, outer: &Self) {
        if self.epoch != outer.epoch {
            self.floor = self.v;
            self.epoch = outer.epoch;
        }
    }
}

/// The process: all slots.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) clock: Clock,
    pub(super) max: u32,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) queued_bytes: u64,
    /// Weights of the active groups, summed.
    pub(super) active_weight: u64,
}

/// Slots of one capped model, or of all models without a cap together.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) cap: u32,
    pub(super) in_flight: u32,
    /// Waiters that could run if the pool and the node had room.
    pub(super) ready: u32,
    pub(super) clock: Clock,
    /// Branches by their group's tag.
    pub(super) by_node: Heap<BranchIx>,
    /// Branches by their own tag. Empty in the shared pool.
    pub(super) by_model: Heap<BranchIx>,
}

impl Pool {
    pub(super) fn new(cap: u32) -> Self {
        Self {
            cap,
            in_flight: 0,
            ready: 0,
            clock: Clock::new(),
            by_node: Heap::default(),
            by_model: Heap::default(),
        }
    }

    pub(super) const fn has_room(&self) -> bool {
        self.in_flight < self.cap
    }

    /// Takes a slot. Returns whether it was the last.
    pub(super) const fn take(&mut self) -> bool {
        self.in_flight += 1;
        !self.has_room()
    }

    /// Gives a slot back. Returns whether there was another before.
    pub(super) const fn give_back(&mut self) -> bool {
        let had_room = self.has_room();
        self.in_flight -= 1;
        had_room
    }
}

/// The upper level of sharing.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tag: Tag,
    pub(super) clock: Clock,
    pub(super) ready: u32,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) queued_bytes: u64,
    /// Weights of its active tenants, summed.
    pub(super) active_weight: u64,
    /// Its branch in each pool, by the pool's index; short where it has none.
    pub(super) branches: Vec<BranchIx>,
    pub(super) served: Cost,
    pub(super) active_tick: u32,
    /// Tenants in it, the deleted that still run included.
    pub(super) tenants: u32,
    pub(super) doomed: bool,
    pub(super) name: Arc<str>,
}

impl Group {
    pub(super) const fn is_active(&self) -> bool {
        self.in_flight > 0 || self.queued > 0
    }

    pub(super) fn pay(&mut self, cost: Cost) {
        self.tag.charge(cost);
        self.served += cost;
    }

    pub(super) fn correct(&mut self, correction: Correction) {
        match correction {
            Correction::None => {}
            Correction::Charge(cost) => self.pay(cost),
            Correction::Refund(cost) => {
                self.tag.refund(cost);
                self.served = self.served.saturating_sub(cost);
            }
        }
    }

    pub(super) fn branch(&self, pool: PoolIx) -> BranchIx {
        self.branches.get(pool.at()).copied().unwrap_or(BranchIx::NONE)
    }
}

/// The lower level of sharing.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) group: GroupIx,
    pub(super) tag: Tag,
    /// R3's burst in steps of this tenant's tag.
    pub(super) burst: u64,
    pub(super) ready: u32,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) max_in_flight: u32,
    pub(super) max_queued: u32,
    pub(super) first_lane: LaneIx,
    pub(super) queued_bytes: u64,
    pub(super) served: Cost,
    pub(super) active_tick: u32,
    /// Whether it is in the list of the recently active.
    pub(super) listed: bool,
    pub(super) doomed: bool,
    pub(super) backlog: Backlog,
    /// Running requests by capped model; few, for it lists what runs now.
    pub(super) of_capped: Vec<(ModelIx, u32)>,
    /// Mean output by model, sorted by model.
    pub(super) learned: Vec<(ModelIx, Learned)>,
    pub(super) id: TenantId,
}

impl Tenant {
    pub(super) const fn is_active(&self) -> bool {
        self.in_flight > 0 || self.queued > 0
    }

    pub(super) fn pay(&mut self, cost: Cost) {
        self.tag.charge(cost);
        self.served += cost;
    }

    pub(super) fn correct(&mut self, correction: Correction) {
        match correction {
            Correction::None => {}
            Correction::Charge(cost) => self.pay(cost),
            Correction::Refund(cost) => {
                self.tag.refund(cost);
                self.served = self.served.saturating_sub(cost);
            }
        }
    }

    /// One more runs on a capped model. Returns how many then do.
    pub(super) fn take_of(&mut self, model: ModelIx) -> u32 {
        match self.of_capped.iter_mut().find(|(other, _)| *other == model) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.of_capped.push((model, 1));
                1
            }
        }
    }

    /// One fewer.
    pub(super) fn give_back_of(&mut self, model: ModelIx) {
        if let Some(at) = self.of_capped.iter().position(|(other, _)| *other == model)
            && let Some((_, count)) = self.of_capped.get_mut(at)
        {
            *count -= 1;
            if *count == 0 {
                self.of_capped.swap_remove(at);
            }
        }
    }

    /// A tenant at its cap is parked: none of its waiters is in a ready set.
    pub(super) const fn is_open(&self) -> bool {
        self.in_flight < self.max_in_flight
    }
}

/// A tenant's backlog as its own clients and the fairness index see it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backlog {
    /// Since when somebody waits without a pause.
    pub(super) since: Moment,
    granted_at: Moment,
    /// Smoothed time from one grant to the next, in nanoseconds.
    gap_ns: u64,
    /// Two marks, 30 s apart or more, of what had been served when. The older is the index's beginning.
    pub(super) earlier: Mark,
    later: Mark,
}

/// What had been served when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    pub(super) at: Moment,
    pub(super) served: Cost,
}

impl Backlog {
    /// Two of these are the window of the fairness index.
    const MARK_EVERY: Duration = Duration::from_secs(30);

    /// Nobody waited; somebody does.
    pub(super) const fn begin(&mut self, now: Moment, served: Cost) {
        let mark = Mark { at: now, served };
        self.since = now;
        self.granted_at = now;
        self.earlier = mark;
        self.later = mark;
    }

    /// A waiter was granted.
    pub(super) fn granted(&mut self, now: Moment, served: Cost) {
        let gap_ns = now.nanos_since(self.granted_at);
        self.granted_at = now;
        self.gap_ns = match self.gap_ns {
            0 => gap_ns,
            smoothed => smoothed - smoothed / 8 + gap_ns / 8,
        };
        if now >= self.later.at.after(Self::MARK_EVERY) {
            self.earlier = self.later;
            self.later = Mark { at: now, served };
        }
    }

    /// R12: how long `queued` requests take at the present rate, from 1 s to `longest`. A queue that has stood still for
    /// longer than its usual gap is judged by the standstill.
    pub(super) fn drains_in(&self, queued: u32, now: Moment, longest: Duration) -> Duration {
        let per_request_ns = match queued {
            0 => self.gap_ns,
            _ => self.gap_ns.max(now.nanos_since(self.granted_at)),
        };
        Duration::from_nanos(per_request_ns)
            .saturating_mul(queued.max(1))
            .clamp(Duration::from_secs(1), longest.max(Duration::from_secs(1)))
    }
}

/// A key, counted for its cap.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) tenant: TenantIx,
    pub(super) max_in_flight: u32,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) first_queue: QueueIx,
    pub(super) doomed: bool,
}

impl Key {
    /// A key at its cap parks its own waiters and nobody else's.
    pub(super) const fn is_open(&self) -> bool {
        self.in_flight < self.max_in_flight
    }
}

/// A model: which pool, which multiplier, which mean.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) pool: PoolIx,
    pub(super) percent: u32,
    pub(super) mean: Learned,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) doomed: bool,
    /// `None` for the entry that stands for all models the catalog does not know.
    pub(super) id: Option<ModelId>,
}

/// A group in a pool.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) group: GroupIx,
    pub(super) ready: u32,
    /// On the pool's clock. Stands still in the shared pool.
    pub(super) tag: Tag,
    pub(super) clock: Clock,
    /// Its valid entries in the pool's heaps.
    pub(super) node_entry: Stamp,
    pub(super) model_entry: Stamp,
    /// Lanes by their tenant's tag.
    pub(super) by_node: Heap<LaneIx>,
    /// Lanes by their own tag. Empty in the shared pool.
    pub(super) by_model: Heap<LaneIx>,
}

/// A tenant in a pool: where its requests wait.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tenant: TenantIx,
    pub(super) pool: PoolIx,
    pub(super) branch: BranchIx,
    /// The tenant's next lane.
    pub(super) next: LaneIx,
    /// Waiters whose key is not parked.
    pub(super) unparked: u32,
    /// Those, if the tenant is not parked either; else 0.
    pub(super) ready: u32,
    /// On the branch's model clock. Stands still in the shared pool.
    pub(super) tag: Tag,
    /// Its valid entries in the branch's heaps.
    pub(super) node_entry: Stamp,
    pub(super) model_entry: Stamp,
    /// Waiters of keys without a cap.
    pub(super) plain: Fifo,
    /// Lists of keys with a cap, by their oldest waiter's arrival.
    pub(super) by_key: Heap<QueueIx>,
    pub(super) first_queue: QueueIx,
    /// R13: since when its oldest waiter is overdue.
    pub(super) overdue_since: Option<Moment>,
}

/// A capped key's waiters in one lane.
#[derive(Debug)]
pub(super) struct KeyQueue {
    pub(super) key: KeyIx,
    pub(super) lane: LaneIx,
    pub(super) fifo: Fifo,
    /// Its valid entry in the lane's heap.
    pub(super) entry: Stamp,
    /// The lane's next list, and the key's.
    pub(super) next_of_lane: QueueIx,
    pub(super) next_of_key: QueueIx,
}
