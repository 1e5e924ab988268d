//! Follows the catalog by its differences: what has not changed is not looked at, and the scheduler is locked per change.

use std::collections::HashMap;
use std::sync::Arc;

use super::directory::{ById, Directory, KeyEntry};
use super::{Admission, Inner, Slots, slots_of};
use crate::catalog::{Catalog, Group, McpServer, Model, ModelCapacity, Table, Tenant};
use crate::id::{KeyId, McpServerId, ModelId, TenantId};
use crate::scheduler::{GroupIx, Handle, TenantTerms};

/// The admission weight of MCP servers, in percent: time in a slot counts as it is.
const WEIGHT: u32 = 100;

/// What was applied last. Its lock makes [`Admission::apply`] one at a time; it is taken before the scheduler's.
#[derive(Debug, Default)]
pub(super) struct Applied {
    catalog: Option<Catalog>,
    groups: HashMap<Arc<str>, Handle<GroupIx>>,
    directory: Directory,
    /// Caps set from outside the catalog.
    learned_caps: ById<ModelId, Option<u32>>,
}

impl Admission {
    /// Follows the catalog: capacity, groups, tenants, keys and models, with their weights and caps. When this returns the
    /// next scheduling decision obeys it.
    pub fn apply(&self, catalog: &Catalog) {
        let mut applied = self.applied.lock();
        let before = applied.catalog.clone();
        let before = before.as_ref();
        let applied = &mut *applied;

        if before.is_none_or(|before| before.max_in_flight() != catalog.max_in_flight()) {
            let in_all = match self.slots {
                Slots::Models => catalog.max_in_flight(),
                Slots::McpServers => u32::MAX,
            };
            self.with(|inner| inner.scheduler.set_max_in_flight(in_all));
        }
        let groups = before.map(Catalog::groups);
        if groups.is_none_or(|groups| !groups.same(catalog.groups())) {
            self.put_groups(applied, groups, catalog.groups());
        }
        let tenants = before.map(Catalog::tenants);
        if tenants.is_none_or(|tenants| !tenants.same(catalog.tenants())) {
            self.follow_tenants(applied, tenants, catalog.tenants());
        }
        let keys = before.map(Catalog::keys);
        if keys.is_none_or(|keys| !keys.same(catalog.keys())) {
            self.follow_keys(applied, before, catalog);
        }
        match self.slots {
            Slots::Models => {
                let models = before.map(Catalog::models);
                if models.is_none_or(|models| !models.same(catalog.models())) {
                    self.follow_models(applied, models, catalog.models());
                }
            }
            Slots::McpServers => {
                let servers = before.map(Catalog::mcp_servers);
                if servers.is_none_or(|servers| !servers.same(catalog.mcp_servers())) {
                    self.follow_servers(applied, servers, catalog.mcp_servers());
                }
            }
        }
        // Last: a group may go only when its tenants have moved out.
        let gone: Vec<Arc<str>> = applied
            .groups
            .keys()
            .filter(|name| catalog.groups().get(&***name).is_none())
            .cloned()
            .collect();
        for name in gone {
            if let Some(group) = applied.groups.remove(&name) {
                self.with(|inner| inner.scheduler.remove_group(group));
            }
        }
        self.directory.store(Arc::new(applied.directory.clone()));
        // Last: should a step panic, the next call sees all of the difference again.
        applied.catalog = Some(catalog.clone());
    }

    /// Sets a model's cap from outside the catalog: what its endpoints take together, or what was learned from an engine's
    /// signals. It holds until it is set again, beside the catalog's own; `None` caps nothing. Requests then wait here, by
    /// fair share, and not with a slot in hand at an endpoint.
    pub fn set_model_cap(&self, model: ModelId, cap: Option<u32>) {
        let mut applied = self.applied.lock();
        match cap {
            Some(_) => applied.learned_caps.insert(model, cap),
            // Also said of a model that has just been deleted.
            None => applied.learned_caps.remove(&model),
        };
        let listed = applied.catalog.as_ref().and_then(|catalog| catalog.models().get(&model)).cloned();
        if let Some(listed) = listed
            && let Some(&handle) = applied.directory.models.get(&model)
        {
            let cap = cap_of(&applied, &listed);
            self.with(|inner| inner.scheduler.set_model(handle, listed.admission_weight, cap));
        }
    }

    fn put_groups(&self, applied: &mut Applied, before: Option<&Table<Arc<str>, Group>>, after: &Table<Arc<str>, Group>) {
        for group in after.values() {
            if before
                .and_then(|before| before.get(&*group.name))
                .is_some_and(|old| Arc::ptr_eq(old, group))
            {
                continue;
            }
            match applied.groups.get(&group.name) {
                Some(&handle) => self.with(|inner| inner.scheduler.set_group_weight(handle, group.weight)),
                None => {
                    let handle = self.with(|inner| inner.scheduler.add_group(&group.name, group.weight));
                    applied.groups.insert(Arc::clone(&group.name), handle);
                }
            }
        }
    }

