//! The three-way merge: the file as last applied, the file now, the store. Who wins is said in the room's own doc.

mod object;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::applied::{Applied, Keepsakes, Kept};
use super::fault::{At, Fault, Faults};
use super::field::Vault;
use super::file::{Entry, File};
use super::noun::{Noun, credential_digest};
use super::plan::{Change, FieldChange, Notice, Plan, Put, Verb};
use super::reading::{Stated, join};
use super::settings::MAX_IN_FLIGHT_DEFAULT;
use crate::catalog::{ApiKey, Catalog, Conflict, Credential, DEFAULT_GROUP, Group, ManagedBy, Tenant};
use crate::id::TenantId;

/// What happens to an object that the API made and the file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adoption {
    /// It is left alone, and reported when the two differ.
    #[default]
    Never,
    /// The file takes it over: fields that the file states are applied, the others stay and are listed as overridden.
    Named,
}

/// Merges a file into a catalog. Changes nothing: the plan is to be applied to the same catalog, and its
/// [`applied`](Plan::applied) kept, in one transaction.
///
/// # Errors
/// Every place where the file does not fit the catalog: unknown groups and tenants, names and secrets that are taken.
pub fn merge(applied: Option<&Applied>, file: &File, catalog: &Catalog, adoption: Adoption) -> Result<Plan, Vec<Fault>> {
    let nothing = Applied::new();
    let applied = applied.unwrap_or(&nothing);
    let mut merging = Merging {
        vault: vault(file, catalog),
        adoption,
        faults: Faults::default(),
        changes: Vec::new(),
        notices: Vec::new(),
    };
    let plan = merging.plan(applied, file, catalog);
    if merging.faults.is_empty() {
        // Names and secrets can clash in many ways; the catalog itself knows best.
        let faults = &mut merging.faults;
        plan.apply_reporting(&mut catalog.clone(), &mut |at, path, conflict| {
            faults.add(at, path, sentence(&conflict));
        });
    }
    if merging.faults.is_empty() {
        Ok(plan)
    } else {
        Err(file.locate(merging.faults))
    }
}

/// A merge under way.
struct Merging {
    vault: Vault,
    adoption: Adoption,
    faults: Faults,
    changes: Vec<Change>,
    notices: Vec<Notice>,
}

/// What became of a noun's objects.
struct Outcome<N> {
    puts: Vec<Put<N>>,
    gone: Vec<Arc<N>>,
    kept: Keepsakes,
    /// The object that each entry stands for afterwards; `None` if it stays deleted.
    now: Vec<Option<Now>>,
}

struct Now {
    id: String,
    /// Whether it has just come into being.
    new: bool,
}

impl Merging {
    fn plan(&mut self, applied: &Applied, file: &File, catalog: &Catalog) -> Plan {
        let max_in_flight = self.capacity(applied, file, catalog);
        let groups = self.groups(applied, file, catalog);
        let tenants = self.objects::<Tenant>(&file.tenants, &applied.tenants, &sorted(catalog.tenants().values()), "", &|_| ());
        let gone_groups = self.unused(&groups, &tenants, catalog);
        let (keys, tenants_kept) = self.keys(applied, file, catalog, &tenants);
        let models = self.objects(&file.models, &applied.models, &sorted(catalog.models().values()), "", &|_| ());
        let servers = self.with_tenant_ids(applied, file, catalog, &tenants);
        let servers = self.objects(&servers, &applied.mcp_servers, &sorted(catalog.mcp_servers().values()), "", &|_| ());
        let mut record = Applied::new();
        record.max_in_flight = file.max_in_flight;
        record.groups = groups.kept;
        record.tenants = tenants_kept;
        record.models = models.kept;
        record.mcp_servers = servers.kept;
        Plan {
            max_in_flight,
            groups: groups.puts,
            tenants: tenants.puts,
            keys: keys.puts,
            models: models.puts,
            mcp_servers: servers.puts,
            gone_groups,
            gone_tenants: tenants.gone,
            gone_keys: keys.gone,
            gone_models: models.gone,
            gone_mcp_servers: servers.gone,
            changes: std::mem::take(&mut self.changes),
            notices: std::mem::take(&mut self.notices),
            applied: record,
        }
    }

