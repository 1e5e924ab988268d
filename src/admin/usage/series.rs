//! `/usage/series`: usage through time, altogether or per tenant.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::Room;
use super::super::desk::Desk;
use super::super::page::Query;
use super::super::problem::Problem;
use super::filter::{Asked, Parameters};
use super::rows::id_text;
use crate::id::TenantId;
use crate::pricing::Usd;
use crate::store::ledger::Sums;
use crate::store::usage::{BUCKET_MS_MIN, BUCKETS_MAX, CELLS_MAX, Filter, SeriesPoint};
use crate::units::UnixMs;

/// The width of a bucket unless asked otherwise: five minutes.
const BUCKET_MS: i64 = 300_000;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(series)).routes(routes!(by_tenant))
}

/// Adds up usage per bucket of time.
#[utoipa::path(get, path = "/usage/series", operation_id = "get_usage_series", tag = "usage",
    params(
        ("bucket_ms" = Option<i64>, Query, minimum = 10_000, description = "Width of a bucket; at least 10000, by default 300000."),
        ("fill" = Option<bool>, Query, description = "Whether to show empty buckets, too."),
        Parameters,
    ),
    responses((status = 200, description = "A row per bucket, ascending.", body = [Point])))]
async fn series(State(desk): State<Desk>, headers: HeaderMap, query: Query) -> Result<Response, Problem> {
    let (asked, shape) = read(&desk, query)?;
    let points = desk.store.usage_series(asked.filter.clone(), shape.bucket_ms, asked.now).await?;
    let mut points = points.ok_or_else(too_many)?;
    if shape.fill {
        points = filled(&points, &asked.filter, shape.bucket_ms, &BTreeSet::from([None]));
    }
    Ok(asked.answer(&headers, points.iter().map(Point::of)))
}

/// Adds up usage per bucket of time and tenant.
#[utoipa::path(get, path = "/usage/series/tenants", operation_id = "get_usage_series_tenants", tag = "usage",
    params(
        ("bucket_ms" = Option<i64>, Query, minimum = 10_000, description = "Width of a bucket; at least 10000, by default 300000."),
        ("fill" = Option<bool>, Query, description = "Whether to show empty buckets of tenants that have others, too."),
        Parameters,
    ),
    responses((status = 200, description = "A row per bucket and tenant, ascending.", body = [Point])))]
async fn by_tenant(State(desk): State<Desk>, headers: HeaderMap, query: Query) -> Result<Response, Problem> {
    let (asked, shape) = read(&desk, query)?;
    let points = desk
        .store
        .usage_series_by_tenant(asked.filter.clone(), shape.bucket_ms, asked.now)
        .await?;
    let mut points = points.ok_or_else(too_many)?;
    if shape.fill {
        let tenants: BTreeSet<Option<TenantId>> = points.iter().map(|point| point.tenant).collect();
        let buckets = buckets(&asked.filter, shape.bucket_ms);
        let buckets = usize::try_from(buckets).unwrap_or(usize::MAX);
        if buckets.saturating_mul(tenants.len()) > CELLS_MAX {
            return Err(too_many());
        }
        points = filled(&points, &asked.filter, shape.bucket_ms, &tenants);
    }
    Ok(asked.answer(&headers, points.iter().map(Point::of)))
}

fn too_many() -> Problem {
    let most =
        format!("at most {CELLS_MAX} sums are added up or shown at once, of five minutes, hours or days where the width is a multiple");
    Problem::invalid_at("bucket_ms", format!("must be wider, or the stretch of time shorter: {most}"))
}

struct Shape {
    bucket_ms: i64,
    fill: bool,
}

fn read(desk: &Desk, mut query: Query) -> Result<(Asked, Shape), Problem> {
    let bucket_ms = query.parsed("bucket_ms", "an integer of at least 10000", |text| {
        text.parse().ok().filter(|ms| *ms >= BUCKET_MS_MIN)
    });
    let fill = query.parsed("fill", "`true` or `false`", |text| text.parse().ok());
    let asked = Asked::read(desk, query)?;
    let bucket_ms = bucket_ms.unwrap_or(BUCKET_MS);
    if buckets(&asked.filter, bucket_ms) > BUCKETS_MAX {
        return Err(Problem::invalid_at(
            "bucket_ms",
            format!("must be wider: at most {BUCKETS_MAX} buckets are shown at once"),
        ));
    }
    let shape = Shape {
        bucket_ms,
        fill: fill.unwrap_or(false),
    };
    Ok((asked, shape))
}

/// How many buckets the stretch of time touches.
fn buckets(filter: &Filter, bucket_ms: i64) -> i64 {
    (filter.until.0 - 1).div_euclid(bucket_ms) - filter.since.0.div_euclid(bucket_ms) + 1
}

/// The points with those between that have no requests.
fn filled(points: &[SeriesPoint], filter: &Filter, bucket_ms: i64, tenants: &BTreeSet<Option<TenantId>>) -> Vec<SeriesPoint> {
    let first = filter.since.0.div_euclid(bucket_ms);
    let mut points = points.iter().peekable();
    let mut all = Vec::new();
    for index in first..first + buckets(filter, bucket_ms) {
        for tenant in tenants {
            let empty = SeriesPoint {
                bucket: UnixMs(index * bucket_ms),
                tenant: *tenant,
                sums: Sums::default(),
            };
            let found = points.next_if(|point| (point.bucket, point.tenant) == (empty.bucket, empty.tenant));
            all.push(found.cloned().unwrap_or(empty));
        }
    }
    all
}

/// Usage in one bucket of time.
#[derive(Serialize, ToSchema)]
#[schema(as = UsagePoint)]
struct Point {
    /// Where the bucket begins, in Unix milliseconds.
    bucket_ms: i64,
    /// The tenant, in the series per tenant.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "id_text")]
    #[schema(value_type = Option<String>, format = Uuid)]
    tenant_id: Option<TenantId>,
    /// Requests, refused ones included.
    requests: u64,
    /// Those that ended in `error`, `timeout` or `interrupted`.
    errors: u64,
    /// Input tokens.
    input_tokens: u64,
    /// Output tokens.
    output_tokens: u64,
    /// Both.
    total_tokens: u64,
    /// What they cost, in USD.
    #[schema(value_type = f64)]
    cost_usd: Usd,
}

impl Point {
    fn of(point: &SeriesPoint) -> Self {
        Self {
            bucket_ms: point.bucket.0,
            tenant_id: point.tenant,
            requests: point.sums.requests,
            errors: point.sums.errors,
            input_tokens: point.sums.input_tokens,
            output_tokens: point.sums.output_tokens,
            total_tokens: point.sums.total_tokens(),
            cost_usd: Usd(point.sums.cost()),
        }
    }
}
