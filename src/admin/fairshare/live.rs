//! `/fairshare/live`: who has which share of the slots now, and who waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::desk::Desk;
use crate::admin::{Room, answer, shown};
use crate::admission::Admission;
use crate::catalog::Catalog;
use crate::scheduler::{GroupView, Snapshot, TenantView};

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(live))
}

/// Shows the scheduler now. Groups and tenants that were active within the last minute are listed.
#[utoipa::path(get, path = "/fairshare/live", operation_id = "get_fairshare_live", tag = "fairshare",
    responses((status = 200, description = "The scheduler's state in this process.", body = Live)))]
async fn live(State(admission): State<Arc<Admission>>, State(desk): State<Desk>) -> Response {
    let live = show(&admission.live(), &desk.live.load());
    answer::json(shown::json(&live)).into_response()
}

/// The scheduler at one moment.
#[derive(Serialize, ToSchema)]
struct Live {
    /// How slots are shared.
    #[schema(example = "hierarchical")]
    algorithm: &'static str,
    /// How many requests may be upstream at once.
    max_in_flight: u32,
    /// How many are.
    global_in_flight: u32,
    /// How many wait.
    global_queued: u32,
    groups: Vec<LiveGroup>,
    tenants: Vec<LiveTenant>,
    /// Requests upstream by model; only models that have some.
    model_in_flight: BTreeMap<String, u32>,
    /// Requests that wait by model; only models that have some.
    model_queued: BTreeMap<String, u32>,
    /// How many requests may be upstream at once by model, as configured or (`max_in_flight: auto`) learned; only models that
    /// have a cap.
    model_max_in_flight: BTreeMap<String, u32>,
    /// Jain's index over what backlogged tenants got by weight in the last 60 s; null when fewer than two are backlogged.
    #[schema(minimum = 0, maximum = 1)]
    fairness_index: Option<f64>,
}

/// A group's part.
#[derive(Serialize, ToSchema)]
struct LiveGroup {
    name: String,
    weight: u32,
    in_flight: u32,
    queued: u32,
    /// Its part among the groups that are active, 0 to 1.
    weight_share: f64,
    /// What that part is of the slots.
    expected_slots: f64,
    /// Slots held above that.
    borrowed: f64,
    /// Tokens charged to it since the start.
    served_tokens: u64,
    /// Those by its weight.
    share_score: f64,
}

/// A tenant's part.
#[derive(Serialize, ToSchema)]
struct LiveTenant {
    #[schema(format = Uuid)]
    tenant_id: String,
    name: String,
    fairshare_group: String,
    weight: u32,
    in_flight: u32,
    queued: u32,
    /// How long its oldest request has waited.
    oldest_wait_ms: u64,
    /// Its part among the active tenants of its group, 0 to 1.
    weight_share: f64,
    /// What that part of its group's part is of the slots.
    expected_slots: f64,
    /// Slots held above that.
    borrowed: f64,
    /// Tokens charged to it since the start.
    served_tokens: u64,
    /// Those by its weight.
    share_score: f64,
}

/// Gives ids their names. What was deleted since the snapshot has none and is left out.
fn show(snapshot: &Snapshot, catalog: &Catalog) -> Live {
    let models = || {
        snapshot
            .models
            .iter()
            .filter_map(|model| Some((catalog.models().get(&model.model)?.name.clone(), model)))
    };
    Live {
        algorithm: "hierarchical",
        max_in_flight: snapshot.max_in_flight,
        global_in_flight: snapshot.in_flight,
        global_queued: snapshot.queued,
        groups: snapshot.groups.iter().map(group).collect(),
        tenants: snapshot.tenants.iter().filter_map(|view| tenant(view, catalog)).collect(),
        model_in_flight: models()
            .map(|(name, model)| (name, model.in_flight))
            .filter(|(_, count)| *count > 0)
            .collect(),
        model_queued: models()
            .map(|(name, model)| (name, model.queued))
            .filter(|(_, count)| *count > 0)
            .collect(),
        model_max_in_flight: models().filter_map(|(name, model)| Some((name, model.cap?))).collect(),
        fairness_index: snapshot.fairness_index,
    }
}

fn group(view: &GroupView) -> LiveGroup {
    LiveGroup {
        name: view.name.to_string(),
        weight: view.weight,
        in_flight: view.in_flight,
        queued: view.queued,
        weight_share: view.weight_share,
        expected_slots: view.expected_slots,
        borrowed: view.borrowed,
        served_tokens: view.served_tokens,
        share_score: view.share_score,
    }
}

fn tenant(view: &TenantView, catalog: &Catalog) -> Option<LiveTenant> {
    Some(LiveTenant {
        tenant_id: view.tenant.to_string(),
        name: catalog.tenants().get(&view.tenant)?.name.clone(),
        fairshare_group: view.group.to_string(),
        weight: view.weight,
        in_flight: view.in_flight,
        queued: view.queued,
        oldest_wait_ms: u64::try_from(view.oldest_wait.as_millis()).unwrap_or(u64::MAX),
        weight_share: view.weight_share,
        expected_slots: view.expected_slots,
        borrowed: view.borrowed,
        served_tokens: view.served_tokens,
        share_score: view.share_score,
    })
}

#[cfg(test)]
mod tests;
