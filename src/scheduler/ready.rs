//! Who is in the ready sets: links waiters into lanes, activates (R3), and parks tenants and keys at their caps.

use super::Scheduler;
use super::arena::{BranchIx, GroupIx, Ix, KeyIx, LaneIx, PoolIx, QueueIx, TenantIx, TicketIx};
use super::heap::{Heap, Stamp};
use super::tag::Tag;
use super::ticket::{Fifo, Ticket};
use super::tree::{Branch, Clock, Group, KeyQueue, Lane, Node, Tenant, UNLIMITED};

impl Scheduler {
    /// Appends a waiter to the list it belongs in.
    pub(super) fn link(&mut self, ix: TicketIx) {
        let Ticket { tenant, key, model, .. } = self.tickets[ix];
        let lane = self.lane_for(tenant, self.models[model].pool);
        let queue = self.queue_for(lane, key);
        self.tickets[ix].lane = lane;
        self.tickets[ix].queue = queue;
        if !queue.is_some() {
            self.lanes[lane].plain.push(&mut self.tickets, ix);
            self.unpark(lane, 1);
            return;
        }
        self.queues[queue].fifo.push(&mut self.tickets, ix);
        if self.keys[key].is_open() {
            self.enlist_queue(queue);
            self.unpark(lane, 1);
        }
    }

    /// Takes a waiter out of its list. Heap entries stay and are found out when they surface.
    pub(super) fn unlink(&mut self, ix: TicketIx) {
        let Ticket { lane, queue, key, .. } = self.tickets[ix];
        if !queue.is_some() {
            self.lanes[lane].plain.unlink(&mut self.tickets, ix);
            self.park(lane, 1);
            return;
        }
        self.queues[queue].fifo.unlink(&mut self.tickets, ix);
        if self.keys[key].is_open() {
            self.park(lane, 1);
        }
    }

    /// R3 for a request that runs at once.
    pub(super) fn activate_for_fast_path(&mut self, tenant: TenantIx, pool: PoolIx) {
        let payer = &mut self.tenants[tenant];
        activate(&self.node, &mut self.groups[payer.group], payer);
        if pool != self.shared {
            let lane = self.lane_for(tenant, pool);
            self.activate_lane(lane);
        }
    }

    /// The tenant's cap was reached: none of its waiters is ready.
    pub(super) fn park_tenant(&mut self, tenant: TenantIx) {
        let mut lane = self.tenants[tenant].first_lane;
        while lane.is_some() {
            let Lane { ready, next, .. } = self.lanes[lane];
            self.hide(lane, ready);
            lane = next;
        }
    }

    /// A slot below the tenant's cap came back: its waiters are ready, but for those of parked keys.
    pub(super) fn unpark_tenant(&mut self, tenant: TenantIx) {
        let mut lane = self.tenants[tenant].first_lane;
        while lane.is_some() {
            let Lane { unparked, next, .. } = self.lanes[lane];
            self.show(lane, unparked);
            lane = next;
        }
    }

    /// The key's cap was reached: none of its own waiters is ready.
    pub(super) fn park_key(&mut self, key: KeyIx) {
        let mut queue = self.keys[key].first_queue;
        while queue.is_some() {
            let KeyQueue {
                lane, fifo, next_of_key, ..
            } = self.queues[queue];
            self.park(lane, fifo.len);
            queue = next_of_key;
        }
    }

    /// A slot below the key's cap came back.
    pub(super) fn unpark_key(&mut self, key: KeyIx) {
        let mut queue = self.keys[key].first_queue;
        while queue.is_some() {
            let KeyQueue {
                lane, fifo, next_of_key, ..
            } = self.queues[queue];
            if fifo.len > 0 {
                self.enlist_queue(queue);
                self.unpark(lane, fifo.len);
            }
            queue = next_of_key;
        }
    }

    /// So many more of the lane's waiters belong to keys below their caps.
    pub(super) fn unpark(&mut self, lane: LaneIx, waiters: u32) {
        self.lanes[lane].unparked += waiters;
        if self.tenants[self.lanes[lane].tenant].is_open() {
            self.show(lane, waiters);
        }
    }

    /// So many fewer.
    pub(super) fn park(&mut self, lane: LaneIx, waiters: u32) {
        self.lanes[lane].unparked -= waiters;
        if self.tenants[self.lanes[lane].tenant].is_open() {
            self.hide(lane, waiters);
        }
    }

    /// So many more of the lane's waiters are ready: whoever had none is activated (R3), and listed where it is not.
    pub(super) fn show(&mut self, ix: LaneIx, waiters: u32) {
        if waiters == 0 {
            return;
        }
        if self.lanes[ix].pool != self.shared {
            self.activate_lane(ix);
        }
        let lane = &mut self.lanes[ix];
        let tenant = &mut self.tenants[lane.tenant];
        let group = &mut self.groups[tenant.group];
        let branch = &mut self.branches[lane.branch];
        let pool = &mut self.pools[lane.pool];
        activate(&self.node, group, tenant);
        lane.ready += waiters;
        branch.ready += waiters;
        tenant.ready += waiters;
        group.ready += waiters;
        pool.ready += waiters;
        if pool.ready == waiters {
            self.backlog.set(lane.pool, true);
        }
        if !lane.node_entry.is_some() {
            lane.node_entry = branch.by_node.push(tenant.tag.start, ix, &mut self.stamps);
        }
        if !branch.node_entry.is_some() {
            branch.node_entry = pool.by_node.push(group.tag.start, lane.branch, &mut self.stamps);
        }
        if lane.pool == self.shared {
            return;
        }
        if !lane.model_entry.is_some() {
            lane.model_entry = branch.by_model.push(lane.tag.start, ix, &mut self.stamps);
        }
        if !branch.model_entry.is_some() {
            branch.model_entry = pool.by_model.push(branch.tag.start, lane.branch, &mut self.stamps);
        }
    }

