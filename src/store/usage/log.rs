//! The request log: rows as they are, newest first.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::ToSql;
use rusqlite::{Connection, Row as SqlRow};

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

pub(super) fn requests(connection: &Connection, filter: &Filter, limit: u32, before: Option<LogPosition>) -> rusqlite::Result<Vec<Row>> {
    let mut condition = "ts_ms >= ?1 AND ts_ms < ?2".to_owned();
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(filter.since.0), Box::new(filter.until.0)];
    let mut and = |text: &str, value: Box<dyn ToSql>, end: &str| {
        values.push(value);
        condition.push_str(&format!(" AND {text} ?{}{end}", values.len()));
    };
    if let Some(tenant) = &filter.tenant {
        and("tenant_id =", Box::new(*tenant.as_bytes()), "");
    }
    if let Some(key) = &filter.key {
        and("key_id =", Box::new(*key.as_bytes()), "");
    }
    if let Some(model) = &filter.model {
        and("model =", Box::new(model.clone()), "");
    }
    if let Some(position) = before {
        // The first bounds the walk along the index, the second finds the place among rows of one millisecond.
        and("ts_ms <=", Box::new(position.at.0), "");
        and(
            &format!("(ts_ms, request_id) < ({},", position.at.0),
            Box::new(*position.request_id.as_bytes()),
            ")",
        );
    }
    values.push(Box::new(limit));
    let question = format!(
        "SELECT * FROM ledger WHERE {condition} ORDER BY ts_ms DESC, request_id DESC LIMIT ?{}",
        values.len()
    );
    let mut statement = connection.prepare_cached(&question)?;
    let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
    let rows = statement.query_map(&values[..], read)?;
    rows.collect()
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
