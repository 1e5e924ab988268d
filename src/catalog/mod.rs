//! One immutable view of everything configured: groups, tenants, keys, models, MCP servers, capacity.
//!
//! A request takes one `Arc<Catalog>` when it is authenticated and keeps it to its end, so it never sees two
//! configurations. A mutation builds the next catalog, makes it durable, and swaps it whole ([`Live::publish`]).
//!
//! Invariant: names are unique per noun, every tenant's group exists, every key's tenant exists, and no two models share
//! a name or alias. [`Catalog`]'s `put_*` methods keep it; there is no other way in.

mod live;
mod noun;
mod table;
mod word;

use std::sync::Arc;

pub use live::Live;
pub use noun::{
    ApiKey, Budget, BudgetPeriod, CacheMode, CachePolicy, CacheScope, Credential, Digest, Endpoint, Engine, Group, LoadBalancing,
    ManagedBy, McpServer, Model, ModelCapacity, ModelType, Protocol, Provenance, RETRIES_MAX, Retired, Supports, Tenant, TenantStatus,
    Timeouts, Tls,
};
use table::Sharded;
pub use table::{Difference, Table};
pub use word::Word;
pub(crate) use word::words;

pub use crate::pricing::Prices;

use crate::id::{KeyId, McpServerId, ModelId, TenantId};

/// The group every tenant belongs to unless another is named. It always exists.
pub const DEFAULT_GROUP: &str = "default";

/// Why a change does not fit the catalog. Room errors know no HTTP; the admin door maps them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another object of the noun has the name (or a model's alias).
    #[error("the {noun} name {name:?} is taken")]
    NameTaken {
        /// `group`, `tenant`, `key`, `model` or `mcp_server`.
        noun: &'static str,
        /// The name asked for.
        name: String,
    },
    /// A tenant names a group that does not exist.
    #[error("there is no group {0:?}")]
    UnknownGroup(String),
    /// A key names a tenant that does not exist.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// A group that still has tenants cannot be deleted.
    #[error("the group {0:?} still has tenants")]
    GroupInUse(String),
    /// The default group cannot be deleted.
    #[error("the default group cannot be deleted")]
    DefaultGroup,
    /// Two secrets with one digest: a duplicate secret in the configuration file, or a broken random generator.
    #[error("the secret is in use by another key")]
    SecretInUse,
}

/// What a secret resolves to.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The key presented.
    pub key: Arc<ApiKey>,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
}

/// Everything configured, at one version. Cheap to clone: every table is shared until it is changed.
#[derive(Debug, Clone)]
pub struct Catalog {
    version: u64,
    max_in_flight: u32,
    groups: Table<Arc<str>, Group>,
    tenants: Table<TenantId, Tenant>,
    keys: Table<KeyId, ApiKey>,
    models: Table<ModelId, Model>,
    mcp_servers: Table<McpServerId, McpServer>,
    tenant_names: Sharded<String, TenantId>,
    key_digests: Sharded<Digest, KeyId>,
    model_names: Sharded<String, ModelId>,
    mcp_server_names: Sharded<String, McpServerId>,
}

impl Catalog {
    /// A catalog with the default group and nothing else.
    #[must_use]
    pub fn empty(max_in_flight: u32) -> Self {
        let mut groups = Table::default();
        groups.put(Arc::from(DEFAULT_GROUP), Group::new(DEFAULT_GROUP));
        Self {
            version: 0,
            max_in_flight,
            groups,
            tenants: Table::default(),
            keys: Table::default(),
            models: Table::default(),
            mcp_servers: Table::default(),
            tenant_names: Sharded::default(),
            key_digests: Sharded::default(),
            model_names: Sharded::default(),
            mcp_server_names: Sharded::default(),
        }
    }

    /// Counts up with each published change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Sets the version; the store does so when it commits.
    pub const fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// How many requests may be upstream at once, in this process. 0 admits nothing.
    #[must_use]
    pub const fn max_in_flight(&self) -> u32 {
        self.max_in_flight
    }

