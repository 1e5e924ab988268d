//! `/costs`: what it cost, in parts that add up, at the prices frozen when the requests ran.

use std::cmp::Reverse;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Room;
use super::desk::Desk;
use super::page::Query;
use super::problem::Problem;
use super::usage::filter::{self, Asked};
use super::usage::rows::Owner;
use crate::pricing::Usd;
use crate::store::usage::{GroupBy, UsageRow};

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(costs))
}

/// Breaks costs down.
#[utoipa::path(get, path = "/costs", operation_id = "get_costs", tag = "usage",
    params(("group_by" = Option<String>, Query, pattern = "^(tenant|key|model)$", description = "`model` (default), `tenant` or `key`."), filter::Parameters),
    responses((status = 200, description = "A row per group, the costliest first.", body = [CostRow])))]
async fn costs(State(desk): State<Desk>, headers: HeaderMap, mut query: Query) -> Result<Response, Problem> {
    let by = filter::group_by(&mut query).unwrap_or(GroupBy::Model);
    let asked = Asked::read(&desk, query)?;
    let mut groups = desk.store.usage(asked.filter.clone(), by, asked.now).await?;
    // Stable: equal costs stay in the order of tokens.
    groups.sort_by_key(|group| Reverse(group.sums.cost()));
    Ok(asked.answer(&headers, groups.iter().map(CostRow::of)))
}

/// What a model, tenant or key cost, in USD. The three parts add up to the total.
#[derive(Serialize, ToSchema)]
struct CostRow {
    #[serde(flatten)]
    owner: Owner,
    requests: u64,
    input_tokens: u64,
    cached_input_tokens: u64,
    output_tokens: u64,
    #[schema(value_type = f64)]
    input_cost: Usd,
    #[schema(value_type = f64)]
    output_cost: Usd,
    #[schema(value_type = f64)]
    request_cost: Usd,
    #[schema(value_type = f64)]
    total_cost: Usd,
}

impl CostRow {
    fn of(row: &UsageRow) -> Self {
        let sums = &row.sums;
        Self {
            owner: Owner::of(row),
            requests: sums.requests,
            input_tokens: sums.input_tokens,
            cached_input_tokens: sums.cached_input_tokens,
            output_tokens: sums.output_tokens,
            input_cost: Usd(sums.input_cost),
            output_cost: Usd(sums.output_cost),
            request_cost: Usd(sums.request_cost),
            total_cost: Usd(sums.cost()),
        }
    }
}
