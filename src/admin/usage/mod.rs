//! `/usage`: who used what, when, how fast; the request log.
//!
//! Every route takes every filter, and answers JSON or, to `Accept: text/csv`, CSV. How exact the sums are is said in
//! [`store::usage`](crate::store::usage).

pub(super) mod filter;
mod log;
pub(super) mod rows;
mod series;
pub(super) mod table;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::Desk;
use super::page::Query;
use super::problem::Problem;
use super::{Room, answer, shown};
use crate::pricing::Usd;
use crate::store::usage::GroupBy;
use filter::Asked;
use rows::{KeyRow, ModelRow, UsageRow};

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(usage))
        .routes(routes!(keys))
        .routes(routes!(models))
        .routes(routes!(cache))
        .merge(series::routes())
        .merge(log::routes())
}

/// Adds up usage.
#[utoipa::path(get, path = "/usage", operation_id = "get_usage", tag = "usage",
    params(("group_by" = Option<String>, Query, pattern = "^(tenant|key|model)$", description = "`tenant` (default), `key` or `model`."), filter::Parameters),
    responses((status = 200, description = "A row per group, most tokens first.", body = [UsageRow])))]
async fn usage(State(desk): State<Desk>, headers: HeaderMap, mut query: Query) -> Result<Response, Problem> {
    let by = filter::group_by(&mut query).unwrap_or(GroupBy::Tenant);
    let asked = Asked::read(&desk, query)?;
    let groups = desk.store.usage(asked.filter.clone(), by, asked.now).await?;
    Ok(asked.answer(&headers, groups.iter().map(UsageRow::of)))
}

/// Adds up usage per key.
#[utoipa::path(get, path = "/usage/keys", operation_id = "get_usage_keys", tag = "usage", params(filter::Parameters),
    responses((status = 200, description = "A row per key, most tokens first.", body = [KeyRow])))]
async fn keys(State(desk): State<Desk>, headers: HeaderMap, query: Query) -> Result<Response, Problem> {
    let asked = Asked::read(&desk, query)?;
    let groups = desk.store.usage(asked.filter.clone(), GroupBy::Key, asked.now).await?;
    let catalog = desk.live.load();
    Ok(asked.answer(&headers, groups.iter().map(|group| KeyRow::of(group, &catalog))))
}

/// Adds up usage per model, and how fast each was.
#[utoipa::path(get, path = "/usage/models", operation_id = "get_usage_models", tag = "usage", params(filter::Parameters),
    responses((status = 200, description = "A row per model, most tokens first.", body = [ModelRow])))]
async fn models(State(desk): State<Desk>, headers: HeaderMap, query: Query) -> Result<Response, Problem> {
    let asked = Asked::read(&desk, query)?;
    let models = desk.store.usage_models(asked.filter.clone(), asked.now).await?;
    Ok(asked.answer(&headers, models.iter().map(ModelRow::of)))
}

/// Tells what the response cache did.
#[utoipa::path(get, path = "/usage/cache", operation_id = "get_usage_cache", tag = "usage", params(filter::Parameters),
    responses((status = 200, description = "What it spared, and how large it is now.", body = CacheUsage)))]
async fn cache(State(desk): State<Desk>, headers: HeaderMap, query: Query) -> Result<Response, Problem> {
    let asked = Asked::read(&desk, query)?;
    let sums = desk.store.usage_total(asked.filter.clone(), asked.now).await?;
    let size = (desk.cache_size)();
    let answered = sums.hits + sums.coalesced;
    let row = CacheUsage {
        hits: sums.hits,
        misses: sums.misses,
        bypasses: sums.bypasses,
        coalesced: sums.coalesced,
        hit_ratio: ratio(answered, answered + sums.misses),
        tokens_saved: sums.saved_tokens,
        cost_saved_usd: Usd(sums.saved_cost),
        entries: size.entries,
        bytes: size.bytes,
    };
    if table::wants_csv(&headers) {
        return Ok(table::csv(std::iter::once(shown::json(&row))));
    }
    Ok(answer::json(shown::json(&row)).into_response())
}

/// What the response cache did and holds.
#[derive(Serialize, ToSchema)]
struct CacheUsage {
    /// Answers from memory.
    hits: u64,
    /// Requests that it had no answer for.
    misses: u64,
    /// Requests that the client sent around it.
    bypasses: u64,
    /// Requests that shared another one's answer as it came.
    coalesced: u64,
    /// Hits and coalesced among all that asked it; 0 when none did.
    #[schema(example = 0.42)]
    hit_ratio: f64,
    /// Tokens that were not computed.
    tokens_saved: u64,
    /// What they would have cost, in USD.
    #[schema(value_type = f64)]
    cost_saved_usd: Usd,
    /// Answers held now.
    entries: u64,
    /// Their size.
    bytes: u64,
}

#[expect(clippy::cast_precision_loss, reason = "a ratio that people look at")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
