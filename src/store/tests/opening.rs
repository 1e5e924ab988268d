//! What is opened, what is refused, and that what is refused is left alone.

use std::os::unix::fs::PermissionsExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::config::DbConfig;
use rusqlite::params;

use super::*;
use crate::store::schema::{self, Seed};

fn open_error(path: &Path) -> OpenError {
    match Store::open(Options::new(path)) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// Opens a file that must be refused, and must be the same afterwards.
#[track_caller]
fn assert_refused_untouched(path: &Path) -> OpenError {
    let before = std::fs::read(path).unwrap();
    let error = open_error(path);
    assert!(std::fs::read(path).unwrap() == before, "touched, though refused: {error}");
    error
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn files_are_the_owners_alone() {
    let scratch = Scratch::new();
    scratch.create("acme").await.unwrap();
    let database = &scratch.options.path;
    assert_eq!(mode(database.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&sibling(database, suffix)), 0o600, "{suffix:?}");
    }
    let (options, _dir) = scratch.closed();
    assert!(!sibling(&options.path, "-wal").exists(), "a clean end brings the WAL home");
    std::fs::set_permissions(&options.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let opened = Store::open(options.clone()).unwrap();
    assert_eq!(mode(&options.path), 0o600);
    drop(opened);
}

/// What the room's promises rest on: a log that is synced at each commit (2 is FULL), foreign keys.
#[tokio::test]
async fn the_writer_syncs_each_commit_and_checks_foreign_keys() {
    let scratch = Scratch::new();
    for (pragma, expected) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("cell_size_check", "1"),
    ] {
        let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
        let found = write(&scratch.store, move |connection| {
            connection.query_row(&sql, [], |row| row.get::<_, String>(0))
        });
        assert_eq!(found.await.as_deref(), Ok(expected), "{pragma}");
    }
}

#[test]
fn a_second_opening_is_told_who_has_the_store() {
    let scratch = Scratch::new();
    let elsewhere = scratch.dir.path().join("by-another-name.db");
    std::os::unix::fs::symlink(&scratch.options.path, &elsewhere).unwrap();
    for path in [&scratch.options.path, &elsewhere] {
        match open_error(path) {
            OpenError::Locked { pid, .. } => assert_eq!(pid, std::process::id().to_string()),
            error => panic!("{error}"),
        }
    }
    drop(scratch.reopened());
}

#[test]
fn garbage_and_foreign_databases_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("garbage.db");
    std::fs::write(&path, b"keys: none\n".repeat(1_000)).unwrap();
    assert!(matches!(assert_refused_untouched(&path), OpenError::Corrupt { .. }));
    let path = dir.path().join("foreign.db");
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE photos (id)").unwrap();
    drop(foreign);
    let error = assert_refused_untouched(&path);
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("application id"), "{error}");
}

