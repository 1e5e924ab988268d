//! A model's own cap: a number, `auto`, or none.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::admin::fault::Faults;
use crate::admin::number;
use crate::admin::ranges::SLOTS_MAX;
use crate::admin::value::{Value, said, text};
use crate::catalog::ModelCapacity;

/// The type of the field.
pub(super) enum Slots {}

impl Value for Slots {
    type Out = ModelCapacity;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<ModelCapacity> {
        let fixed = || number::integer(raw.get()).filter(|slots| (1..=SLOTS_MAX).contains(slots));
        let capacity = if text(raw).as_deref() == Some("auto") {
            Some(ModelCapacity::Auto)
        } else {
            fixed().and_then(|slots| u32::try_from(slots).ok()).map(ModelCapacity::Fixed)
        };
        said(capacity, at, faults, || {
            format!("must be an integer from 1 to {SLOTS_MAX}, \"auto\" or null")
        })
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": SLOTS_MAX},
            {"type": "string", "const": "auto"},
            {"type": "null"},
        ]})
    }
}

/// Writes it as it is read.
pub(super) fn show<S: Serializer>(capacity: &ModelCapacity, serializer: S) -> Result<S::Ok, S::Error> {
    match capacity {
        ModelCapacity::Uncapped => serializer.serialize_none(),
        ModelCapacity::Fixed(slots) => slots.serialize(serializer),
        ModelCapacity::Auto => "auto".serialize(serializer),
    }
}
