//! What the management API shows of the scheduler: groups, tenants, models, and how fair the last minute was.

use std::sync::Arc;
use std::time::Duration;

use super::Scheduler;
use super::arena::{Ix, TenantIx};
use super::moment::TICK;
use super::tree::{Group, Lane, Tenant};
use crate::id::{ModelId, TenantId};

/// How long who is no longer active is still shown.
const SHOWN_FOR: Duration = Duration::from_secs(60);
/// A backlog younger than this says nothing about fairness.
const BACKLOG_MIN: Duration = Duration::from_secs(1);

/// The scheduler at one moment. Groups sort by name, tenants and models by id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// How many requests may be upstream at once.
    pub max_in_flight: u32,
    /// How many are. More than the maximum only after it was lowered.
    pub in_flight: u32,
    /// How many wait.
    pub queued: u32,
    /// Groups that are active or were within the last minute.
    pub groups: Vec<GroupView>,
    /// Tenants that are active or were within the last minute.
    pub tenants: Vec<TenantView>,
    /// Models with a request in flight or queued, or with a cap.
    pub models: Vec<ModelView>,
    /// Jain's index, from 1/n to 1, over what backlogged tenants got of what they were entitled to during the last 60 s (or
    /// since their backlog began). `None` when fewer than two tenants are backlogged.
    pub fairness_index: Option<f64>,
}

/// A group's part.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupView {
    /// Its name.
    pub name: Arc<str>,
    /// Its weight.
    pub weight: u32,
    /// Requests upstream.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// Its part among active groups, 0 to 1; 0 while it is not active.
    pub weight_share: f64,
    /// What that part is of the slots.
    pub expected_slots: f64,
    /// How many slots it holds above that.
    pub borrowed: f64,
    /// Token units charged since the start, net of refunds.
    pub served_tokens: u64,
    /// Those by its weight.
    pub share_score: f64,
}

/// A tenant's part.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantView {
    /// Who.
    pub tenant: TenantId,
    /// The group it shares in.
    pub group: Arc<str>,
    /// Its weight.
    pub weight: u32,
    /// Requests upstream.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// How long its oldest waiter has waited; zero without one.
    pub oldest_wait: Duration,
    /// Its part among its group's active tenants, 0 to 1; 0 while it is not active.
    pub weight_share: f64,
    /// What that part of its group's part is of the slots.
    pub expected_slots: f64,
    /// How many slots it holds above that.
    pub borrowed: f64,
    /// Token units charged since the start, net of refunds.
    pub served_tokens: u64,
    /// Those by its weight.
    pub share_score: f64,
}

/// A model's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelView {
    /// Which.
    pub model: ModelId,
    /// Requests upstream.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// How many may be upstream at once, as configured or learned.
    pub cap: Option<u32>,
}

impl Scheduler {
    /// The state now. Looks at every group, model, and recently active tenant: an operator's question, not a request's.
    pub fn snapshot(&mut self) -> Snapshot {
        self.forget_idle_tenants();
        let mut groups: Vec<GroupView> = self
            .groups
            .iter()
            .filter(|(_, group)| group.is_active() || self.is_recent(group.active_tick))
            .map(|(_, group)| self.view_group(group))
            .collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tenants: Vec<TenantView> = self.recent.iter().map(|ix| self.view_tenant(*ix)).collect();
        tenants.sort_by_key(|view| view.tenant);
        let mut models: Vec<ModelView> = self
            .models
            .iter()
            .filter_map(|(_, model)| {
                let cap = (model.pool != self.shared).then(|| self.pools[model.pool].cap);
                let view = ModelView {
                    model: model.id?,
                    in_flight: model.in_flight,
                    queued: model.queued,
                    cap,
                };
                (view.in_flight + view.queued > 0 || cap.is_some()).then_some(view)
            })
            .collect();
        models.sort_by_key(|view| view.model);
        Snapshot {
            max_in_flight: self.node.max,
            in_flight: self.node.in_flight,
            queued: self.node.queued,
            groups,
            tenants,
            models,
            fairness_index: self.fairness_index(),
        }
    }

    fn is_recent(&self, active_tick: u32) -> bool {
        TICK.saturating_mul(self.tick - active_tick) < SHOWN_FOR
    }

