//! Tenants in the file (API.md A2).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Noun, RATE_MAX, SLOTS_MAX, TOKENS_MAX, by_file};
use crate::catalog::{Budget, BudgetPeriod, DEFAULT_GROUP, Provenance, Tenant, TenantStatus, Word};
use crate::config::field::{Field, field};
use crate::config::kind::Kind;
use crate::id::TenantId;
use crate::units::Weight;

/// Names of models in an allow-list, as in the management API.
pub(super) const MODELS: Kind = Kind::Set(&Kind::Line(1, 256), 1000);

static FIELDS: &[Field<Tenant>] = &[
    field!("description": Kind::Prose(4096) => description),
    Field {
        name: "fairshare_group",
        kind: Kind::Line(1, 128),
        get: |tenant| Value::String(tenant.group.to_string()),
        set: |tenant, value, _| {
            if let Some(group) = value.as_str() {
                tenant.group = Arc::from(group);
            }
        },
    },
    field!("weight": Kind::Whole(1, 1_000_000) => weight),
    field!("tokens_per_minute": Kind::Whole(0, RATE_MAX) => tokens_per_minute),
    field!("requests_per_minute": Kind::Whole(0, RATE_MAX) => requests_per_minute),
    field!("max_in_flight": Kind::Whole(1, SLOTS_MAX) => max_in_flight),
    field!("max_queued": Kind::Whole(0, SLOTS_MAX) => max_queued),
    field!("status": Kind::Word(TenantStatus::NAMES) => status),
    field!("allowed_models": MODELS => allowed_models),
    field!("budget_cost_usd": Kind::Money => budget.cost),
    field!("budget_tokens": Kind::Whole(0, TOKENS_MAX) => budget.tokens),
    field!("budget_period": Kind::Word(BudgetPeriod::NAMES) => budget.period),
    field!("metadata": Kind::Labels => metadata),
];

impl Noun for Tenant {
    const NOUN: &'static str = "tenant";
    const A_NOUN: &'static str = "a tenant";
    const LIST: &'static str = "tenants";
    const NAME: &'static str = "name";
    const NAME_KIND: Kind = Kind::Line(1, 128);
    const ACTIONS: [&'static str; 3] = ["create_tenant", "update_tenant", "delete_tenant"];

    fn fields() -> &'static [Field<Self>] {
        FIELDS
    }

    fn blank(name: &str) -> Self {
        Self {
            id: TenantId::mint(),
            name: name.to_owned(),
            description: String::new(),
            group: Arc::from(DEFAULT_GROUP),
            weight: Weight::default(),
            tokens_per_minute: 0,
            requests_per_minute: 0,
            max_in_flight: None,
            max_queued: None,
            status: TenantStatus::default(),
            allowed_models: None,
            budget: Budget::default(),
            metadata: BTreeMap::new(),
            provenance: by_file(),
        }
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}