    /// The capacity is a field without an object.
    fn capacity(&mut self, applied: &Applied, file: &File, catalog: &Catalog) -> Option<u32> {
        let held = catalog.max_in_flight();
        // A file that has never stated it has no say.
        file.max_in_flight.or(applied.max_in_flight)?;
        let stated = file.max_in_flight.unwrap_or(MAX_IN_FLIGHT_DEFAULT);
        if stated == held {
            return None;
        }
        if applied.max_in_flight == file.max_in_flight {
            self.notices.push(Notice::Overridden {
                noun: "capacity",
                name: "of this process".to_owned(),
                fields: vec!["max_in_flight".to_owned()],
            });
            return None;
        }
        self.changes.push(Change {
            action: "set_capacity",
            entity_type: "capacity",
            entity_id: "max_in_flight".to_owned(),
            name: "of this process".to_owned(),
            fields: vec![FieldChange {
                field: "max_in_flight".to_owned(),
                before: Some(json!(held)),
                after: Some(json!(stated)),
            }],
            verb: Verb::Change,
        });
        Some(stated)
    }

    /// The default group is always there. When it leaves the file its fields go back to their defaults.
    fn groups(&mut self, applied: &Applied, file: &File, catalog: &Catalog) -> Outcome<Group> {
        let mut entries = file.groups.clone();
        let named = entries.iter().any(|entry| entry.name == DEFAULT_GROUP);
        if !named && applied.groups.contains_key(DEFAULT_GROUP) {
            entries.push(Entry {
                name: DEFAULT_GROUP.to_owned(),
                at: 0,
                path: String::new(),
                stated: Stated::new(),
                keys: Vec::new(),
            });
        }
        let mut outcome = self.objects(&entries, &applied.groups, &sorted(catalog.groups().values()), "", &|_| ());
        if !named {
            outcome.kept.remove(DEFAULT_GROUP);
        }
        outcome
    }

    /// Which of the groups that left the file can go, and whether every tenant has its group.
    fn unused(&mut self, groups: &Outcome<Group>, tenants: &Outcome<Tenant>, catalog: &Catalog) -> Vec<Arc<Group>> {
        let put: HashMap<TenantId, &Tenant> = tenants.puts.iter().map(|put| (put.object.id, &put.object)).collect();
        let gone: HashSet<TenantId> = tenants.gone.iter().map(|tenant| tenant.id).collect();
        let held = catalog.tenants().values().map(|tenant| &**tenant);
        let held = held.filter(|tenant| !gone.contains(&tenant.id) && !put.contains_key(&tenant.id));
        let used: HashSet<&str> = held.chain(put.values().copied()).map(|tenant| &*tenant.group).collect();
        for Put { object, at, path } in &tenants.puts {
            let known = catalog.groups().get(&object.group).is_some() || groups.puts.iter().any(|put| put.object.name == object.group);
            if !known {
                self.faults
                    .add(*at, &join(path, "fairshare_group"), "names a group that does not exist");
            }
        }
        let (stay, go): (Vec<Arc<Group>>, Vec<Arc<Group>>) = groups.gone.iter().cloned().partition(|group| used.contains(&*group.name));
        for group in stay {
            self.notices.push(Notice::StaysInUse {
                name: group.name.to_string(),
            });
            self.changes
                .retain(|change| change.entity_type != Group::NOUN || change.entity_id != *group.name);
        }
        go
    }

    /// The keys of every tenant, in the file or not. Returns the record of the tenants too, which holds that of the keys.
    fn keys(&mut self, applied: &Applied, file: &File, catalog: &Catalog, tenants: &Outcome<Tenant>) -> (Outcome<ApiKey>, Keepsakes) {
        let mut held: BTreeMap<TenantId, Vec<Arc<ApiKey>>> = BTreeMap::new();
        for key in sorted(catalog.keys().values()) {
            held.entry(key.tenant_id).or_default().push(key);
        }
        let mut all = Outcome {
            puts: Vec::new(),
            gone: Vec::new(),
            kept: Keepsakes::new(),
            now: Vec::new(),
        };
        let mut record = tenants.kept.clone();
        let nothing = Keepsakes::new();
        for (entry, now) in file.tenants.iter().zip(&tenants.now) {
            let base = applied.tenants.get(&entry.name);
            let Some((now, id)) = now.as_ref().and_then(|now| Some((now, now.id.parse::<TenantId>().ok()?))) else {
                continue;
            };
            // A tenant that comes back gets all its keys back.
            let base = base.filter(|_| !now.new).map_or(&nothing, |base| &base.keys);
            let own = held.remove(&id).unwrap_or_default();
            let outcome = self.objects(&entry.keys, base, &own, &entry.name, &|key: &mut ApiKey| key.tenant_id = id);
            all.puts.extend(outcome.puts);
            all.gone.extend(outcome.gone);
            match record.get_mut(&entry.name) {
                Some(kept) => kept.keys = outcome.kept,
                // The API's tenant with a file's keys.
                None if outcome.kept.is_empty() => {}
                None => {
                    let kept = Kept {
                        keys: outcome.kept,
                        ..Kept::default()
                    };
                    record.insert(entry.name.clone(), kept);
                }
            }
        }
        let dead: HashSet<TenantId> = tenants.gone.iter().map(|tenant| tenant.id).collect();
        for (id, own) in held {
            if let Some(tenant) = catalog.tenants().get(&id).filter(|_| !dead.contains(&id)) {
                all.gone.extend(self.objects(&[], &nothing, &own, &tenant.name, &|_| ()).gone);
            }
        }
        (all, record)
    }

