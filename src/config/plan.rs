//! What a merge decided: operations on the catalog, the audit's before and after, and what it left alone.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::applied::Applied;
use super::fault::At;
use crate::catalog::{ApiKey, Catalog, Conflict, Group, McpServer, Model, Tenant};

/// A field before and after; `None` where the object is new or gone. Fit to be shown: never a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// Its value before.
    pub before: Option<Value>,
    /// Its value after.
    pub after: Option<Value>,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Make,
    Change,
    Delete,
}

/// A change to one object, as an audit row wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `create_tenant`, … as in the management API.
    pub action: &'static str,
    /// `capacity`, `group`, `tenant`, `key`, `model`, `mcp_server`.
    pub entity_type: &'static str,
    /// Its id; a group's name; the capacity's `max_in_flight`.
    pub entity_id: String,
    /// What people call it; a key with its tenant, like `acme/prod`.
    pub name: String,
    /// The fields that change; those of a new or deleted object that are not at their defaults.
    pub fields: Vec<FieldChange>,
    pub(super) verb: Verb,
}

impl Change {
    /// Name, before and after, for an audit row; `before` is null for a new object, `after` for a deleted one.
    #[must_use]
    pub fn detail(&self) -> Value {
        let side = |absent: Verb, of: fn(&FieldChange) -> Option<&Value>| -> Option<Map<String, Value>> {
            let values = self
                .fields
                .iter()
                .filter_map(|field| Some((field.field.clone(), of(field)?.clone())));
            (self.verb != absent).then(|| values.collect())
        };
        let before = side(Verb::Make, |field| field.before.as_ref());
        let after = side(Verb::Delete, |field| field.after.as_ref());
        json!({"name": self.name, "before": before, "after": after})
    }
}

impl fmt::Display for Change {
    /// `+ tenant acme`, `~ tenant acme: weight 100 -> 500`, `- tenant acme`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.verb {
            Verb::Make => '+',
            Verb::Change => '~',
            Verb::Delete => '-',
        };
        write!(f, "{sign} {} {}", self.entity_type, self.name)?;
        if self.verb == Verb::Delete {
            return Ok(());
        }
        for (index, field) in self.fields.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { ", " })?;
            match (&field.before, &field.after) {
                (Some(before), Some(after)) if before == after => write!(f, "{} read anew", field.field)?,
                (Some(before), Some(after)) => write!(f, "{} {before} -> {after}", field.field)?,
                (None, Some(after)) => write!(f, "{} {after}", field.field)?,
                (Some(_) | None, None) => f.write_str(&field.field)?,
            }
        }
        Ok(())
    }
}

/// What the file says and the merge did not do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The API made the object: the file does not touch it, though it differs in these fields.
    MadeByApi {
        /// Its noun.
        noun: &'static str,
        /// Its name.
        name: String,
        /// Where they differ.
        fields: Vec<String>,
    },
    /// The API changed these fields of a file's object since the file last did.
    Overridden {
        /// Its noun.
        noun: &'static str,
        /// Its name.
        name: String,
        /// Which.
        fields: Vec<String>,
    },
    /// The API deleted a file's object, and the file has not changed it since.
    StaysDeleted {
        /// Its noun.
        noun: &'static str,
        /// Its name.
        name: String,
    },
    /// A group that left the file still has tenants.
    StaysInUse {
        /// The group.
        name: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MadeByApi { noun, name, fields } => {
                write!(
                    f,
                    "{noun} {name} was made through the API and stays as it is; the file differs in {}",
                    fields.join(", ")
                )
            }
            Self::Overridden { noun, name, fields } => {
                write!(f, "{noun} {name} keeps what was changed through the API: {}", fields.join(", "))
            }
            Self::StaysDeleted { noun, name } => write!(
                f,
                "{noun} {name} was deleted through the API and stays so until the file changes it"
            ),
            Self::StaysInUse { name } => write!(f, "group {name} left the file and still has tenants, so it stays"),
        }
    }
}

/// An object to be put, and where the file states it.
#[derive(Clone)]
pub(super) struct Put<N> {
    pub(super) object: N,
    pub(super) at: At,
    pub(super) path: String,
}

