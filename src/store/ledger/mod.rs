//! The ledger's tables: rows, roll-ups, and how far the spool was moved into them.
//!
//! [`Store::append`](super::Store::append) is one savepoint: rows, roll-ups, cursor. A row whose id is there already is left alone and adds to
//! no roll-up, so a replay changes nothing. It is found by its time and id: a request's time is noted once, when it arrives.

mod attempt;
mod handle;
mod histogram;
mod lifetime;
mod prune;
mod remember;
pub(super) mod rollup;
mod row;
#[cfg(test)]
pub(super) mod tests;

use rusqlite::{Connection, params};

pub(super) use attempt::read_attempts;
pub use attempt::{ATTEMPTS_MAX, Attempt, AttemptOutcome, attempts_json};
pub use histogram::Histogram;
pub use remember::{Lifetime, Owner, Past, Use};
pub use rollup::Sums;
pub use row::{CacheStatus, Charge, Outcome, Row, Saved, Timing, Tokens, UsageSource};

use crate::units::PicoUsd;

/// Why rows are not in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The store cannot be written now: the same rows may go in later.
    #[error("the store cannot be written: {0}")]
    Unavailable(String),
    /// The store works and does not take these rows: one of them breaks a rule, and will again.
    #[error("the store refuses it: {0}")]
    Refused(String),
}

/// How far the spool has been moved into the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    /// The segment's number.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
}

fn cursor(connection: &Connection) -> rusqlite::Result<Cursor> {
    connection.query_row("SELECT segment, offset FROM spool_cursor", [], |row| {
        Ok(Cursor {
            segment: unsigned(row, 0)?,
            offset: unsigned(row, 1)?,
        })
    })
}

pub(super) fn append(connection: &Connection, rows: &[Row], cursor: Cursor) -> rusqlite::Result<usize> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO ledger (request_id, ts_ms, tenant_id, key_id, model, client_request_id, session_id, endpoint, route, outcome, status,
             error_code, attempts, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, usage_source, input_pico,
             output_pico, request_pico, cache, saved_tokens, saved_pico, queue_ms, ttft_ms, total_ms, stream,
             attempt_log)
         VALUES
         (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28,
          ?29)
         ON CONFLICT (ts_ms, request_id) DO NOTHING",
    )?;
    let mut batch = rollup::Batch::default();
    let mut new = 0;
    for row in rows {
        if insert_row(&mut insert, row)? {
            batch.add(row);
            new += 1;
        }
    }
    batch.write(connection)?;
    connection
        .prepare_cached("UPDATE spool_cursor SET segment = ?1, offset = ?2")?
        .execute([integer(cursor.segment), integer(cursor.offset)])?;
    Ok(new)
}

/// Whether it was new.
fn insert_row(insert: &mut rusqlite::CachedStatement<'_>, row: &Row) -> rusqlite::Result<bool> {
    let changed = insert.execute(params![
        row.request_id.as_bytes(),
        row.at.0,
        row.tenant.as_bytes(),
        row.key.as_bytes(),
        &*row.model,
        row.client_request_id.as_deref(),
        row.session_id.as_deref(),
        &*row.endpoint,
        &*row.route,
        row.outcome.as_str(),
        row.status,
        row.error_code.as_deref(),
        row.attempts,
        integer(row.tokens.input),
        integer(row.tokens.cached_input),
        integer(row.tokens.output),
        integer(row.tokens.reasoning),
        row.usage_source.as_str(),
        money(row.charge.input),
        money(row.charge.output),
        money(row.charge.request),
        row.cache.as_str(),
        integer(row.saved.tokens),
        money(row.saved.cost),
        integer(row.timing.queue_ms),
        row.timing.ttft_ms.map(integer),
        integer(row.timing.total_ms),
        row.stream,
        attempts_json(&row.attempt_log),
    ])?;
    Ok(changed == 1)
}

/// A count as SQLite keeps it; larger ones are cut.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Money as SQLite keeps it; more than 9.2 million dollars are cut.
fn money(value: PicoUsd) -> i64 {
    i64::try_from(value.0).unwrap_or(i64::MAX)
}

/// A count as SQLite kept it.
pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

/// Money as SQLite kept it.
pub(super) fn picos(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<PicoUsd> {
    Ok(PicoUsd(u128::from(unsigned(row, column)?)))
}
