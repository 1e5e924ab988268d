//! The schema's history, and how a store is brought up to date.

use rusqlite::{Connection, TransactionBehavior};

/// "oble": tells our databases from others (`PRAGMA application_id`).
pub(super) const APPLICATION_ID: i32 = 0x6f62_6c65;

/// Each brings the schema from its index to the next. Never edit one that was released: add another.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_configuration.sql"),
    include_str!("migrations/0002_ledger.sql"),
    include_str!("migrations/0003_lifetimes.sql"),
    include_str!("migrations/0004_attempts.sql"),
];

/// What a new store starts with.
pub(super) struct Seed {
    pub(super) max_in_flight: u32,
    pub(super) now: i64,
}

/// The schema's version, in `PRAGMA user_version`.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The latest version that this program knows.
pub(super) fn latest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Applies `migrations` (a prefix of [`MIGRATIONS`]) that are missing, each in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str], seed: &Seed) -> rusqlite::Result<()> {
    let from = usize::try_from(version(connection)?).unwrap_or(0);
    for (index, migration) in migrations.iter().enumerate().skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        if index == 0 {
            plant(&transaction, seed)?;
        }
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

/// The rows that always exist: the state, the default group.
fn plant(connection: &Connection, seed: &Seed) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO state (one, catalog_version, max_in_flight, audit_rows) VALUES (1, 0, ?1, 0)",
        [seed.max_in_flight],
    )?;
    connection.execute(
        "INSERT INTO groups (name, weight, managed_by, overridden, version, created_at, updated_at)
         VALUES (?1, 100, 'api', '[]', 1, ?2, ?2)",
        (crate::catalog::DEFAULT_GROUP, seed.now),
    )?;
    Ok(())
}
