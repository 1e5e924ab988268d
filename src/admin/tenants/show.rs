//! How tenants are shown and kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::admin::desk::{Desk, Noun};
use crate::admin::face::Face;
use crate::admin::provenance;
use crate::admin::shown::{self, text};
use crate::admin::words::spell;
use crate::catalog::{BudgetPeriod, Catalog, Conflict, Provenance, Tenant, TenantStatus};
use crate::id::TenantId;
use crate::pricing::Usd;

#[derive(Serialize)]
struct Settings<'a> {
    name: &'a str,
    description: &'a str,
    fairshare_group: &'a str,
    weight: u32,
    tokens_per_minute: u64,
    requests_per_minute: u64,
    max_in_flight: Option<u32>,
    max_queued: Option<u32>,
    #[serde(serialize_with = "spell")]
    status: TenantStatus,
    allowed_models: Option<&'a [String]>,
    budget_cost_usd: Option<Usd>,
    budget_tokens: Option<u64>,
    #[serde(serialize_with = "spell")]
    budget_period: BudgetPeriod,
    metadata: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(serialize_with = "text")]
    id: TenantId,
    #[serde(flatten)]
    settings: Settings<'a>,
    #[serde(flatten)]
    provenance: provenance::Shown<'a>,
}

fn settings(tenant: &Tenant) -> Settings<'_> {
    Settings {
        name: &tenant.name,
        description: &tenant.description,
        fairshare_group: &tenant.group,
        weight: tenant.weight.get(),
        tokens_per_minute: tenant.tokens_per_minute,
        requests_per_minute: tenant.requests_per_minute,
        max_in_flight: tenant.max_in_flight,
        max_queued: tenant.max_queued,
        status: tenant.status,
        allowed_models: tenant.allowed_models.as_deref(),
        budget_cost_usd: tenant.budget.cost.map(Usd),
        budget_tokens: tenant.budget.tokens,
        budget_period: tenant.budget.period,
        metadata: &tenant.metadata,
    }
}

impl Noun for Tenant {
    type Id = TenantId;
    const NAME: &'static str = "tenant";

    fn find<'a>(catalog: &'a Catalog, id: &TenantId) -> Option<&'a Arc<Self>> {
        catalog.tenants().get(id)
    }

    fn put(self, catalog: &mut Catalog) -> Result<(), Conflict> {
        catalog.put_tenant(self)
    }

    fn remove(catalog: &mut Catalog, id: &TenantId) -> Result<(), Conflict> {
        catalog.remove_tenant(id);
        Ok(())
    }

    fn id(&self) -> TenantId {
        self.id
    }

    fn read_id(text: &str) -> Option<TenantId> {
        text.parse().ok()
    }

    fn label(&self) -> String {
        self.id.to_string()
    }

    fn path(&self) -> String {
        format!("/api/v1/tenants/{}", self.id)
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }

    fn face(&self) -> Face {
        Face::of(&settings(self))
    }

    fn dependents(&self, catalog: &Catalog) -> Option<(&'static str, Vec<String>)> {
        let keys = catalog.keys().values().filter(|key| key.tenant_id == self.id);
        Some(("keys", keys.map(|key| key.id.to_string()).collect()))
    }

    fn json(&self, _: &Desk, _: &Catalog) -> String {
        let shown = Shown {
            id: self.id,
            settings: settings(self),
            provenance: provenance::Shown::of(&self.provenance),
        };
        shown::json(&shown)
    }
}
