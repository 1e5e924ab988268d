//! `/usage/requests`: the request log, newest first.

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
use super::super::shown::{self, text};
use super::filter::{Asked, Parameters};
use super::table;
use crate::id::{KeyId, RequestId, TenantId};
use crate::pricing::Usd;
use crate::store::ledger::{Attempt, Row};
use crate::store::usage::LogPosition;
use crate::units::UnixMs;

/// Rows of a page unless asked otherwise.
const LIMIT: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(requests))
}

/// Lists requests, newest first.
#[utoipa::path(get, path = "/usage/requests", operation_id = "list_requests", tag = "usage", params(Parameters),
    responses((status = 200, description = "A row per request.", body = [RequestRow])))]
async fn requests(State(desk): State<Desk>, headers: HeaderMap, query: Query) -> Result<Response, Problem> {
    let asked = Asked::read_page(&desk, query, LIMIT)?;
    let before = asked
        .page
        .after
        .as_deref()
        .map(|after| position(after).ok_or_else(|| Problem::invalid_at("cursor", "must be the cursor of a Link header")));
    // At most 1000, as the page has checked.
    let limit = u32::try_from(asked.page.limit).unwrap_or(1000);
    let rows = desk.store.requests(asked.filter.clone(), limit, before.transpose()?).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == asked.page.limit)
        .map(|last| format!("{} {}", last.at.0, last.request_id));
    let shown = rows.iter().map(|row| shown::json(&RequestRow::of(row))).collect();
    Ok(table::page(&asked.page, &headers, shown, next))
}

fn position(text: &str) -> Option<LogPosition> {
    let (at, id) = text.split_once(' ')?;
    Some(LogPosition {
        at: UnixMs(at.parse().ok()?),
        request_id: id.parse().ok()?,
    })
}

/// One request, as the ledger has it.
#[derive(Serialize, ToSchema)]
struct RequestRow<'a> {
    /// The gateway's own id.
    #[serde(serialize_with = "text")]
    #[schema(value_type = String, format = Uuid)]
    request_id: RequestId,
    /// The id that the client gave.
    client_request_id: Option<&'a str>,
    #[serde(serialize_with = "text")]
    #[schema(value_type = String, format = Uuid)]
    tenant_id: TenantId,
    #[serde(serialize_with = "text")]
    #[schema(value_type = String, format = Uuid)]
    key_id: KeyId,
    /// Its registered name; empty when none was found.
    model: &'a str,
    /// The upstream that had it last; empty when none had.
    endpoint: &'a str,
    /// The path it came to.
    #[schema(example = "/v1/chat/completions")]
    route: &'a str,
    /// `ok`, `rejected`, `error`, `timeout`, `cancelled` or `interrupted`.
    #[schema(example = "ok")]
    outcome: &'static str,
    /// The status answered.
    status: u16,
    /// The `code` of the error answered.
    error_code: Option<&'a str>,
    /// How many upstreams were tried.
    attempts: u32,
    /// How each attempt ended, the last one last; null where the only one went well, or nobody was left to tell.
    attempt_log: Option<Vec<AttemptRow<'a>>>,
    input_tokens: u64,
    cached_input_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    /// `reported`, `estimated` or `none`.
    #[schema(example = "reported")]
    usage_source: &'static str,
    /// In USD, at the price of when it ran.
    #[schema(value_type = f64)]
    cost_usd: Usd,
    /// `off`, `miss`, `hit`, `coalesced` or `bypass`.
    #[schema(example = "off")]
    cache: &'static str,
    queue_ms: u64,
    ttft_ms: Option<u64>,
    total_ms: u64,
    stream: bool,
    /// When it came, in Unix milliseconds.
    ts_ms: i64,
    session_id: Option<&'a str>,
}

/// One attempt of a request.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptRow<'a> {
    /// The upstream that was tried.
    endpoint: &'a str,
    /// `ok`, `status` (an answer that is no success); without a connection: `connect_refused`, `connect_timeout`,
    /// `connect_unreachable`, `connect_tls`, `connect_error`; with one: `dead_connection` (from the pool, no answer),
    /// `closed_early` (no answer), `interrupted` (in the middle of it), `first_byte_timeout`, `idle_timeout`,
    /// `total_timeout`, `write_timeout`, `malformed`, `error_event` (in a stream); or `client_gone`, `abandoned` (by the
    /// gateway).
    #[schema(example = "connect_refused")]
    outcome: &'static str,
    /// The status that the upstream answered with.
    status: Option<u16>,
    /// When it began, in milliseconds after the request came.
    start_ms: u32,
    duration_ms: u32,
}

impl<'a> AttemptRow<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            endpoint: &attempt.endpoint,
            outcome: attempt.outcome.as_str(),
            status: attempt.status,
            start_ms: attempt.start_ms,
            duration_ms: attempt.duration_ms,
        }
    }
}

impl<'a> RequestRow<'a> {
    fn of(row: &'a Row) -> Self {
        Self {
            request_id: row.request_id,
            client_request_id: row.client_request_id.as_deref(),
            tenant_id: row.tenant,
            key_id: row.key,
            model: &row.model,
            endpoint: &row.endpoint,
            route: &row.route,
            outcome: row.outcome.as_str(),
            status: row.status,
            error_code: row.error_code.as_deref(),
            attempts: row.attempts,
            attempt_log: (!row.attempt_log.is_empty()).then(|| row.attempt_log.iter().map(AttemptRow::of).collect()),
            input_tokens: row.tokens.input,
            cached_input_tokens: row.tokens.cached_input,
            output_tokens: row.tokens.output,
            reasoning_tokens: row.tokens.reasoning,
            usage_source: row.usage_source.as_str(),
            cost_usd: Usd(row.charge.total()),
            cache: row.cache.as_str(),
            queue_ms: row.timing.queue_ms,
            ttft_ms: row.timing.ttft_ms,
            total_ms: row.timing.total_ms,
            stream: row.stream,
            ts_ms: row.at.0,
            session_id: row.session_id.as_deref(),
        }
    }
}