#[test]
fn a_schema_from_the_future_is_refused_by_its_number() {
    let (options, _dir) = Scratch::new().closed();
    let raw = Connection::open(&options.path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    match assert_refused_untouched(&options.path) {
        OpenError::Newer { found, known, .. } => assert_eq!((found, known), (99, schema::latest())),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_refused_stores_write_ahead_log_is_left_alone_too() {
    let scratch = Scratch::new();
    scratch.create("acme").await.unwrap();
    let copies = tempfile::tempdir().unwrap();
    let copy = copy_of(&scratch.options.path, copies.path());
    let raw = Connection::open(&copy).unwrap();
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let log = std::fs::read(sibling(&copy, "-wal")).unwrap();
    assert!(log.len() > 4096, "the change is in the log");
    assert!(matches!(assert_refused_untouched(&copy), OpenError::Newer { .. }));
    assert!(std::fs::read(sibling(&copy, "-wal")).unwrap() == log);
}

/// An index is not read when the catalog is loaded: only the check sees it.
#[test]
fn a_damaged_index_is_refused() {
    let (options, _dir) = Scratch::new().closed();
    let raw = Connection::open(&options.path).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'keys_by_tenant'";
    let page = usize::from(raw.query_row(root, [], |row| row.get::<_, u16>(0)).unwrap());
    drop(raw);
    let mut bytes = std::fs::read(&options.path).unwrap();
    bytes[(page - 1) * 4096..page * 4096].fill(0xff);
    std::fs::write(&options.path, &bytes).unwrap();
    let error = assert_refused_untouched(&options.path);
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn rows_that_make_no_catalog_are_refused() {
    for damage in [
        "UPDATE tenants SET id = zeroblob(15)",
        "UPDATE tenants SET status = 'sleeping'",
        "UPDATE tenants SET metadata = '{\"a\": 1}'",
        "UPDATE tenants SET group_name = 'nowhere'",
        "UPDATE tenants SET weight = 0",
        "UPDATE tenants SET max_in_flight = 4294967296",
        "DELETE FROM groups",
        "DELETE FROM state",
        "DROP TABLE models",
        "ALTER TABLE mcp_servers RENAME COLUMN name TO nom",
    ] {
        let scratch = Scratch::new();
        scratch.create("acme").await.unwrap();
        let (options, _dir) = scratch.closed();
        let raw = Connection::open(&options.path).unwrap();
        raw.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; PRAGMA journal_mode = DELETE")
            .unwrap();
        raw.execute_batch(damage).unwrap();
        drop(raw);
        let error = open_error(&options.path);
        assert!(matches!(error, OpenError::Corrupt { .. }), "{damage}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_opened_whole_or_refused_untouched_and_never_a_panic() {
    let scratch = Scratch::new();
    for number in 0..60 {
        scratch.create(&format!("tenant {number}")).await.unwrap();
    }
    let (options, dir) = scratch.closed();
    let whole = std::fs::read(&options.path).unwrap();
    let seed = 5;
    let mut random = StdRng::seed_from_u64(seed);
    let damaged = dir.path().join("damaged.db");
    let mut refused = 0;
    for round in 0..200 {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(random.random_range(1..whole.len())),
            1 => {
                let page = random.random_range(0..whole.len() / 4096) * 4096;
                bytes[page..page + 4096].fill(random.random());
            }
            _ => {
                let at = random.random_range(0..whole.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
        std::fs::write(&damaged, &bytes).unwrap();
        match Store::open(Options::new(&damaged)) {
            Ok(opened) => drop(opened),
            Err(OpenError::Corrupt { .. } | OpenError::Newer { .. }) => {
                refused += 1;
                assert!(std::fs::read(&damaged).unwrap() == bytes, "seed {seed}, round {round}: touched");
            }
            Err(error) => panic!("seed {seed}, round {round}: {error}"),
        }
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(sibling(&damaged, suffix));
        }
    }
    assert!(refused > 60, "only {refused} of 200 were refused");
}

#[test]
fn every_earlier_schema_is_brought_up_to_date() {
    for version in 0..=schema::MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let mut old = Connection::open(&path).unwrap();
        old.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
        let seed = Seed { max_in_flight: 9, now: 1 };
        schema::migrate(&mut old, &schema::MIGRATIONS[..version], &seed).unwrap();
        if version > 0 {
            let tenant = tenant("acme");
            old.execute(
                "INSERT INTO tenants (id, name, description, group_name, weight, tokens_per_minute, requests_per_minute, status,
                 budget_period, metadata, managed_by, overridden, version, created_at, updated_at)
                 VALUES (?1, ?2, '', 'default', 1, 0, 0, 'active', 'month', '{}', 'api', '[]', 1, 0, 0)",
                params![tenant.id.as_bytes(), tenant.name],
            )
            .unwrap();
        }
        drop(old);
        let (store, catalog) = Store::open(Options::new(&path)).unwrap();
        assert_eq!(catalog.tenants().len(), version.min(1), "from version {version}");
        drop(store);
        let raw = Connection::open(&path).unwrap();
        assert_eq!(schema::version(&raw).unwrap(), schema::latest(), "from version {version}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_the_systems_fault_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = open_error(&file.join("below/obleth.db"));
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
