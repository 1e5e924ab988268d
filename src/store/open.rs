//! Opens the database: takes the lock, looks before it touches, brings the schema up to date, loads the catalog.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::checkpoint::Checkpoints;
use super::columns::Unreadable;
use super::lock::{Lock, LockError};
use super::rows;
use super::schema::{self, Seed};
use super::vault::{SealError, Vault};
use super::{OpenError, Options};
use crate::catalog::Catalog;

/// How long a write waits for a lock that another process (a person's `sqlite3` shell) holds.
const BUSY: Duration = Duration::from_millis(300);

/// A WAL that a long read has let grow is cut down to this when it starts anew.
const WAL_BYTES_MAX: i64 = 64 << 20;

/// The statements of the configuration's five nouns, the audit log, the ledger.
const STATEMENTS: usize = 64;

/// What [`open`] has found.
pub(super) struct Opened {
    pub(super) lock: Lock,
    pub(super) writer: Connection,
    pub(super) checkpoints: Checkpoints,
    pub(super) path: PathBuf,
    pub(super) catalog: Catalog,
}

pub(super) fn open(options: &Options, vault: &Vault) -> Result<Opened, OpenError> {
    let path = place(&options.path).map_err(|error| io_error(&options.path, &error))?;
    let lock = Lock::take(&path).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { path: path.clone(), pid },
        LockError::Io(error) => io_error(&path, &error),
    })?;
    let bytes = make_file(&path).map_err(|error| io_error(&path, &error))?;
    let sqlite = |error| sqlite_error(&path, &error);
    let mut writer = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    // Until everything has been looked at, closing the connection must not move the WAL into the database.
    writer
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(sqlite)?;
    if bytes == 0 {
        writer
            .pragma_update(None, "application_id", schema::APPLICATION_ID)
            .map_err(sqlite)?;
    } else {
        examine(&writer, &path)?;
    }
    // Only now the file is known to be ours.
    tighten(&path).map_err(|error| io_error(&path, &error))?;
    set_up(&writer).map_err(sqlite)?;
    let checkpoints = Checkpoints::watch(&mut writer).map_err(sqlite)?;
    let seed = Seed {
        max_in_flight: options.max_in_flight,
        now: (options.clock)().0,
    };
    schema::migrate(&mut writer, schema::MIGRATIONS, &seed).map_err(sqlite)?;
    let catalog = rows::load(&writer, vault).map_err(|error| unreadable(&path, error))?;
    writer
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(sqlite)?;
    Ok(Opened {
        lock,
        writer,
        checkpoints,
        path,
        catalog,
    })
}

/// A connection that only reads.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, OpenError> {
    let connect = || {
        let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(reader)
    };
    connect().map_err(|error| sqlite_error(path, &error))
}

/// A connection that only reads, to a file that another process may have: no lock is taken, and nothing is made or mended.
pub(super) fn inspect(path: &Path) -> Result<Connection, OpenError> {
    // SQLite would say no more than that it cannot.
    path.metadata().map_err(|error| io_error(path, &error))?;
    let connection = connect_reader(path)?;
    examine(&connection, path)?;
    if schema::version(&connection).map_err(|error| sqlite_error(path, &error))? < 1 {
        return Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail: "it is empty".to_owned(),
        });
    }
    Ok(connection)
}

/// Looks at a store without touching it: could [`open`] open it?
pub(super) fn look(path: &Path, vault: &Vault) -> Result<(), OpenError> {
    if matches!(path.metadata(), Ok(meta) if meta.len() > 0) {
        let connection = connect_reader(path)?;
        examine(&connection, path)?;
        // An older schema is brought up to date before it is read.
        if schema::version(&connection).map_err(|error| sqlite_error(path, &error))? == schema::latest() {
            // One picture, whatever is written meanwhile.
            let _reading = connection.unchecked_transaction().map_err(|error| sqlite_error(path, &error))?;
            rows::load(&connection, vault).map_err(|error| unreadable(path, error))?;
        }
    }
    Ok(())
}

/// Makes the directory, and finds the one name of the file: the lock must not depend on how the path was written.
fn place(path: &Path) -> io::Result<PathBuf> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    if !parent.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            Ok(parent.canonicalize()?.join(name))
        }
        Err(error) => Err(error),
    }
}

/// Makes the file where there is none (SQLite gives its WAL the same mode). Returns its size.
fn make_file(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    Ok(file.metadata()?.len())
}

/// Takes other people's rights off a file that was copied here.
fn tighten(path: &Path) -> io::Result<()> {
    let mode = path.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // What the schema of a stranger's file says is not obeyed.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn set_up(writer: &Connection) -> rusqlite::Result<()> {
    let mode: String = writer.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    // FULL: a commit that was answered survives a power failure, not only the process.
    writer.pragma_update(None, "synchronous", "full")?;
    writer.pragma_update(None, "foreign_keys", true)?;
    writer.pragma_update(None, "secure_delete", "fast")?;
    writer.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_MAX, |_| Ok(()))
}

/// Looks at a file that exists, without writing: is it ours, of a schema we know, and whole where the catalog lies? The
/// audit log and the ledger may be long; they are not walked.
fn examine(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |error| sqlite_error(path, &error);
    let corrupt = |detail: String| OpenError::Corrupt {
        path: path.to_owned(),
        detail,
    };
    let application: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(sqlite)?;
    if application != schema::APPLICATION_ID {
        return Err(corrupt(format!("its application id is {application:#x}")));
    }
    let found = schema::version(connection).map_err(sqlite)?;
    let known = schema::latest();
    if found > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    if found < 1 {
        return Ok(());
    }
    for table in rows::TABLES {
        let verdict: String = connection
            .query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get(0))
            .map_err(sqlite)?;
        if verdict != "ok" {
            return Err(corrupt(format!("{table}: {verdict}")));
        }
    }
    Ok(())
}

fn io_error(path: &Path, error: &io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

/// What the system refuses is not the file's fault; everything else is.
pub(super) fn sqlite_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => OpenError::Io { path, detail },
        Some(_) | None => OpenError::Corrupt { path, detail },
    }
}

fn unreadable(path: &Path, error: rows::LoadError) -> OpenError {
    let detail = match error {
        rows::LoadError::Row(Unreadable::Sqlite(error)) => return sqlite_error(path, &error),
        rows::LoadError::Row(Unreadable::Sealed(SealError::NoKey { owner })) => return OpenError::NoSealingKey { owner },
        rows::LoadError::Row(Unreadable::Sealed(SealError::WrongKey { owner })) => return OpenError::WrongSealingKey { owner },
        rows::LoadError::Row(Unreadable::Bad { table, column }) => format!("{table}.{column} holds what this program never writes"),
        rows::LoadError::Conflict(conflict) => conflict.to_string(),
        rows::LoadError::NoDefaultGroup => "the default group is missing".to_owned(),
    };
    OpenError::Corrupt {
        path: path.to_owned(),
        detail,
    }
}
