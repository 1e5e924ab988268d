//! Who runs next: hierarchical start-time fair queueing in token units.
//!
//! Slots of inference servers are few and requests differ a thousandfold in cost, so neither turns nor slots are what
//! tenants should get equally: tokens are. Each group, and each tenant inside its group, has a *start tag*: the tokens
//! it was charged, divided by its weight. The lowest tag runs next (Goyal, Vin & Cheng 1996, on `D` servers as in Jin,
//! Chase & Kaur 2004). The clock of each level is the start tag last served; who comes back from idleness starts there, so
//! nobody saves up a share and nobody starves. A request is charged an estimate when it is dispatched, what exceeds it while
//! it streams, and the truth at its end.
//!
//! # A request's states
//!
//! ```text
//!            enter                     a slot is free and it is next
//!   (new) ───────────► Queued ──────────────────────────────────────► Running ───► (gone)
//!     │                  │  cancel · deadline · tenant deleted            ▲   leave
//!     │                  └───────────────────────────────► (gone)         │
//!     └───────────────────────────────────────────────────────────────────┘
//!                      enter, with room and nobody in its way
//! ```
//!
//! - *Queued*: linked into one list of its lane (lane = tenant × pool of slots) and into the timing wheel; counted in node,
//!   group, tenant, key and model. Unlinked by exactly four: [`cancel`](Scheduler::cancel), the grant inside a dispatch
//!   pass, the wheel, and the deletion of its tenant ([`dismiss_all`](Scheduler::dismiss_all) likewise). All are O(1).
//! - *Running*: linked nowhere; holds one slot of the node and of its pool. Ends by [`leave`](Scheduler::leave), once: the
//!   handle's generation makes a second one a no-op.
//! - A waiter of a tenant or key at its own cap is *parked*: it keeps its place in its list, but its lane does not count it
//!   as ready, so picks never see it. It counts again when a slot of that tenant or key comes back.
//!
//! Everything here is O(1) or O(log n), and nothing allocates but to grow. The exceptions are operators' acts (a cap that
//! comes or goes, a group move, a deletion) and [`snapshot`](Scheduler::snapshot).
//!
//! # Rules
//!
//! R1 eligibility (`mask`), R2 fast path, R3 activation (`ready`), R4 dispatch (`pick`, `charge`), R5 floors (`tree`), R6 cost
//! (`cost`), R7 cancellation ([`Leave`]), R8 live weights and R9 moves (`roster`), R12 bounds of the queue, R13 deadlines
//! (`wheel`) and overload (`pick`). R10 (classes inside a tenant) would order a lane's lists, where keys with caps have theirs
//! now; R11 (guarantees) would try groups below their guarantee first in `pick`.
//!
//! # Invariants
//!
//! I1 in flight ≤ max, unless max was lowered. I2 every request is in one state, and the sums agree. I3 after every call: a
//! free slot means that nobody waits who could use it. I4 the picked tag is the lowest eligible. I5 clocks and floors never
//! run back; a heap's key never exceeds its tag. I6 lists are first in, first out. I7 one outcome each. I8 backlogged tenants'
//! service by weight differs by no more than SFQ(D)'s bound. I9 idleness gains one burst and one request. I10 what was charged
//! in the end is the actual cost. I11 nobody starves. `tests/` checks them by a naive twin.

mod arena;
mod charge;
mod cost;
mod heap;
mod mask;
mod moment;
mod pick;
mod queue;
mod ready;
mod request;
mod retire;
mod roster;
mod running;
mod settings;
mod snapshot;
mod standing;
mod tag;
mod ticket;
mod tree;
mod wheel;

use std::collections::VecDeque;

pub use arena::{GroupIx, Handle, KeyIx, ModelIx, TenantIx, TicketIx};
pub use cost::{Cost, Tariff};
pub use moment::{Moment, TICK};
pub use request::{Entered, Event, Grant, Leave, Refused, Request};
pub use roster::TenantTerms;
pub use running::Running;
pub use settings::Settings;
pub use snapshot::{GroupView, ModelView, Snapshot, TenantView};
pub use standing::Standing;

use arena::{Arena, BranchIx, Ix, LaneIx, PoolIx, QueueIx};
use heap::Stamps;
use mask::Mask;
use ticket::{State, Ticket, Tickets};
use tree::{Branch, Clock, Group, Key, KeyQueue, Lane, Model, Node, Pool, Tenant};
use wheel::Wheel;

