//! Two files side by side, without a store: where they differ in effect, not in how they are written.

use std::collections::BTreeMap;

use serde_json::Value;

use super::file::{Entry, File};
use super::kind::Kind;
use super::noun::Noun;
use super::settings::MAX_IN_FLIGHT_DEFAULT;
use crate::catalog::{ApiKey, DEFAULT_GROUP, Group, McpServer, Model, Tenant};

/// How `new` differs from `old`, a line each: `+` and `-` objects that only one of them has, `~` fields that differ, a field
/// left out being at its default. Shows no secret, nor digests of any.
#[must_use]
pub fn compare(old: &File, new: &File) -> Vec<String> {
    let settings = old.settings().differences(new.settings()).into_iter();
    let mut lines: Vec<String> = settings.map(|setting| format!("~ setting {setting}")).collect();
    let slots = |file: &File| file.max_in_flight().unwrap_or(MAX_IN_FLIGHT_DEFAULT);
    if slots(old) != slots(new) {
        lines.push(format!("~ capacity max_in_flight {} -> {}", slots(old), slots(new)));
    }
    objects::<Group>(&mut lines, "", &with_default(&old.groups), &with_default(&new.groups));
    objects::<Tenant>(&mut lines, "", &old.tenants, &new.tenants);
    for tenant in &new.tenants {
        // Those of a tenant that only one of them has are told with it.
        if let Some(other) = old.tenants.iter().find(|other| other.name == tenant.name) {
            objects::<ApiKey>(&mut lines, &format!("{}/", tenant.name), &other.keys, &tenant.keys);
        }
    }
    objects::<Model>(&mut lines, "", &old.models, &new.models);
    objects::<McpServer>(&mut lines, "", &old.mcp_servers, &new.mcp_servers);
    lines
}

/// The default group is there whether it is written down or not.
fn with_default(groups: &[Entry]) -> Vec<Entry> {
    let mut groups = groups.to_vec();
    if !groups.iter().any(|group| group.name == DEFAULT_GROUP) {
        groups.push(Entry {
            name: DEFAULT_GROUP.to_owned(),
            at: 0,
            path: String::new(),
            stated: BTreeMap::new(),
            keys: Vec::new(),
        });
    }
    groups
}

fn objects<N: Noun>(lines: &mut Vec<String>, of: &str, old: &[Entry], new: &[Entry]) {
    let named =
        |entries: &[Entry]| -> BTreeMap<String, Entry> { entries.iter().map(|entry| (entry.name.clone(), entry.clone())).collect() };
    let (old, new) = (named(old), named(new));
    for (name, entry) in &new {
        match old.get(name) {
            None => lines.push(format!("+ {} {of}{name}", N::NOUN)),
            Some(other) => {
                let fields = fields::<N>(other, entry);
                if !fields.is_empty() {
                    lines.push(format!("~ {} {of}{name}: {}", N::NOUN, fields.join(", ")));
                }
            }
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    lines.extend(gone.map(|name| format!("- {} {of}{name}", N::NOUN)));
}

fn fields<N: Noun>(old: &Entry, new: &Entry) -> Vec<String> {
    let blank = N::blank(&new.name);
    let mut differ = Vec::new();
    for field in N::fields() {
        let value = |entry: &Entry| -> Value { entry.stated.get(field.name).cloned().unwrap_or_else(|| (field.get)(&blank)) };
        let (old, new) = (value(old), value(new));
        if old == new {
            continue;
        }
        differ.push(match field.kind {
            // Credentials and digests are in these.
            Kind::Endpoints | Kind::Upstream | Kind::Secret | Kind::Credential => field.name.to_owned(),
            _ => format!("{} {old} -> {new}", field.name),
        });
    }
    differ
}
