//! Who takes part, live: groups, tenants, keys and models come, change (R8), move (R9) and go while requests wait and run.
//!
//! What is deleted with requests still running is *doomed*: it refuses newcomers and is freed by its last request.

use std::sync::Arc;

use super::Scheduler;
use super::arena::{BranchIx, GroupIx, Handle, Ix, KeyIx, LaneIx, ModelIx, PoolIx, QueueIx, TenantIx, TicketIx};
use super::cost::{Cost, Learned};
use super::heap::Stamp;
use super::tag::Tag;
use super::ticket::State;
use super::tree::{Backlog, Clock, Group, Key, Model, Pool, Tenant, UNLIMITED};
use crate::id::{ModelId, TenantId};
use crate::units::Weight;

/// What is agreed with a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantTerms {
    /// The group it shares in.
    pub group: Handle<GroupIx>,
    /// Its share in it.
    pub weight: Weight,
    /// How many of its requests may run at once; more wait.
    pub max_in_flight: Option<u32>,
    /// How many may wait, within R12's bound.
    pub max_queued: Option<u32>,
}

impl Scheduler {
    /// Sets how many requests may run at once. 0 admits nothing; running requests are never cut.
    pub fn set_max_in_flight(&mut self, max: u32) {
        self.node.max = max;
        self.dispatch();
    }

    /// Adds a group.
    pub fn add_group(&mut self, name: &Arc<str>, weight: Weight) -> Handle<GroupIx> {
        let group = self.groups.insert(Group {
            tag: Tag::new(self.node.clock.v, weight.get()),
            clock: Clock::new(),
            ready: 0,
            in_flight: 0,
            queued: 0,
            queued_bytes: 0,
            active_weight: 0,
            branches: Vec::new(),
            served: Cost::ZERO,
            active_tick: self.tick,
            tenants: 0,
            doomed: false,
            name: Arc::clone(name),
        });
        self.groups.handle(group)
    }

    /// Changes a group's weight; the next pick obeys it.
    pub fn set_group_weight(&mut self, group: Handle<GroupIx>, weight: Weight) {
        let Some(ix) = self.groups.find(group) else { return };
        let group = &mut self.groups[ix];
        if group.tag.weight() == weight.get() {
            return;
        }
        if group.is_active() {
            self.node.active_weight = self.node.active_weight - u64::from(group.tag.weight()) + u64::from(weight.get());
        }
        let by_node = group.tag.rescale(self.node.clock.v, weight.get());
        let key = group.tag.start;
        for branch in group.branches.clone() {
            if !branch.is_some() {
                continue;
            }
            let pool = self.pool_of(branch);
            let by_model = self.branches[branch].tag.rescale(self.pools[pool].clock.v, weight.get());
            let model_key = self.branches[branch].tag.start;
            self.relist_branch(branch, pool, by_node.then_some(key), by_model.then_some(model_key));
        }
    }

    /// Removes a group. Tenants that are still in it, running out, keep it until they go.
    pub fn remove_group(&mut self, group: Handle<GroupIx>) {
        let Some(ix) = self.groups.find(group) else { return };
        self.groups[ix].doomed = true;
        self.retire_group(ix);
    }

    /// Adds a tenant. `None` if its group is gone.
    pub fn add_tenant(&mut self, id: TenantId, terms: &TenantTerms) -> Option<Handle<TenantIx>> {
        let group = self.groups.find(terms.group)?;
        let weight = terms.weight.get();
        self.groups[group].tenants += 1;
        let tenant = self.tenants.insert(Tenant {
            group,
            tag: Tag::new(self.groups[group].clock.v, weight),
            burst: Tag::distance(self.settings.idle_burst, weight),
            ready: 0,
            in_flight: 0,
            queued: 0,
            max_in_flight: terms.max_in_flight.unwrap_or(UNLIMITED),
            max_queued: terms.max_queued.unwrap_or(UNLIMITED),
            first_lane: LaneIx::NONE,
            queued_bytes: 0,
            served: Cost::ZERO,
            active_tick: 0,
            listed: false,
            doomed: false,
            backlog: Backlog::default(),
            of_capped: Vec::new(),
            learned: Vec::new(),
            id,
        });
        Some(self.tenants.handle(tenant))
    }

