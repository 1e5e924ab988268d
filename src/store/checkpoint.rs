//! Brings the WAL home: after the answers, not before them, and with open eyes.
//!
//! SQLite would do it by itself inside every commit that finds the WAL long, where the caller waits for it and where its
//! errors are dropped. An `fsync` that fails there must not be dropped: see [`is_sync_failure`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::{Connection, ffi};

/// How long the WAL grows, in pages of 4 KiB, before it is brought home.
const PAGES: i32 = 1_000;

/// Watches the length of the WAL.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pages: Arc<AtomicI32>,
}

impl Checkpoints {
    /// Takes the place of SQLite's own.
    pub(super) fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&pages);
        // Both run on the writer's thread.
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { pages })
    }

    /// Moves what no reader needs any more into the database, if there is enough of it.
    pub(super) fn make(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.pages.load(Ordering::Relaxed) < PAGES {
            return Ok(());
        }
        self.pages.store(0, Ordering::Relaxed);
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// An `fsync` failed. What is on disk is unknown then, and a second `fsync` that succeeds says nothing about the pages of
/// the first (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020): only a new start reads
/// the truth.
pub(super) fn is_sync_failure(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}
