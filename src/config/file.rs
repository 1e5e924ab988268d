//! The whole file: settings, and the objects it states.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Context;
use super::fault::{At, Fault, Faults, whole};
use super::field::Vault;
use super::kind::Kind;
use super::noun::{Noun, SLOTS_MAX};
use super::reading::{Members, Reading, Stated, join};
use super::settings::{self, SECTIONS, Settings};
use super::tree::{self, Node, Shape};
use crate::catalog::{ApiKey, Group, McpServer, Model, Tenant};

/// Larger files are mistakes, and would hold up a reload.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The one resource that variables and flags can give too.
pub(super) const CAPACITY: &str = "capacity.max_in_flight";

/// An object of the file.
#[derive(Clone)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// Its number in the tree, for faults found later.
    pub(super) at: usize,
    /// Where it is, like `tenants[0]`.
    pub(super) path: String,
    /// The fields that it states.
    pub(super) stated: Stated,
    /// A tenant's keys.
    pub(super) keys: Vec<Self>,
}

/// A configuration file that has no fault in itself. `Debug` shows none of its contents.
#[derive(Clone)]
pub struct File {
    path: PathBuf,
    digest: [u8; 32],
    /// For the places of faults that only show against a store.
    text: Arc<str>,
    settings: Settings,
    pub(super) max_in_flight: Option<u32>,
    pub(super) groups: Vec<Entry>,
    pub(super) tenants: Vec<Entry>,
    pub(super) models: Vec<Entry>,
    pub(super) mcp_servers: Vec<Entry>,
    pub(super) vault: Vault,
}

impl File {
    /// The bootstrap half.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The capacity that it, a variable or a flag states, if one does: what a new store starts with.
    #[must_use]
    pub const fn max_in_flight(&self) -> Option<u32> {
        self.max_in_flight
    }

    /// The file as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of its text: what [`watch`](super::watch) is told it knows already.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Gives faults found against a store their lines.
    pub(super) fn locate(&self, faults: Faults) -> Vec<Fault> {
        faults.locate(&self.path, &self.text)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("tenants", &self.tenants.len())
            .field("models", &self.models.len())
            .finish_non_exhaustive()
    }
}

/// Reads a file.
///
/// # Errors
/// Every fault in it, in the file's order.
pub fn load(path: &Path, context: &Context<'_>) -> Result<File, Vec<Fault>> {
    let text = text_of(path).map_err(|message| vec![whole(path, message)])?;
    parse(&text, path, context)
}

