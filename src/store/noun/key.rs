//! A key's row.

use rusqlite::types::Value;

use crate::catalog::{ApiKey, Provenance, Retired};
use crate::id::{KeyId, TenantId};
use crate::store::columns::{Decoder, Encoder, Stored, Unreadable, Unstorable};

impl Stored for ApiKey {
    const TABLE: &'static str = "keys";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "tenant_id",
        "name",
        "description",
        "prefix",
        "digest",
        "retired_digest",
        "retired_until",
        "disabled",
        "expires_at",
        "allowed_models",
        "tokens_per_minute",
        "requests_per_minute",
        "max_in_flight",
        "budget_cost_pico",
        "budget_tokens",
        "budget_period",
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
        out.put(self.tenant_id.as_bytes().to_vec());
        out.put_text(&self.name);
        out.put_text(&self.description);
        out.put_text(&self.prefix);
        out.put(self.digest.to_vec());
        out.put(self.retired.as_ref().map(|retired| retired.digest.to_vec()));
        out.put(self.retired.as_ref().map(|retired| retired.until.0));
        out.put(self.disabled);
        out.put(self.expires_at.map(|at| at.0));
        out.put_optional_json(self.allowed_models.as_ref());
        out.put_count("tokens_per_minute", self.tokens_per_minute)?;
        out.put_count("requests_per_minute", self.requests_per_minute)?;
        out.put(self.max_in_flight);
        out.put_budget(&self.budget)?;
        out.put_provenance(&self.provenance)
    }

    fn decode(row: &mut Decoder<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            id: KeyId::from_bytes(row.bytes()?),
            tenant_id: TenantId::from_bytes(row.bytes()?),
            name: row.string()?,
            description: row.string()?,
            prefix: row.string()?,
            digest: row.bytes()?,
            retired: match (row.optional(Decoder::bytes)?, row.optional(Decoder::time)?) {
                (Some(digest), Some(until)) => Some(Retired { digest, until }),
                (None, None) => None,
                (Some(_), None) | (None, Some(_)) => return Err(row.bad()),
            },
            disabled: row.flag()?,
            expires_at: row.optional(Decoder::time)?,
            allowed_models: row.optional(Decoder::list)?,
            tokens_per_minute: row.number()?,
            requests_per_minute: row.number()?,
            max_in_flight: row.optional(Decoder::number)?,
            budget: row.budget()?,
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
