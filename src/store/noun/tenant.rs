//! A tenant's row.

use rusqlite::types::Value;

use crate::catalog::{Provenance, Tenant};
use crate::id::TenantId;
use crate::store::columns::{Decoder, Encoder, Stored, Unreadable, Unstorable};

impl Stored for Tenant {
    const TABLE: &'static str = "tenants";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "group_name",
        "weight",
        "tokens_per_minute",
        "requests_per_minute",
        "max_in_flight",
        "max_queued",
        "status",
        "allowed_models",
        "budget_cost_pico",
        "budget_tokens",
        "budget_period",
        "metadata",
        "managed_by",
        "overridden",
        "version",
        "created_at",
        "updated_at",
    ];

    fn primary_key(&self) -> Value {
        Value::Blob(self.id.as_bytes().to_vec())
    }

    fn encode(&self, out: &mut Encoder<'_>) -> Result<(), Unstorable> {
        out.put(self.primary_key());
        out.put_text(&self.name);
        out.put_text(&self.description);
        out.put_text(&self.group);
        out.put(self.weight.get());
        out.put_count("tokens_per_minute", self.tokens_per_minute)?;
        out.put_count("requests_per_minute", self.requests_per_minute)?;
        out.put(self.max_in_flight);
        out.put(self.max_queued);
        out.put_word(self.status);
        out.put_optional_json(self.allowed_models.as_ref());
        out.put_budget(&self.budget)?;
        out.put_json(&self.metadata);
        out.put_provenance(&self.provenance)
    }

    fn decode(row: &mut Decoder<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            id: TenantId::from_bytes(row.bytes()?),
            name: row.string()?,
            description: row.string()?,
            group: row.text()?.into(),
            weight: row.weight()?,
            tokens_per_minute: row.number()?,
            requests_per_minute: row.number()?,
            max_in_flight: row.optional(Decoder::number)?,
            max_queued: row.optional(Decoder::number)?,
            status: row.word()?,
            allowed_models: row.optional(Decoder::list)?,
            budget: row.budget()?,
            metadata: row.map()?,
            provenance: row.provenance()?,
        })
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}
