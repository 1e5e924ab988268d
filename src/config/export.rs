//! Writes the store as a configuration file: `export`, `check`, load and merge change nothing.
//!
//! Objects come sorted by name, fields in the documented order, defaults are left out. Keys are written with
//! `secret_hash`, upstreams' credentials as their references, stored ones as `stored:DIGEST`, which means "the one this
//! store holds". The hashes of keys are worth something only under the same pepper.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use serde_yaml::{Mapping, Value as Yaml};

use super::access::ENDPOINT_FIELDS;
use super::environment::escape;
use super::kind::Kind;
use super::noun::Noun;
use super::settings::{self, SECTIONS, Settings};
use crate::catalog::{ApiKey, Catalog, Group, McpServer, Model, Tenant};
use crate::id::TenantId;

/// The file that stands for a catalog and settings. The same for the same input, byte for byte.
#[must_use]
pub fn export(catalog: &Catalog, settings: &Settings) -> String {
    let mut file = Mapping::new();
    for section in SECTIONS {
        put(&mut file, section, self::section(settings, section));
    }
    let mut capacity = Mapping::new();
    capacity.insert("max_in_flight".into(), catalog.max_in_flight().into());
    put(&mut file, "capacity", capacity);
    let groups = by_name(catalog.groups().values())
        .into_iter()
        .map(|group| object::<Group>(group, &group.name));
    list(&mut file, Group::LIST, groups.collect());
    list(&mut file, Tenant::LIST, tenants(catalog));
    let models = by_name(catalog.models().values())
        .into_iter()
        .map(|model| object::<Model>(model, &model.name));
    list(&mut file, Model::LIST, models.collect());
    let servers = by_name(catalog.mcp_servers().values()).into_iter();
    list(
        &mut file,
        McpServer::LIST,
        servers.map(|server| mcp_server(server, catalog)).collect(),
    );
    // Mappings with text keys always serialise.
    serde_yaml::to_string(&file).unwrap_or_default()
}

/// What of a section is not at its default.
fn section(settings: &Settings, section: &str) -> Mapping {
    let default = Settings::default();
    let mut mapping = Mapping::new();
    for field in settings::FIELDS {
        let value = (field.get)(settings);
        if let Some((of, name)) = field.name.split_once('.')
            && of == section
            && value != (field.get)(&default)
        {
            mapping.insert(name.into(), yaml(&value));
        }
    }
    mapping
}

fn tenants(catalog: &Catalog) -> Vec<Mapping> {
    let mut keys: HashMap<TenantId, Vec<&Arc<ApiKey>>> = HashMap::new();
    for key in by_name(catalog.keys().values()) {
        keys.entry(key.tenant_id).or_default().push(key);
    }
    let tenants = by_name(catalog.tenants().values()).into_iter().map(|tenant| {
        let mut mapping = object::<Tenant>(tenant, &tenant.name);
        let own = keys.remove(&tenant.id).unwrap_or_default();
        list(&mut mapping, ApiKey::LIST, self::keys(&own));
        mapping
    });
    tenants.collect()
}

/// Keys need not have names of their own in the store, but must in the file. They are known again by their secrets.
fn keys(own: &[&Arc<ApiKey>]) -> Vec<Mapping> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut mappings = Vec::with_capacity(own.len());
    for key in own {
        let numbered = (2_u32..).map(|number| format!("{} ({number})", key.name));
        let mut names = std::iter::once(key.name.clone()).chain(numbered);
        if let Some(name) = names.find(|name| !taken.contains(name)) {
            mappings.push(object::<ApiKey>(key, &name));
            taken.insert(name);
        }
    }
    mappings
}

/// With the names of tenants in the place of their ids.
fn mcp_server(server: &McpServer, catalog: &Catalog) -> Mapping {
    let mut mapping = object::<McpServer>(server, &server.name);
    if let Some(ids) = &server.allowed_tenants {
        // Tenants that are gone cannot be named; they cannot call either.
        let tenants = ids.iter().filter_map(|id| catalog.tenants().get(id));
        let names: Vec<Yaml> = tenants.map(|tenant| escape(&tenant.name).into()).collect();
        mapping.insert("allowed_tenants".into(), names.into());
    }
    mapping
}

/// An object's name and those of its fields that are not at their defaults.
fn object<N: Noun>(object: &N, name: &str) -> Mapping {
    let blank = N::blank(object.name());
    let mut mapping = Mapping::new();
    mapping.insert(N::NAME.into(), escape(name).into());
    for field in N::fields() {
        let value = (field.get)(object);
        match field.kind {
            Kind::Endpoints => endpoints(&mut mapping, &value),
            Kind::Upstream => {
                mapping.insert("upstream_url".into(), yaml(&value["url"]));
                credential(&mut mapping, "auth_header", &value["auth_header"]);
            }
            Kind::Secret => {
                mapping.insert("secret_hash".into(), yaml(&value["hash"]));
                if value["prefix"] != json!("") {
                    mapping.insert("key_prefix".into(), yaml(&value["prefix"]));
                }
            }
            _ if value != (field.get)(&blank) => {
                mapping.insert(field.name.into(), yaml(&value));
            }
            _ => {}
        }
    }
    mapping
}

fn endpoints(mapping: &mut Mapping, value: &Value) {
    let items = value["list"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if let ([only], true) = (items, value["single"] == json!(true)) {
        mapping.insert("api_base".into(), yaml(&only["url"]));
        credential(mapping, "api_key", &only["api_key"]);
        return;
    }
    let items = items.iter().map(|item| {
        let mut endpoint = Mapping::new();
        for (name, kind, default) in ENDPOINT_FIELDS {
            match kind {
                Kind::Credential => credential(&mut endpoint, name, &item[*name]),
                _ if item[*name] != json!(default) => {
                    endpoint.insert((*name).into(), yaml(&item[*name]));
                }
                _ => {}
            }
        }
        endpoint
    });
    list(mapping, "endpoints", items.collect());
}

fn credential(mapping: &mut Mapping, name: &str, value: &Value) {
    let reference = value["ref"].as_str().map(escape);
    let text = reference.or_else(|| value["digest"].as_str().map(|digest| format!("stored:{digest}")));
    if let Some(text) = text {
        mapping.insert(name.into(), text.into());
    }
}

fn by_name<'c, N: Noun>(objects: impl Iterator<Item = &'c Arc<N>>) -> Vec<&'c Arc<N>> {
    let mut objects: Vec<&Arc<N>> = objects.collect();
    objects.sort_by_cached_key(|object| (object.name().to_owned(), object.id()));
    objects
}

/// Leaves out what is empty.
fn put(mapping: &mut Mapping, name: &str, value: Mapping) {
    if !value.is_empty() {
        mapping.insert(name.into(), value.into());
    }
}

fn list(mapping: &mut Mapping, name: &str, items: Vec<Mapping>) {
    if !items.is_empty() {
        let items: Vec<Yaml> = items.into_iter().map(Yaml::Mapping).collect();
        mapping.insert(name.into(), items.into());
    }
}

/// A canonical value as it is written: texts are escaped, so that nothing in them is expanded.
fn yaml(value: &Value) -> Yaml {
    match value {
        Value::Null => Yaml::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.as_u64().map_or(Yaml::Null, Yaml::from),
        Value::String(text) => escape(text).into(),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Object(members) => Yaml::Mapping(members.iter().map(|(name, value)| (name.as_str().into(), yaml(value))).collect()),
    }
}
