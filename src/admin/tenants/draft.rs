//! What bodies say of tenants.

use crate::admin::draft::{Given, draft};
use crate::admin::ranges::{RATE_MAX, SLOTS_MAX, TOKENS_MAX};
use crate::admin::value::{Labels, Line, Maybe, Money, OneOf, Prose, SetOf, Share, Whole};
use crate::catalog::{BudgetPeriod, DEFAULT_GROUP, Tenant, TenantStatus};
use crate::units::Weight;

draft! {
    #[derive(Clone)]
    TenantDraft, "a tenant", read_only: ["id", "managed_by", "overridden", "version", "created_at", "updated_at"],
    /// Unique.
    name: Line<1, 128>;
    /// Free text.
    description: Prose<4096> = "";
    /// The fair-share group it belongs to.
    fairshare_group: Line<1, 128> = "default";
    /// Its share among the tenants of its group: twice the weight gets twice the tokens.
    weight: Share = 100;
    /// Tokens per minute; 0 is unlimited.
    tokens_per_minute: Whole<u64, 0, RATE_MAX> = 0;
    /// Requests per minute; 0 is unlimited.
    requests_per_minute: Whole<u64, 0, RATE_MAX> = 0;
    /// How many of its requests may be upstream at once; more wait. Null is no cap.
    max_in_flight: Maybe<Whole<u32, 1, SLOTS_MAX>> = null;
    /// How many of its requests may wait; null leaves it to the scheduler.
    max_queued: Maybe<Whole<u32, 0, SLOTS_MAX>> = null;
    /// A suspended tenant's keys are refused.
    status: OneOf<TenantStatus> = "active";
    /// The models it may use, by name; null is all.
    allowed_models: Maybe<SetOf<Line<1, 256>, 1000>> = null;
    /// Dollars it may spend per period; null is no limit.
    budget_cost_usd: Maybe<Money> = null;
    /// Tokens it may use per period, input and output together; null is no limit.
    budget_tokens: Maybe<Whole<u64, 0, TOKENS_MAX>> = null;
    /// When its budgets start anew, in UTC.
    budget_period: OneOf<BudgetPeriod> = "month";
    /// The operator's own notes.
    metadata: Labels = {};
}

impl TenantDraft {
    /// The group it names, if it names one.
    pub(super) fn group(&self) -> Option<&str> {
        match &self.fairshare_group {
            Given::Is(group) => Some(group),
            Given::Absent | Given::Null => None,
        }
    }

    /// Writes what was given into a tenant.
    pub(super) fn apply(self, tenant: &mut Tenant) {
        let mut group = tenant.group.to_string();
        self.fairshare_group.settle(&mut group, || DEFAULT_GROUP.to_owned());
        tenant.group = group.into();
        self.name.settle(&mut tenant.name, String::new);
        self.description.settle(&mut tenant.description, String::new);
        self.weight.settle(&mut tenant.weight, Weight::default);
        self.tokens_per_minute.settle(&mut tenant.tokens_per_minute, || 0);
        self.requests_per_minute.settle(&mut tenant.requests_per_minute, || 0);
        self.max_in_flight.settle_option(&mut tenant.max_in_flight);
        self.max_queued.settle_option(&mut tenant.max_queued);
        self.status.settle(&mut tenant.status, TenantStatus::default);
        self.allowed_models.settle_option(&mut tenant.allowed_models);
        self.budget_cost_usd.settle_option(&mut tenant.budget.cost);
        self.budget_tokens.settle_option(&mut tenant.budget.tokens);
        self.budget_period.settle(&mut tenant.budget.period, BudgetPeriod::default);
        self.metadata.settle(&mut tenant.metadata, Default::default);
    }
}

draft! {
    WeightDraft, "a weight", read_only: [],
    /// The share among siblings: twice the weight gets twice the tokens.
    weight: Share;
}

draft! {
    QuotaDraft, "a quota", read_only: [],
    /// Tokens per minute; 0 is unlimited.
    tokens_per_minute: Whole<u64, 0, RATE_MAX>;
    /// Requests per minute; null or 0 is unlimited.
    requests_per_minute: Whole<u64, 0, RATE_MAX> = 0;
    /// How many requests may be upstream at once; null is no cap.
    max_in_flight: Maybe<Whole<u32, 1, SLOTS_MAX>> = null;
}

draft! {
    GroupChoice, "a group choice", read_only: [],
    /// The fair-share group to belong to; null is `default`.
    fairshare_group: Line<1, 128> = "default";
}