    /// So many fewer. Heap entries stay.
    pub(super) fn hide(&mut self, ix: LaneIx, waiters: u32) {
        if waiters == 0 {
            return;
        }
        let lane = &mut self.lanes[ix];
        let tenant = &mut self.tenants[lane.tenant];
        let pool = &mut self.pools[lane.pool];
        lane.ready -= waiters;
        self.branches[lane.branch].ready -= waiters;
        tenant.ready -= waiters;
        self.groups[tenant.group].ready -= waiters;
        pool.ready -= waiters;
        if pool.ready == 0 {
            self.backlog.set(lane.pool, false);
        }
    }

    /// R3 on the model clock.
    fn activate_lane(&mut self, ix: LaneIx) {
        let lane = &mut self.lanes[ix];
        let branch = &mut self.branches[lane.branch];
        if branch.ready == 0 {
            branch.tag.activate(self.pools[lane.pool].clock.v, 0);
        }
        if lane.ready == 0 {
            lane.tag.activate(branch.clock.v, self.tenants[lane.tenant].burst);
        }
    }

    /// Puts a key's list into its lane's heap, by its oldest waiter.
    pub(super) fn enlist_queue(&mut self, ix: QueueIx) {
        let queue = &mut self.queues[ix];
        if queue.entry.is_some() || queue.fifo.len == 0 {
            return;
        }
        let arrival = self.tickets[queue.fifo.oldest].arrival;
        queue.entry = self.lanes[queue.lane].by_key.push(arrival, ix, &mut self.stamps);
    }

    /// The tenant's lane in a pool, if it has one. A tenant has as many lanes as it uses capped models, and one.
    pub(super) fn lane_of(&self, tenant: TenantIx, pool: PoolIx) -> Option<LaneIx> {
        let mut lane = self.tenants[tenant].first_lane;
        while lane.is_some() {
            if self.lanes[lane].pool == pool {
                return Some(lane);
            }
            lane = self.lanes[lane].next;
        }
        None
    }

    /// The same, made if it has none.
    pub(super) fn lane_for(&mut self, tenant: TenantIx, pool: PoolIx) -> LaneIx {
        if let Some(lane) = self.lane_of(tenant, pool) {
            return lane;
        }
        let branch = self.branch_for(self.tenants[tenant].group, pool);
        let weight = self.tenants[tenant].tag.weight();
        let lane = self.lanes.insert(Lane {
            tenant,
            pool,
            branch,
            next: self.tenants[tenant].first_lane,
            unparked: 0,
            ready: 0,
            tag: Tag::new(self.branches[branch].clock.v, weight),
            node_entry: Stamp::NONE,
            model_entry: Stamp::NONE,
            plain: Fifo::default(),
            by_key: Heap::default(),
            first_queue: QueueIx::NONE,
            overdue_since: None,
        });
        self.tenants[tenant].first_lane = lane;
        lane
    }

    pub(super) fn branch_for(&mut self, group: GroupIx, pool: PoolIx) -> BranchIx {
        let branch = self.groups[group].branch(pool);
        if branch.is_some() {
            return branch;
        }
        let weight = self.groups[group].tag.weight();
        let branch = self.branches.insert(Branch {
            group,
            ready: 0,
            tag: Tag::new(self.pools[pool].clock.v, weight),
            clock: Clock::new(),
            node_entry: Stamp::NONE,
            model_entry: Stamp::NONE,
            by_node: Heap::default(),
            by_model: Heap::default(),
        });
        let branches = &mut self.groups[group].branches;
        if branches.len() <= pool.at() {
            branches.resize(pool.at() + 1, BranchIx::NONE);
        }
        branches[pool.at()] = branch;
        branch
    }

    /// The list that a key's waiters go to: the key's own if it has a cap, or had one and waiters still stand in line there.
    fn queue_for(&mut self, lane: LaneIx, key: KeyIx) -> QueueIx {
        if !key.is_some() {
            return QueueIx::NONE;
        }
        let capped = self.keys[key].max_in_flight != UNLIMITED;
        let mut queue = self.keys[key].first_queue;
        while queue.is_some() {
            let KeyQueue {
                lane: its_lane,
                fifo,
                next_of_key,
                ..
            } = self.queues[queue];
            if its_lane == lane {
                return if capped || fifo.len > 0 { queue } else { QueueIx::NONE };
            }
            queue = next_of_key;
        }
        if capped { self.open_queue(lane, key) } else { QueueIx::NONE }
    }

    /// A new list of a key in a lane.
    pub(super) fn open_queue(&mut self, lane: LaneIx, key: KeyIx) -> QueueIx {
        let queue = self.queues.insert(KeyQueue {
            key,
            lane,
            fifo: Fifo::default(),
            entry: Stamp::NONE,
            next_of_lane: self.lanes[lane].first_queue,
            next_of_key: self.keys[key].first_queue,
        });
        self.lanes[lane].first_queue = queue;
        self.keys[key].first_queue = queue;
        queue
    }
}

/// R3 on the node clock: whoever had no ready waiter starts no lower than the clock, less the burst.
fn activate(node: &Node, group: &mut Group, tenant: &mut Tenant) {
    if group.ready == 0 {
        group.tag.activate(node.clock.v, 0);
    }
    if tenant.ready == 0 {
        tenant.tag.activate(group.clock.v, tenant.burst);
    }
}
