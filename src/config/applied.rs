//! The file as it was last applied: what the next merge compares with. One text, kept by the store as one row.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::reading::Stated;

/// The form of the text.
const FORMAT: u32 = 1;

/// What a file stated when it was applied. Holds no secret: keys are digests, credentials references or digests.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Applied {
    format: u32,
    pub(super) max_in_flight: Option<u32>,
    pub(super) groups: Keepsakes,
    pub(super) tenants: Keepsakes,
    pub(super) models: Keepsakes,
    pub(super) mcp_servers: Keepsakes,
}

/// Objects by the names that the file gave them.
pub(super) type Keepsakes = BTreeMap<String, Kept>;

/// An object as it was stated.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The id it has in the store, by which it is found when the API has renamed it.
    pub(super) id: String,
    pub(super) fields: Stated,
    /// A tenant's keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) keys: Keepsakes,
}

/// The text is none that this program has written.
#[derive(Debug, thiserror::Error)]
#[error("the record of the last applied configuration cannot be read")]
pub struct Unreadable(#[source] Option<serde_json::Error>);

impl Applied {
    pub(super) fn new() -> Self {
        Self {
            format: FORMAT,
            ..Self::default()
        }
    }

    /// Canonical: equal records have equal texts.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Maps with text keys and JSON values always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// [`Unreadable`] for anything else, later formats included.
    pub fn from_text(text: &str) -> Result<Self, Unreadable> {
        let applied: Self = serde_json::from_str(text).map_err(|error| Unreadable(Some(error)))?;
        if applied.format == FORMAT {
            Ok(applied)
        } else {
            Err(Unreadable(None))
        }
    }
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applied")
            .field("tenants", &self.tenants.len())
            .field("models", &self.models.len())
            .finish_non_exhaustive()
    }
}
