//! Where rows go: the store now, another database later.

use std::sync::Arc;

use crate::store::Store;
use crate::store::ledger::{Cursor, Row};
use crate::units::UnixMs;

/// Takes the ledger's rows. All methods block, and are called from threads.
pub trait Sink: Send + Sync + 'static {
    /// Adds rows and moves the cursor, all or nothing, durably. A row that is there already is left alone.
    ///
    /// # Errors
    /// Why not, in a sentence; it is tried again.
    fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, String>;

    /// How far the spool was moved.
    ///
    /// # Errors
    /// Why it cannot be read, in a sentence.
    fn cursor(&self) -> Result<Cursor, String>;

    /// Deletes a few rows older than `before`. Returns whether there may be more.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn prune(&self, before: UnixMs) -> Result<bool, String>;
}

impl Sink for Store {
    fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, String> {
        Self::append(self, rows, cursor)
    }

    fn cursor(&self) -> Result<Cursor, String> {
        self.spool_cursor()
    }

    fn prune(&self, before: UnixMs) -> Result<bool, String> {
        self.prune_ledger(before)
    }
}