    /// The file's MCP servers with the ids of the tenants they name: by the file's names, the store's, or the ids themselves.
    fn with_tenant_ids(&mut self, applied: &Applied, file: &File, catalog: &Catalog, tenants: &Outcome<Tenant>) -> Vec<Entry> {
        let gone: HashSet<TenantId> = tenants.gone.iter().map(|tenant| tenant.id).collect();
        let held = catalog.tenants().values().filter(|tenant| !gone.contains(&tenant.id));
        let mut ids: HashMap<String, String> = held
            .flat_map(|tenant| [tenant.name.clone(), tenant.id()].map(|name| (name, tenant.id())))
            .collect();
        let named = file.tenants.iter().zip(&tenants.now);
        ids.extend(named.filter_map(|(entry, now)| {
            // One that the API deleted keeps its place: it may come back.
            let id = now.as_ref().map(|now| &now.id);
            let id = id.or_else(|| applied.tenants.get(&entry.name).map(|kept| &kept.id));
            Some((entry.name.clone(), id?.clone()))
        }));
        let mut servers = file.mcp_servers.clone();
        for server in &mut servers {
            let Some(Value::Array(names)) = server.stated.get_mut("allowed_tenants") else {
                continue;
            };
            for (index, name) in names.iter_mut().enumerate() {
                match name.as_str().and_then(|name| ids.get(name)) {
                    Some(id) => *name = json!(id),
                    None => {
                        let path = format!("{}.allowed_tenants[{index}]", server.path);
                        self.faults.add(At::Node(server.at), &path, "names a tenant that does not exist");
                    }
                }
            }
        }
        servers
    }
}

/// Objects in the order they were made: ids are time-ordered.
fn sorted<'c, N: Noun>(objects: impl Iterator<Item = &'c Arc<N>>) -> Vec<Arc<N>> {
    let mut objects: Vec<Arc<N>> = objects.cloned().collect();
    objects.sort_by_cached_key(|object| object.id());
    objects
}

/// Every secret that either side holds. What the file has read just now is fresher, unless it is nothing.
fn vault(file: &File, catalog: &Catalog) -> Vault {
    let models = catalog.models().values().flat_map(|model| &model.endpoints);
    let models = models.filter_map(|endpoint| endpoint.credential.as_ref());
    let servers = catalog.mcp_servers().values().filter_map(|server| server.auth_header.as_ref());
    let mut vault = Vault::default();
    for Credential { reference, secret } in models.chain(servers) {
        match (reference, secret) {
            (Some(reference), secret) => drop(vault.0.insert(reference.clone(), secret.clone())),
            (None, Some(secret)) => drop(vault.0.insert(credential_digest(secret), Some(Arc::clone(secret)))),
            (None, None) => {}
        }
    }
    for (name, secret) in &file.vault.0 {
        if secret.is_some() || !vault.0.contains_key(name) {
            vault.0.insert(name.clone(), secret.clone());
        }
    }
    vault
}

/// Whether the file may change the object. The default group is nobody's.
fn is_the_files<N: Noun>(object: &N) -> bool {
    object.provenance().managed_by == ManagedBy::File || is_shared(object)
}

fn is_shared<N: Noun>(object: &N) -> bool {
    N::NOUN == Group::NOUN && object.name() == DEFAULT_GROUP
}

/// A conflict in words, without values.
fn sentence(conflict: &Conflict) -> &'static str {
    match conflict {
        Conflict::NameTaken { .. } => "has a name or alias that another object in the store has",
        Conflict::UnknownGroup(_) => "names a group that does not exist",
        Conflict::UnknownTenant => "belongs to a tenant that does not exist",
        Conflict::GroupInUse(_) => "has a group that left the file and still has tenants",
        Conflict::DefaultGroup => "cannot do without the default group",
        Conflict::SecretInUse => "has a secret that another key in the store has",
    }
}
