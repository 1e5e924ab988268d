//! What the engines call: the ledger's operations on the store's own threads.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::{ReadError, Store};
use super::{Cursor, Past, Row, WriteError, append, cursor, prune, remember};
use crate::units::UnixMs;

/// How long the start may wait for what the ledger remembers.
const REMEMBER_BUDGET: Duration = Duration::from_secs(60);

impl Store {
    /// Adds rows and moves the cursor, all or nothing; durable when it returns. Returns how many rows were new. Blocks:
    /// for a thread, not for a task.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, WriteError> {
        wait(self.write(move |connection| append(connection, &rows, cursor))?)
    }

    /// How far the spool has been moved. Blocks.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn spool_cursor(&self) -> Result<Cursor, WriteError> {
        wait(self.write(cursor)?)
    }

    /// Deletes a few of the rows, and of the sums per minute, that are older than `before`, by whole hours; sums per hour and
    /// day stay. Returns whether there may be more. Blocks.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn prune_ledger(&self, before: UnixMs) -> Result<bool, WriteError> {
        wait(self.write(move |connection: &Connection| prune::prune(connection, before))?)
    }

    /// What budgets and quotas must know of the time before `now`: lives in one sum each, this month in sums, the last two
    /// to three minutes second by second. No more than the tenants and keys there are, and the keys used this month, times
    /// some two hundred.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn remembered(&self, now: UnixMs) -> Result<Past, ReadError> {
        self.read(REMEMBER_BUDGET, move |connection| remember::remembered(connection, now))
            .await
    }
}

fn wait<T>(answer: oneshot::Receiver<Result<T, WriteError>>) -> Result<T, WriteError> {
    let closing = |_| Err(WriteError::Unavailable("the store is closing".to_owned()));
    answer.blocking_recv().unwrap_or_else(closing)
}