    /// Changes the capacity; running requests are never cut.
    pub const fn set_max_in_flight(&mut self, slots: u32) {
        self.max_in_flight = slots;
    }

    /// All groups.
    #[must_use]
    pub const fn groups(&self) -> &Table<Arc<str>, Group> {
        &self.groups
    }

    /// All tenants.
    #[must_use]
    pub const fn tenants(&self) -> &Table<TenantId, Tenant> {
        &self.tenants
    }

    /// All keys.
    #[must_use]
    pub const fn keys(&self) -> &Table<KeyId, ApiKey> {
        &self.keys
    }

    /// All models, enabled or not.
    #[must_use]
    pub const fn models(&self) -> &Table<ModelId, Model> {
        &self.models
    }

    /// All MCP servers, enabled or not.
    #[must_use]
    pub const fn mcp_servers(&self) -> &Table<McpServerId, McpServer> {
        &self.mcp_servers
    }

    /// Finds who presents a secret, by the secret's full digest. Says nothing about whether they may come in.
    #[must_use]
    pub fn principal(&self, digest: &Digest) -> Option<Principal> {
        let key = self.keys.get(self.key_digests.get(digest)?)?;
        let tenant = self.tenants.get(&key.tenant_id)?;
        Some(Principal {
            key: Arc::clone(key),
            tenant: Arc::clone(tenant),
        })
    }

    /// Finds a model by its name or one of its aliases, enabled or not.
    #[must_use]
    pub fn model_named(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(self.model_names.get(name)?)
    }

