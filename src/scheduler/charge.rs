//! R4(e)–(f) and R6: what running costs, and the slots it holds.
//!
//! [`start`](Scheduler::start) and [`finish`](Scheduler::finish) are each request's whole way through the books, so each
//! looks everybody up once and keeps the rare cases (a capped model, a cap reached or left) apart.

use super::arena::{Ix, LaneIx, PoolIx, TenantIx, TicketIx};
use super::cost::{Cost, Learned};
use super::request::Leave;
use super::standing::Rank;
use super::ticket::{State, Ticket};
use super::tree::Tenant;
use super::{Grant, Scheduler, Settings};

impl Scheduler {
    /// New or queued => running: advances the clocks to the request's start tags, charges the estimate, takes the slots.
    pub(super) fn start(&mut self, ix: TicketIx) -> Grant {
        let ticket = &mut self.tickets[ix];
        let tenant = &mut self.tenants[ticket.tenant];
        let group = &mut self.groups[tenant.group];
        let model = &mut self.models[ticket.model];
        let node = &mut self.node;

        // R4(e): lifts tags to the floors (R5) and moves each clock to the start tag it serves.
        group.clock.follow(&node.clock);
        group.tag.raise(node.clock.floor);
        node.clock.advance(group.tag.start);
        tenant.tag.raise(group.clock.floor.saturating_sub(tenant.burst));
        group.clock.advance(tenant.tag.start);

        // R6: half of what the tenant's answers from this model were like.
        let mean = match tenant.learned.binary_search_by_key(&ticket.model, |(model, _)| *model) {
            Ok(at) => tenant.learned[at].1,
            Err(_) => model.mean,
        };
        let output = mean.estimate().min(u64::from(ticket.output_max));
        let estimate = self.settings.price(u64::from(ticket.input), output, model.percent);
        tenant.pay(estimate);
        group.pay(estimate);

        let waited = self.now.since(ticket.since);
        ticket.state = State::Running;
        ticket.since = self.now;
        ticket.charged = estimate;
        ticket.covered = output;

        node.join(group, tenant);
        node.in_flight += 1;
        group.in_flight += 1;
        tenant.in_flight += 1;
        model.in_flight += 1;
        let mut rank = Rank {
            on_node: tenant.in_flight,
            on_model: 0,
        };
        let (payer, key, pool) = (ticket.tenant, ticket.key, model.pool);
        let tenant_is_full = !tenant.is_open();
        let reached = self.pools[pool].take();
        if pool != self.shared {
            rank.on_model = tenant.take_of(ticket.model);
            self.start_on_model_clock(payer, pool, estimate);
            if reached {
                self.room.set(pool, false);
            } else {
                self.pools[pool].clock.not_scarce();
            }
        }
        if tenant_is_full {
            self.park_tenant(payer);
        }
        if key.is_some() {
            self.keys[key].in_flight += 1;
            if !self.keys[key].is_open() {
                self.park_key(key);
            }
        }
        Grant {
            ticket: self.tickets.handle(ix),
            waited,
            charge_at: output.saturating_add(u64::from(self.settings.progress_step)),
            rank,
        }
    }

    /// Running => gone: makes what was charged the truth (R7), learns from what has ended, gives the slots back.
    pub(super) fn finish(&mut self, ix: TicketIx, how: Leave) {
        let ticket = &self.tickets[ix];
        let tenant = &mut self.tenants[ticket.tenant];
        let group = &mut self.groups[tenant.group];
        let model = &mut self.models[ticket.model];

        let counted = u64::from(ticket.input);
        let price = match how {
            Leave::Unused => Cost::ZERO,
            Leave::Aborted { output } => self.settings.price(counted, output, model.percent),
            Leave::Settled { input, output } => self.settings.price(input, output, model.percent),
        };
        let correction = Correction::from(ticket.charged, price);
        tenant.correct(correction);
        group.correct(correction);
        if let Leave::Settled { output, .. } = how {
            learn(tenant, ticket, model.mean, output);
            model.mean.learn(output);
        }

        let tenant_was_full = !tenant.is_open();
        self.node.in_flight -= 1;
        group.in_flight -= 1;
        tenant.in_flight -= 1;
        model.in_flight -= 1;
        self.node.part(group, tenant);
        tenant.active_tick = self.tick;
        group.active_tick = self.tick;
        let tenant_has_room = tenant_was_full && tenant.is_open();
        let (payer, key, model, pool) = (ticket.tenant, ticket.key, ticket.model, model.pool);
        self.tickets.remove(ix);
        let had_room = self.pools[pool].give_back();
        if pool != self.shared {
            self.correct_on_model_clock(payer, pool, correction);
            self.tenants[payer].give_back_of(model);
            if !had_room {
                self.room.set(pool, self.pools[pool].has_room());
            }
        }
        // The tenant before its key, so that whom the key's slot unparks is counted once.
        if tenant_has_room {
            self.unpark_tenant(payer);
        }
        if key.is_some() {
            let was_full = !self.keys[key].is_open();
            self.keys[key].in_flight -= 1;
            if was_full && self.keys[key].is_open() {
                self.unpark_key(key);
            }
        }
        self.retire(payer, key, model);
    }

