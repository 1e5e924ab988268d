//! R4(a)–(d): whose turn it is.

use super::arena::{BranchIx, GroupIx, Ix, LaneIx, PoolIx, TicketIx};
use super::heap::{Entry, Stamp};
use super::{Scheduler, mask};

impl Scheduler {
    /// The waiter that runs next, or `None` if no ready waiter's pool has room.
    ///
    /// With one pool to choose from and that one capped, the model's slots are what is scarce, and the model clock decides;
    /// otherwise the node's are. One clock for both would let idle use of one model count against a tenant on another.
    pub(super) fn pick(&mut self) -> Option<TicketIx> {
        let lane = match self.eligible_pools() {
            0 => return None,
            1 => {
                let pool = self.only_eligible()?;
                if pool == self.shared {
                    let branch = self.top_branch_by_node(pool)?;
                    self.top_lane_by_node(branch.owner)?.owner
                } else {
                    self.pick_by_model(pool)?
                }
            }
            _ => self.pick_by_node()?,
        };
        self.next_in(lane)
    }

    /// I3's complaint: somebody waits who could run.
    pub(super) fn somebody_could_run(&self) -> bool {
        self.has_room() && (0..self.backlog.words()).any(|word| self.backlog.word(word) & self.room.word(word) != 0)
    }

    /// R1: how many pools have both a ready waiter and room.
    fn eligible_pools(&self) -> u32 {
        (0..self.backlog.words()).map(|word| self.eligible(word).count_ones()).sum()
    }

    fn eligible(&self, word: usize) -> u64 {
        #[cfg(test)]
        if self.mutation == Some(super::tests::Mutation::RoomIgnored) {
            return self.backlog.word(word);
        }
        self.backlog.word(word) & self.room.word(word)
    }

    fn only_eligible(&self) -> Option<PoolIx> {
        (0..self.backlog.words()).find_map(|word| mask::pools(word, self.eligible(word)).next())
    }

    /// (b) and (c) on the node clock: the lowest group over several eligible pools, in it the lowest tenant. Ties go to whom
    /// became ready first, among lanes of one tenant to the oldest waiter.
    fn pick_by_node(&mut self) -> Option<LaneIx> {
        let mut lowest: Option<(Entry<BranchIx>, GroupIx)> = None;
        for word in 0..self.backlog.words() {
            for pool in mask::pools(word, self.eligible(word)) {
                let Some(top) = self.top_branch_by_node(pool) else { continue };
                if lowest.as_ref().is_none_or(|(least, _)| top.precedes(least)) {
                    lowest = Some((top, self.branches[top.owner].group));
                }
            }
        }
        let (_, group) = lowest?;

        let mut best: Option<(u64, u64, LaneIx)> = None;
        for word in 0..self.backlog.words() {
            for pool in mask::pools(word, self.eligible(word)) {
                let branch = self.groups[group].branch(pool);
                if !branch.is_some() || self.branches[branch].ready == 0 {
                    continue;
                }
                let Some(top) = self.top_lane_by_node(branch) else { continue };
                let arrival = self.oldest_in(top.owner).map_or(u64::MAX, |ix| self.tickets[ix].arrival);
                if best.is_none_or(|(key, before, _)| (top.key, arrival) < (key, before)) {
                    best = Some((top.key, arrival, top.owner));
                }
            }
        }
        best.map(|(.., lane)| lane)
    }

    /// (b) and (c) on a model clock.
    fn pick_by_model(&mut self, pool: PoolIx) -> Option<LaneIx> {
        let Self {
            pools, branches, lanes, ..
        } = self;
        let branch = pools[pool].by_model.top(|entry| {
            let branch = &mut branches[entry.owner];
            let held = hold(&mut branch.model_entry, entry, branch.ready > 0);
            held.then_some(branch.tag.start)
        })?;
        let lane = branches[branch.owner].by_model.top(|entry| {
            let lane = &mut lanes[entry.owner];
            let held = hold(&mut lane.model_entry, entry, lane.ready > 0);
            held.then_some(lane.tag.start)
        })?;
        Some(lane.owner)
    }

