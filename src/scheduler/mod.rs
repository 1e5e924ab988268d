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
//! R1 eligibility, R2 fast path, R3 activation, R4 dispatch ([`pick`], [`charge`]), R5 floors ([`tree::Clock`]), R6 cost
//! ([`cost`]), R7 cancellation ([`Leave`]), R8 live weights and R9 moves ([`roster`]), R12 bounds of the queue, R13 deadlines
//! and overload. R10 (classes inside a tenant) would order a lane's lists, where keys with caps have theirs now; R11
//! (guarantees) would try groups below their guarantee first in [`pick`].
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
mod ready;
mod roster;
mod settings;
mod snapshot;
mod tag;
mod ticket;
mod tree;
mod wheel;

use std::time::Duration;

pub use arena::{GroupIx, Handle, KeyIx, ModelIx, TenantIx, TicketIx};
pub use cost::{Cost, Tariff};
pub use moment::{Moment, TICK};
pub use roster::TenantTerms;
pub use settings::Settings;
pub use snapshot::{GroupView, ModelView, Snapshot, TenantView};

use arena::{Arena, BranchIx, Ix, LaneIx, PoolIx, QueueIx};
use heap::Stamps;
use mask::Mask;
use std::collections::VecDeque;
use ticket::{State, Ticket, Tickets};
use tree::{Branch, Clock, Group, Key, KeyQueue, Lane, Model, Node, Pool, Tenant};
use wheel::Wheel;

/// A request that wants a slot.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Who pays.
    pub tenant: Handle<TenantIx>,
    /// With which key; `None`, or one that is gone, has no cap of its own.
    pub key: Option<Handle<KeyIx>>,
    /// For which model; `None`, or one that is gone, shares the slots of the models without a cap.
    pub model: Option<Handle<ModelIx>>,
    /// Input tokens by the gateway's own count.
    pub input_tokens: u64,
    /// The client's bound on output tokens. It can lower the estimate, never raise it: hints are not trusted.
    pub max_tokens: Option<u64>,
    /// What the waiting body holds in memory.
    pub body_bytes: u64,
    /// How long it will wait, if shorter than the queue's timeout.
    pub patience: Option<Duration>,
    /// The caller's number for it, handed back in events.
    pub owner: u32,
}

/// What became of a request that entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It runs.
    Granted(Grant),
    /// It waits; an [`Event`] will tell.
    Queued(Handle<TicketIx>),
}

/// A slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To be handed to [`progress`](Scheduler::progress) and [`leave`](Scheduler::leave).
    pub ticket: Handle<TicketIx>,
    /// How long it waited.
    pub waited: Duration,
    /// From this output token on, `progress` charges; telling it earlier does nothing.
    pub charge_at: u64,
}

/// Why a request could not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The tenant's part of the queue is full (R12).
    #[error("the tenant's part of the queue is full")]
    QueueFull {
        /// When the tenant's queue will have drained, at its present rate; at least a second.
        retry_after: Duration,
    },
    /// It would not wait at all and had to.
    #[error("no slot is free and the request does not wait")]
    NoPatience {
        /// When the tenant's queue will have drained, at its present rate; at least a second.
        retry_after: Duration,
    },
    /// The tenant was deleted.
    #[error("there is no such tenant")]
    UnknownTenant,
}

/// What became of a waiter. Each gets exactly one, unless it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It runs.
    Granted {
        /// The request's own number.
        owner: u32,
        /// Its slot.
        grant: Grant,
    },
    /// Its deadline came first.
    Expired {
        /// The request's own number.
        owner: u32,
        /// How long it waited.
        waited: Duration,
        /// When its tenant's queue will have drained, at its present rate; at least a second.
        retry_after: Duration,
    },
    /// Its tenant was deleted, or everybody was dismissed.
    Dismissed {
        /// The request's own number.
        owner: u32,
    },
}

