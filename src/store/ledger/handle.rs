//! What the engines call: the ledger's operations on the store's own threads.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::{ReadError, Store};
use super::{Cursor, Remembered, Row, append, cursor, prune, remember};
use crate::units::UnixMs;

/// How long the start may wait for what the ledger remembers.
const REMEMBER_BUDGET: Duration = Duration::from_secs(60);

impl Store {
    /// Adds rows and moves the cursor, all or nothing; durable when it returns. Returns how many rows were new. Blocks:
    /// for a thread, not for a task.
    ///
    /// # Errors
    /// Why the store cannot be written, in a sentence.
    pub fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, String> {
        wait(self.write(move |connection| append(connection, &rows, cursor))?)
    }

    /// How far the spool has been moved. Blocks.
    ///
    /// # Errors
    /// Why the store cannot be read, in a sentence.
    pub fn spool_cursor(&self) -> Result<Cursor, String> {
        wait(self.write(cursor)?)
    }

    /// Deletes a few of the raw rows older than `before`; roll-ups stay. Returns whether there may be more. Blocks.
    ///
    /// # Errors
    /// Why the store cannot be written, in a sentence.
    pub fn prune_ledger(&self, before: UnixMs) -> Result<bool, String> {
        wait(self.write(move |connection: &Connection| prune::prune(connection, before))?)
    }

    /// All use up to now, each request counted once, in the order of time: whole days, then the hours of today, the minutes
    /// of this hour, and single requests of the last two to three minutes.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn remembered(&self, now: UnixMs) -> Result<Vec<Remembered>, ReadError> {
        self.read(REMEMBER_BUDGET, move |connection| remember::remembered(connection, now))
            .await
    }
}

fn wait<T>(answer: oneshot::Receiver<Result<T, String>>) -> Result<T, String> {
    answer.blocking_recv().unwrap_or_else(|_| Err("the store is closing".to_owned()))
}
