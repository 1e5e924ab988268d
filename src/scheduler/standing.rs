//! Where a request's tenant stands against its fair share of the slots: for engines that serve some requests sooner than
//! others. Also the sums that a share is a share of, kept as requests come and go, so that nobody has to add them up.
//!
//! A share is the product of weights among the *active* down the tree, as [`snapshot`](super::Snapshot) shows it. It is
//! measured against the node's slots and, where the model has a cap of its own, against the model's: those are scarce first.

use super::tree::{Group, Node, Tenant};
use super::{Grant, Scheduler};

/// Where a tenant stands with a request that was granted a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The slot begins within the tenant's share. A tenant's first request does whatever its share.
    Owner,
    /// The slot is one that others leave unused.
    Borrower,
}

/// The how-manieth of its tenant's running requests one was when it began, on the node and among its capped model's (0
/// where the model has no cap).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rank {
    pub(super) on_node: u32,
    pub(super) on_model: u32,
}

impl Scheduler {
    /// Where the tenant of a running request stands now with the slot it was granted. A request that has ended is nobody's
    /// to judge and counts as within its share.
    #[must_use]
    pub fn standing(&self, grant: &Grant) -> Standing {
        let Some(ix) = self.running(grant.ticket) else {
            return Standing::Owner;
        };
        let ticket = &self.tickets[ix];
        let tenant = &self.tenants[ticket.tenant];
        let group = &self.groups[tenant.group];
        let pool = self.models[ticket.model].pool;
        let within = |rank: u32, slots: u32| {
            // rank - 1 < slots × weight / group's active × group's weight / node's active; 2^32 × 2^44 × 2^44 at most.
            let taken = u128::from(rank.saturating_sub(1)) * u128::from(group.active_weight) * u128::from(self.node.active_weight);
            let share = u128::from(slots) * u128::from(tenant.tag.weight()) * u128::from(group.tag.weight());
            taken < share
        };
        let Rank { on_node, on_model } = grant.rank;
        let owns = on_node <= 1 || within(on_node, self.node.max);
        let owns_of_model = on_model <= 1 || pool == self.shared || within(on_model, self.pools[pool].cap);
        if owns && owns_of_model {
            Standing::Owner
        } else {
            Standing::Borrower
        }
    }
}

impl Node {
    /// A request of the tenant's is about to be counted: who had none joins those that share.
    pub(super) fn join(&mut self, group: &mut Group, tenant: &Tenant) {
        if !group.is_active() {
            self.active_weight += u64::from(group.tag.weight());
        }
        if !tenant.is_active() {
            group.active_weight += u64::from(tenant.tag.weight());
        }
    }

    /// A request of the tenant's was counted out: who has none left parts from those that share.
    pub(super) fn part(&mut self, group: &mut Group, tenant: &Tenant) {
        if !tenant.is_active() {
            group.active_weight -= u64::from(tenant.tag.weight());
        }
        if !group.is_active() {
            self.active_weight -= u64::from(group.tag.weight());
        }
    }
}
