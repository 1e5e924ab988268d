//! What the audit log sees of an object: its settings by field, without versions, times and secrets.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::catalog::{Credential, ManagedBy, Provenance};

/// An object's settings, each as the JSON it is shown as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Face {
    fields: Vec<(String, String)>,
    /// The field of the credentials, and they themselves: only to tell whether they changed.
    hidden: Option<(String, Vec<Option<Credential>>)>,
}

impl Face {
    /// Takes an object's settings as the API shows them.
    pub(super) fn of(settings: &impl Serialize) -> Self {
        // Text, numbers and lists under text keys: neither step can fail on them.
        let written = serde_json::to_string(settings).unwrap_or_default();
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&written).unwrap_or_default();
        Self {
            fields: fields.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect(),
            hidden: None,
        }
    }

    /// Adds a field that is never shown, as far as the log may know it. Several endpoints have several.
    pub(super) fn with_credentials(mut self, field: &str, credentials: &[Option<&Credential>]) -> Self {
        let veiled = match credentials {
            [one] => veil(*one),
            several => several.iter().map(|credential| veil(*credential)).collect(),
        };
        self.fields.push((field.to_owned(), veiled.to_string()));
        self.fields.sort();
        self.hidden = Some((field.to_owned(), credentials.iter().map(|credential| credential.cloned()).collect()));
        self
    }

    /// All of it.
    fn json(&self) -> Json {
        self.fields
            .iter()
            .map(|(name, raw)| (name.clone(), exact(raw)))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// A credential as the log may know it: a reference is no secret, a value is.
fn veil(credential: Option<&Credential>) -> Json {
    match credential {
        None => Json::Null,
        Some(Credential {
            reference: Some(reference),
            ..
        }) => json!(reference),
        Some(_) => json!("***"),
    }
}

/// The `detail` of an audit row.
pub(super) fn detail(before: Option<&Face>, after: Option<&Face>) -> Json {
    let (Some(old), Some(new)) = (before, after) else {
        return json!({"before": before.map(Face::json), "after": after.map(Face::json)});
    };
    let (mut was, mut is) = (Map::new(), Map::new());
    for name in changed(old, new) {
        let find = |face: &Face| {
            face.fields
                .iter()
                .find(|(field, _)| *field == name)
                .map_or(Json::Null, |(_, raw)| exact(raw))
        };
        was.insert(name.clone(), find(old));
        is.insert(name.clone(), find(new));
    }
    json!({"before": was, "after": is})
}

/// The names of the fields that differ, sorted.
pub(super) fn changed(before: &Face, after: &Face) -> Vec<String> {
    let differs = |a: &Face, b: &Face| -> Vec<String> {
        let other = |name: &str| b.fields.iter().find(|(field, _)| field == name);
        a.fields
            .iter()
            .filter(|(name, raw)| other(name).is_none_or(|(_, theirs)| theirs != raw))
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut names = differs(before, after);
    names.extend(differs(after, before));
    if before.hidden != after.hidden {
        names.extend(after.hidden.iter().map(|(field, _)| field.clone()));
    }
    names.sort();
    names.dedup();
    names
}

/// Notes which fields of an object of the configuration file the API has changed.
pub(super) fn mark(provenance: &mut Provenance, names: &[String]) {
    if provenance.managed_by == ManagedBy::File {
        provenance.overridden.extend(names.iter().cloned());
        provenance.overridden.sort();
        provenance.overridden.dedup();
    }
}

/// JSON for the log. A number with decimals becomes text: as a float it could lose some of them.
fn exact(raw: &str) -> Json {
    match raw.bytes().next() {
        Some(b'0'..=b'9' | b'-') if raw.contains(['.', 'e', 'E']) || raw.parse::<u64>().is_err() => json!(raw),
        _ => serde_json::from_str(raw).unwrap_or(Json::Null),
    }
}
