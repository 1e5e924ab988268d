//! Freeing what is doomed once its last request has gone, and mending the lists it stood in.
//!
//! Heap entries of what is freed need no mending: their stamps are void from then on.

use super::Scheduler;
use super::arena::{BranchIx, GroupIx, Ix, KeyIx, LaneIx, ModelIx, PoolIx, QueueIx, TenantIx};
use super::heap::Stamp;
use super::tree::Lane;

impl Scheduler {
    /// Frees what is doomed and has run out. `NONE` is nothing.
    pub(super) fn retire(&mut self, tenant: TenantIx, key: KeyIx, model: ModelIx) {
        if self.doomed == 0 {
            return;
        }
        if model.is_some() && self.models[model].doomed && self.models[model].in_flight + self.models[model].queued == 0 {
            self.free_model(model);
        }
        if key.is_some() && self.keys[key].doomed && self.keys[key].in_flight + self.keys[key].queued == 0 {
            self.free_key(key);
        }
        if tenant.is_some() && self.tenants[tenant].doomed && self.tenants[tenant].in_flight + self.tenants[tenant].queued == 0 {
            self.free_tenant(tenant);
        }
    }

    fn free_tenant(&mut self, ix: TenantIx) {
        for lane in self.lanes_of(ix) {
            self.free_lane(lane);
        }
        let group = self.tenants[ix].group;
        self.groups[group].tenants -= 1;
        self.recent.retain(|recent| *recent != ix);
        self.tenants[ix].learned = Vec::new();
        self.tenants[ix].of_capped = Vec::new();
        self.tenants.remove(ix);
        self.doomed -= 1;
        self.retire_group(group);
    }

    /// Frees a lane in which nobody waits. Its tenant's list of lanes must be mended by the caller, or go with the tenant.
    fn free_lane(&mut self, ix: LaneIx) {
        let Lane { unparked, ready, .. } = self.lanes[ix];
        debug_assert!(unparked == 0 && ready == 0, "nobody waits in a lane that goes");
        let mut queue = self.lanes[ix].first_queue;
        while queue.is_some() {
            let (next, key) = (self.queues[queue].next_of_lane, self.queues[queue].key);
            self.unlist_from_key(key, queue);
            self.free_queue(queue);
            queue = next;
        }
        let lane = &mut self.lanes[ix];
        lane.first_queue = QueueIx::NONE;
        lane.node_entry = Stamp::NONE;
        lane.model_entry = Stamp::NONE;
        self.lanes.remove(ix);
    }

    fn free_queue(&mut self, ix: QueueIx) {
        debug_assert!(self.queues[ix].fifo.len == 0, "nobody waits in a list that goes");
        self.queues[ix].entry = Stamp::NONE;
        self.queues.remove(ix);
    }

    fn free_key(&mut self, ix: KeyIx) {
        let mut queue = self.keys[ix].first_queue;
        while queue.is_some() {
            let (next, lane) = (self.queues[queue].next_of_key, self.queues[queue].lane);
            self.unlist_from_lane(lane, queue);
            self.free_queue(queue);
            queue = next;
        }
        self.keys.remove(ix);
        self.doomed -= 1;
    }

    fn unlist_from_key(&mut self, key: KeyIx, queue: QueueIx) {
        let next = self.queues[queue].next_of_key;
        let mut at = self.keys[key].first_queue;
        if at == queue {
            self.keys[key].first_queue = next;
            return;
        }
        while at.is_some() && self.queues[at].next_of_key != queue {
            at = self.queues[at].next_of_key;
        }
        if at.is_some() {
            self.queues[at].next_of_key = next;
        }
    }

    fn unlist_from_lane(&mut self, lane: LaneIx, queue: QueueIx) {
        let next = self.queues[queue].next_of_lane;
        let mut at = self.lanes[lane].first_queue;
        if at == queue {
            self.lanes[lane].first_queue = next;
            return;
        }
        while at.is_some() && self.queues[at].next_of_lane != queue {
            at = self.queues[at].next_of_lane;
        }
        if at.is_some() {
            self.queues[at].next_of_lane = next;
        }
    }

    fn free_model(&mut self, ix: ModelIx) {
        let pool = self.models[ix].pool;
        for tenant in self.tenants.indices() {
            self.tenants[tenant].learned.retain(|(model, _)| *model != ix);
        }
        self.models.remove(ix);
        self.doomed -= 1;
        if pool != self.shared {
            self.free_pool(pool);
        }
    }

    /// Frees a capped model's pool, in which nobody waits or runs, with its lanes and branches.
    pub(super) fn free_pool(&mut self, pool: PoolIx) {
        debug_assert!(
            self.pools[pool].ready == 0 && self.pools[pool].in_flight == 0,
            "nobody is left in a pool that goes"
        );
        for tenant in self.tenants.indices() {
            let Some(lane) = self.lane_of(tenant, pool) else { continue };
            self.unlist_from_tenant(tenant, lane);
            self.free_lane(lane);
        }
        for group in self.groups.indices() {
            let branch = self.groups[group].branch(pool);
            if branch.is_some() {
                self.groups[group].branches[pool.at()] = BranchIx::NONE;
                self.branches.remove(branch);
            }
        }
        self.backlog.set(pool, false);
        self.room.set(pool, false);
        self.pools.remove(pool);
    }

    fn unlist_from_tenant(&mut self, tenant: TenantIx, lane: LaneIx) {
        let next = self.lanes[lane].next;
        let mut at = self.tenants[tenant].first_lane;
        if at == lane {
            self.tenants[tenant].first_lane = next;
            return;
        }
        while at.is_some() && self.lanes[at].next != lane {
            at = self.lanes[at].next;
        }
        if at.is_some() {
            self.lanes[at].next = next;
        }
    }

    pub(super) fn retire_group(&mut self, ix: GroupIx) {
        if !self.groups[ix].doomed || self.groups[ix].tenants > 0 {
            return;
        }
        for branch in std::mem::take(&mut self.groups[ix].branches) {
            if branch.is_some() {
                self.branches[branch].node_entry = Stamp::NONE;
                self.branches[branch].model_entry = Stamp::NONE;
                self.branches.remove(branch);
            }
        }
        self.groups.remove(ix);
    }
}
