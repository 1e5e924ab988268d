//! Where rows go: the store now, another database later.

use std::sync::Arc;

use crate::store::Store;
use crate::store::ledger::{Cursor, Row, WriteError};
use crate::units::UnixMs;

/// Takes the ledger's rows. All methods block, and are called from threads.
pub trait Sink: Send + Sync + 'static {
    /// Adds rows and moves the cursor, all or nothing, durably. A row that is there already is left alone.
    ///
    /// # Errors
    /// [`WriteError`]: rows that are refused are looked for one by one and set aside, anything else is tried again.
    fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, WriteError>;

    /// How far the spool was moved.
    ///
    /// # Errors
    /// [`WriteError`].
    fn cursor(&self) -> Result<Cursor, WriteError>;

    /// Deletes a little of what is older than `before` and not to be kept. Returns whether there may be more.
    ///
    /// # Errors
    /// [`WriteError`].
    fn prune(&self, before: UnixMs) -> Result<bool, WriteError>;
}

impl Sink for Store {
    fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, WriteError> {
        Self::append(self, rows, cursor)
    }

    fn cursor(&self) -> Result<Cursor, WriteError> {
        self.spool_cursor()
    }

    fn prune(&self, before: UnixMs) -> Result<bool, WriteError> {
        self.prune_ledger(before)
    }
}
