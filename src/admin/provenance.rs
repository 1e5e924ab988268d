//! Who made an object and when, as every noun shows it.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::shown::Time;
use super::words::spell;
use crate::catalog::{ManagedBy, Provenance, Word};

/// The last fields of an object.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    #[serde(serialize_with = "spell")]
    managed_by: ManagedBy,
    overridden: &'a [String],
    version: u64,
    created_at: Time,
    updated_at: Time,
}

impl<'a> Shown<'a> {
    pub(super) fn of(provenance: &'a Provenance) -> Self {
        Self {
            managed_by: provenance.managed_by,
            overridden: &provenance.overridden,
            version: provenance.version,
            created_at: Time(provenance.created_at),
            updated_at: Time(provenance.updated_at),
        }
    }
}

/// The schema of an object's fields that the gateway sets: these, and the noun's `own`.
pub(super) fn schema(own: Json) -> Json {
    let mut schema = json!({
        "managed_by": {"type": "string", "enum": ManagedBy::NAMES, "description": "Who made it: this API or the configuration file."},
        "overridden": {
            "type": "array", "items": {"type": "string"},
            "description": "Fields of a file's object that were changed through this API.",
        },
        "version": {"type": "integer", "minimum": 1, "description": "Counts changes; the ETag is \"v<version>\"."},
        "created_at": {"type": "string", "format": "date-time", "description": "When it was made."},
        "updated_at": {"type": "string", "format": "date-time", "description": "When it was last changed."},
    });
    if let (Json::Object(all), Json::Object(own)) = (&mut schema, own) {
        all.extend(own);
    }
    schema
}

/// The schema of an `id`.
pub(super) fn id() -> Json {
    json!({"type": "string", "format": "uuid", "description": "A UUIDv7: later ids sort later."})
}
