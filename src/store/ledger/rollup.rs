//! Roll-ups: sums per minute, five minutes, hour and day, written in the transaction that writes the rows they add up.
//!
//! Invariant: **a roll-up is the sum of its rows.** Only a row that was really inserted is added, so a replay adds nothing.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::histogram::Histogram;
use super::lifetime::Lives;
use super::row::{CacheStatus, Outcome, Row, Timing};
use super::{integer, money};
use crate::id::{KeyId, TenantId};
use crate::units::PicoUsd;

/// A minute, in milliseconds: the finest level.
pub(crate) const MINUTE_MS: i64 = 60_000;
/// What dashboards draw: a series of these over three months is read in a fifth of the time that minutes take.
pub(crate) const FIVE_MS: i64 = 5 * MINUTE_MS;
/// An hour.
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
/// A day, UTC.
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// What a roll-up tells apart. The numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Grain {
    All = 0,
    Tenant = 1,
    Key = 2,
    Model = 3,
    Finest = 4,
}

/// What usage counts of a set of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of the ledger's rows")]
pub struct Sums {
    pub requests: u64,
    /// Outcomes `error`, `timeout`, `interrupted`.
    pub errors: u64,
    /// Requests that counted against quotas: all but the rejected and the cache's.
    pub dispatched: u64,
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub input_cost: PicoUsd,
    pub output_cost: PicoUsd,
    pub request_cost: PicoUsd,
    pub hits: u64,
    pub misses: u64,
    pub bypasses: u64,
    pub coalesced: u64,
    pub saved_tokens: u64,
    pub saved_cost: PicoUsd,
}

impl Sums {
    /// One row's.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let is = |cache| u64::from(row.cache == cache);
        let answered_here = matches!(row.cache, CacheStatus::Hit | CacheStatus::Coalesced);
        Self {
            requests: 1,
            errors: u64::from(row.outcome.is_error()),
            dispatched: u64::from(row.outcome != Outcome::Rejected && !answered_here),
            input_tokens: row.tokens.input,
            cached_input_tokens: row.tokens.cached_input,
            output_tokens: row.tokens.output,
            input_cost: row.charge.input,
            output_cost: row.charge.output,
            request_cost: row.charge.request,
            hits: is(CacheStatus::Hit),
            misses: is(CacheStatus::Miss),
            bypasses: is(CacheStatus::Bypass),
            coalesced: is(CacheStatus::Coalesced),
            saved_tokens: row.saved.tokens,
            saved_cost: row.saved.cost,
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        let money = |a: PicoUsd, b: PicoUsd| PicoUsd(a.0.saturating_add(b.0));
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.dispatched = self.dispatched.saturating_add(other.dispatched);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_input_tokens = self.cached_input_tokens.saturating_add(other.cached_input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.input_cost = money(self.input_cost, other.input_cost);
        self.output_cost = money(self.output_cost, other.output_cost);
        self.request_cost = money(self.request_cost, other.request_cost);
        self.hits = self.hits.saturating_add(other.hits);
        self.misses = self.misses.saturating_add(other.misses);
        self.bypasses = self.bypasses.saturating_add(other.bypasses);
        self.coalesced = self.coalesced.saturating_add(other.coalesced);
        self.saved_tokens = self.saved_tokens.saturating_add(other.saved_tokens);
        self.saved_cost = money(self.saved_cost, other.saved_cost);
    }

    /// Input and output together.
    #[must_use]
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// All parts of the cost together.
    #[must_use]
    pub const fn cost(&self) -> PicoUsd {
        PicoUsd(
            self.input_cost
                .0
                .saturating_add(self.output_cost.0)
                .saturating_add(self.request_cost.0),
        )
    }
}

/// Latencies of the requests that upstream answered well; the cache's own answers are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Latency {
    pub(crate) ttft_sum: u64,
    pub(crate) gen_tokens: u64,
    pub(crate) gen_ms: u64,
    pub(crate) ttft: Histogram,
    pub(crate) total: Histogram,
    pub(crate) queue: Histogram,
}