    /// R6: charges a running request for output beyond its estimate. Nothing is refunded before the end.
    pub(super) fn charge_progress(&mut self, ix: TicketIx, output: u64) {
        let ticket = &mut self.tickets[ix];
        let tenant = &mut self.tenants[ticket.tenant];
        let model = &self.models[ticket.model];
        let price = self.settings.price(u64::from(ticket.input), output, model.percent);
        ticket.covered = output;
        if price <= ticket.charged {
            return;
        }
        let more = price - ticket.charged;
        ticket.charged = price;
        tenant.pay(more);
        self.groups[tenant.group].pay(more);
        let (payer, pool) = (ticket.tenant, model.pool);
        if pool != self.shared {
            self.correct_on_model_clock(payer, pool, Correction::Charge(more));
        }
    }

    /// R4(e) and (f) on the model clock: both clocks are charged, whichever decided.
    fn start_on_model_clock(&mut self, tenant: TenantIx, pool: PoolIx, estimate: Cost) {
        let Some(lane) = self.lane_of(tenant, pool) else { return };
        let burst = self.tenants[tenant].burst;
        let lane = &mut self.lanes[lane];
        let branch = &mut self.branches[lane.branch];
        let pool = &mut self.pools[pool];
        branch.clock.follow(&pool.clock);
        branch.tag.raise(pool.clock.floor);
        pool.clock.advance(branch.tag.start);
        lane.tag.raise(branch.clock.floor.saturating_sub(burst));
        branch.clock.advance(lane.tag.start);
        lane.tag.charge(estimate);
        branch.tag.charge(estimate);
    }

    fn correct_on_model_clock(&mut self, tenant: TenantIx, pool: PoolIx, correction: Correction) {
        let lane: Option<LaneIx> = self.lane_of(tenant, pool);
        // The lane of a request whose model got its cap while it ran may be missing: then there is no tag to correct.
        let Some(lane) = lane else { return };
        let lane = &mut self.lanes[lane];
        let branch = &mut self.branches[lane.branch];
        match correction {
            Correction::None => {}
            Correction::Charge(cost) => {
                lane.tag.charge(cost);
                branch.tag.charge(cost);
            }
            Correction::Refund(cost) => {
                lane.tag.refund(cost);
                branch.tag.refund(cost);
            }
        }
    }
}

/// What is still to be charged, or was charged too much.
#[derive(Debug, Clone, Copy)]
pub(super) enum Correction {
    None,
    Charge(Cost),
    Refund(Cost),
}

impl Correction {
    fn from(charged: Cost, price: Cost) -> Self {
        if price > charged {
            Self::Charge(price - charged)
        } else if price < charged {
            Self::Refund(charged - price)
        } else {
            Self::None
        }
    }
}

impl Settings {
    /// What a request costs: a unit at least, or requests without tokens would never lose their turn.
    fn price(&self, input: u64, output: u64, percent: u32) -> Cost {
        self.tariff.price(input, output, percent).max(Cost::units(1))
    }
}

/// Believes a completed answer. A tenant's first from a model moves the model's mean, the prior.
fn learn(tenant: &mut Tenant, ticket: &Ticket, prior: Learned, output: u64) {
    match tenant.learned.binary_search_by_key(&ticket.model, |(model, _)| *model) {
        Ok(at) => tenant.learned[at].1.learn(output),
        Err(at) => {
            let mut mean = prior;
            mean.learn(output);
            tenant.learned.insert(at, (ticket.model, mean));
        }
    }
}
