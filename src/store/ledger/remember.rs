//! What limits ask after a restart: who used how much, of late second by second, before that in sums.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::rollup::{DAY_MS, Grain, HOUR_MS, MINUTE_MS};
use super::{lifetime, picos, unsigned};
use crate::id::{KeyId, TenantId};
use crate::quota::Period;
use crate::quota::budget::span;
use crate::units::{PicoUsd, UnixMs};

/// What was used before a process began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// The whole life of each tenant and key there is.
    pub lifetimes: Vec<Lifetime>,
    /// This month, but for what is recent, in sums: each lies in the day and month of its `at`.
    pub periods: Vec<Use>,
    /// The last two to three minutes second by second, in the order of time.
    pub recent: Vec<Use>,
}

/// Whose life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// A tenant's, with all keys it ever had.
    Tenant(TenantId),
    /// A key's.
    Key(KeyId),
}

/// What somebody used in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Who.
    pub owner: Owner,
    /// Input and output tokens together.
    pub tokens: u64,
    /// What they cost.
    pub cost: PicoUsd,
}

/// What a key used in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Whose.
    pub tenant: TenantId,
    /// With which key; it may be gone.
    pub key: KeyId,
    /// Requests that counted against quotas.
    pub requests: u64,
    /// Input and output tokens together.
    pub tokens: u64,
    /// What they cost.
    pub cost: PicoUsd,
    /// When, or where the stretch begins.
    pub at: UnixMs,
}

/// How far back requests are told second by second, rounded down to a whole minute.
const RECENT_MS: i64 = 2 * MINUTE_MS;

const SECOND_MS: i64 = 1_000;

pub(super) fn remembered(connection: &Connection, now: UnixMs) -> rusqlite::Result<Past> {
    let floor = |ms: i64, level: i64| ms.div_euclid(level) * level;
    let recent = floor(now.0 - RECENT_MS, MINUTE_MS);
    // Rows from a time to come, of a clock that was ahead, are not recent, but of their day and month.
    let ahead = floor(now.0, MINUTE_MS) + MINUTE_MS;
    let (month, hour, day) = (
        span(Period::Month, UnixMs(recent)).0.0,
        floor(recent, HOUR_MS),
        floor(recent, DAY_MS),
    );
    let month_ends = span(Period::Month, UnixMs(ahead)).1.0;
    let mut periods = Folded::default();
    let mut sums = connection.prepare(
        "SELECT tenant_id, key_id, dispatched, input_tokens, output_tokens, input_pico, output_pico, request_pico, bucket_ms
         FROM rollups WHERE level_ms = ?1 AND grain = ?2 AND bucket_ms >= ?3 AND bucket_ms < ?4",
    )?;
    for (level, from, to) in [
        (DAY_MS, month, day),
        (HOUR_MS, day, hour),
        (MINUTE_MS, hour, recent),
        (MINUTE_MS, ahead, floor(ahead, HOUR_MS) + HOUR_MS),
        (HOUR_MS, floor(ahead, HOUR_MS) + HOUR_MS, floor(ahead, DAY_MS) + DAY_MS),
        (DAY_MS, floor(ahead, DAY_MS) + DAY_MS, month_ends),
    ] {
        let rows = sums.query_map((level, Grain::Key as i64, from, to), read)?;
        for row in rows {
            periods.add(row?, DAY_MS);
        }
    }
    let mut single = connection.prepare(
        "SELECT tenant_id, key_id, outcome <> 'rejected' AND cache NOT IN ('hit', 'coalesced'), input_tokens, output_tokens,
                input_pico, output_pico, request_pico, ts_ms
         FROM ledger WHERE ts_ms >= ?1 AND ts_ms < ?2",
    )?;
    let mut seconds = Folded::default();
    for row in single.query_map([recent, ahead], read)? {
        seconds.add(row?, SECOND_MS);
    }
    Ok(Past {
        lifetimes: lifetimes(connection)?,
        periods: periods.0.into_values().collect(),
        recent: seconds.0.into_values().collect(),
    })
}

/// Sums by time, tenant and key, in the order of time.
#[derive(Default)]
struct Folded(BTreeMap<(i64, TenantId, KeyId), Use>);

impl Folded {
    /// Adds to the sum of the stretch of `width` that `one` lies in; its time is that of the latest.
    fn add(&mut self, one: Use, width: i64) {
        let nothing = Use {
            requests: 0,
            tokens: 0,
            cost: PicoUsd(0),
            ..one
        };
        let sum = self.0.entry((one.at.0.div_euclid(width), one.tenant, one.key)).or_insert(nothing);
        sum.requests = sum.requests.saturating_add(one.requests);
        sum.tokens = sum.tokens.saturating_add(one.tokens);
        sum.cost = PicoUsd(sum.cost.0.saturating_add(one.cost.0));
        sum.at = sum.at.max(one.at);
    }
}

fn lifetimes(connection: &Connection) -> rusqlite::Result<Vec<Lifetime>> {
    let mut all = Vec::new();
    for (table, owner) in [
        ("tenants", (|id| Owner::Tenant(TenantId::from_bytes(id))) as fn([u8; 16]) -> Owner),
        ("keys", |id| Owner::Key(KeyId::from_bytes(id))),
    ] {
        let mut lives = connection.prepare(&format!(
            "SELECT owner, tokens, usd, pico FROM {table} JOIN lifetimes ON owner = {table}.id"
        ))?;
        let rows = lives.query_map([], |row| {
            Ok(Lifetime {
                owner: owner(row.get(0)?),
                tokens: unsigned(row, 1)?,
                cost: lifetime::cost(row, 2)?,
            })
        })?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Use> {
    Ok(Use {
        tenant: TenantId::from_bytes(row.get(0)?),
        key: KeyId::from_bytes(row.get(1)?),
        requests: unsigned(row, 2)?,
        tokens: unsigned(row, 3)?.saturating_add(unsigned(row, 4)?),
        cost: PicoUsd(picos(row, 5)?.0 + picos(row, 6)?.0 + picos(row, 7)?.0),
        at: UnixMs(row.get(8)?),
    })
}
