//! A group's row.

use rusqlite::types::Value;

use crate::catalog::{Group, Provenance};
use crate::store::columns::{Decoder, Encoder, Stored, Unreadable, Unstorable};

impl Stored for Group {
    const TABLE: &'static str = "groups";
    const COLUMNS: &'static [&'static str] = &["name", "weight", "managed_by", "overridden", "version", "created_at", "updated_at"];

    fn primary_key(&self) -> Value {
        Value::Text(self.name.to_string())
    }

    fn encode(&self, out: &mut Encoder<'_>) -> Result<(), Unstorable> {
        out.put_text(&self.name);
        out.put(self.weight.get());
        out.put_provenance(&self.provenance)
    }

    fn decode(row: &mut Decoder<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            name: row.text()?.into(),
            weight: row.weight()?,
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
