//! The rows of usage as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::Catalog;
use crate::id::{KeyId, TenantId};
use crate::pricing::Usd;
use crate::store::ledger::Sums;
use crate::store::usage::{self, ModelUsage};

/// What a group used.
#[derive(Serialize, ToSchema)]
pub(super) struct Counts {
    /// Requests, refused ones included.
    requests: u64,
    /// Those that ended in `error`, `timeout` or `interrupted`.
    errors: u64,
    /// Input tokens.
    input_tokens: u64,
    /// Those of them that came from upstreams' prefix caches.
    cached_input_tokens: u64,
    /// Output tokens.
    output_tokens: u64,
    /// Both.
    total_tokens: u64,
    /// What they cost, in USD, at the prices of when they ran.
    #[schema(value_type = f64, example = 0.0125)]
    cost_usd: Usd,
}

impl Counts {
    fn of(sums: &Sums) -> Self {
        Self {
            requests: sums.requests,
            errors: sums.errors,
            input_tokens: sums.input_tokens,
            cached_input_tokens: sums.cached_input_tokens,
            output_tokens: sums.output_tokens,
            total_tokens: sums.total_tokens(),
            cost_usd: Usd(sums.cost()),
        }
    }
}

/// Whose usage it is: one or two of the three.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct Owner {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "id_text")]
    #[schema(value_type = Option<String>, format = Uuid)]
    key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "id_text")]
    #[schema(value_type = Option<String>, format = Uuid)]
    tenant_id: Option<TenantId>,
    /// Empty for requests that found no model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
}

impl Owner {
    pub(in crate::admin) fn of(row: &usage::UsageRow) -> Self {
        Self {
            key_id: row.key,
            tenant_id: row.tenant,
            model: row.model.clone(),
        }
    }
}

pub(super) fn id_text<T: std::fmt::Display, S: serde::Serializer>(id: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

/// Usage of a tenant, key or model.
#[derive(Serialize, ToSchema)]
pub(super) struct UsageRow {
    #[serde(flatten)]
    owner: Owner,
    #[serde(flatten)]
    counts: Counts,
}

impl UsageRow {
    pub(super) fn of(row: &usage::UsageRow) -> Self {
        Self {
            owner: Owner::of(row),
            counts: Counts::of(&row.sums),
        }
    }
}

/// Usage of a key.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyUsageRow)]
pub(super) struct KeyRow {
    #[serde(flatten)]
    owner: Owner,
    /// The first characters of its secret; null once it is deleted.
    key_prefix: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

impl KeyRow {
    pub(super) fn of(row: &usage::UsageRow, catalog: &Catalog) -> Self {
        let key = row.key.and_then(|id| catalog.keys().get(&id));
        Self {
            owner: Owner::of(row),
            key_prefix: key.map(|key| key.prefix.clone()),
            counts: Counts::of(&row.sums),
        }
    }
}

/// Usage of a model, and how fast it was. Latencies are of requests that were answered well, those of the response cache
/// not among them; null when there were none.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelUsageRow)]
pub(super) struct ModelRow {
    /// Its name; empty for requests that found no model.
    model: String,
    #[serde(flatten)]
    counts: Counts,
    /// Mean time to the first token, in milliseconds.
    avg_ttft_ms: Option<f64>,
    /// Half were faster.
    p50_ttft_ms: Option<u64>,
    /// 95 of 100 were faster.
    p95_ttft_ms: Option<u64>,
    /// The whole request.
    p50_total_ms: Option<u64>,
    /// The whole request.
    p95_total_ms: Option<u64>,
    /// The wait for a slot.
    p50_queue_ms: Option<u64>,
    /// The wait for a slot.
    p95_queue_ms: Option<u64>,
    /// Output tokens per second of generation, over all requests.
    gen_tokens_per_sec: Option<f64>,
    /// Tenants that used it.
    users: u64,
}

impl ModelRow {
    pub(super) fn of(row: &ModelUsage) -> Self {
        Self {
            model: row.model.clone(),
            counts: Counts::of(&row.sums),
            avg_ttft_ms: row.ttft_ms_avg,
            p50_ttft_ms: row.ttft_ms_p50,
            p95_ttft_ms: row.ttft_ms_p95,
            p50_total_ms: row.total_ms_p50,
            p95_total_ms: row.total_ms_p95,
            p50_queue_ms: row.queue_ms_p50,
            p95_queue_ms: row.queue_ms_p95,
            gen_tokens_per_sec: row.gen_tokens_per_sec,
            users: row.users,
        }
    }
}