    fn forget_idle_tenants(&mut self) {
        let mut recent = std::mem::take(&mut self.recent);
        recent.retain(|&ix| {
            let tenant = &self.tenants[ix];
            let shown = tenant.is_active() || self.is_recent(tenant.active_tick);
            self.tenants[ix].listed = shown;
            shown
        });
        self.recent = recent;
    }

    fn view_group(&self, group: &Group) -> GroupView {
        let weight_share = self.group_share(group);
        let expected_slots = weight_share * f64::from(self.node.max);
        let served_tokens = group.served.to_units();
        GroupView {
            name: Arc::clone(&group.name),
            weight: group.tag.weight(),
            in_flight: group.in_flight,
            queued: group.queued,
            weight_share,
            expected_slots,
            borrowed: (f64::from(group.in_flight) - expected_slots).max(0.0),
            served_tokens,
            share_score: approximate(served_tokens) / f64::from(group.tag.weight()),
        }
    }

    fn view_tenant(&self, ix: TenantIx) -> TenantView {
        let tenant = &self.tenants[ix];
        let group = &self.groups[tenant.group];
        let weight_share = self.tenant_share(tenant);
        let expected_slots = weight_share * self.group_share(group) * f64::from(self.node.max);
        let served_tokens = tenant.served.to_units();
        TenantView {
            tenant: tenant.id,
            group: Arc::clone(&group.name),
            weight: tenant.tag.weight(),
            in_flight: tenant.in_flight,
            queued: tenant.queued,
            oldest_wait: self.oldest_wait(ix),
            weight_share,
            expected_slots,
            borrowed: (f64::from(tenant.in_flight) - expected_slots).max(0.0),
            served_tokens,
            share_score: approximate(served_tokens) / f64::from(tenant.tag.weight()),
        }
    }

    fn oldest_wait(&self, tenant: TenantIx) -> Duration {
        let mut longest = Duration::ZERO;
        let mut lane = self.tenants[tenant].first_lane;
        while lane.is_some() {
            let Lane {
                plain,
                mut first_queue,
                next,
                ..
            } = self.lanes[lane];
            let mut look = |oldest| {
                if Ix::is_some(oldest) {
                    longest = longest.max(self.now.since(self.tickets[oldest].since));
                }
            };
            look(plain.oldest);
            while first_queue.is_some() {
                look(self.queues[first_queue].fifo.oldest);
                first_queue = self.queues[first_queue].next_of_lane;
            }
            lane = next;
        }
        longest
    }

    /// Jain's index (Jain, Chiu & Hawe 1984) over the backlogged tenants' rates of service, each divided by what the tenant
    /// is entitled to: the product of its shares down the tree, so that tenants of different groups compare.
    fn fairness_index(&self) -> Option<f64> {
        let (mut count, mut sum, mut squares) = (0_u32, 0.0, 0.0);
        for tenant in self.recent.iter().map(|ix| &self.tenants[*ix]) {
            let mark = tenant.backlog.earlier;
            let length = self.now.since(mark.at);
            if tenant.queued == 0 || length < BACKLOG_MIN {
                continue;
            }
            let served = approximate(tenant.served.saturating_sub(mark.served).to_units());
            let entitled = self.tenant_share(tenant) * self.group_share(&self.groups[tenant.group]);
            let rate = served / length.as_secs_f64() / entitled;
            count += 1;
            sum += rate;
            squares += rate * rate;
        }
        match count {
            0 | 1 => None,
            // Nobody gets anything: all are treated alike.
            _ if squares <= 0.0 => Some(1.0),
            n => Some(sum * sum / (f64::from(n) * squares)),
        }
    }

    /// A group's part among active groups; 0 while it is not active.
    fn group_share(&self, group: &Group) -> f64 {
        if group.is_active() {
            f64::from(group.tag.weight()) / approximate(self.node.active_weight)
        } else {
            0.0
        }
    }

    /// A tenant's part among its group's active tenants; 0 while it is not active.
    fn tenant_share(&self, tenant: &Tenant) -> f64 {
        if tenant.is_active() {
            f64::from(tenant.tag.weight()) / approximate(self.groups[tenant.group].active_weight)
        } else {
            0.0
        }
    }
}

/// For people: exact up to 2^53.
fn approximate(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a view; sixteen digits are enough")]
    let approximate = count as f64;
    approximate
}