    fn top_branch_by_node(&mut self, pool: PoolIx) -> Option<Entry<BranchIx>> {
        #[cfg(test)]
        let skip = self.mutation == Some(super::tests::Mutation::StaleGroupKey);
        let Self {
            pools, branches, groups, ..
        } = self;
        pools[pool].by_node.top(|entry| {
            let branch = &mut branches[entry.owner];
            let held = hold(&mut branch.node_entry, entry, branch.ready > 0);
            #[cfg(test)]
            if held && skip {
                return Some(entry.key);
            }
            held.then(|| groups[branch.group].tag.start)
        })
    }

    fn top_lane_by_node(&mut self, branch: BranchIx) -> Option<Entry<LaneIx>> {
        #[cfg(test)]
        let skip = self.mutation == Some(super::tests::Mutation::StaleTenantKey);
        let Self {
            branches, lanes, tenants, ..
        } = self;
        branches[branch].by_node.top(|entry| {
            let lane = &mut lanes[entry.owner];
            let held = hold(&mut lane.node_entry, entry, lane.ready > 0);
            #[cfg(test)]
            if held && skip {
                return Some(entry.key);
            }
            held.then(|| tenants[lane.tenant].tag.start)
        })
    }

    /// (d): the lane's oldest waiter, unless the lane is overloaded (R13): then the newest, which still has all its
    /// patience, while the old run out of theirs. First in, first out under overload serves only those who are about to
    /// give up.
    fn next_in(&mut self, ix: LaneIx) -> Option<TicketIx> {
        let oldest = self.oldest_in(ix)?;
        let overdue_at = self.tickets[oldest].since.after(self.settings.overload_wait);
        let lane = &mut self.lanes[ix];
        if self.now < overdue_at {
            lane.overdue_since = None;
            return Some(oldest);
        }
        let since = *lane.overdue_since.get_or_insert(self.now);
        if self.now < since.after(self.settings.overload_interval) {
            return Some(oldest);
        }
        self.newest_in(ix)
    }

    /// The oldest waiter that is not parked, over the plain list and those of keys with caps.
    pub(super) fn oldest_in(&mut self, ix: LaneIx) -> Option<TicketIx> {
        let Self {
            lanes,
            queues,
            keys,
            tickets,
            ..
        } = self;
        let lane = &mut lanes[ix];
        let plain = lane.plain.oldest;
        if lane.by_key.is_empty() {
            return plain.is_some().then_some(plain);
        }
        let of_keys = lane.by_key.top(|entry| {
            let queue = &mut queues[entry.owner];
            let held = hold(&mut queue.entry, entry, queue.fifo.len > 0 && keys[queue.key].is_open());
            held.then(|| tickets[queue.fifo.oldest].arrival)
        });
        match of_keys {
            Some(top) if !plain.is_some() || top.key < tickets[plain].arrival => Some(queues[top.owner].fifo.oldest),
            Some(_) | None => plain.is_some().then_some(plain),
        }
    }

    /// The newest. Looks through all the lane's keys with caps, which only a lane under overload is asked for.
    fn newest_in(&self, ix: LaneIx) -> Option<TicketIx> {
        let lane = &self.lanes[ix];
        let of_keys = lane.by_key.entries().filter_map(|entry| {
            let queue = &self.queues[entry.owner];
            let ready = queue.entry == entry.stamp && queue.fifo.len > 0 && self.keys[queue.key].is_open();
            ready.then_some(queue.fifo.newest)
        });
        of_keys
            .chain(lane.plain.newest.is_some().then_some(lane.plain.newest))
            .max_by_key(|ix| self.tickets[*ix].arrival)
    }
}

/// Whether a heap's entry is its owner's and the owner is still ready. An owner that is not gives its entry up.
fn hold<I>(own: &mut Stamp, entry: &Entry<I>, ready: bool) -> bool {
    if *own != entry.stamp {
        return false;
    }
    if !ready {
        *own = Stamp::NONE;
    }
    ready
}