/// The scheduler. Its caller serialises the calls and tells the time.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    now: Moment,
    tick: u32,
    node: Node,
    groups: Arena<GroupIx, Group>,
    tenants: Arena<TenantIx, Tenant>,
    keys: Arena<KeyIx, Key>,
    models: Arena<ModelIx, Model>,
    pools: Arena<PoolIx, Pool>,
    branches: Arena<BranchIx, Branch>,
    lanes: Arena<LaneIx, Lane>,
    queues: Arena<QueueIx, KeyQueue>,
    tickets: Tickets,
    wheel: Wheel,
    /// Pools with a ready waiter, and pools with room.
    backlog: Mask,
    room: Mask,
    stamps: Stamps,
    arrivals: u64,
    events: VecDeque<Event>,
    /// Tenants that are active or were lately, each once.
    recent: Vec<TenantIx>,
    /// Tenants, keys and models that were removed and still have requests.
    doomed: u32,
    /// The pool of all models without a cap: one, because each further pool costs every pick a look.
    shared: PoolIx,
    /// Stands for models that the catalog does not know (any more).
    unlisted: ModelIx,
    #[cfg(test)]
    mutation: Option<tests::Mutation>,
}

/// Tickets kept in memory when the queue is empty.
const TICKETS_KEPT: usize = 1024;

