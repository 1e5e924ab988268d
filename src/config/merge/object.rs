//! The merge of one noun's objects, and of one object's fields.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Adoption, Merging, Now, Outcome, is_shared, is_the_files};
use crate::catalog::ManagedBy;
use crate::config::applied::{Keepsakes, Kept};
use crate::config::fault::At;
use crate::config::field::Field;
use crate::config::file::Entry;
use crate::config::kind::Kind;
use crate::config::noun::Noun;
use crate::config::plan::{Change, FieldChange, Notice, Put, Verb};
use crate::config::reading::Stated;

/// The objects of a noun that the store has, by what they can be known by.
struct Held<'h, N> {
    by_id: HashMap<String, &'h Arc<N>>,
    by_name: HashMap<&'h str, &'h Arc<N>>,
    by_secret: HashMap<String, &'h Arc<N>>,
    /// Ids of those that an entry stands for.
    claimed: HashSet<String>,
}

impl<'h, N: Noun> Held<'h, N> {
    fn new(objects: &'h [Arc<N>]) -> Self {
        let is_key = N::fields().iter().any(|field| matches!(field.kind, Kind::Secret));
        let mut held = Self {
            by_id: HashMap::new(),
            by_name: HashMap::new(),
            by_secret: HashMap::new(),
            claimed: HashSet::new(),
        };
        for object in objects {
            held.by_id.insert(object.id(), object);
            // The API's keys need no name of their own, so that a name does not tell which of them is meant.
            if !is_key || is_the_files(&**object) {
                held.by_name.entry(object.name()).or_insert(object);
            }
            if is_key {
                held.by_secret.extend(secret(N::fields(), object).map(|secret| (secret, object)));
            }
        }
        held
    }

    fn claim(&mut self, object: Option<&'h Arc<N>>) -> Option<&'h Arc<N>> {
        object.filter(|object| self.claimed.insert(object.id()))
    }
}

/// The digest of a key's secret.
fn secret<N>(fields: &[Field<N>], object: &N) -> Option<String> {
    let field = fields.iter().find(|field| matches!(field.kind, Kind::Secret))?;
    stated_secret(&(field.get)(object))
}

fn stated_secret(value: &Value) -> Option<String> {
    value.get("hash")?.as_str().map(str::to_owned)
}

impl Merging {
    /// Merges the objects of a noun. `owner` is a key's tenant, and `prepare` gives a new object what the file cannot state.
    pub(super) fn objects<N: Noun>(
        &mut self,
        entries: &[Entry],
        applied: &Keepsakes,
        objects: &[Arc<N>],
        owner: &str,
        prepare: &dyn Fn(&mut N),
    ) -> Outcome<N> {
        let mut held = Held::new(objects);
        // First those that are known for certain, so that a newcomer cannot take a renamed object by its name.
        let mut found: Vec<Option<&Arc<N>>> = Vec::with_capacity(entries.len());
        for entry in entries {
            let known = applied.get(&entry.name).and_then(|kept| held.by_id.get(&kept.id).copied());
            found.push(held.claim(known.filter(|object| is_the_files(&***object))));
        }
        for (entry, found) in entries.iter().zip(&mut found) {
            if found.is_none() {
                let same_secret = entry.stated.get("secret").and_then(stated_secret);
                let same_secret = same_secret.and_then(|secret| held.by_secret.get(&secret).copied());
                let object = same_secret.or_else(|| held.by_name.get(entry.name.as_str()).copied());
                *found = held.claim(object);
            }
        }
        let mut outcome = Outcome {
            puts: Vec::new(),
            gone: Vec::new(),
            kept: Keepsakes::new(),
            now: Vec::with_capacity(entries.len()),
        };
        for (entry, found) in entries.iter().zip(found) {
            let base = applied.get(&entry.name);
            let now = self.one(entry, base, found, owner, prepare, &mut outcome);
            outcome.now.push(now);
        }
        for object in objects {
            let gone = object.provenance().managed_by == ManagedBy::File && !is_shared(&**object) && !held.claimed.contains(&object.id());
            if gone {
                self.record(Verb::Delete, &**object, owner, beside_defaults(&**object, Verb::Delete));
                outcome.gone.push(Arc::clone(object));
            }
        }
        outcome
    }

