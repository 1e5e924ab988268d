//! Every field that the file may have, off the same tables that read it: the documentation cannot forget one.

use serde_json::Value;

use super::access::ENDPOINT_FIELDS;
use super::field::Field;
use super::file::{CAPACITY, variable};
use super::kind::Kind;
use super::noun::{Noun, SLOTS_MAX};
use super::settings::{self, MAX_IN_FLIGHT_DEFAULT, Settings};
use crate::catalog::{ApiKey, Group, McpServer, Model, Tenant};

/// A field of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Like `server.listen` or `tenants[].keys[].secret`.
    pub path: String,
    /// What it must be: ends the sentence "must be …".
    pub accepts: String,
    /// Its default as JSON; `None` where it is required or one of several ways.
    pub default: Option<String>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether a reload applies it; settings wait for a restart.
    pub live: bool,
    /// The environment variable that wins over the file: settings and the capacity.
    pub variable: Option<String>,
}

/// All of them, in the documented order.
#[must_use]
pub fn reference() -> Vec<Entry> {
    let defaults = Settings::default();
    let settings = settings::FIELDS.iter().map(|field| Entry {
        live: false,
        variable: Some(variable(field.name)),
        ..entry(field.name.to_owned(), field.kind, Some(&(field.get)(&defaults)))
    });
    let mut entries: Vec<Entry> = settings.collect();
    let slots = Value::from(MAX_IN_FLIGHT_DEFAULT);
    entries.push(Entry {
        variable: Some(variable(CAPACITY)),
        ..entry(CAPACITY.to_owned(), Kind::Whole(0, SLOTS_MAX), Some(&slots))
    });
    noun::<Group>(&mut entries, Group::LIST);
    noun::<Tenant>(&mut entries, Tenant::LIST);
    noun::<ApiKey>(&mut entries, "tenants[].keys");
    noun::<Model>(&mut entries, Model::LIST);
    for (name, kind, default) in ENDPOINT_FIELDS {
        let default = default.map_or(Value::Null, Value::from);
        let path = format!("models[].endpoints[].{name}");
        entries.push(if *name == "url" {
            required(path, *kind)
        } else {
            entry(path, *kind, Some(&default))
        });
    }
    noun::<McpServer>(&mut entries, McpServer::LIST);
    entries
}

fn noun<N: Noun>(entries: &mut Vec<Entry>, list: &str) {
    let blank = N::blank("");
    entries.push(required(format!("{list}[].{}", N::NAME), N::NAME_KIND));
    for field in N::fields() {
        entries.extend(field_entries(list, field, &blank));
    }
}

fn field_entries<N>(list: &str, field: &Field<N>, blank: &N) -> Vec<Entry> {
    let path = |name: &str| format!("{list}[].{name}");
    let parts: &[(&str, Kind)] = match field.kind {
        Kind::Upstream => {
            let url = required(path("upstream_url"), Kind::Url);
            return vec![url, entry(path("auth_header"), Kind::Credential, Some(&Value::Null))];
        }
        Kind::Endpoints => &[
            ("api_base", Kind::Url),
            ("api_key", Kind::Credential),
            ("endpoints", Kind::Endpoints),
        ],
        Kind::Secret => &[
            ("secret", Kind::Secret),
            ("secret_hash", Kind::Line(64, 64)),
            ("key_prefix", Kind::Line(0, 18)),
        ],
        kind => return vec![entry(path(field.name), kind, Some(&(field.get)(blank)))],
    };
    parts.iter().map(|(name, kind)| entry(path(name), *kind, None)).collect()
}

fn entry(path: String, kind: Kind, default: Option<&Value>) -> Entry {
    Entry {
        path,
        accepts: kind.must_be(),
        default: default.map(ToString::to_string),
        required: false,
        live: true,
        variable: None,
    }
}

fn required(path: String, kind: Kind) -> Entry {
    Entry {
        required: true,
        ..entry(path, kind, None)
    }
}