impl Scheduler {
    /// Starts with no groups, no tenants and no slots.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut scheduler = Self {
            settings,
            now: Moment::default(),
            tick: 0,
            node: Node {
                clock: Clock::new(),
                max: 0,
                in_flight: 0,
                queued: 0,
                queued_bytes: 0,
                active_weight: 0,
            },
            groups: Arena::default(),
            tenants: Arena::default(),
            keys: Arena::default(),
            models: Arena::default(),
            pools: Arena::default(),
            branches: Arena::default(),
            lanes: Arena::default(),
            queues: Arena::default(),
            tickets: Tickets::default(),
            wheel: Wheel::default(),
            backlog: Mask::default(),
            room: Mask::default(),
            stamps: Stamps::default(),
            arrivals: 0,
            events: VecDeque::new(),
            recent: Vec::new(),
            doomed: 0,
            shared: PoolIx::NONE,
            unlisted: ModelIx::NONE,
            #[cfg(test)]
            mutation: None,
        };
        scheduler.open_for_unlisted_models();
        scheduler
    }

    /// Asks for a slot, or a place in the queue.
    ///
    /// # Errors
    /// [`Refused`]; then nothing was taken.
    pub fn enter(&mut self, request: &Request, now: Moment) -> Result<Entered, Refused> {
        self.advance(now);
        if let Some(grant) = self.enter_at_once(request) {
            return Ok(Entered::Granted(grant));
        }
        let (tenant, key, model) = self.find(request).ok_or(Refused::UnknownTenant)?;
        self.list(tenant);
        let ticket = Ticket::new(request, tenant, key, model, self.now);
        self.enqueue(ticket, request.patience).map(Entered::Queued)
    }

    /// The same where a slot is free (R2), and nothing where none is. Needs no time: nobody is waiting for this slot.
    pub fn enter_at_once(&mut self, request: &Request) -> Option<Grant> {
        debug_assert!(!self.somebody_could_run(), "I3: a free slot and somebody who could use it");
        if !self.has_room() {
            return None;
        }
        let (tenant, key, model) = self.find(request)?;
        let pool = self.models[model].pool;
        let has_room = self.pools[pool].has_room() && self.tenants[tenant].is_open() && (!key.is_some() || self.keys[key].is_open());
        if !has_room {
            return None;
        }
        self.list(tenant);
        self.activate_for_fast_path(tenant, pool);
        let ix = self.tickets.insert(Ticket::new(request, tenant, key, model, self.now));
        let grant = self.start(ix);
        if self.has_room() {
            self.node.clock.not_scarce();
        }
        Some(grant)
    }

    /// Takes a waiter out of the queue. Returns whether it waited; a waiter that runs or is gone is left alone. Lets no time
    /// pass, so who gives up at its deadline hears no event.
    pub fn cancel(&mut self, ticket: Handle<TicketIx>) -> bool {
        match self.tickets.find(ticket) {
            Some(ix) if self.tickets[ix].state == State::Queued => {
                self.withdraw(ix);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Charges a running request for output beyond its estimate, in steps (R6). Returns from which output token on it wants
    /// to hear again.
    pub fn progress(&mut self, ticket: Handle<TicketIx>, output_so_far: u64) -> u64 {
        let Some(ix) = self.running(ticket) else { return u64::MAX };
        let step = u64::from(self.settings.progress_step);
        if output_so_far >= self.tickets[ix].covered.saturating_add(step) {
            self.charge_progress(ix, output_so_far);
        }
        self.tickets[ix].covered.saturating_add(step)
    }

    /// Ends a running request: corrects its charge, gives its slot back, and grants what that slot allows. Returns whether
    /// it ran; a second end of the same request changes nothing.
    pub fn leave(&mut self, ticket: Handle<TicketIx>, how: Leave, now: Moment) -> bool {
        self.advance(now);
        let Some(ix) = self.running(ticket) else { return false };
        self.finish(ix, how);
        self.dispatch();
        true
    }

    /// Lets time pass: waiters whose deadline has come are told so. Every call with a `now` does it first, so no expired
    /// waiter is ever dispatched; somebody must call it each [`TICK`] while anybody waits.
    pub fn advance(&mut self, now: Moment) {
        if now <= self.now {
            return;
        }
        self.now = now;
        let tick = now.ticks_begun();
        if tick == self.tick {
            return;
        }
        self.tick = tick;
        while let Some(ix) = self.wheel.pop_due(&self.tickets, tick) {
            let Ticket { owner, since, tenant, .. } = self.tickets[ix];
            let retry_after = self.drains_in(tenant);
            self.withdraw(ix);
            self.events.push_back(Event::Expired {
                owner,
                waited: self.now.since(since),
                retry_after,
            });
        }
        self.tickets.shrink(TICKETS_KEPT);
    }

    /// Dismisses every waiter; running requests go on.
    pub fn dismiss_all(&mut self) {
        for ix in self.tickets.indices() {
            if self.tickets[ix].state == State::Queued {
                self.dismiss(ix);
            }
        }
    }

    /// What has happened to waiters since the last call, oldest first. To be drained after every call.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether anything has happened.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Requests running.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.node.in_flight
    }

    /// Requests waiting.
    #[must_use]
    pub const fn queued(&self) -> u32 {
        self.node.queued
    }

    /// How many may run at once.
    #[must_use]
    pub const fn max_in_flight(&self) -> u32 {
        self.node.max
    }

    const fn has_room(&self) -> bool {
        self.node.in_flight < self.node.max
    }

    fn running(&self, ticket: Handle<TicketIx>) -> Option<TicketIx> {
        let ix = self.tickets.find(ticket)?;
        (self.tickets[ix].state == State::Running).then_some(ix)
    }

    /// Who asks with what for which. `None` if the tenant is gone.
    fn find(&self, request: &Request) -> Option<(TenantIx, KeyIx, ModelIx)> {
        let tenant = self.tenants.find(request.tenant).filter(|ix| !self.tenants[*ix].doomed)?;
        let key = request.key.and_then(|key| self.keys.find(key));
        let key = key.filter(|ix| self.keys[*ix].tenant == tenant).unwrap_or(KeyIx::NONE);
        let model = request.model.and_then(|model| self.models.find(model)).unwrap_or(self.unlisted);
        Some((tenant, key, model))
    }

    /// R4: fills free slots with ready waiters. R5: if slots remain, they are not scarce.
    fn dispatch(&mut self) {
        while self.has_room() && self.node.queued > 0 {
            let Some(ix) = self.pick() else { break };
            self.wheel.remove(&mut self.tickets, ix);
            self.unlink(ix);
            self.discount_queued(ix);
            let grant = self.start(ix);
            let Ticket { owner, tenant, .. } = self.tickets[ix];
            let served = self.tenants[tenant].served;
            self.tenants[tenant].backlog.granted(self.now, served);
            self.events.push_back(Event::Granted { owner, grant });
        }
        if self.has_room() {
            self.node.clock.not_scarce();
        }
    }

    /// Notes that a tenant is active, for [`snapshot`](Self::snapshot).
    fn list(&mut self, ix: TenantIx) {
        let tenant = &mut self.tenants[ix];
        if !tenant.listed {
            tenant.listed = true;
            self.recent.push(ix);
        }
    }
}

#[cfg(test)]
mod tests;