    /// One entry: what it stands for afterwards.
    fn one<N: Noun>(
        &mut self,
        entry: &Entry,
        base: Option<&Kept>,
        found: Option<&Arc<N>>,
        owner: &str,
        prepare: &dyn Fn(&mut N),
        outcome: &mut Outcome<N>,
    ) -> Option<Now> {
        self.check_stored(entry);
        let (object, new) = match (found, base) {
            (Some(object), _) if !is_the_files(&**object) && self.adoption == Adoption::Never => {
                self.leave_alone(entry, &**object, owner);
                return Some(Now {
                    id: object.id(),
                    new: false,
                });
            }
            (Some(object), base) => {
                // What the file takes over it has never stated before.
                let base = base.filter(|_| is_the_files(&**object));
                (self.three_way(entry, base, &**object, owner), false)
            }
            (None, Some(base)) if base.fields == entry.stated && same_keys(base, entry) => {
                self.notices.push(Notice::StaysDeleted {
                    noun: N::NOUN,
                    name: full_name(owner, &entry.name),
                });
                outcome.kept.insert(entry.name.clone(), base.clone());
                return None;
            }
            (None, _) => (self.made(entry, owner, prepare), true),
        };
        let kept = Kept {
            id: object.id(),
            fields: entry.stated.clone(),
            keys: Keepsakes::new(),
        };
        outcome.kept.insert(entry.name.clone(), kept);
        let id = object.id();
        if found.is_none_or(|found| **found != object) {
            outcome.puts.push(Put {
                object,
                at: At::Node(entry.at),
                path: entry.path.clone(),
            });
        }
        Some(Now { id, new })
    }

    /// An object that is not there yet.
    fn made<N: Noun>(&mut self, entry: &Entry, owner: &str, prepare: &dyn Fn(&mut N)) -> N {
        let mut object = N::blank(&entry.name);
        prepare(&mut object);
        for field in N::fields() {
            if let Some(value) = entry.stated.get(field.name) {
                (field.set)(&mut object, value, &self.vault);
            }
        }
        self.record(Verb::Make, &object, owner, beside_defaults(&object, Verb::Make));
        object
    }

    /// The API's object: only says where the file differs.
    fn leave_alone<N: Noun>(&mut self, entry: &Entry, object: &N, owner: &str) {
        let differs = |field: &&Field<N>| entry.stated.get(field.name).is_some_and(|value| *value != (field.get)(object));
        let mut fields: Vec<String> = N::fields().iter().filter(differs).map(|field| field.name.to_owned()).collect();
        if object.name() != entry.name {
            fields.push(N::NAME.to_owned());
        }
        if !fields.is_empty() {
            self.notices.push(Notice::MadeByApi {
                noun: N::NOUN,
                name: full_name(owner, &entry.name),
                fields,
            });
        }
    }

    /// The most recent edit of a field wins.
    fn three_way<N: Noun>(&mut self, entry: &Entry, base: Option<&Kept>, object: &N, owner: &str) -> N {
        let blank = N::blank(&entry.name);
        let mut next = object.clone();
        let mut changes = Vec::new();
        let mut overridden = Vec::new();
        if object.name() != entry.name && base.is_some() {
            overridden.push(N::NAME.to_owned());
        } else if object.name() != entry.name {
            next.rename(&entry.name);
            changes.push(FieldChange {
                field: N::NAME.to_owned(),
                before: Some(json!(object.name())),
                after: Some(json!(entry.name)),
            });
        }
        for field in N::fields() {
            let file = stated(field, &entry.stated, &blank);
            let store = (field.get)(object);
            let edited = match base {
                Some(base) => stated(field, &base.fields, &blank) != file,
                None => entry.stated.contains_key(field.name),
            };
            let value = if edited || file == store { &file } else { &store };
            if *value != file {
                overridden.extend(api_names(field, &file, &store));
            }
            // A reference may stand for another secret than when the store was read.
            let with_secrets = matches!(field.kind, Kind::Endpoints | Kind::Upstream);
            if *value == store && !with_secrets {
                continue;
            }
            let before = next.clone();
            (field.set)(&mut next, value, &self.vault);
            if next != before {
                changes.push(FieldChange {
                    field: field.name.to_owned(),
                    before: Some(shown(field.kind, &store)),
                    after: Some(shown(field.kind, value)),
                });
            }
        }
        overridden.sort();
        if !overridden.is_empty() {
            self.notices.push(Notice::Overridden {
                noun: N::NOUN,
                name: full_name(owner, &entry.name),
                fields: overridden.clone(),
            });
        }
        changes.extend(provenance_changes(&mut next, overridden));
        if next != *object {
            self.record(Verb::Change, &next, owner, changes);
        }
        next
    }

    fn record<N: Noun>(&mut self, verb: Verb, object: &N, owner: &str, fields: Vec<FieldChange>) {
        let [made, changed, deleted] = N::ACTIONS;
        self.changes.push(Change {
            action: match verb {
                Verb::Make => made,
                Verb::Change => changed,
                Verb::Delete => deleted,
            },
            entity_type: N::NOUN,
            entity_id: object.id(),
            name: full_name(owner, object.name()),
            fields,
            verb,
        });
    }

