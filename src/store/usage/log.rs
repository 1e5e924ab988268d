//! The request log: rows as they are, newest first.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::super::ledger::rollup::{DAY_MS, Grain, MINUTE_MS};
use super::super::ledger::{CacheStatus, Charge, Outcome, Row, Saved, Timing, Tokens, UsageSource, picos, read_attempts, unsigned};
use super::Filter;
use crate::id::{KeyId, RequestId, TenantId};
use crate::units::UnixMs;

/// Where a page ended: the time and id of its last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// When that request began.
    pub at: UnixMs,
    /// Its id.
    pub request_id: RequestId,
}

/// The newest rows that pass, before a position if one is given.
///
/// Nothing is walked over that is not shown, but for what shares its minute: all rows and those of each key lie in the order
/// of time, a tenant's are its keys', and the roll-ups tell in which minutes a model was asked.
pub(super) fn requests(connection: &Connection, filter: &Filter, limit: u32, before: Option<LogPosition>) -> rusqlite::Result<Vec<Row>> {
    let mut page = Page {
        rows: Vec::new(),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        since: filter.since.0,
        until: before.map_or(filter.until.0, |position| filter.until.0.min(position.at.0.saturating_add(1))),
        before,
    };
    let everybody = filter.tenant.is_none() && filter.key.is_none();
    let owners = if everybody {
        vec![None]
    } else {
        owners(connection, filter)?.into_iter().map(Some).collect()
    };
    for owner in owners {
        match &filter.model {
            None => page.read(connection, owner, None, (page.since, page.until))?,
            Some(model) => page.read_minutes(connection, owner, model)?,
        }
    }
    Ok(page.rows)
}

/// A key, and the tenant that it is of.
pub(super) type Line = (KeyId, TenantId);

/// The keys that a filter means, used ever since. Each costs a step along the index, however much it was used.
pub(super) fn owners(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Line>> {
    let mut next = connection.prepare_cached(
        "SELECT key_id, tenant_id FROM rollups INDEXED BY rollups_by_owner
         WHERE level_ms = ?1 AND grain = ?2 AND (key_id, tenant_id) > (?3, ?4) ORDER BY key_id, tenant_id LIMIT 1",
    )?;
    let mut found = Vec::new();
    // The empty tenant sorts before all.
    let (mut key, mut tenant) = (filter.key.map(|key| key.as_bytes().to_vec()).unwrap_or_default(), Vec::new());
    loop {
        let step = (DAY_MS, Grain::Key as i64, &key, &tenant);
        let Some((of, by)) = next
            .query_row(step, |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, [u8; 16]>(1)?)))
            .optional()?
        else {
            break;
        };
        let line = (KeyId::from_bytes(of), TenantId::from_bytes(by));
        if filter.key.is_some_and(|key| key != line.0) {
            break;
        }
        if filter.tenant.is_none_or(|tenant| tenant == line.1) {
            found.push(line);
        }
        (key, tenant) = (of.to_vec(), by.to_vec());
    }
    Ok(found)
}

/// The newest rows so far.
struct Page {
    rows: Vec<Row>,
    limit: usize,
    /// Older rows have no place any more.
    since: i64,
    until: i64,
    before: Option<LogPosition>,
}

