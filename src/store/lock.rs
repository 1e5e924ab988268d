//! One process per store: a lock file beside the database.
//!
//! `flock` on a file of its own, since SQLite's locks are on the database itself and come and go. The kernel gives it back
//! when the process ends, however it ends; the file stays, for whoever deletes a lock file can delete one that was just
//! taken.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held while the store is open.
#[derive(Debug)]
pub(super) struct Lock {
    /// Closing it gives the lock back.
    _file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has it: what the file says about it.
    Held { pid: String },
    /// The file cannot be made or locked.
    Io(io::Error),
}

impl Lock {
    /// Locks `database`, through the file of the same name with `.lock` at its end.
    pub(super) fn take(database: &Path) -> Result<Self, LockError> {
        let mut path = OsString::from(database);
        path.push(".lock");
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let mut file = open.map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { pid: holder(&mut file) }),
            Err(error) => return Err(LockError::Io(error.into())),
        }
        file.set_len(0).map_err(LockError::Io)?;
        writeln!(file, "{}", std::process::id()).map_err(LockError::Io)?;
        Ok(Self { _file: file })
    }
}

/// What the holder wrote; it may be writing just now.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}
