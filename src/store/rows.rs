//! Between the catalog and its tables: loads all of them, completes and writes what a change has touched.

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::columns::{Decoder, Encoder, Stored, Unreadable};
use super::vault::Vault;
use super::writer::Fault;
use crate::catalog::{ApiKey, Catalog, Conflict, DEFAULT_GROUP, Difference, Group, McpServer, Model, Table, Tenant};
use crate::units::UnixMs;

/// The tables that the catalog and the writer stand on, all of them there since the first schema.
pub(super) const TABLES: [&str; 8] = [
    "state",
    Group::TABLE,
    Tenant::TABLE,
    ApiKey::TABLE,
    Model::TABLE,
    McpServer::TABLE,
    "applied_file",
    "idempotency",
];

/// Why the tables make no catalog.
#[derive(Debug)]
pub(super) enum LoadError {
    Row(Unreadable),
    /// Rows that contradict each other.
    Conflict(Conflict),
    NoDefaultGroup,
}

impl<E: Into<Unreadable>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Row(error.into())
    }
}

/// Reads the whole catalog.
pub(super) fn load(connection: &Connection, vault: &Vault) -> Result<Catalog, LoadError> {
    let (version, max_in_flight) = connection.query_row("SELECT catalog_version, max_in_flight FROM state", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get(1)?))
    })?;
    let mut catalog = Catalog::empty(max_in_flight);
    let mut has_default = false;
    each(connection, vault, |group: Group| {
        has_default |= &*group.name == DEFAULT_GROUP;
        catalog.put_group(group);
        Ok(())
    })?;
    if !has_default {
        return Err(LoadError::NoDefaultGroup);
    }
    each(connection, vault, |tenant| catalog.put_tenant(tenant))?;
    each(connection, vault, |key| catalog.put_key(key))?;
    each(connection, vault, |model| catalog.put_model(model))?;
    each(connection, vault, |server| catalog.put_mcp_server(server))?;
    catalog.set_version(version.unsigned_abs());
    Ok(catalog)
}

fn each<N: Stored>(connection: &Connection, vault: &Vault, mut put: impl FnMut(N) -> Result<(), Conflict>) -> Result<(), LoadError> {
    let mut statement = connection.prepare(&format!("SELECT {} FROM {}", N::COLUMNS.join(", "), N::TABLE))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        put(Decoder::read(row, vault)?).map_err(LoadError::Conflict)?;
    }
    Ok(())
}

/// Completes the provenance of what was put into `next` since `before`, and counts the catalog's version up. Returns
/// whether anything differs.
///
/// # Errors
/// None in practice: what was put once can be put again.
pub(super) fn complete(next: &mut Catalog, before: &Catalog, now: UnixMs) -> Result<bool, Conflict> {
    let mut differs = next.max_in_flight() != before.max_in_flight();
    for group in completed(next.groups(), before.groups(), now, &mut differs) {
        next.put_group(group);
    }
    for tenant in completed(next.tenants(), before.tenants(), now, &mut differs) {
        next.put_tenant(tenant)?;
    }
    for key in completed(next.keys(), before.keys(), now, &mut differs) {
        next.put_key(key)?;
    }
    for model in completed(next.models(), before.models(), now, &mut differs) {
        next.put_model(model)?;
    }
    for server in completed(next.mcp_servers(), before.mcp_servers(), now, &mut differs) {
        next.put_mcp_server(server)?;
    }
    let version = before.version() + u64::from(differs);
    next.set_version(version);
    Ok(differs)
}

fn completed<K, N>(next: &Table<K, N>, before: &Table<K, N>, now: UnixMs, differs: &mut bool) -> Vec<N>
where
    K: std::hash::Hash + Eq + Clone,
    N: Stored + Clone,
{
    let differences = next.differences(before);
    *differs |= !differences.is_empty();
    let complete = |difference: Difference<N>| {
        let mut noun = N::clone(difference.after.as_deref()?);
        let (version, created_at) = match difference.before.as_deref().map(N::provenance) {
            Some(before) => (before.version + 1, before.created_at),
            None => (1, now),
        };
        let provenance = noun.provenance_mut();
        provenance.version = version;
        provenance.created_at = created_at;
        provenance.updated_at = now;
        Some(noun)
    };
    differences.into_iter().filter_map(complete).collect()
}

/// Writes what differs between two catalogs, and the state.
pub(super) fn write(connection: &Connection, vault: &Vault, next: &Catalog, before: &Catalog) -> Result<(), Fault> {
    write_table(connection, vault, &next.groups().differences(before.groups()))?;
    write_table(connection, vault, &next.tenants().differences(before.tenants()))?;
    write_table(connection, vault, &next.keys().differences(before.keys()))?;
    write_table(connection, vault, &next.models().differences(before.models()))?;
    write_table(connection, vault, &next.mcp_servers().differences(before.mcp_servers()))?;
    let version = i64::try_from(next.version()).unwrap_or(i64::MAX);
    connection
        .prepare_cached("UPDATE state SET catalog_version = ?1, max_in_flight = ?2")?
        .execute((version, next.max_in_flight()))?;
    Ok(())
}

/// Remembers the configuration file that was applied.
pub(super) fn remember_file(connection: &Connection, document: &str, now: UnixMs) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO applied_file (one, document, applied_at) VALUES (1, ?1, ?2)")?
        .execute((document, now.0))
        .map(drop)
}

/// The configuration file that was last applied.
pub(super) fn applied_file(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT document FROM applied_file")?;
    statement.query_row([], |row| row.get(0)).optional()
}

/// All old rows go before any new one comes, so that two objects can swap their names.
fn write_table<N: Stored>(connection: &Connection, vault: &Vault, differences: &[Difference<N>]) -> Result<(), Fault> {
    if differences.is_empty() {
        return Ok(());
    }
    let mut delete = connection.prepare_cached(&format!("DELETE FROM {} WHERE {} = ?1", N::TABLE, N::COLUMNS[0]))?;
    for before in differences.iter().filter_map(|difference| difference.before.as_deref()) {
        delete.execute([before.primary_key()])?;
    }
    let places = vec!["?"; N::COLUMNS.len()].join(", ");
    let mut insert = connection.prepare_cached(&format!("INSERT INTO {} ({}) VALUES ({places})", N::TABLE, N::COLUMNS.join(", ")))?;
    for after in differences.iter().filter_map(|difference| difference.after.as_deref()) {
        let row = Encoder::row(after, vault).map_err(Fault::Unstorable)?;
        insert.execute(params_from_iter(row))?;
    }
    Ok(())
}
