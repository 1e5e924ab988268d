//! Reading sums piece by piece: from roll-ups of the coarsest grain that tells apart what is asked, or from rows.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};

use super::super::ledger::rollup::{DAY_MS, Grain, HOUR_MS, Latency, MINUTE_MS, merge_latency};
use super::super::ledger::{Sums, Timing, picos, unsigned};
use super::Filter;
use super::pieces::{Kept, Piece, Source, ceil, floor, pieces};
use crate::id::{KeyId, TenantId};
use crate::units::UnixMs;

/// What the reader of cells tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Apart {
    pub(super) tenants: bool,
    pub(super) keys: bool,
    pub(super) models: bool,
}

/// Sums of a stretch of time or of one row. What is not told apart may be empty.
pub(super) struct Cell<'a> {
    pub(super) at: i64,
    pub(super) tenant: Option<TenantId>,
    pub(super) key: Option<KeyId>,
    pub(super) model: &'a str,
}

/// The pieces of the stretch that a filter means.
fn stretch(connection: &Connection, filter: &Filter, width: Option<i64>, now: UnixMs) -> rusqlite::Result<Vec<Piece>> {
    let until = if filter.until > now {
        ceil(filter.until.0, MINUTE_MS)
    } else {
        filter.until.0
    };
    Ok(pieces(filter.since.0, until, width, kept(connection)?))
}

/// What retention has left. A sum per hour is made with its minutes, and a minute with its rows: where the coarser begins
/// before the finer, the finer has been pruned.
fn kept(connection: &Connection) -> rusqlite::Result<Kept> {
    let oldest = |level: i64| -> rusqlite::Result<Option<i64>> {
        connection
            .prepare_cached("SELECT min(bucket_ms) FROM rollups WHERE level_ms = ?1 AND grain = ?2")?
            .query_row((level, Grain::All as i64), |row| row.get(0))
    };
    let (hour, minute) = (oldest(HOUR_MS)?, oldest(MINUTE_MS)?);
    let row: Option<i64> = connection
        .prepare_cached("SELECT min(ts_ms) FROM ledger")?
        .query_row([], |row| row.get(0))?;
    // Later than any time that is asked for, and still a multiple of everything.
    const NONE: i64 = i64::MAX / DAY_MS * DAY_MS;
    let from = |coarse: Option<i64>, fine: Option<i64>, step: i64| match (coarse, fine) {
        (Some(coarse), Some(fine)) if floor(fine, step) > coarse => ceil(fine, step),
        (Some(_), None) => NONE,
        (Some(_) | None, Some(_)) | (None, None) => i64::MIN,
    };
    Ok(Kept {
        // Minutes go an hour at a time, so the oldest one's hour is whole, wherever in it the minute lies.
        minutes_from: from(hour, minute.map(|minute| floor(minute, HOUR_MS)), HOUR_MS),
        rows_from: from(minute, row, MINUTE_MS),
    })
}

