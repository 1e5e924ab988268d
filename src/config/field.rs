//! A field of a section or an object: its name, what it accepts, and where its value lives. One table per noun feeds the
//! reader, the merge, the export and the documentation test, so that none can forget a field.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::kind::Kind;

/// One field of `T`.
pub(super) struct Field<T: 'static> {
    /// As it is written in the file and in `overridden`.
    pub(super) name: &'static str,
    /// What it accepts.
    pub(super) kind: Kind,
    /// Its canonical value.
    pub(super) get: fn(&T) -> Value,
    /// Puts a canonical value in. One that does not fit leaves the field as it is: values come from [`Kind`] or `get`.
    pub(super) set: fn(&mut T, &Value, &Vault),
}

/// The secrets that canonical values stand for: by reference (`env:…`, `file:…`) or by digest.
#[derive(Clone, Default)]
pub(super) struct Vault(pub(super) HashMap<String, Option<Arc<str>>>);

impl Vault {
    /// What a reference or digest stands for; `None` if that is not known.
    pub(super) fn secret(&self, of: &str) -> Option<Arc<str>> {
        self.0.get(of).cloned().flatten()
    }
}

/// Declares a field whose canonical value is that of a place in the struct.
macro_rules! field {
    ($name:literal: $kind:expr => $($place:ident).+) => {
        $crate::config::field::Field {
            name: $name,
            kind: $kind,
            get: |it| $crate::config::wire::Wire::show(&it.$($place).+),
            set: |it, value, _| {
                if let Some(value) = $crate::config::wire::Wire::take(value) {
                    it.$($place).+ = value;
                }
            },
        }
    };
}
pub(super) use field;
