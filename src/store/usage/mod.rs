//! Questions to the ledger: who used what, when, at what cost, how fast.
//!
//! # How exact, how fast
//!
//! A stretch of time is cut into whole days, hours and minutes, which are read from the roll-ups, and two remainders of
//! less than a minute, which are read from the rows: exact to the millisecond at both ends, and bounded by the number of
//! days, 46 hours, 118 minutes and two minutes' rows. Two exceptions: an end that is not in the past is taken as the end
//! of its minute (nothing is later than now), and what retention has pruned is read from what it has left: a remainder is
//! its whole minute where the rows are gone, and its whole hour where the minutes are.
//!
//! A time series reads the coarsest level that divides its buckets (for it there are also sums of five minutes); buckets that
//! are no multiple of a minute are made from rows. One that would read more than [`CELLS_MAX`] sums is refused. Where something coarser is all that is kept, its sums stand in the bucket in which they begin.

mod answers;
mod cells;
mod log;
mod pieces;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use answers::{GroupBy, ModelUsage, SeriesPoint, UsageRow};
pub use log::LogPosition;

use super::ledger::{Row, Sums};
use super::{ReadError, Store};
use crate::id::{KeyId, TenantId};
use crate::units::UnixMs;

/// The least width of a bucket of a series.
pub const BUCKET_MS_MIN: i64 = 10_000;

/// The most buckets of a series: ninety days of five minutes, and some.
pub const BUCKETS_MAX: i64 = 30_000;

/// The most sums, of roll-ups or of single requests, that a series is made of, and so the most points it has. What takes more
/// would take longer than people wait: it is refused.
pub const CELLS_MAX: usize = 150_000;

/// How long a query may take, its wait for a reader included.
const BUDGET: Duration = Duration::from_secs(10);

/// Which requests a question is about. `None` is all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of one tenant.
    pub tenant: Option<TenantId>,
    /// With one key.
    pub key: Option<KeyId>,
    /// To one model, by its registered name.
    pub model: Option<String>,
    /// Those that began at or after.
    pub since: UnixMs,
    /// Those that began before.
    pub until: UnixMs,
}

impl Store {
    /// Usage per tenant, key or model, most tokens first. Also the costs: their parts are in the sums.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage(&self, filter: Filter, by: GroupBy, now: UnixMs) -> Result<Vec<UsageRow>, ReadError> {
        self.read(BUDGET, move |connection| answers::usage(connection, &filter, by, now))
            .await
    }

    /// Usage altogether; what the cache did is in it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage_total(&self, filter: Filter, now: UnixMs) -> Result<Sums, ReadError> {
        self.read(BUDGET, move |connection| answers::total(connection, &filter, now)).await
    }

    /// Usage and speed per model, most tokens first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage_models(&self, filter: Filter, now: UnixMs) -> Result<Vec<ModelUsage>, ReadError> {
        self.read(BUDGET, move |connection| answers::models(connection, &filter, now)).await
    }

    /// Usage per bucket of time, ascending, without empty buckets. Buckets are multiples of `bucket_ms` since 1970. The
    /// caller has checked [`BUCKET_MS_MIN`] and [`BUCKETS_MAX`]. `None` where it would take more than [`CELLS_MAX`] sums.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage_series(&self, filter: Filter, bucket_ms: i64, now: UnixMs) -> Result<Option<Vec<SeriesPoint>>, ReadError> {
        self.read(BUDGET, move |connection| {
            answers::series(connection, &filter, bucket_ms, false, now)
        })
        .await
    }

    /// The same per tenant.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage_series_by_tenant(&self, filter: Filter, bucket_ms: i64, now: UnixMs) -> Result<Option<Vec<SeriesPoint>>, ReadError> {
        self.read(BUDGET, move |connection| answers::series(connection, &filter, bucket_ms, true, now))
            .await
    }

    /// The request log, newest first, at most `limit` rows, those before `before` if given.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn requests(&self, filter: Filter, limit: u32, before: Option<LogPosition>) -> Result<Vec<Row>, ReadError> {
        self.read(BUDGET, move |connection| log::requests(connection, &filter, limit, before))
            .await
    }
}
