//! Retention: rows go after a while, and with them the sums per minute and five, by whole hours; sums per hour and day stay.
//!
//! Whole hours, so that what is left of an hour is always all of it: whoever asks for a time before what is left is
//! answered from its hours (`usage::kept`).

use rusqlite::Connection;

use super::rollup::{FIVE_MS, Grain, HOUR_MS, MINUTE_MS};
use crate::units::UnixMs;

/// How many rows one step deletes; small, so that changes and new rows do not wait for it.
const STEP: u32 = 500;

/// Deletes a few rows, or else a few sums per minute. Returns whether there may be more.
pub(super) fn prune(connection: &Connection, before: UnixMs) -> rusqlite::Result<bool> {
    let before = before.0.div_euclid(HOUR_MS) * HOUR_MS;
    let deleted = connection
        .prepare_cached("DELETE FROM ledger WHERE rowid IN (SELECT rowid FROM ledger WHERE ts_ms < ?1 ORDER BY ts_ms LIMIT ?2)")?
        .execute((before, STEP))?;
    if deleted == STEP as usize {
        return Ok(true);
    }
    prune_minutes(connection, before)
}

fn prune_minutes(connection: &Connection, before: i64) -> rusqlite::Result<bool> {
    // The sums over everybody go an hour at a time and before the others: by them is told which minutes are left.
    let all = connection
        .prepare_cached(
            "DELETE FROM rollups WHERE level_ms = ?1 AND grain = ?2 AND bucket_ms <
             (SELECT min(?3, min(bucket_ms) - min(bucket_ms) % ?4 + ?4) FROM rollups WHERE level_ms = ?1 AND grain = ?2)",
        )?
        .execute((MINUTE_MS, Grain::All as i64, before, HOUR_MS))?;
    let mut deleted = all;
    let mut some = connection.prepare_cached(
        "DELETE FROM rollups WHERE (level_ms, grain, bucket_ms, tenant_id, key_id, model) IN
         (SELECT level_ms, grain, bucket_ms, tenant_id, key_id, model FROM rollups
          WHERE level_ms = ?1 AND grain = ?2 AND bucket_ms < ?3 ORDER BY bucket_ms LIMIT ?4)",
    )?;
    for level in [MINUTE_MS, FIVE_MS] {
        for grain in [Grain::All, Grain::Tenant, Grain::Key, Grain::Model, Grain::Finest] {
            if all == 0 && deleted < STEP as usize {
                deleted += some.execute((level, grain as i64, before, STEP))?;
            }
        }
    }
    if deleted == 0 {
        deleted = connection
            .prepare_cached(
                "DELETE FROM latencies WHERE (level_ms, bucket_ms, tenant_id, key_id, model) IN
                 (SELECT level_ms, bucket_ms, tenant_id, key_id, model FROM latencies
                  WHERE level_ms = ?1 AND bucket_ms < ?2 ORDER BY bucket_ms LIMIT ?3)",
            )?
            .execute((MINUTE_MS, before, STEP))?;
        deleted += connection
            .prepare_cached(
                "DELETE FROM model_latencies WHERE (level_ms, bucket_ms, model) IN
                 (SELECT level_ms, bucket_ms, model FROM model_latencies
                  WHERE level_ms = ?1 AND bucket_ms < ?2 ORDER BY bucket_ms LIMIT ?3)",
            )?
            .execute((MINUTE_MS, before, STEP))?;
    }
    Ok(deleted > 0)
}
