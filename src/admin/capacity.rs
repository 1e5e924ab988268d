//! `/capacity` and `/stats`: how many requests may be upstream at once in this process, and how many are.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value as Json, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::Desk;
use super::draft::{Draft, Mode, draft};
use super::problem::Problem;
use super::ranges::SLOTS_MAX;
use super::sent::Sent;
use super::value::Whole;
use super::{Room, answer, shown};
use crate::admission::Admission;
use crate::store::{Change, Done, Entry};

draft! {
    CapacityDraft, "the capacity", read_only: [],
    /// How many requests may be upstream at once; 0 admits nothing. Running requests are never cut.
    max_in_flight: Whole<u32, 0, SLOTS_MAX>;
}

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(show, update)).routes(routes!(stats))
}

/// How many requests may be upstream at once.
#[derive(Serialize, ToSchema)]
struct Capacity {
    /// In this process; 0 admits nothing.
    #[schema(example = 64)]
    max_in_flight: u32,
}

/// Counts of this moment.
#[derive(Serialize, ToSchema)]
struct Stats {
    /// Requests upstream.
    in_flight: u32,
    /// Requests that wait.
    queued: u32,
    /// How many may be upstream at once.
    max_in_flight: u32,
}

/// Shows how many requests may be upstream at once.
#[utoipa::path(get, path = "/capacity", operation_id = "get_capacity", tag = "capacity",
    responses((status = 200, description = "The capacity of this process.", body = Capacity)))]
async fn show(State(desk): State<Desk>) -> Response {
    capacity(desk.live.load().max_in_flight())
}

/// Changes how many requests may be upstream at once: at once, without a restart, and kept over one.
#[utoipa::path(put, path = "/capacity", operation_id = "set_capacity", tag = "capacity",
    request_body(content = ref("#/components/schemas/CapacityChange"), example = json!({"max_in_flight": 128})),
    responses((status = 200, description = "The capacity of this process.", body = Capacity)))]
async fn update(State(desk): State<Desk>, sent: Sent) -> Result<Response, Problem> {
    let draft: CapacityDraft = sent.checked(Mode::Part)?;
    let done = desk.store.change(sent.author, move |catalog, _now| {
        let before = catalog.max_in_flight();
        let mut slots = before;
        draft.max_in_flight.settle(&mut slots, || before);
        catalog.set_max_in_flight(slots);
        let entry = Entry {
            action: "set_capacity",
            entity_type: "capacity",
            entity_id: "max_in_flight".to_owned(),
            detail: json!({"before": {"max_in_flight": before}, "after": {"max_in_flight": slots}}),
        };
        Ok::<_, Problem>(Change::new(slots).audited(entry))
    });
    match done.await? {
        Done::Replayed(stored) => Ok(answer::replayed(stored)),
        Done::Committed { value, .. } => Ok(capacity(value)),
    }
}

/// Shows how many requests are upstream and how many wait.
#[utoipa::path(get, path = "/stats", operation_id = "get_stats", tag = "capacity",
    responses((status = 200, description = "The counts of this process.", body = Stats)))]
async fn stats(State(admission): State<Arc<Admission>>) -> Response {
    let stats = admission.stats();
    let stats = Stats {
        in_flight: stats.in_flight,
        queued: stats.queued,
        max_in_flight: stats.max_in_flight,
    };
    answer::json(shown::json(&stats)).into_response()
}

fn capacity(max_in_flight: u32) -> Response {
    answer::json(shown::json(&Capacity { max_in_flight })).into_response()
}

/// The schemas that the routes above name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    vec![("CapacityChange", CapacityDraft::schema(Mode::Part))]
}
