//! Keys in the file (API.md A3). Digest and prefix are one field, `secret`: they only change together.

use serde_json::{Value, json};

use super::credential::{hex, unhex};
use super::tenant::MODELS;
use super::{Noun, RATE_MAX, SLOTS_MAX, TOKENS_MAX, by_file};
use crate::catalog::{ApiKey, Budget, BudgetPeriod, Provenance, Word};
use crate::config::field::{Field, field};
use crate::config::kind::Kind;
use crate::id::{KeyId, TenantId};

static FIELDS: &[Field<ApiKey>] = &[
    Field {
        name: "secret",
        kind: Kind::Secret,
        get: |key| json!({"hash": hex(&key.digest), "prefix": key.prefix}),
        set: |key, value, _| set_secret(key, value),
    },
    field!("description": Kind::Prose(4096) => description),
    field!("disabled": Kind::Flag => disabled),
    field!("expires_at": Kind::Moment => expires_at),
    field!("allowed_models": MODELS => allowed_models),
    field!("tokens_per_minute": Kind::Whole(0, RATE_MAX) => tokens_per_minute),
    field!("requests_per_minute": Kind::Whole(0, RATE_MAX) => requests_per_minute),
    field!("max_in_flight": Kind::Whole(1, SLOTS_MAX) => max_in_flight),
    field!("budget_cost_usd": Kind::Money => budget.cost),
    field!("budget_tokens": Kind::Whole(0, TOKENS_MAX) => budget.tokens),
    field!("budget_period": Kind::Word(BudgetPeriod::NAMES) => budget.period),
];

fn set_secret(key: &mut ApiKey, value: &Value) {
    let Some(digest) = value.get("hash").and_then(Value::as_str).and_then(unhex) else {
        return;
    };
    key.digest = digest;
    value
        .get("prefix")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .clone_into(&mut key.prefix);
    // A secret that is in force again is not on its way out.
    if key.retired.as_ref().is_some_and(|retired| retired.digest == digest) {
        key.retired = None;
    }
}

impl Noun for ApiKey {
    const NOUN: &'static str = "key";
    const A_NOUN: &'static str = "a key";
    const LIST: &'static str = "keys";
    const NAME: &'static str = "name";
    const NAME_KIND: Kind = Kind::Line(1, 128);
    const ACTIONS: [&'static str; 3] = ["create_key", "update_key", "delete_key"];

    fn fields() -> &'static [Field<Self>] {
        FIELDS
    }

    fn blank(name: &str) -> Self {
        Self {
            id: KeyId::mint(),
            // The merge sets it: a key is always read inside its tenant.
            tenant_id: TenantId::from_bytes([0; 16]),
            name: name.to_owned(),
            description: String::new(),
            prefix: String::new(),
            digest: [0; 32],
            retired: None,
            disabled: false,
            expires_at: None,
            allowed_models: None,
            tokens_per_minute: 0,
            requests_per_minute: 0,
            max_in_flight: None,
            budget: Budget::default(),
            provenance: by_file(),
        }
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}