    /// `stored:` means a credential that the store holds.
    fn check_stored(&mut self, entry: &Entry) {
        let endpoints = entry.stated.get("endpoints").and_then(|value| value.get("list")?.as_array());
        let keys = endpoints.into_iter().flatten().filter_map(|endpoint| endpoint.get("api_key"));
        let header = entry.stated.get("upstream_url").and_then(|value| value.get("auth_header"));
        let digests = keys.chain(header).filter_map(|credential| credential.get("digest")?.as_str());
        if digests.into_iter().any(|digest| self.vault.secret(digest).is_none()) {
            self.faults.add(
                At::Node(entry.at),
                &entry.path,
                "has a stored: credential that this store does not hold",
            );
        }
    }
}

/// Sets who manages the object and what is overridden; says what that changed.
fn provenance_changes<N: Noun>(next: &mut N, overridden: Vec<String>) -> Vec<FieldChange> {
    let shared = is_shared(next);
    let provenance = next.provenance_mut();
    let mut changes = Vec::new();
    if provenance.managed_by == ManagedBy::Api && !shared {
        provenance.managed_by = ManagedBy::File;
        changes.push(FieldChange {
            field: "managed_by".to_owned(),
            before: Some(json!("api")),
            after: Some(json!("file")),
        });
    }
    if provenance.overridden != overridden {
        changes.push(FieldChange {
            field: "overridden".to_owned(),
            before: Some(json!(provenance.overridden)),
            after: Some(json!(overridden)),
        });
        provenance.overridden = overridden;
    }
    changes
}

/// The names that the management API has for what differs in a field.
fn api_names<N>(field: &Field<N>, file: &Value, store: &Value) -> Vec<String> {
    let differing = |file: &Value, store: &Value, names: [(&str, &str); 2]| -> Vec<String> {
        let parts = names.into_iter().filter(|(part, _)| file[*part] != store[*part]);
        parts.map(|(_, name)| name.to_owned()).collect()
    };
    match field.kind {
        Kind::Endpoints if file["single"] == json!(true) && store["single"] == json!(true) => {
            differing(&file["list"][0], &store["list"][0], [("url", "api_base"), ("api_key", "api_key")])
        }
        Kind::Upstream => differing(file, store, [("url", "upstream_url"), ("auth_header", "auth_header")]),
        _ => vec![field.name.to_owned()],
    }
}

/// What the file says of a field: its value, or by silence the default.
fn stated<N>(field: &Field<N>, stated: &Stated, blank: &N) -> Value {
    stated.get(field.name).cloned().unwrap_or_else(|| (field.get)(blank))
}

/// A new or deleted object's fields that are not at their defaults.
fn beside_defaults<N: Noun>(object: &N, verb: Verb) -> Vec<FieldChange> {
    let blank = N::blank(object.name());
    let fields = N::fields().iter().filter_map(|field| {
        let value = (field.get)(object);
        (value != (field.get)(&blank)).then(|| (field, shown(field.kind, &value)))
    });
    fields
        .map(|(field, value)| {
            let (before, after) = if verb == Verb::Delete {
                (Some(value), None)
            } else {
                (None, Some(value))
            };
            FieldChange {
                field: field.name.to_owned(),
                before,
                after,
            }
        })
        .collect()
}

/// A value as people may see it: of a secret its prefix, of a stored credential that there is one.
fn shown(kind: Kind, value: &Value) -> Value {
    match kind {
        Kind::Secret => json!({"key_prefix": value.get("prefix")}),
        Kind::Endpoints | Kind::Upstream => without_digests(value),
        _ => value.clone(),
    }
}

fn without_digests(value: &Value) -> Value {
    match value {
        Value::Object(members) if members.contains_key("digest") => json!("stored"),
        Value::Object(members) => Value::Object(members.iter().map(|(name, value)| (name.clone(), without_digests(value))).collect()),
        Value::Array(items) => items.iter().map(without_digests).collect(),
        other => other.clone(),
    }
}

/// Whether a tenant's keys are stated as they were.
fn same_keys(base: &Kept, entry: &Entry) -> bool {
    let same = |key: &Entry| base.keys.get(&key.name).is_some_and(|kept| kept.fields == key.stated);
    base.keys.len() == entry.keys.len() && entry.keys.iter().all(same)
}

/// `acme`, or a key's `acme/prod`.
fn full_name(owner: &str, name: &str) -> String {
    if owner.is_empty() {
        name.to_owned()
    } else {
        format!("{owner}/{name}")
    }
}
