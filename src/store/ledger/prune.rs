//! Retention: raw rows go after a while, roll-ups stay.

use rusqlite::Connection;

use crate::units::UnixMs;

/// How many rows one step deletes; small, so that changes and new rows do not wait for it.
const STEP: u32 = 500;

/// Deletes a few rows. Returns whether there may be more.
pub(super) fn prune(connection: &Connection, before: UnixMs) -> rusqlite::Result<bool> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM ledger WHERE request_id IN
             (SELECT request_id FROM ledger INDEXED BY ledger_by_time WHERE ts_ms < ?1 ORDER BY ts_ms LIMIT ?2)",
        )?
        .execute((before.0, STEP))?;
    Ok(deleted == STEP as usize)
}