    /// Changes what is agreed with a tenant; the next pick obeys it. Its waiters move with it into another group.
    pub fn set_tenant(&mut self, tenant: Handle<TenantIx>, terms: &TenantTerms) {
        let Some(ix) = self.tenants.find(tenant) else { return };
        if let Some(group) = self.groups.find(terms.group)
            && group != self.tenants[ix].group
        {
            self.move_tenant(ix, group);
        }
        self.set_tenant_weight(ix, terms.weight.get());
        self.tenants[ix].max_queued = terms.max_queued.unwrap_or(UNLIMITED);

        let was_open = self.tenants[ix].is_open();
        let max = terms.max_in_flight.unwrap_or(UNLIMITED);
        if was_open && self.tenants[ix].in_flight >= max {
            self.park_tenant(ix);
        }
        self.tenants[ix].max_in_flight = max;
        if !was_open && self.tenants[ix].is_open() {
            self.unpark_tenant(ix);
            self.dispatch();
        }
    }

    /// Removes a tenant: its waiters are dismissed, its running requests run on.
    pub fn remove_tenant(&mut self, tenant: Handle<TenantIx>) {
        let Some(ix) = self.tenants.find(tenant) else { return };
        for ticket in self.waiters(|_, ticket| ticket.tenant == ix) {
            self.dismiss(ticket);
        }
        if !self.tenants[ix].doomed {
            self.tenants[ix].doomed = true;
            self.doomed += 1;
        }
        self.retire(ix, KeyIx::NONE, ModelIx::NONE);
    }

    /// Adds a key of a tenant. `None` if the tenant is gone.
    pub fn add_key(&mut self, tenant: Handle<TenantIx>, max_in_flight: Option<u32>) -> Option<Handle<KeyIx>> {
        let key = Key {
            tenant: self.tenants.find(tenant)?,
            max_in_flight: max_in_flight.unwrap_or(UNLIMITED),
            in_flight: 0,
            queued: 0,
            first_queue: QueueIx::NONE,
            doomed: false,
        };
        let key = self.keys.insert(key);
        Some(self.keys.handle(key))
    }

    /// Changes a key's cap. The requests it has running count from the start.
    pub fn set_key(&mut self, key: Handle<KeyIx>, max_in_flight: Option<u32>) {
        let Some(ix) = self.keys.find(key) else { return };
        let max = max_in_flight.unwrap_or(UNLIMITED);
        if max != UNLIMITED {
            self.queue_apart(ix);
        }
        let was_open = self.keys[ix].is_open();
        if was_open && self.keys[ix].in_flight >= max {
            self.park_key(ix);
        }
        self.keys[ix].max_in_flight = max;
        if !was_open && self.keys[ix].is_open() {
            self.unpark_key(ix);
            self.dispatch();
        }
    }

    /// Removes a key. Its requests, waiting and running, were let in and go on.
    pub fn remove_key(&mut self, key: Handle<KeyIx>) {
        let Some(ix) = self.keys.find(key) else { return };
        if !self.keys[ix].doomed {
            self.keys[ix].doomed = true;
            self.doomed += 1;
        }
        self.retire(TenantIx::NONE, ix, ModelIx::NONE);
    }

    /// Adds a model whose requests cost `percent` of their tokens. `None` caps nothing.
    pub fn add_model(&mut self, id: ModelId, percent: u32, cap: Option<u32>) -> Handle<ModelIx> {
        let model = self.models.insert(Model {
            pool: self.shared,
            percent,
            mean: Learned::AT_FIRST,
            in_flight: 0,
            queued: 0,
            doomed: false,
            id: Some(id),
        });
        let handle = self.models.handle(model);
        self.set_model(handle, percent, cap);
        handle
    }

    /// Changes a model. A cap that comes or goes moves its waiters to another pool, in the order they came.
    pub fn set_model(&mut self, model: Handle<ModelIx>, percent: u32, cap: Option<u32>) {
        let Some(ix) = self.models.find(model) else { return };
        self.models[ix].percent = percent;
        let pool = self.models[ix].pool;
        match (pool == self.shared, cap) {
            (true, None) => {}
            (true, Some(cap)) => {
                let own = self.pools.insert(Pool::new(cap));
                self.move_model(ix, own);
            }
            (false, Some(cap)) => {
                self.pools[pool].cap = cap;
                self.room.set(pool, self.pools[pool].has_room());
            }
            (false, None) => {
                self.move_model(ix, self.shared);
                self.free_pool(pool);
            }
        }
        self.dispatch();
    }

    /// Removes a model. Its requests, waiting and running, were let in and go on.
    pub fn remove_model(&mut self, model: Handle<ModelIx>) {
        let Some(ix) = self.models.find(model) else { return };
        if !self.models[ix].doomed {
            self.models[ix].doomed = true;
            self.doomed += 1;
        }
        self.retire(TenantIx::NONE, KeyIx::NONE, ix);
    }

