//! The answers: cells added up by what was asked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::super::ledger::Sums;
use super::cells::{Apart, latencies, of_model, sums};
use super::log::owners;
use super::pieces::floor;
use super::{CELLS_MAX, Filter};
use crate::id::{KeyId, TenantId};
use crate::units::UnixMs;

/// What usage is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// Tenant.
    Tenant,
    /// Key, with its tenant.
    Key,
    /// Model.
    Model,
}

/// Usage of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The tenant, unless grouped by model.
    pub tenant: Option<TenantId>,
    /// The key, if grouped by key.
    pub key: Option<KeyId>,
    /// The model, if grouped by model; empty for requests that found none.
    pub model: Option<String>,
    /// What it used.
    pub sums: Sums,
}

/// Usage and speed of one model. Percentiles are in milliseconds, from histograms; `None` when nothing was answered.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the management API")]
pub struct ModelUsage {
    pub model: String,
    pub sums: Sums,
    /// Tenants that used it.
    pub users: u64,
    pub ttft_ms_avg: Option<f64>,
    pub ttft_ms_p50: Option<u64>,
    pub ttft_ms_p95: Option<u64>,
    pub total_ms_p50: Option<u64>,
    pub total_ms_p95: Option<u64>,
    pub queue_ms_p50: Option<u64>,
    pub queue_ms_p95: Option<u64>,
    pub gen_tokens_per_sec: Option<f64>,
}

/// Usage in one bucket of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesPoint {
    /// Where the bucket begins.
    pub bucket: UnixMs,
    /// The tenant, in a series per tenant.
    pub tenant: Option<TenantId>,
    /// What was used in it.
    pub sums: Sums,
}

pub(super) fn usage(connection: &Connection, filter: &Filter, by: GroupBy, now: UnixMs) -> rusqlite::Result<Vec<UsageRow>> {
    let apart = Apart {
        tenants: by == GroupBy::Tenant,
        keys: by == GroupBy::Key,
        models: by == GroupBy::Model,
    };
    let mut owners: HashMap<(Option<TenantId>, Option<KeyId>), Sums> = HashMap::new();
    let mut models: HashMap<String, Sums> = HashMap::new();
    sums(connection, filter, (apart, None), now, |cell, sums| {
        match by {
            GroupBy::Tenant => owners.entry((cell.tenant, None)).or_default().add(sums),
            GroupBy::Key => owners.entry((cell.tenant, cell.key)).or_default().add(sums),
            GroupBy::Model => of_model(&mut models, cell.model).add(sums),
        }
        ControlFlow::Continue(())
    })?;
    let of_owners = owners.into_iter().map(|((tenant, key), sums)| UsageRow {
        tenant,
        key,
        model: None,
        sums,
    });
    let of_models = models.into_iter().map(|(model, sums)| UsageRow {
        tenant: None,
        key: None,
        model: Some(model),
        sums,
    });
    let mut rows: Vec<UsageRow> = of_owners.chain(of_models).collect();
    rows.sort_by(|a, b| {
        let order = |row: &UsageRow| (Reverse(row.sums.total_tokens()), Reverse(row.sums.requests), row.tenant, row.key);
        order(a).cmp(&order(b)).then_with(|| a.model.cmp(&b.model))
    });
    Ok(rows)
}

pub(super) fn total(connection: &Connection, filter: &Filter, now: UnixMs) -> rusqlite::Result<Sums> {
    let mut total = Sums::default();
    sums(connection, filter, (Apart::default(), None), now, |_, sums| {
        total.add(sums);
        ControlFlow::Continue(())
    })?;
    Ok(total)
}

pub(super) fn models(connection: &Connection, filter: &Filter, now: UnixMs) -> rusqlite::Result<Vec<ModelUsage>> {
    let apart = Apart {
        tenants: true,
        keys: false,
        models: true,
    };
    let mut models: HashMap<String, (Sums, HashSet<TenantId>)> = HashMap::new();
    sums(connection, filter, (apart, None), now, |cell, sums| {
        let (total, users) = of_model(&mut models, cell.model);
        total.add(sums);
        users.extend(cell.tenant);
        ControlFlow::Continue(())
    })?;
    let mut latencies = latencies(connection, filter, now)?;
    let mut rows: Vec<ModelUsage> = models
        .into_iter()
        .map(|(model, (sums, users))| (latencies.remove(&model).unwrap_or_default(), model, sums, users))
        .map(|(latency, model, sums, users)| ModelUsage {
            model,
            sums,
            users: users.len() as u64,
            ttft_ms_avg: ratio(latency.ttft_sum, latency.ttft.count()),
            ttft_ms_p50: latency.ttft.percentile(50),
            ttft_ms_p95: latency.ttft.percentile(95),
            total_ms_p50: latency.total.percentile(50),
            total_ms_p95: latency.total.percentile(95),
            queue_ms_p50: latency.queue.percentile(50),
            queue_ms_p95: latency.queue.percentile(95),
            gen_tokens_per_sec: ratio(latency.gen_tokens, latency.gen_ms).map(|per_ms| per_ms * 1_000.0),
        })
        .collect();
    rows.sort_by(|a, b| (Reverse(a.sums.total_tokens()), &a.model).cmp(&(Reverse(b.sums.total_tokens()), &b.model)));
    Ok(rows)
}

/// `None` where it would take more than [`CELLS_MAX`].
pub(super) fn series(
    connection: &Connection,
    filter: &Filter,
    bucket_ms: i64,
    by_tenant: bool,
    now: UnixMs,
) -> rusqlite::Result<Option<Vec<SeriesPoint>>> {
    let apart = Apart {
        tenants: by_tenant,
        ..Apart::default()
    };
    let mut points: BTreeMap<(i64, Option<TenantId>), Sums> = BTreeMap::new();
    let mut read = 0;
    for line in lines(connection, filter, by_tenant)? {
        sums(connection, &line, (apart, Some(bucket_ms)), now, |cell, sums| {
            let tenant = cell.tenant.filter(|_| by_tenant);
            points.entry((floor(cell.at, bucket_ms), tenant)).or_default().add(sums);
            read += 1;
            if read > CELLS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if read > CELLS_MAX {
            return Ok(None);
        }
    }
    let points = points.into_iter().map(|((bucket, tenant), sums)| SeriesPoint {
        bucket: UnixMs(bucket),
        tenant,
        sums,
    });
    Ok(Some(points.collect()))
}

/// The filter, or one for each key where tenants and models are told apart at once: those sums are kept by key, and without
/// one all keys' would be read.
fn lines(connection: &Connection, filter: &Filter, by_tenant: bool) -> rusqlite::Result<Vec<Filter>> {
    let by_tenant = by_tenant || filter.tenant.is_some();
    if !by_tenant || filter.model.is_none() || filter.key.is_some() {
        return Ok(vec![filter.clone()]);
    }
    let of_key = |(key, tenant)| Filter {
        tenant: Some(tenant),
        key: Some(key),
        ..filter.clone()
    };
    Ok(owners(connection, filter)?.into_iter().map(of_key).collect())
}

#[expect(clippy::cast_precision_loss, reason = "a mean that people look at")]
fn ratio(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}
