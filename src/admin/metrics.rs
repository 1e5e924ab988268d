//! `/metrics`, beside the probes: without the token for who comes over loopback, and for others only if the operator says so.
//! What it shows is told by the roof.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::auth::{Doorkeeper, Peer};
use super::problem::Problem;

/// Writes all figures as text. May take some milliseconds.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the text is for who understands it, and for all others.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route. Without a doorkeeper it is open to all.
pub(super) fn route(metrics: Metrics, doorkeeper: Option<Doorkeeper>) -> Router {
    Router::new().route("/metrics", get(show)).with_state((metrics, doorkeeper))
}

async fn show(State((metrics, doorkeeper)): State<(Metrics, Option<Doorkeeper>)>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_canonical());
    if let Some(doorkeeper) = doorkeeper
        && !peer.is_some_and(|peer| peer.is_loopback())
        && let Err(problem) = doorkeeper.admit(request.headers(), peer)
    {
        return problem.into_response();
    }
    let kind = if asks_for_open_metrics(request.headers()) {
        OPEN_METRICS
    } else {
        PROMETHEUS
    };
    // Thousands of series take long enough to write that others would notice.
    match tokio::task::spawn_blocking(move || metrics()).await {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(_panicked) => Problem::internal().into_response(),
    }
}

fn asks_for_open_metrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text")))
}