/// The text of a configuration file.
pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let mut file = std::io::Read::take(std::fs::File::open(path).map_err(cannot)?, FILE_BYTES_MAX + 1);
    std::io::Read::read_to_string(&mut file, &mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// What runs without a file: defaults, environment, flags.
///
/// # Errors
/// Faults of the environment and the flags.
pub fn without_file(context: &Context<'_>) -> Result<File, Vec<Fault>> {
    parse("{}\n", Path::new("defaults"), context)
}

/// Reads a file's text; `path` is only for messages.
///
/// # Errors
/// Every fault in it, in the file's order.
pub fn parse(text: &str, path: &Path, context: &Context<'_>) -> Result<File, Vec<Fault>> {
    let tree = match tree::read(text) {
        Ok(tree) => tree,
        Err(fault) => {
            let place = fault.place.unwrap_or_default();
            return Err(vec![Fault {
                line: place.line,
                column: place.column,
                ..whole(path, fault.message)
            }]);
        }
    };
    if matches!(tree.shape, Shape::Null) {
        return Err(vec![whole(
            path,
            "is empty; an empty configuration is written {}, so that a write cut short deletes nothing",
        )]);
    }
    // A line cut short is still YAML more often than not.
    if !text.ends_with('\n') {
        return Err(vec![whole(path, "does not end with a line end: it may have been cut short")]);
    }
    let mut reading = Reading {
        context,
        faults: Faults::default(),
        vault: Vault::default(),
        policy: crate::egress::Policy::default(),
        own: Vec::new(),
    };
    let file = everything(&mut reading, &tree, text, path);
    match file {
        Some(file) if reading.faults.is_empty() => Ok(file),
        Some(_) | None => Err(reading.faults.locate(path, text)),
    }
}

fn everything(reading: &mut Reading<'_>, tree: &Node, text: &str, path: &Path) -> Option<File> {
    let mut members = reading.members(tree, "")?;
    let settings = bootstrap(reading, &mut members);
    reading.policy = settings.egress;
    reading.own = vec![settings.server.listen, settings.admin.listen];
    let max_in_flight = capacity(reading, &mut members);
    let groups = list::<Group>(reading, &mut members);
    let tenants = list::<Tenant>(reading, &mut members);
    let models = list::<Model>(reading, &mut members);
    let mcp_servers = list::<McpServer>(reading, &mut members);
    reading.leftovers(&members, "", "this file");
    models_once(reading, &models);
    client_certificates_whole(reading, &models);
    secrets_once(reading, &tenants);
    Some(File {
        path: path.to_owned(),
        digest: Sha256::digest(text).into(),
        text: Arc::from(text),
        settings,
        max_in_flight,
        groups,
        tenants,
        models,
        mcp_servers,
        vault: std::mem::take(&mut reading.vault),
    })
}

/// Flag over environment over file over default.
fn bootstrap(reading: &mut Reading<'_>, members: &mut Members<'_>) -> Settings {
    let mut settings = Settings::default();
    let vault = Vault::default();
    let mut places = HashMap::new();
    for section in SECTIONS {
        let fields = settings::FIELDS.iter().filter_map(|field| {
            let (of, name) = field.name.split_once('.')?;
            (of == *section).then_some((field, name))
        });
        let member = members.take(section);
        places.extend(member.map(|member| (*section, At::Node(member.at))));
        let mut stated = member.and_then(|member| reading.members(&member.value, section));
        for (field, name) in fields {
            if let Some(member) = stated.as_mut().and_then(|stated| stated.take(name))
                && !matches!(member.value.shape, Shape::Null)
                && let Some(value) = reading.value(field.kind, &member.value, field.name)
            {
                (field.set)(&mut settings, &value, &vault);
            }
            let variable = variable(field.name);
            if let Some(text) = reading.context.environment.var(&variable)
                && let Some(value) = reading.loose(field.kind, text, At::Environment, &variable)
            {
                (field.set)(&mut settings, &value, &vault);
            }
        }
        if let Some(stated) = stated {
            reading.leftovers(&stated, section, "this section");
        }
    }
    for (name, text) in reading.context.flags.iter().filter(|(name, _)| *name != CAPACITY) {
        match settings::FIELDS.iter().find(|field| field.name == *name) {
            Some(field) => {
                if let Some(value) = reading.loose(field.kind, text.clone(), At::Flag, name) {
                    (field.set)(&mut settings, &value, &vault);
                }
            }
            None => reading.faults.add(At::Flag, name, "is no setting"),
        }
    }
    tls_whole(reading, &settings, &places);
    settings
}

/// The environment variable of a setting: `server.listen` is `OBLETH_SERVER_LISTEN`.
pub(super) fn variable(setting: &str) -> String {
    format!("OBLETH_{}", setting.replace('.', "_").to_ascii_uppercase())
}

fn tls_whole(reading: &mut Reading<'_>, settings: &Settings, places: &HashMap<&str, At>) {
    for (section, tls) in [("server", &settings.server.tls), ("admin", &settings.admin.tls)] {
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            let at = places.get(section).copied().unwrap_or(At::Environment);
            reading
                .faults
                .add(at, section, "tls_cert_file and tls_key_file must be given together");
        }
    }
}

/// A resource that can also be given where settings are: flag over environment over file.
fn capacity(reading: &mut Reading<'_>, members: &mut Members<'_>) -> Option<u32> {
    const SLOTS: Kind = Kind::Whole(0, SLOTS_MAX);
    let member = members.take("capacity");
    let stated = member.and_then(|member| reading.members(&member.value, "capacity"));
    let mut slots = stated.and_then(|mut stated| {
        let slots = stated
            .take("max_in_flight")
            .filter(|member| !matches!(member.value.shape, Shape::Null))
            .and_then(|member| reading.value(SLOTS, &member.value, CAPACITY));
        reading.leftovers(&stated, "capacity", "this section");
        slots
    });
    let variable = variable(CAPACITY);
    if let Some(text) = reading.context.environment.var(&variable) {
        slots = reading.loose(SLOTS, text, At::Environment, &variable).or(slots);
    }
    if let Some((_, text)) = reading.context.flags.iter().find(|(name, _)| *name == CAPACITY) {
        slots = reading.loose(SLOTS, text.clone(), At::Flag, CAPACITY).or(slots);
    }
    u32::try_from(slots?.as_u64()?).ok()
}

