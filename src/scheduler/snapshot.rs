//! What the management API shows of the scheduler: groups, tenants, models, and how fair the last minute was.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{ModelId, TenantId};

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
    /// Models with a request in flight or queued.
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
}
