//! `/health`, and the probes outside the API: `/livez` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::Desk;
use super::{Room, answer, shown};

/// Whether the data plane takes requests: false until the house stands, and again while it drains.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// What was said last.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(health))
}

/// Whether configuration can be changed.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok` or `degraded`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Why it is not `ok`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    reasons: Vec<String>,
}

/// Tells whether the store can be written.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "meta",
    responses(
        (status = 200, description = "All is well.", body = Health, example = json!({"status": "ok"})),
        (status = 503, description = "The store cannot be written.", body = Health),
    ))]
async fn health(State(desk): State<Desk>) -> Response {
    match desk.store.writable() {
        Ok(()) => told(StatusCode::OK, "ok", Vec::new()),
        Err(reason) => told(StatusCode::SERVICE_UNAVAILABLE, "degraded", vec![reason]),
    }
}

/// The process runs and can answer.
pub(super) async fn livez() -> Response {
    told(StatusCode::OK, "ok", Vec::new())
}

/// New requests are welcome here.
pub(super) async fn readyz(State(readiness): State<Readiness>, State(desk): State<Desk>) -> Response {
    let mut reasons = Vec::new();
    if !readiness.get() {
        reasons.push("starting or shutting down".to_owned());
    }
    // Why exactly is for those with the token.
    if desk.store.writable().is_err() {
        reasons.push("the store cannot be written".to_owned());
    }
    if reasons.is_empty() {
        told(StatusCode::OK, "ok", reasons)
    } else {
        told(StatusCode::SERVICE_UNAVAILABLE, "not ready", reasons)
    }
}

fn told(code: StatusCode, status: &'static str, reasons: Vec<String>) -> Response {
    (code, answer::json(shown::json(&Health { status, reasons }))).into_response()
}