/// What a merge decided. Made against one catalog, to be applied to that very catalog: do both inside one change.
#[derive(Clone)]
pub struct Plan {
    pub(super) max_in_flight: Option<u32>,
    pub(super) groups: Vec<Put<Group>>,
    pub(super) tenants: Vec<Put<Tenant>>,
    pub(super) keys: Vec<Put<ApiKey>>,
    pub(super) models: Vec<Put<Model>>,
    pub(super) mcp_servers: Vec<Put<McpServer>>,
    pub(super) gone_groups: Vec<Arc<Group>>,
    pub(super) gone_tenants: Vec<Arc<Tenant>>,
    pub(super) gone_keys: Vec<Arc<ApiKey>>,
    pub(super) gone_models: Vec<Arc<Model>>,
    pub(super) gone_mcp_servers: Vec<Arc<McpServer>>,
    pub(super) changes: Vec<Change>,
    pub(super) notices: Vec<Notice>,
    pub(super) applied: Applied,
}

impl Plan {
    /// Whether the catalog stays as it is. The record of what was applied may change all the same.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What happens, object by object.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What does not happen though the file says so.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// What the store must keep for the next merge, in the same transaction.
    #[must_use]
    pub const fn applied(&self) -> &Applied {
        &self.applied
    }

    /// For people: a line per change, then a line per notice.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let changes = self.changes.iter().map(ToString::to_string);
        changes.chain(self.notices.iter().map(|notice| format!("! {notice}"))).collect()
    }

    /// For programs: `{"changes": [{action, entity_type, entity_id, name, before, after}], "notices": [text]}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|change| {
                let mut shown = change.detail();
                shown["action"] = json!(change.action);
                shown["entity_type"] = json!(change.entity_type);
                shown["entity_id"] = json!(change.entity_id);
                shown
            })
            .collect();
        let notices: Vec<String> = self.notices.iter().map(ToString::to_string).collect();
        json!({"changes": changes, "notices": notices})
    }

    /// Puts the plan into effect.
    ///
    /// # Errors
    /// The first [`Conflict`], with the catalog half changed. There is none on the catalog that the plan was made for.
    pub fn apply(&self, catalog: &mut Catalog) -> Result<(), Conflict> {
        let mut first = None;
        self.apply_reporting(catalog, &mut |_, _, conflict| {
            first.get_or_insert(conflict);
        });
        first.map_or(Ok(()), Err)
    }

    /// The same; goes on after a conflict.
    pub(super) fn apply_reporting(&self, catalog: &mut Catalog, report: &mut dyn FnMut(At, &str, Conflict)) {
        if let Some(slots) = self.max_in_flight {
            catalog.set_max_in_flight(slots);
        }
        // What changes is taken out with what goes, so that objects can swap names and secrets.
        let keys = self
            .gone_keys
            .iter()
            .map(|key| key.id)
            .chain(self.keys.iter().map(|put| put.object.id));
        keys.for_each(|id| drop(catalog.remove_key(&id)));
        let models = self.gone_models.iter().map(|model| model.id);
        let models = models.chain(self.models.iter().map(|put| put.object.id));
        models.for_each(|id| drop(catalog.remove_model(&id)));
        let servers = self.gone_mcp_servers.iter().map(|server| server.id);
        let servers = servers.chain(self.mcp_servers.iter().map(|put| put.object.id));
        servers.for_each(|id| drop(catalog.remove_mcp_server(&id)));
        self.gone_tenants.iter().for_each(|tenant| drop(catalog.remove_tenant(&tenant.id)));
        for put in &self.groups {
            catalog.put_group(put.object.clone());
        }
        let mut put = |at: At, path: &str, done: Result<(), Conflict>| {
            if let Err(conflict) = done {
                report(at, path, conflict);
            }
        };
        for Put { object, at, path } in &self.tenants {
            put(*at, path, catalog.put_tenant(object.clone()));
        }
        for group in &self.gone_groups {
            put(At::File, "groups", catalog.remove_group(&group.name).map(drop));
        }
        for Put { object, at, path } in &self.keys {
            put(*at, path, catalog.put_key(object.clone()));
        }
        for Put { object, at, path } in &self.models {
            put(*at, path, catalog.put_model(object.clone()));
        }
        for Put { object, at, path } in &self.mcp_servers {
            put(*at, path, catalog.put_mcp_server(object.clone()));
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("changes", &self.changes)
            .field("notices", &self.notices)
            .finish_non_exhaustive()
    }
}
