//! `/health`, and the probes outside the API: `/livez` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{RawQuery, State};
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

/// New requests are welcome here. With `?verbose` it lists what was looked at. That no upstream is healthy is no reason: it
/// would take every replica out at once, and is a metric.
pub(super) async fn readyz(RawQuery(query): RawQuery, State(readiness): State<Readiness>, State(desk): State<Desk>) -> Response {
    let checks = [
        Check {
            name: "data_plane",
            ok: readiness.get(),
            otherwise: "starting or shutting down",
        },
        // Why exactly is for those with the token.
        Check {
            name: "store",
            ok: desk.store.writable().is_ok(),
            otherwise: "the store cannot be written",
        },
    ];
    let failed = checks.iter().filter(|check| !check.ok);
    let reasons: Vec<String> = failed.map(|check| check.otherwise.to_owned()).collect();
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    if verbose {
        let health = Health { status, reasons };
        return (code, answer::json(shown::json(&Verbose { health, checks: &checks }))).into_response();
    }
    told(code, status, reasons)
}

/// One thing that readiness needs.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    #[serde(skip)]
    otherwise: &'static str,
}

#[derive(Serialize)]
struct Verbose<'a> {
    #[serde(flatten)]
    health: Health,
    checks: &'a [Check],
}

fn told(code: StatusCode, status: &'static str, reasons: Vec<String>) -> Response {
    (code, answer::json(shown::json(&Health { status, reasons }))).into_response()
}