    /// Finds a tenant by name.
    #[must_use]
    pub fn tenant_named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.tenant_names.get(name)?)
    }

    /// Finds an MCP server by its path segment, enabled or not.
    #[must_use]
    pub fn mcp_server_named(&self, name: &str) -> Option<&Arc<McpServer>> {
        self.mcp_servers.get(self.mcp_server_names.get(name)?)
    }

    /// Adds or replaces a group.
    pub fn put_group(&mut self, group: Group) {
        self.groups.put(Arc::clone(&group.name), group);
    }

    /// Removes a group. Returns it, or `None` if there was none.
    ///
    /// # Errors
    /// [`Conflict::DefaultGroup`], [`Conflict::GroupInUse`].
    pub fn remove_group(&mut self, name: &str) -> Result<Option<Arc<Group>>, Conflict> {
        if name == DEFAULT_GROUP {
            return Err(Conflict::DefaultGroup);
        }
        if self.tenants.values().any(|tenant| &*tenant.group == name) {
            return Err(Conflict::GroupInUse(name.to_owned()));
        }
        Ok(self.groups.remove(name))
    }

    /// Adds or replaces a tenant.
    ///
    /// # Errors
    /// [`Conflict::UnknownGroup`], [`Conflict::NameTaken`].
    pub fn put_tenant(&mut self, tenant: Tenant) -> Result<(), Conflict> {
        if self.groups.get(&*tenant.group).is_none() {
            return Err(Conflict::UnknownGroup(tenant.group.to_string()));
        }
        claim(&self.tenant_names, "tenant", &tenant.name, &tenant.id)?;
        let before = self.tenants.get(&tenant.id).map(|old| old.name.clone());
        if before.as_ref() != Some(&tenant.name) {
            let names = &mut self.tenant_names;
            if let Some(before) = before {
                names.remove(&before);
            }
            names.insert(tenant.name.clone(), tenant.id);
        }
        self.tenants.put(tenant.id, tenant);
        Ok(())
    }

    /// Removes a tenant and its keys. Returns them, or `None` if there was no such tenant.
    pub fn remove_tenant(&mut self, id: &TenantId) -> Option<(Arc<Tenant>, Vec<Arc<ApiKey>>)> {
        let tenant = self.tenants.remove(id)?;
        self.tenant_names.remove(&tenant.name);
        let keys: Vec<KeyId> = self.keys.values().filter(|key| key.tenant_id == *id).map(|key| key.id).collect();
        let keys = keys.iter().filter_map(|key| self.remove_key(key)).collect();
        Some((tenant, keys))
    }

    /// Adds or replaces a key.
    ///
    /// # Errors
    /// [`Conflict::UnknownTenant`], [`Conflict::SecretInUse`]. Key names need not be unique.
    pub fn put_key(&mut self, key: ApiKey) -> Result<(), Conflict> {
        if self.tenants.get(&key.tenant_id).is_none() {
            return Err(Conflict::UnknownTenant);
        }
        let digests = || std::iter::once(key.digest).chain(key.retired.as_ref().map(|retired| retired.digest));
        if digests().any(|digest| self.key_digests.get(&digest).is_some_and(|owner| *owner != key.id)) {
            return Err(Conflict::SecretInUse);
        }
        let before = self.keys.get(&key.id).cloned();
        let index = &mut self.key_digests;
        if let Some(before) = before {
            index.remove(&before.digest);
            if let Some(retired) = &before.retired {
                index.remove(&retired.digest);
            }
        }
        for digest in digests() {
            index.insert(digest, key.id);
        }
        self.keys.put(key.id, key);
        Ok(())
    }

    /// Removes a key; requests that carry it are refused from the next one on.
    pub fn remove_key(&mut self, id: &KeyId) -> Option<Arc<ApiKey>> {
        let key = self.keys.remove(id)?;
        let index = &mut self.key_digests;
        index.remove(&key.digest);
        if let Some(retired) = &key.retired {
            index.remove(&retired.digest);
        }
        Some(key)
    }

    /// Adds or replaces a model.
    ///
    /// # Errors
    /// [`Conflict::NameTaken`] for its name or an alias.
    pub fn put_model(&mut self, model: Model) -> Result<(), Conflict> {
        for name in model.names() {
            claim(&self.model_names, "model", name, &model.id)?;
        }
        let before = self.models.get(&model.id).cloned();
        let index = &mut self.model_names;
        for name in before.iter().flat_map(|before| before.names()) {
            index.remove(name);
        }
        for name in model.names() {
            index.insert(name.to_owned(), model.id);
        }
        self.models.put(model.id, model);
        Ok(())
    }

    /// Removes a model; running requests finish.
    pub fn remove_model(&mut self, id: &ModelId) -> Option<Arc<Model>> {
        let model = self.models.remove(id)?;
        let index = &mut self.model_names;
        for name in model.names() {
            index.remove(name);
        }
        Some(model)
    }

    /// Adds or replaces an MCP server.
    ///
    /// # Errors
    /// [`Conflict::NameTaken`].
    pub fn put_mcp_server(&mut self, server: McpServer) -> Result<(), Conflict> {
        claim(&self.mcp_server_names, "mcp_server", &server.name, &server.id)?;
        let before = self.mcp_servers.get(&server.id).map(|old| old.name.clone());
        let index = &mut self.mcp_server_names;
        if let Some(before) = before {
            index.remove(&before);
        }
        index.insert(server.name.clone(), server.id);
        self.mcp_servers.put(server.id, server);
        Ok(())
    }

    /// Removes an MCP server.
    pub fn remove_mcp_server(&mut self, id: &McpServerId) -> Option<Arc<McpServer>> {
        let server = self.mcp_servers.remove(id)?;
        self.mcp_server_names.remove(&server.name);
        Some(server)
    }
}

/// Checks that `name` is free or already `id`'s own.
fn claim<I: PartialEq + Clone>(names: &Sharded<String, I>, noun: &'static str, name: &str, id: &I) -> Result<(), Conflict> {
    match names.get(name) {
        Some(owner) if owner != id => Err(Conflict::NameTaken {
            noun,
            name: name.to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
