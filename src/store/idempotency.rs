//! Answers kept for repetitions: for 24 hours, and no more than a bounded number.

use rusqlite::{Connection, OptionalExtension};

use super::change::{Idempotency, StoredAnswer};
use crate::units::UnixMs;

/// How long a key names its request.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// How many answers are kept at most; the oldest go first.
pub(super) const RECORDS_MAX: i64 = 10_000;

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing.
    Not,
    /// It named this very request.
    Answered(StoredAnswer),
    /// It named another request.
    Otherwise,
}

pub(super) fn find(connection: &Connection, idempotency: &Idempotency, now: UnixMs) -> rusqlite::Result<Known> {
    let mut find =
        connection.prepare_cached("SELECT digest = ?2, status, location, body FROM idempotency WHERE key = ?1 AND created_at > ?3")?;
    let found = find.query_row((&idempotency.key, idempotency.digest, oldest(now)), |row| {
        if !row.get::<_, bool>(0)? {
            return Ok(Known::Otherwise);
        }
        Ok(Known::Answered(StoredAnswer {
            status: row.get(1)?,
            location: row.get(2)?,
            body: row.get(3)?,
        }))
    });
    Ok(found.optional()?.unwrap_or(Known::Not))
}

/// Keeps an answer, and lets go of those that are too old or too many.
pub(super) fn keep(connection: &Connection, idempotency: &Idempotency, answer: &StoredAnswer, now: UnixMs) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM idempotency WHERE created_at <= ?1")?
        .execute([oldest(now)])?;
    connection
        .prepare_cached("INSERT INTO idempotency (key, digest, status, location, body, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute((
            &idempotency.key,
            idempotency.digest,
            answer.status,
            &answer.location,
            &answer.body,
            now.0,
        ))?;
    connection
        .prepare_cached("DELETE FROM idempotency WHERE id <= ?1")?
        .execute([connection.last_insert_rowid() - RECORDS_MAX])?;
    Ok(())
}

const fn oldest(now: UnixMs) -> i64 {
    now.0.saturating_sub(KEPT_MS)
}