impl Latency {
    pub(crate) fn record(&mut self, row: &Row) {
        if row.outcome == Outcome::Ok && !matches!(row.cache, CacheStatus::Hit | CacheStatus::Coalesced) {
            self.add(&row.timing, row.stream, row.tokens.output);
        }
    }

    /// Adds one answer.
    pub(crate) fn add(&mut self, timing: &Timing, stream: bool, output_tokens: u64) {
        self.queue.record(timing.queue_ms);
        self.total.record(timing.total_ms);
        if let Some(ttft) = timing.ttft_ms {
            self.ttft.record(ttft);
            self.ttft_sum = self.ttft_sum.saturating_add(ttft);
        }
        if output_tokens > 0 {
            // A stream generates after its first token; what comes in one piece was generated since it left the queue.
            let before = timing.ttft_ms.filter(|_| stream).unwrap_or(timing.queue_ms);
            self.gen_tokens = self.gen_tokens.saturating_add(output_tokens);
            self.gen_ms = self.gen_ms.saturating_add(timing.total_ms.saturating_sub(before));
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.ttft_sum = self.ttft_sum.saturating_add(other.ttft_sum);
        self.gen_tokens = self.gen_tokens.saturating_add(other.gen_tokens);
        self.gen_ms = self.gen_ms.saturating_add(other.gen_ms);
        self.ttft.merge(&other.ttft);
        self.total.merge(&other.total);
        self.queue.merge(&other.queue);
    }

    /// As the tables keep it.
    fn columns(&self) -> ([i64; 3], [Vec<u8>; 3]) {
        (
            [self.ttft_sum, self.gen_tokens, self.gen_ms].map(integer),
            [&self.ttft, &self.total, &self.queue].map(Histogram::encode),
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cell {
    grain: Grain,
    bucket: i64,
    tenant: Option<TenantId>,
    key: Option<KeyId>,
    model: Option<Arc<str>>,
}

/// One bucket of the finest grain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Finest {
    bucket: i64,
    tenant: TenantId,
    key: KeyId,
    model: Arc<str>,
}

/// A bucket of a model.
type OfModel = (i64, Arc<str>);

/// The sums of a batch, before they are written.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    minutes: HashMap<Finest, (Sums, Latency)>,
}

impl Batch {
    pub(crate) fn add(&mut self, row: &Row) {
        let minute = Finest {
            bucket: row.at.0.div_euclid(MINUTE_MS) * MINUTE_MS,
            tenant: row.tenant,
            key: row.key,
            model: Arc::clone(&row.model),
        };
        let (sums, latency) = self.minutes.entry(minute).or_default();
        sums.add(&Sums::of(row));
        latency.record(row);
    }

    /// Adds everything to the tables.
    pub(crate) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut cells: HashMap<Cell, Sums> = HashMap::new();
        let mut latencies: HashMap<(i64, Finest), Latency> = HashMap::new();
        let mut models: HashMap<(i64, OfModel), Latency> = HashMap::new();
        let mut lives = Lives::default();
        for (minute, (sums, latency)) in self.minutes {
            lives.add(*minute.tenant.as_bytes(), &sums);
            lives.add(*minute.key.as_bytes(), &sums);
            for cell in minute.grains() {
                cells.entry(cell).or_default().add(&sums);
            }
            for level in [MINUTE_MS, HOUR_MS, DAY_MS] {
                let bucket = minute.bucket.div_euclid(level) * level;
                let of_model = (level, (bucket, Arc::clone(&minute.model)));
                models.entry(of_model).or_default().merge(&latency);
                let finest = Finest { bucket, ..minute.clone() };
                latencies.entry((level, finest)).or_default().merge(&latency);
            }
        }
        // A batch spans a minute or two: there are hardly fewer cells at each level than at the one below.
        let mut add = connection.prepare_cached(&ADD_SUMS)?;
        let mut add_uncached = connection.prepare_cached(&ADD_UNCACHED_SUMS)?;
        for level in [MINUTE_MS, FIVE_MS, HOUR_MS, DAY_MS] {
            cells = coarsened(cells, level);
            for (cell, sums) in &cells {
                let is_uncached =
                    sums.hits + sums.misses + sums.bypasses + sums.coalesced + sums.saved_tokens == 0 && sums.saved_cost.0 == 0;
                add_sums(if is_uncached { &mut add_uncached } else { &mut add }, level, cell, sums)?;
            }
        }
        for ((level, finest), latency) in latencies {
            add_latency(connection, level, &finest, latency)?;
        }
        for ((level, of), latency) in models {
            add_model_latency(connection, level, &of, latency)?;
        }
        lives.write(connection)
    }
}

impl Finest {
    /// Itself in every grain.
    fn grains(&self) -> [Cell; 5] {
        let (tenant, key, model) = (Some(self.tenant), Some(self.key), Some(&self.model));
        [
            (Grain::All, None, None, None),
            (Grain::Tenant, tenant, None, None),
            (Grain::Key, tenant, key, None),
            (Grain::Model, None, None, model),
            (Grain::Finest, tenant, key, model),
        ]
        .map(|(grain, tenant, key, model)| Cell {
            grain,
            bucket: self.bucket,
            tenant,
            key,
            model: model.cloned(),
        })
    }
}

/// The same sums in buckets of `level`, which is a multiple of theirs.
fn coarsened(cells: HashMap<Cell, Sums>, level: i64) -> HashMap<Cell, Sums> {
    let mut coarser: HashMap<Cell, Sums> = HashMap::with_capacity(cells.len());
    for (mut cell, sums) in cells {
        cell.bucket = cell.bucket.div_euclid(level) * level;
        coarser.entry(cell).or_default().add(&sums);
    }
    coarser
}

/// Columns of sums, in the order of the table.
const SUMS: [&str; 15] = [
    "requests",
    "errors",
    "dispatched",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "input_pico",
    "output_pico",
    "request_pico",
    "hits",
    "misses",
    "bypasses",
    "coalesced",
    "saved_tokens",
    "saved_pico",
];

/// How many of them come before those of the cache.
const UNCACHED: usize = 9;

/// Adds to a cell.
static ADD_SUMS: LazyLock<String> = LazyLock::new(|| adding(&SUMS));

/// The same where the cache has no part in it: what an update costs is the columns that it reads and writes.
static ADD_UNCACHED_SUMS: LazyLock<String> = LazyLock::new(|| adding(SUMS.get(..UNCACHED).unwrap_or(&SUMS)));

/// A sum that would leave SQLite's integers stays at their end: the sum of two would silently be a float, which the table
/// refuses, and one row would then hold up the ledger of everybody.
fn adding(sums: &[&str]) -> String {
    let sums: Vec<String> = sums
        .iter()
        .map(|sum| format!("{sum} = iif({sum} > 9223372036854775807 - excluded.{sum}, 9223372036854775807, {sum} + excluded.{sum})"))
        .collect();
    format!(
        "INSERT INTO rollups VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)
         ON CONFLICT DO UPDATE SET {}",
        sums.join(", ")
    )
}

fn add_sums(add: &mut CachedStatement<'_>, level: i64, cell: &Cell, sums: &Sums) -> rusqlite::Result<()> {
    add.execute(params![
        level,
        cell.grain as i64,
        cell.bucket,
        cell.tenant.as_ref().map_or(&[][..], |id| id.as_bytes()),
        cell.key.as_ref().map_or(&[][..], |id| id.as_bytes()),
        cell.model.as_deref().unwrap_or(""),
        integer(sums.requests),
        integer(sums.errors),
        integer(sums.dispatched),
        integer(sums.input_tokens),
        integer(sums.cached_input_tokens),
        integer(sums.output_tokens),
        money(sums.input_cost),
        money(sums.output_cost),
        money(sums.request_cost),
        integer(sums.hits),
        integer(sums.misses),
        integer(sums.bypasses),
        integer(sums.coalesced),
        integer(sums.saved_tokens),
        money(sums.saved_cost),
    ])?;
    Ok(())
}

fn add_latency(connection: &Connection, level: i64, of: &Finest, mut latency: Latency) -> rusqlite::Result<()> {
    if latency == Latency::default() {
        return Ok(());
    }
    let (tenant, key) = (of.tenant.as_bytes(), of.key.as_bytes());
    connection
        .prepare_cached(
            "SELECT ttft_sum, gen_tokens, gen_ms, ttft, total, queue FROM latencies
             WHERE level_ms = ?1 AND bucket_ms = ?2 AND tenant_id = ?3 AND key_id = ?4 AND model = ?5",
        )?
        .query_row(params![level, of.bucket, tenant, key, &*of.model], |row| {
            merge_latency(row, 0, &mut latency)
        })
        .optional()?;
    let (sums, blobs) = latency.columns();
    connection
        .prepare_cached("INSERT OR REPLACE INTO latencies VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
        .execute(params![
            level, of.bucket, tenant, key, &*of.model, sums[0], sums[1], sums[2], blobs[0], blobs[1], blobs[2],
        ])?;
    Ok(())
}

fn add_model_latency(connection: &Connection, level: i64, (bucket, model): &OfModel, mut latency: Latency) -> rusqlite::Result<()> {
    if latency == Latency::default() {
        return Ok(());
    }
    connection
        .prepare_cached(
            "SELECT ttft_sum, gen_tokens, gen_ms, ttft, total, queue FROM model_latencies
             WHERE level_ms = ?1 AND bucket_ms = ?2 AND model = ?3",
        )?
        .query_row(params![level, bucket, &**model], |row| merge_latency(row, 0, &mut latency))
        .optional()?;
    let (sums, blobs) = latency.columns();
    connection
        .prepare_cached("INSERT OR REPLACE INTO model_latencies VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            level, bucket, &**model, sums[0], sums[1], sums[2], blobs[0], blobs[1], blobs[2]
        ])?;
    Ok(())
}

/// Makes the histograms per model of a store that is older than they.
pub(in crate::store) fn fill_model_latencies(connection: &Connection) -> rusqlite::Result<()> {
    let mut all = connection.prepare(
        "SELECT level_ms, bucket_ms, model, ttft_sum, gen_tokens, gen_ms, ttft, total, queue FROM latencies ORDER BY level_ms, bucket_ms",
    )?;
    let mut rows = all.query([])?;
    let mut sums: HashMap<OfModel, Latency> = HashMap::new();
    let mut at = (0, 0);
    while let Some(row) = rows.next()? {
        let next = (row.get(0)?, row.get(1)?);
        if next != at {
            for (of, latency) in sums.drain() {
                add_model_latency(connection, at.0, &of, latency)?;
            }
            at = next;
        }
        let model: Arc<str> = Arc::from(row.get_ref(2)?.as_str()?);
        merge_latency(row, 3, sums.entry((at.1, model)).or_default())?;
    }
    for (of, latency) in sums {
        add_model_latency(connection, at.0, &of, latency)?;
    }
    Ok(())
}

/// Adds what the six columns from `first` on hold.
pub(crate) fn merge_latency(row: &rusqlite::Row<'_>, first: usize, to: &mut Latency) -> rusqlite::Result<()> {
    to.ttft_sum = to.ttft_sum.saturating_add(super::unsigned(row, first)?);
    to.gen_tokens = to.gen_tokens.saturating_add(super::unsigned(row, first + 1)?);
    to.gen_ms = to.gen_ms.saturating_add(super::unsigned(row, first + 2)?);
    for (histogram, column) in [(&mut to.ttft, first + 3), (&mut to.total, first + 4), (&mut to.queue, first + 5)] {
        histogram.merge_encoded(row.get_ref(column)?.as_blob().unwrap_or_default());
    }
    Ok(())
}