    /// Makes the shared pool and the model that stands for unknown ones.
    pub(super) fn open_for_unlisted_models(&mut self) {
        self.shared = self.pools.insert(Pool::new(UNLIMITED));
        self.room.set(self.shared, true);
        self.unlisted = self.models.insert(Model {
            pool: self.shared,
            percent: 100,
            mean: Learned::AT_FIRST,
            in_flight: 0,
            queued: 0,
            doomed: false,
            id: None,
        });
    }

    fn set_tenant_weight(&mut self, ix: TenantIx, weight: u32) {
        let tenant = &mut self.tenants[ix];
        if tenant.tag.weight() == weight {
            return;
        }
        let group = &mut self.groups[tenant.group];
        if tenant.is_active() {
            group.active_weight = group.active_weight - u64::from(tenant.tag.weight()) + u64::from(weight);
        }
        tenant.burst = Tag::distance(self.settings.idle_burst, weight);
        let by_node = tenant.tag.rescale(group.clock.v, weight);
        let key = tenant.tag.start;
        for lane in self.lanes_of(ix) {
            let branch = self.lanes[lane].branch;
            let by_model = self.lanes[lane].tag.rescale(self.branches[branch].clock.v, weight);
            let model_key = self.lanes[lane].tag.start;
            self.relist_lane(lane, by_node.then_some(key), by_model.then_some(model_key));
        }
    }

    /// R8: a tag that decreased is listed again under its new value; the entry before it is void.
    fn relist_lane(&mut self, ix: LaneIx, by_node: Option<u64>, by_model: Option<u64>) {
        #[cfg(test)]
        if self.mutation == Some(super::tests::Mutation::DecreaseUnlisted) {
            return;
        }
        let branch = &mut self.branches[self.lanes[ix].branch];
        let lanes = &mut self.lanes;
        if let Some(key) = by_node
            && lanes[ix].node_entry.is_some()
        {
            let valid = |entry: &super::heap::Entry<LaneIx>| lanes[entry.owner].node_entry == entry.stamp;
            lanes[ix].node_entry = branch.by_node.push_lower(key, ix, &mut self.stamps, valid);
        }
        if let Some(key) = by_model
            && lanes[ix].model_entry.is_some()
        {
            let valid = |entry: &super::heap::Entry<LaneIx>| lanes[entry.owner].model_entry == entry.stamp;
            lanes[ix].model_entry = branch.by_model.push_lower(key, ix, &mut self.stamps, valid);
        }
    }

    /// The same for a branch.
    fn relist_branch(&mut self, ix: BranchIx, pool: PoolIx, by_node: Option<u64>, by_model: Option<u64>) {
        #[cfg(test)]
        if self.mutation == Some(super::tests::Mutation::DecreaseUnlisted) {
            return;
        }
        let pool = &mut self.pools[pool];
        let branches = &mut self.branches;
        if let Some(key) = by_node
            && branches[ix].node_entry.is_some()
        {
            let valid = |entry: &super::heap::Entry<BranchIx>| branches[entry.owner].node_entry == entry.stamp;
            branches[ix].node_entry = pool.by_node.push_lower(key, ix, &mut self.stamps, valid);
        }
        if let Some(key) = by_model
            && branches[ix].model_entry.is_some()
        {
            let valid = |entry: &super::heap::Entry<BranchIx>| branches[entry.owner].model_entry == entry.stamp;
            branches[ix].model_entry = pool.by_model.push_lower(key, ix, &mut self.stamps, valid);
        }
    }

    /// R9: the waiters leave the old group's ready sets and enter the new group's, where the tenant starts like one who
    /// comes back from idleness without a burst.
    fn move_tenant(&mut self, ix: TenantIx, to: GroupIx) {
        let lanes = self.lanes_of(ix);
        for &lane in &lanes {
            self.hide(lane, self.lanes[lane].ready);
        }
        let from = self.tenants[ix].group;
        let Tenant {
            in_flight,
            queued,
            queued_bytes,
            ..
        } = self.tenants[ix];
        let weight = self.tenants[ix].tag.weight();
        let joining = if self.tenants[ix].is_active() { u64::from(weight) } else { 0 };
        for (group, sign) in [(from, false), (to, true)] {
            let group = &mut self.groups[group];
            let change = |count: u32, by: u32| if sign { count + by } else { count - by };
            let was_active = group.is_active();
            group.in_flight = change(group.in_flight, in_flight);
            group.queued = change(group.queued, queued);
            group.queued_bytes = if sign {
                group.queued_bytes + queued_bytes
            } else {
                group.queued_bytes - queued_bytes
            };
            group.tenants = change(group.tenants, 1);
            group.active_tick = self.tick;
            if sign {
                group.active_weight += joining;
            } else {
                group.active_weight -= joining;
            }
            match (was_active, group.is_active()) {
                (false, true) => self.node.active_weight += u64::from(group.tag.weight()),
                (true, false) => self.node.active_weight -= u64::from(group.tag.weight()),
                (true, true) | (false, false) => {}
            }
        }
        self.tenants[ix].group = to;
        self.tenants[ix].tag = Tag::new(self.groups[to].clock.v, weight);
        for &lane in &lanes {
            let branch = self.branch_for(to, self.lanes[lane].pool);
            let clock = self.branches[branch].clock.v;
            let lane = &mut self.lanes[lane];
            lane.branch = branch;
            lane.node_entry = Stamp::NONE;
            lane.model_entry = Stamp::NONE;
            lane.tag = Tag::new(clock, weight);
        }
        if self.tenants[ix].is_open() {
            self.unpark_tenant(ix);
        }
        self.retire_group(from);
    }