fn list<N: Noun>(reading: &mut Reading<'_>, members: &mut Members<'_>) -> Vec<Entry> {
    let Some(member) = members.take(N::LIST) else {
        return Vec::new();
    };
    entries::<N>(reading, &member.value, N::LIST)
}

fn entries<N: Noun>(reading: &mut Reading<'_>, node: &Node, path: &str) -> Vec<Entry> {
    let items = match &node.shape {
        Shape::List(items) => items.as_slice(),
        Shape::Null => &[],
        _ => {
            reading.faults.add(At::Node(node.at), path, "must be a list");
            return Vec::new();
        }
    };
    let mut seen = HashMap::new();
    let mut entries = Vec::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(entry) = entry::<N>(reading, node, &path) else {
            continue;
        };
        if let Some(first) = seen.insert(entry.name.clone(), path.clone()) {
            let message = format!("has the name of {first}");
            reading.faults.add(At::Node(node.at), &join(&path, N::NAME), message);
        }
        entries.push(entry);
    }
    entries
}

fn entry<N: Noun>(reading: &mut Reading<'_>, node: &Node, path: &str) -> Option<Entry> {
    let mut members = reading.members(node, path)?;
    let name_path = join(path, N::NAME);
    let name = match members.take(N::NAME) {
        Some(member) => reading.value(N::NAME_KIND, &member.value, &name_path),
        None => {
            reading.faults.add(At::Node(node.at), &name_path, "is required");
            None
        }
    };
    let mut stated = reading.fields(N::fields(), &mut members, path);
    // "As the model is called" has one spelling, which is silence.
    if stated.get("upstream_model").is_some_and(|upstream| Some(upstream) == name.as_ref()) {
        stated.remove("upstream_model");
    }
    let keys = if N::LIST == Tenant::LIST {
        let keys = members.take(ApiKey::LIST);
        keys.map_or_else(Vec::new, |member| {
            entries::<ApiKey>(reading, &member.value, &join(path, ApiKey::LIST))
        })
    } else {
        Vec::new()
    };
    reading.leftovers(&members, path, N::A_NOUN);
    Some(Entry {
        name: name?.as_str()?.to_owned(),
        at: node.at,
        path: path.to_owned(),
        stated,
        keys,
    })
}

/// No two models share a name or alias.
fn models_once(reading: &mut Reading<'_>, models: &[Entry]) {
    let mut seen: HashMap<String, &str> = models.iter().map(|model| (model.name.clone(), model.path.as_str())).collect();
    for model in models {
        let aliases = model.stated.get("aliases").and_then(Value::as_array);
        for alias in aliases.into_iter().flatten().filter_map(Value::as_str) {
            if let Some(owner) = seen.insert(alias.to_owned(), &model.path) {
                let message = format!("has an alias that is a name of {owner}");
                reading.faults.add(At::Node(model.at), &join(&model.path, "aliases"), message);
            }
        }
    }
}

/// A certificate is nothing without its key.
fn client_certificates_whole(reading: &mut Reading<'_>, models: &[Entry]) {
    let pair = ["tls_client_cert_file", "tls_client_key_file"];
    for model in models {
        for (given, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            if model.stated.contains_key(given) && !model.stated.contains_key(other) {
                let message = format!("is required beside {given}");
                reading.faults.add(At::Node(model.at), &join(&model.path, other), message);
            }
        }
    }
}

/// No two keys share a secret.
fn secrets_once(reading: &mut Reading<'_>, tenants: &[Entry]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for key in tenants.iter().flat_map(|tenant| &tenant.keys) {
        let hash = key.stated.get("secret").and_then(|secret| secret.get("hash")?.as_str());
        if let Some(owner) = hash.and_then(|hash| seen.insert(hash, &key.path)) {
            let message = format!("has the secret of {owner}");
            reading.faults.add(At::Node(key.at), &join(&key.path, "secret"), message);
        }
    }
}