    fn follow_tenants(&self, applied: &mut Applied, before: Option<&Table<TenantId, Tenant>>, after: &Table<TenantId, Tenant>) {
        // Copied only if somebody comes or goes; a change of terms leaves the directory as it is.
        let tenants = &mut applied.directory.tenants;
        for gone in before
            .into_iter()
            .flat_map(Table::values)
            .filter(|old| after.get(&old.id).is_none())
        {
            if let Some(handle) = Arc::make_mut(tenants).remove(&gone.id) {
                self.with(|inner| inner.scheduler.remove_tenant(handle));
            }
        }
        for tenant in after.values() {
            if before
                .and_then(|before| before.get(&tenant.id))
                .is_some_and(|old| Arc::ptr_eq(old, tenant))
            {
                continue;
            }
            let group = applied.groups.get(&tenant.group);
            debug_assert!(group.is_some(), "the catalog has every tenant's group");
            let Some(&group) = group else { continue };
            let terms = TenantTerms {
                group,
                weight: tenant.weight,
                max_in_flight: tenant.max_in_flight,
                max_queued: tenant.max_queued,
            };
            match tenants.get(&tenant.id) {
                Some(&handle) => self.with(|inner| inner.scheduler.set_tenant(handle, &terms)),
                None => {
                    if let Some(handle) = self.with(|inner| inner.scheduler.add_tenant(tenant.id, &terms)) {
                        Arc::make_mut(tenants).insert(tenant.id, handle);
                    }
                }
            }
        }
    }

    fn follow_keys(&self, applied: &mut Applied, before: Option<&Catalog>, catalog: &Catalog) {
        let Directory { tenants, keys, .. } = &mut applied.directory;
        let gone = |id: &KeyId| catalog.keys().get(id).is_none();
        for old in before
            .into_iter()
            .flat_map(|before| before.keys().values())
            .filter(|old| gone(&old.id))
        {
            if let Some(entry) = Arc::make_mut(keys).remove(&old.id) {
                self.with(|inner| inner.scheduler.remove_key(entry.key));
            }
        }
        for key in catalog.keys().values() {
            if before
                .and_then(|before| before.keys().get(&key.id))
                .is_some_and(|old| Arc::ptr_eq(old, key))
            {
                continue;
            }
            if let Some(entry) = keys.get(&key.id) {
                self.with(|inner| inner.scheduler.set_key(entry.key, key.max_in_flight));
                continue;
            }
            let Some(&tenant) = tenants.get(&key.tenant_id) else { continue };
            if let Some(handle) = self.with(|inner| inner.scheduler.add_key(tenant, key.max_in_flight)) {
                let entry = KeyEntry {
                    tenant_id: key.tenant_id,
                    tenant,
                    key: handle,
                };
                Arc::make_mut(keys).insert(key.id, entry);
            }
        }
    }

    fn follow_models(&self, applied: &mut Applied, before: Option<&Table<ModelId, Model>>, after: &Table<ModelId, Model>) {
        for gone in before
            .into_iter()
            .flat_map(Table::values)
            .filter(|old| after.get(&old.id).is_none())
        {
            applied.learned_caps.remove(&gone.id);
            if let Some(handle) = Arc::make_mut(&mut applied.directory.models).remove(&gone.id) {
                self.with(|inner| inner.scheduler.remove_model(handle));
            }
        }
        for model in after.values() {
            if before
                .and_then(|before| before.get(&model.id))
                .is_some_and(|old| Arc::ptr_eq(old, model))
            {
                continue;
            }
            let cap = cap_of(applied, model);
            match applied.directory.models.get(&model.id) {
                Some(&handle) => self.with(|inner| inner.scheduler.set_model(handle, model.admission_weight, cap)),
                None => {
                    let handle = self.with(|inner| inner.scheduler.add_model(model.id, model.admission_weight, cap));
                    Arc::make_mut(&mut applied.directory.models).insert(model.id, handle);
                }
            }
        }
    }

    fn follow_servers(&self, applied: &mut Applied, before: Option<&Table<McpServerId, McpServer>>, after: &Table<McpServerId, McpServer>) {
        let servers = Arc::make_mut(&mut applied.directory.models);
        for gone in before
            .into_iter()
            .flat_map(Table::values)
            .filter(|old| after.get(&old.id).is_none())
        {
            if let Some(handle) = servers.remove(&slots_of(&gone.id)) {
                self.with(|inner| inner.scheduler.remove_model(handle));
            }
        }
        for server in after.values() {
            let (slots, cap) = (slots_of(&server.id), server.max_in_flight);
            match servers.get(&slots) {
                Some(&handle) => self.with(|inner| inner.scheduler.set_model(handle, WEIGHT, cap)),
                None => {
                    let handle = self.with(|inner| inner.scheduler.add_model(slots, WEIGHT, cap));
                    servers.insert(slots, handle);
                }
            }
        }
    }

    /// Makes one change under the lock and wakes whom it concerns.
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        inner.scheduler.advance(self.clock.now());
        let value = change(&mut inner);
        self.release(inner);
        value
    }
}

/// A model whose cap is to be learned has none until it is.
fn cap_of(applied: &Applied, model: &Model) -> Option<u32> {
    let told = applied.learned_caps.get(&model.id).copied().flatten();
    match model.capacity {
        ModelCapacity::Uncapped | ModelCapacity::Auto => told,
        ModelCapacity::Fixed(cap) => Some(told.map_or(cap, |told| told.min(cap))),
    }
}