    /// Moves a model's slots and waiters to another pool.
    fn move_model(&mut self, ix: ModelIx, to: PoolIx) {
        let from = self.models[ix].pool;
        let waiters = self.waiters(|scheduler, ticket| {
            let pool = scheduler.models[ticket.model].pool;
            pool == from || pool == to
        });
        for &waiter in &waiters {
            self.unlink(waiter);
            // The list may get an older waiter at its head than the one it is listed by.
            let queue = self.tickets[waiter].queue;
            if queue.is_some() {
                self.queues[queue].entry = Stamp::NONE;
            }
        }
        self.models[ix].pool = to;
        let slots = self.models[ix].in_flight;
        self.pools[from].in_flight -= slots;
        self.pools[to].in_flight += slots;
        for pool in [from, to] {
            self.room.set(pool, self.pools[pool].has_room());
        }
        self.move_running(ix, to);
        for &waiter in &waiters {
            self.link(waiter);
        }
    }

    /// Who runs a model is counted while the model has a cap.
    fn move_running(&mut self, model: ModelIx, to: PoolIx) {
        for ix in self.tenants.indices() {
            self.tenants[ix].of_capped.retain(|(other, _)| *other != model);
        }
        if to == self.shared {
            return;
        }
        let running = self
            .tickets
            .iter()
            .filter(|(_, ticket)| ticket.state == State::Running && ticket.model == model);
        let payers: Vec<TenantIx> = running.map(|(_, ticket)| ticket.tenant).collect();
        for payer in payers {
            self.tenants[payer].take_of(model);
        }
    }

    /// A key that gets a cap gets lists of its own: its waiters leave the plain ones.
    fn queue_apart(&mut self, key: KeyIx) {
        if self.keys[key].max_in_flight != UNLIMITED || self.keys[key].queued == 0 {
            return;
        }
        for ix in self.waiters(|_, ticket| ticket.key == key && !ticket.queue.is_some()) {
            let lane = self.tickets[ix].lane;
            self.lanes[lane].plain.unlink(&mut self.tickets, ix);
            let queue = self.queue_in(lane, key).unwrap_or_else(|| self.open_queue(lane, key));
            self.tickets[ix].queue = queue;
            self.queues[queue].fifo.push(&mut self.tickets, ix);
            self.enlist_queue(queue);
        }
    }

    fn queue_in(&self, lane: LaneIx, key: KeyIx) -> Option<QueueIx> {
        let mut queue = self.lanes[lane].first_queue;
        while queue.is_some() {
            if self.queues[queue].key == key {
                return Some(queue);
            }
            queue = self.queues[queue].next_of_lane;
        }
        None
    }

    /// Waiters of whom `chosen` is true, in the order they came. Looks at every request.
    fn waiters(&self, chosen: impl Fn(&Self, &super::Ticket) -> bool) -> Vec<TicketIx> {
        let waiting = self.tickets.iter().filter(|(_, ticket)| ticket.state == State::Queued);
        let mut waiters: Vec<TicketIx> = waiting.filter(|(_, ticket)| chosen(self, ticket)).map(|(ix, _)| ix).collect();
        waiters.sort_unstable_by_key(|ix| self.tickets[*ix].arrival);
        waiters
    }

    pub(super) fn lanes_of(&self, tenant: TenantIx) -> Vec<LaneIx> {
        let mut lanes = Vec::new();
        let mut lane = self.tenants[tenant].first_lane;
        while lane.is_some() {
            lanes.push(lane);
            lane = self.lanes[lane].next;
        }
        lanes
    }

    fn pool_of(&self, branch: BranchIx) -> PoolIx {
        let branches = &self.groups[self.branches[branch].group].branches;
        let at = branches.iter().position(|other| *other == branch);
        debug_assert!(at.is_some(), "a branch is known to its group");
        at.and_then(|at| u32::try_from(at).ok()).map_or(self.shared, PoolIx::new)
    }
}
