//! How keys are shown and kept. Nothing here has a secret to show: the catalog has digests.

use std::sync::Arc;

use serde::Serialize;

use crate::admin::desk::{Desk, Noun};
use crate::admin::face::Face;
use crate::admin::provenance;
use crate::admin::shown::{self, Time, text};
use crate::admin::words::spell;
use crate::catalog::{ApiKey, BudgetPeriod, Catalog, Conflict, Provenance};
use crate::id::{KeyId, TenantId};
use crate::pricing::Usd;

#[derive(Serialize)]
struct Settings<'a> {
    #[serde(serialize_with = "text")]
    tenant_id: TenantId,
    name: &'a str,
    description: &'a str,
    key_prefix: &'a str,
    disabled: bool,
    expires_at: Option<Time>,
    allowed_models: Option<&'a [String]>,
    tokens_per_minute: u64,
    requests_per_minute: u64,
    max_in_flight: Option<u32>,
    budget_cost_usd: Option<Usd>,
    budget_tokens: Option<u64>,
    #[serde(serialize_with = "spell")]
    budget_period: BudgetPeriod,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(serialize_with = "text")]
    id: KeyId,
    #[serde(flatten)]
    settings: Settings<'a>,
    last_used_at: Option<Time>,
    #[serde(flatten)]
    provenance: provenance::Shown<'a>,
}

fn settings(key: &ApiKey) -> Settings<'_> {
    Settings {
        tenant_id: key.tenant_id,
        name: &key.name,
        description: &key.description,
        key_prefix: &key.prefix,
        disabled: key.disabled,
        expires_at: key.expires_at.map(Time),
        allowed_models: key.allowed_models.as_deref(),
        tokens_per_minute: key.tokens_per_minute,
        requests_per_minute: key.requests_per_minute,
        max_in_flight: key.max_in_flight,
        budget_cost_usd: key.budget.cost.map(Usd),
        budget_tokens: key.budget.tokens,
        budget_period: key.budget.period,
    }
}

impl Noun for ApiKey {
    type Id = KeyId;
    const NAME: &'static str = "key";

    fn find<'a>(catalog: &'a Catalog, id: &KeyId) -> Option<&'a Arc<Self>> {
        catalog.keys().get(id)
    }

    fn put(self, catalog: &mut Catalog) -> Result<(), Conflict> {
        catalog.put_key(self)
    }

    fn remove(catalog: &mut Catalog, id: &KeyId) -> Result<(), Conflict> {
        catalog.remove_key(id);
        Ok(())
    }

    fn id(&self) -> KeyId {
        self.id
    }

    fn read_id(text: &str) -> Option<KeyId> {
        text.parse().ok()
    }

    fn label(&self) -> String {
        self.id.to_string()
    }

    fn path(&self) -> String {
        format!("/api/v1/keys/{}", self.id)
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

    fn json(&self, desk: &Desk, _: &Catalog) -> String {
        let shown = Shown {
            id: self.id,
            settings: settings(self),
            last_used_at: (desk.last_used)(&self.id).map(Time),
            provenance: provenance::Shown::of(&self.provenance),
        };
        shown::json(&shown)
    }
}
