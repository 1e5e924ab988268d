//! What limits ask after a restart: who used how much, of late one by one, before that in sums.

use rusqlite::Connection;

use super::rollup::{DAY_MS, Grain, HOUR_MS, MINUTE_MS};
use super::{picos, unsigned};
use crate::id::{KeyId, TenantId};
use crate::units::{PicoUsd, UnixMs};

/// What a key used in a stretch of time that began at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Whose.
    pub tenant: TenantId,
    /// With which key.
    pub key: KeyId,
    /// Requests that counted against quotas.
    pub requests: u64,
    /// Input and output tokens together.
    pub tokens: u64,
    /// What they cost.
    pub cost: PicoUsd,
    /// The stretch's beginning, or the request's.
    pub at: UnixMs,
}

/// How far back requests are told one by one, rounded down to a whole minute.
const ONE_BY_ONE_MS: i64 = 2 * MINUTE_MS;

pub(super) fn remembered(connection: &Connection, now: UnixMs) -> rusqlite::Result<Vec<Remembered>> {
    let floor = |ms: i64, level: i64| ms.div_euclid(level) * level;
    let recent = floor(now.0 - ONE_BY_ONE_MS, MINUTE_MS);
    let (hour, day) = (floor(recent, HOUR_MS), floor(recent, DAY_MS));
    let mut all = Vec::new();
    let mut sums = connection.prepare(
        "SELECT tenant_id, key_id, dispatched, input_tokens, output_tokens, input_pico, output_pico, request_pico, bucket_ms
         FROM rollups WHERE level_ms = ?1 AND grain = ?2 AND bucket_ms >= ?3 AND bucket_ms < ?4 ORDER BY bucket_ms",
    )?;
    for (level, from, to) in [(DAY_MS, i64::MIN, day), (HOUR_MS, day, hour), (MINUTE_MS, hour, recent)] {
        let rows = sums.query_map((level, Grain::Key as i64, from, to), read)?;
        for row in rows {
            all.push(row?);
        }
    }
    let mut single = connection.prepare(
        "SELECT tenant_id, key_id, outcome <> 'rejected' AND cache NOT IN ('hit', 'coalesced'), input_tokens, output_tokens,
                input_pico, output_pico, request_pico, ts_ms
         FROM ledger WHERE ts_ms >= ?1 ORDER BY ts_ms",
    )?;
    for row in single.query_map([recent], read)? {
        all.push(row?);
    }
    Ok(all)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Remembered> {
    Ok(Remembered {
        tenant: TenantId::from_bytes(row.get(0)?),
        key: KeyId::from_bytes(row.get(1)?),
        requests: unsigned(row, 2)?,
        tokens: unsigned(row, 3)?.saturating_add(unsigned(row, 4)?),
        cost: PicoUsd(picos(row, 5)?.0 + picos(row, 6)?.0 + picos(row, 7)?.0),
        at: UnixMs(row.get(8)?),
    })
}
