//! R4(e)–(f) and R6: what running costs, and the slots it holds.

use super::arena::{Ix, ModelIx, PoolIx, TenantIx, TicketIx};
use super::cost::{Cost, Learned};
use super::ticket::{State, Ticket};
use super::{Grant, Scheduler};

impl Scheduler {
    /// New or queued => running: advances the clocks to the request's start tags, charges the estimate, takes the slots.
    pub(super) fn start(&mut self, ix: TicketIx) -> Grant {
        let Ticket {
            tenant,
            model,
            input,
            output_max,
            since,
            ..
        } = self.tickets[ix];
        let pool = self.models[model].pool;
        self.advance_clocks(tenant, pool);
        let output = self.expected_output(tenant, model).min(u64::from(output_max));
        let estimate = self.price(ix, u64::from(input), output);
        self.charge(tenant, pool, estimate);
        let ticket = &mut self.tickets[ix];
        ticket.state = State::Running;
        ticket.since = self.now;
        ticket.charged = estimate;
        ticket.covered = output;
        self.occupy(ix);
        Grant {
            ticket: self.tickets.handle(ix),
            waited: self.now.since(since),
            charge_at: output.saturating_add(u64::from(self.settings.progress_step)),
        }
    }

    /// What a request of this ticket's model costs: a unit at least, or requests without tokens would never lose their turn.
    pub(super) fn price(&self, ix: TicketIx, input: u64, output: u64) -> Cost {
        let percent = self.models[self.tickets[ix].model].percent;
        self.settings.tariff.price(input, output, percent).max(Cost::units(1))
    }

    /// Makes what has been charged for a running request equal `price`.
    pub(super) fn correct(&mut self, ix: TicketIx, price: Cost) {
        let Ticket {
            tenant, model, charged, ..
        } = self.tickets[ix];
        let pool = self.models[model].pool;
        if price > charged {
            self.charge(tenant, pool, price - charged);
        } else if price < charged {
            self.refund(tenant, pool, charged - price);
        }
        self.tickets[ix].charged = price;
    }

    /// Believes a completed answer.
    pub(super) fn learn(&mut self, ix: TicketIx, output: u64) {
        let Ticket { tenant, model, .. } = self.tickets[ix];
        let prior = self.models[model].mean;
        let learned = &mut self.tenants[tenant].learned;
        match learned.binary_search_by_key(&model, |(model, _)| *model) {
            Ok(at) => learned[at].1.learn(output),
            Err(at) => {
                let mut mean = prior;
                mean.learn(output);
                learned.insert(at, (model, mean));
            }
        }
        self.models[model].mean.learn(output);
    }

    /// Gives back the slots that [`start`](Self::start) took.
    pub(super) fn vacate(&mut self, ix: TicketIx) {
        let Ticket { tenant, key, model, .. } = self.tickets[ix];
        self.node.in_flight -= 1;
        self.models[model].in_flight -= 1;
        let pool = self.models[model].pool;
        self.pools[pool].in_flight -= 1;
        self.room.set(pool, self.pools[pool].has_room());
        if key.is_some() {
            let was_open = self.keys[key].is_open();
            self.keys[key].in_flight -= 1;
            if !was_open && self.keys[key].is_open() {
                self.unpark_key(key);
            }
        }
        let was_open = self.tenants[tenant].is_open();
        let group = self.tenants[tenant].group;
        self.groups[group].in_flight -= 1;
        self.tenants[tenant].in_flight -= 1;
        if !was_open && self.tenants[tenant].is_open() {
            self.unpark_tenant(tenant);
        }
    }

    fn occupy(&mut self, ix: TicketIx) {
        let Ticket { tenant, key, model, .. } = self.tickets[ix];
        self.node.in_flight += 1;
        self.models[model].in_flight += 1;
        let pool = self.models[model].pool;
        self.pools[pool].in_flight += 1;
        if self.pools[pool].has_room() {
            self.pools[pool].clock.not_scarce();
        } else {
            self.room.set(pool, false);
        }
        // The key first: what it parks while the tenant is open must be hidden from the picks.
        if key.is_some() {
            let was_open = self.keys[key].is_open();
            if was_open && self.keys[key].in_flight + 1 >= self.keys[key].max_in_flight {
                self.park_key(key);
            }
            self.keys[key].in_flight += 1;
        }
        let group = self.tenants[tenant].group;
        self.groups[group].in_flight += 1;
        let was_open = self.tenants[tenant].is_open();
        if was_open && self.tenants[tenant].in_flight + 1 >= self.tenants[tenant].max_in_flight {
            self.park_tenant(tenant);
        }
        self.tenants[tenant].in_flight += 1;
    }

    /// R6: half of what the tenant's answers from this model were like.
    fn expected_output(&self, tenant: TenantIx, model: ModelIx) -> u64 {
        let learned = &self.tenants[tenant].learned;
        let mean = match learned.binary_search_by_key(&model, |(model, _)| *model) {
            Ok(at) => learned[at].1,
            Err(_) => self.models[model].mean,
        };
        Learned::estimate(mean)
    }

    /// R4(e): lifts tags to the floors (R5) and moves each clock to the start tag it serves.
    fn advance_clocks(&mut self, tenant: TenantIx, pool: PoolIx) {
        let tenant_ix = tenant;
        let tenant = &mut self.tenants[tenant];
        let group = &mut self.groups[tenant.group];
        group.clock.follow(&self.node.clock);
        group.tag.raise(self.node.clock.floor);
        self.node.clock.advance(group.tag.start);
        tenant.tag.raise(group.clock.floor.saturating_sub(tenant.burst));
        group.clock.advance(tenant.tag.start);
        let burst = tenant.burst;

        if pool == self.shared {
            return;
        }
        let Some(lane) = self.lane_of(tenant_ix, pool) else { return };
        let lane = &mut self.lanes[lane];
        let branch = &mut self.branches[lane.branch];
        let pool = &mut self.pools[pool];
        branch.clock.follow(&pool.clock);
        branch.tag.raise(pool.clock.floor);
        pool.clock.advance(branch.tag.start);
        lane.tag.raise(branch.clock.floor.saturating_sub(burst));
        branch.clock.advance(lane.tag.start);
    }

    /// R4(f): both clocks are charged, whichever decided.
    fn charge(&mut self, tenant: TenantIx, pool: PoolIx, cost: Cost) {
        let payer = &mut self.tenants[tenant];
        let group = &mut self.groups[payer.group];
        payer.tag.charge(cost);
        payer.served += cost;
        group.tag.charge(cost);
        group.served += cost;
        if pool != self.shared
            && let Some(lane) = self.lane_of(tenant, pool)
        {
            let lane = &mut self.lanes[lane];
            lane.tag.charge(cost);
            self.branches[lane.branch].tag.charge(cost);
        }
    }

    fn refund(&mut self, tenant: TenantIx, pool: PoolIx, cost: Cost) {
        let payer = &mut self.tenants[tenant];
        let group = &mut self.groups[payer.group];
        payer.tag.refund(cost);
        payer.served = payer.served.saturating_sub(cost);
        group.tag.refund(cost);
        group.served = group.served.saturating_sub(cost);
        if pool != self.shared
            && let Some(lane) = self.lane_of(tenant, pool)
        {
            let lane = &mut self.lanes[lane];
            lane.tag.refund(cost);
            self.branches[lane.branch].tag.refund(cost);
        }
    }
}