impl Page {
    /// Takes in the rows of `owner` (of everybody without one) and to `model` in the stretch.
    fn read(&mut self, connection: &Connection, owner: Option<Line>, model: Option<&str>, (from, to): (i64, i64)) -> rusqlite::Result<()> {
        let mut index = "";
        let mut condition = "ts_ms >= ?1 AND ts_ms < ?2".to_owned();
        let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(from), Box::new(to)];
        let mut and = |text: &str, value: Box<dyn ToSql>, end: &str| {
            values.push(value);
            condition.push_str(&format!(" AND {text} ?{}{end}", values.len()));
        };
        if let Some((key, tenant)) = owner {
            index = "INDEXED BY ledger_by_key";
            and("key_id =", Box::new(*key.as_bytes()), "");
            and("tenant_id =", Box::new(*tenant.as_bytes()), "");
        }
        if let Some(model) = model {
            and("model =", Box::new(model.to_owned()), "");
        }
        if let Some(position) = self.before {
            // The stretch bounds the walk, this finds the place among rows of one millisecond.
            let place = format!("(ts_ms, request_id) < ({},", position.at.0);
            and(&place, Box::new(*position.request_id.as_bytes()), ")");
        }
        values.push(Box::new(i64::try_from(self.limit).unwrap_or(i64::MAX)));
        let question = format!(
            "SELECT * FROM ledger {index} WHERE {condition} ORDER BY ts_ms DESC, request_id DESC LIMIT ?{}",
            values.len()
        );
        let mut statement = connection.prepare_cached(&question)?;
        let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
        for row in statement.query_map(&values[..], read)? {
            self.rows.push(row?);
        }
        self.rows.sort_by_key(|row| Reverse((row.at, row.request_id)));
        self.rows.truncate(self.limit);
        if self.rows.len() == self.limit {
            self.since = self.rows.last().map_or(self.since, |last| last.at.0);
        }
        Ok(())
    }

    /// The same minute by minute, going back, where there were any.
    fn read_minutes(&mut self, connection: &Connection, owner: Option<Line>, model: &str) -> rusqlite::Result<()> {
        let mut minutes = connection.prepare_cached(
            "SELECT bucket_ms FROM rollups INDEXED BY rollups_by_owner
             WHERE level_ms = ?1 AND grain = ?2 AND key_id = ?3 AND tenant_id = ?4 AND model = ?5 AND bucket_ms > ?6 AND bucket_ms < ?7
             ORDER BY bucket_ms DESC",
        )?;
        let (grain, key, tenant) = match &owner {
            Some((key, tenant)) => (Grain::Finest, &key.as_bytes()[..], &tenant.as_bytes()[..]),
            None => (Grain::Model, &[][..], &[][..]),
        };
        let line = params![MINUTE_MS, grain as i64, key, tenant, model, self.since - MINUTE_MS, self.until];
        let mut minutes = minutes.query(line)?;
        while let Some(minute) = minutes.next()? {
            let minute: i64 = minute.get(0)?;
            if minute + MINUTE_MS <= self.since {
                break;
            }
            let stretch = (minute.max(self.since), self.until.min(minute + MINUTE_MS));
            self.read(connection, owner, Some(model), stretch)?;
        }
        Ok(())
    }
}

/// Reads all columns, in the order of the table.
fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let count = |column| unsigned(row, column);
    let text = |column| -> rusqlite::Result<Option<Box<str>>> { row.get(column) };
    let word = |column| -> rusqlite::Result<String> { row.get(column) };
    let shared = |column| -> rusqlite::Result<Arc<str>> { Ok(Arc::from(row.get_ref(column)?.as_str()?)) };
    Ok(Row {
        request_id: RequestId::from_bytes(row.get(0)?),
        at: UnixMs(row.get(1)?),
        tenant: TenantId::from_bytes(row.get(2)?),
        key: KeyId::from_bytes(row.get(3)?),
        model: shared(4)?,
        client_request_id: text(5)?,
        session_id: text(6)?,
        endpoint: shared(7)?,
        route: Cow::Owned(word(8)?),
        outcome: Outcome::from_word(&word(9)?).unwrap_or_default(),
        status: row.get(10)?,
        error_code: row.get::<_, Option<String>>(11)?.map(Cow::Owned),
        attempts: row.get(12)?,
        attempt_log: row.get_ref(28)?.as_str_or_null()?.map(read_attempts).unwrap_or_default(),
        tokens: Tokens {
            input: count(13)?,
            cached_input: count(14)?,
            output: count(15)?,
            reasoning: count(16)?,
        },
        usage_source: UsageSource::from_word(&word(17)?).unwrap_or_default(),
        charge: Charge {
            input: picos(row, 18)?,
            output: picos(row, 19)?,
            request: picos(row, 20)?,
        },
        cache: CacheStatus::from_word(&word(21)?).unwrap_or_default(),
        saved: Saved {
            tokens: count(22)?,
            cost: picos(row, 23)?,
        },
        timing: Timing {
            queue_ms: count(24)?,
            ttft_ms: row.get::<_, Option<i64>>(25)?.and_then(|ms| u64::try_from(ms).ok()),
            total_ms: count(26)?,
        },
        stream: row.get(27)?,
    })
}