/// Calls `each` for every cell of the stretch, until it breaks off. `width`: cells must not straddle multiples of it.
pub(super) fn sums(
    connection: &Connection,
    filter: &Filter,
    (apart, width): (Apart, Option<i64>),
    now: UnixMs,
    mut each: impl FnMut(&Cell<'_>, &Sums) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    const OF_ROWS: &str = "ts_ms, tenant_id, key_id, model, 1, outcome IN ('error', 'timeout', 'interrupted'),
        outcome <> 'rejected' AND cache NOT IN ('hit', 'coalesced'), input_tokens, cached_input_tokens, output_tokens,
        input_pico, output_pico, request_pico, cache = 'hit', cache = 'miss', cache = 'bypass', cache = 'coalesced',
        saved_tokens, saved_pico FROM ledger";
    const OF_ROLLUPS: &str = "bucket_ms, tenant_id, key_id, model, requests, errors, dispatched, input_tokens,
        cached_input_tokens, output_tokens, input_pico, output_pico, request_pico, hits, misses, bypasses, coalesced,
        saved_tokens, saved_pico FROM rollups";
    // Who is asked for alone need not be told apart.
    let apart = Apart {
        tenants: apart.tenants && filter.tenant.is_none() && filter.key.is_none(),
        keys: apart.keys && filter.key.is_none(),
        models: apart.models && filter.model.is_none(),
    };
    let grain = grain(filter, apart);
    for piece in stretch(connection, filter, width, now)? {
        let mut question = Question::new(&piece);
        match piece.source {
            Source::Rows => question.filter(filter),
            Source::Level(_) => {
                question.equal("grain", grain as i64);
                question.owner(connection, filter, apart, grain)?;
            }
        }
        let columns = match (piece.source, question.line) {
            (Source::Rows, _) => OF_ROWS,
            (Source::Level(_), false) => OF_ROLLUPS,
            // Without statistics SQLite would walk all owners' buckets.
            (Source::Level(_), true) => &format!("{OF_ROLLUPS} INDEXED BY rollups_by_owner"),
        };
        let mut broken_off = ControlFlow::Continue(());
        question.ask(connection, columns, |row| {
            broken_off = each(&cell(row)?, &read_sums(row, 4)?);
            Ok(broken_off)
        })?;
        if broken_off.is_break() {
            break;
        }
    }
    Ok(())
}

/// The latencies of every model.
pub(super) fn latencies(connection: &Connection, filter: &Filter, now: UnixMs) -> rusqlite::Result<HashMap<String, Latency>> {
    const OF_ROWS: &str = "model, queue_ms, ttft_ms, total_ms, stream, output_tokens FROM ledger";
    const OF_KEYS: &str = "model, ttft_sum, gen_tokens, gen_ms, ttft, total, queue FROM latencies";
    const OF_MODELS: &str = "model, ttft_sum, gen_tokens, gen_ms, ttft, total, queue FROM model_latencies";
    let mut models: HashMap<String, Latency> = HashMap::new();
    for piece in stretch(connection, filter, None, now)? {
        let mut question = Question::new(&piece);
        question.filter(filter);
        if piece.source != Source::Rows {
            let everybody = filter.tenant.is_none() && filter.key.is_none();
            question.ask(connection, if everybody { OF_MODELS } else { OF_KEYS }, |row| {
                merge_latency(row, 1, of_model(&mut models, row.get_ref(0)?.as_str()?))?;
                Ok(ControlFlow::Continue(()))
            })?;
            continue;
        }
        question
            .condition
            .push_str(" AND outcome = 'ok' AND cache NOT IN ('hit', 'coalesced')");
        question.ask(connection, OF_ROWS, |row| {
            let timing = Timing {
                queue_ms: unsigned(row, 1)?,
                ttft_ms: row.get::<_, Option<i64>>(2)?.and_then(|ms| u64::try_from(ms).ok()),
                total_ms: unsigned(row, 3)?,
            };
            of_model(&mut models, row.get_ref(0)?.as_str()?).add(&timing, row.get(4)?, unsigned(row, 5)?);
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(models)
}

/// The entry of a model.
pub(super) fn of_model<'m, T: Default>(models: &'m mut HashMap<String, T>, model: &str) -> &'m mut T {
    models.entry(model.to_owned()).or_default()
}

fn grain(filter: &Filter, apart: Apart) -> Grain {
    let tenants = apart.tenants || filter.tenant.is_some();
    let keys = apart.keys || filter.key.is_some();
    let models = apart.models || filter.model.is_some();
    match (tenants, keys, models) {
        (false, false, false) => Grain::All,
        (true, false, false) => Grain::Tenant,
        (_, true, false) => Grain::Key,
        (false, false, true) => Grain::Model,
        (_, true, true) | (true, _, true) => Grain::Finest,
    }
}

/// A `SELECT` in the making.
struct Question {
    condition: String,
    values: Vec<Box<dyn ToSql>>,
    /// Whether it asks for one owner's line through time.
    line: bool,
}

impl Question {
    fn new(piece: &Piece) -> Self {
        let mut question = Self {
            condition: String::new(),
            values: Vec::new(),
            line: false,
        };
        let time = match piece.source {
            Source::Rows => "ts_ms",
            Source::Level(level) => {
                question.equal("level_ms", level);
                "bucket_ms"
            }
        };
        question.compare(time, ">=", piece.from);
        question.compare(time, "<", piece.to);
        question
    }

    fn compare(&mut self, column: &str, operator: &str, value: impl ToSql + 'static) {
        let and = if self.values.is_empty() { "" } else { " AND " };
        self.values.push(Box::new(value));
        let number = self.values.len();
        self.condition.push_str(&format!("{and}{column} {operator} ?{number}"));
    }

    fn equal(&mut self, column: &str, value: impl ToSql + 'static) {
        self.compare(column, "=", value);
    }

    fn filter(&mut self, filter: &Filter) {
        if let Some(tenant) = &filter.tenant {
            self.equal("tenant_id", *tenant.as_bytes());
        }
        if let Some(key) = &filter.key {
            self.equal("key_id", *key.as_bytes());
        }
        if let Some(model) = &filter.model {
            self.equal("model", model.clone());
        }
    }

    /// The filter on roll-ups. Whoever is not told apart is empty there, and saying so makes one line of the index of it.
    fn owner(&mut self, connection: &Connection, filter: &Filter, apart: Apart, grain: Grain) -> rusqlite::Result<()> {
        self.filter(filter);
        if apart != Apart::default() {
            return Ok(());
        }
        let empty: [u8; 0] = [];
        match grain {
            Grain::All => return Ok(()),
            Grain::Tenant => {
                self.equal("key_id", empty);
                self.equal("model", "");
            }
            Grain::Model => {
                self.equal("key_id", empty);
                self.equal("tenant_id", empty);
            }
            Grain::Key | Grain::Finest => {
                // One tenant's several keys are no line.
                let Some(key) = &filter.key else { return Ok(()) };
                if filter.tenant.is_none() {
                    let tenant: Option<Vec<u8>> = connection
                        .prepare_cached("SELECT min(tenant_id) FROM rollups WHERE level_ms = 86400000 AND grain = 2 AND key_id = ?1")?
                        .query_row([key.as_bytes()], |row| row.get(0))?;
                    self.equal("tenant_id", tenant);
                }
                if grain == Grain::Key {
                    self.equal("model", "");
                }
            }
        }
        self.line = true;
        Ok(())
    }

    fn ask(
        self,
        connection: &Connection,
        columns: &str,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(&format!("SELECT {columns} WHERE {}", self.condition))?;
        let values: Vec<&dyn ToSql> = self.values.iter().map(|value| &**value).collect();
        let mut rows = statement.query(&values[..])?;
        while let Some(row) = rows.next()? {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn cell<'a>(row: &'a Row<'_>) -> rusqlite::Result<Cell<'a>> {
    let bytes = |column| -> rusqlite::Result<Option<[u8; 16]>> { Ok(row.get_ref(column)?.as_blob()?.try_into().ok()) };
    Ok(Cell {
        at: row.get(0)?,
        tenant: bytes(1)?.map(TenantId::from_bytes),
        key: bytes(2)?.map(KeyId::from_bytes),
        model: row.get_ref(3)?.as_str()?,
    })
}

fn read_sums(row: &Row<'_>, first: usize) -> rusqlite::Result<Sums> {
    let count = |column| unsigned(row, first + column);
    let money = |column| picos(row, first + column);
    Ok(Sums {
        requests: count(0)?,
        errors: count(1)?,
        dispatched: count(2)?,
        input_tokens: count(3)?,
        cached_input_tokens: count(4)?,
        output_tokens: count(5)?,
        input_cost: money(6)?,
        output_cost: money(7)?,
        request_cost: money(8)?,
        hits: count(9)?,
        misses: count(10)?,
        bypasses: count(11)?,
        coalesced: count(12)?,
        saved_tokens: count(13)?,
        saved_cost: money(14)?,
    })
}