/// How a running request ends (R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It was never sent upstream: everything is refunded.
    Unused,
    /// It was broken off: what it has used is charged. Refunding it would give the node to whoever aborts most.
    Aborted {
        /// Output tokens seen.
        output: u64,
    },
    /// It ended.
    Settled {
        /// Input tokens, as reported.
        input: u64,
        /// Output tokens, as reported.
        output: u64,
    },
}

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
        let tenant = self.tenants.find(request.tenant).filter(|ix| !self.tenants[*ix].doomed);
        let tenant = tenant.ok_or(Refused::UnknownTenant)?;
        let key = request.key.and_then(|key| self.keys.find(key));
        let key = key.filter(|ix| self.keys[*ix].tenant == tenant).unwrap_or(KeyIx::NONE);
        let model = request.model.and_then(|model| self.models.find(model)).unwrap_or(self.unlisted);
        let pool = self.models[model].pool;

        let ticket = Ticket {
            state: State::Running,
            tenant,
            key,
            model,
            owner: request.owner,
            input: narrow(request.input_tokens),
            output_max: request.max_tokens.map_or(u32::MAX, narrow),
            since: self.now,
            lane: LaneIx::NONE,
            queue: QueueIx::NONE,
            older: TicketIx::NONE,
            newer: TicketIx::NONE,
            timer_before: TicketIx::NONE,
            timer_after: TicketIx::NONE,
            due: 0,
            arrival: 0,
            body_bytes: request.body_bytes,
            charged: Cost::ZERO,
            covered: 0,
        };
        let key_is_open = !key.is_some() || self.keys[key].is_open();
        if self.has_room() && self.pools[pool].has_room() && self.tenants[tenant].is_open() && key_is_open {
            // R2. By I3 nobody waits who could take this slot instead.
            debug_assert!(!self.somebody_could_run(), "a free slot and somebody who could use it");
            self.touch(tenant);
            let ix = self.tickets.insert(ticket);
            self.activate_for_fast_path(tenant, pool);
            let grant = self.start(ix);
            if self.has_room() {
                self.node.clock.not_scarce();
            }
            return Ok(Entered::Granted(grant));
        }

        let patience = request.patience.unwrap_or(Duration::MAX).min(self.settings.queue_timeout);
        let due = self.now.after(patience).tick_reached();
        if due <= self.tick || patience.is_zero() {
            let retry_after = self.drains_in(tenant);
            return Err(Refused::NoPatience { retry_after });
        }
        if !self.has_place(tenant, request.body_bytes) {
            let retry_after = self.drains_in(tenant);
            return Err(Refused::QueueFull { retry_after });
        }
        self.touch(tenant);
        let ix = self.tickets.insert(Ticket {
            state: State::Queued,
            due,
            arrival: self.arrivals,
            ..ticket
        });
        self.arrivals += 1;
        self.count_queued(ix);
        self.link(ix);
        self.wheel.insert(&mut self.tickets, ix);
        Ok(Entered::Queued(self.tickets.handle(ix)))
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
            let ticket = &self.tickets[ix];
            let price = self.price(ix, u64::from(ticket.input), output_so_far);
            self.correct(ix, price.max(ticket.charged));
            self.tickets[ix].covered = output_so_far;
        }
        self.tickets[ix].covered.saturating_add(step)
    }

    /// Ends a running request: corrects its charge, gives its slot back, and grants what that slot allows. Returns whether
    /// it ran; a second end of the same request changes nothing.
    pub fn leave(&mut self, ticket: Handle<TicketIx>, how: Leave, now: Moment) -> bool {
        self.advance(now);
        let Some(ix) = self.running(ticket) else { return false };
        let counted = u64::from(self.tickets[ix].input);
        let price = match how {
            Leave::Unused => Cost::ZERO,
            Leave::Aborted { output } => self.price(ix, counted, output),
            Leave::Settled { input, output } => self.price(ix, input, output),
        };
        self.correct(ix, price);
        if let Leave::Settled { output, .. } = how {
            self.learn(ix, output);
        }
        let Ticket { tenant, key, model, .. } = self.tickets[ix];
        self.touch(tenant);
        self.vacate(ix);
        self.tickets.remove(ix);
        self.retire(tenant, key, model);
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

    /// Running or queued => gone. Tells the waiter.
    fn dismiss(&mut self, ix: TicketIx) {
        let owner = self.tickets[ix].owner;
        self.withdraw(ix);
        self.events.push_back(Event::Dismissed { owner });
    }

    /// Queued => gone.
    fn withdraw(&mut self, ix: TicketIx) {
        self.wheel.remove(&mut self.tickets, ix);
        self.unlink(ix);
        self.discount_queued(ix);
        let Ticket { tenant, key, model, .. } = self.tickets[ix];
        self.tickets.remove(ix);
        self.retire(tenant, key, model);
    }

    /// R4: fills free slots with ready waiters. R5: if slots remain, they are not scarce.
    fn dispatch(&mut self) {
        while self.has_room() {
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

    /// R12: a tenant, and a group, may have waiting no more than a multiple of what is still free. Whoever floods fills
    /// only its own part, whatever the number of those who share the queue.
    fn has_place(&self, tenant: TenantIx, body_bytes: u64) -> bool {
        let Settings {
            max_queued,
            max_queued_bytes,
            tenant_queue_alpha,
            group_queue_alpha,
            ..
        } = self.settings;
        let tenant = &self.tenants[tenant];
        let free = max_queued.saturating_sub(self.node.queued);
        let free_bytes = max_queued_bytes.saturating_sub(self.node.queued_bytes);
        tenant.queued < tenant.max_queued
            && tenant.queued < free.saturating_mul(tenant_queue_alpha)
            && self.groups[tenant.group].queued < free.saturating_mul(group_queue_alpha)
            && body_bytes <= free_bytes
            && tenant.queued_bytes < free_bytes.saturating_mul(u64::from(tenant_queue_alpha))
    }

    fn drains_in(&self, tenant: TenantIx) -> Duration {
        let tenant = &self.tenants[tenant];
        tenant.backlog.drains_in(tenant.queued, self.now, self.settings.queue_timeout)
    }

    fn count_queued(&mut self, ix: TicketIx) {
        let &Ticket {
            tenant,
            key,
            model,
            body_bytes,
            ..
        } = &self.tickets[ix];
        self.node.queued += 1;
        self.node.queued_bytes += body_bytes;
        self.models[model].queued += 1;
        if key.is_some() {
            self.keys[key].queued += 1;
        }
        let tenant = &mut self.tenants[tenant];
        if tenant.queued == 0 {
            tenant.backlog.begin(self.now, tenant.served);
        }
        tenant.queued += 1;
        tenant.queued_bytes += body_bytes;
        self.groups[tenant.group].queued += 1;
    }

    fn discount_queued(&mut self, ix: TicketIx) {
        let &Ticket {
            tenant,
            key,
            model,
            body_bytes,
            ..
        } = &self.tickets[ix];
        self.node.queued -= 1;
        self.node.queued_bytes -= body_bytes;
        self.models[model].queued -= 1;
        if key.is_some() {
            self.keys[key].queued -= 1;
        }
        let tenant = &mut self.tenants[tenant];
        tenant.queued -= 1;
        tenant.queued_bytes -= body_bytes;
        self.groups[tenant.group].queued -= 1;
    }

    /// Notes that a tenant is active, for [`snapshot`](Self::snapshot).
    fn touch(&mut self, ix: TenantIx) {
        let tenant = &mut self.tenants[ix];
        tenant.active_tick = self.tick;
        self.groups[tenant.group].active_tick = self.tick;
        if !tenant.listed {
            tenant.listed = true;
            self.recent.push(ix);
        }
    }
}

/// Token counts over 2^32 are charged as 2^32.
fn narrow(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
