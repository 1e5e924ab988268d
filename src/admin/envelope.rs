//! What every answer has, whatever happened inside: a request id, headers that keep it out of caches, a deadline, and a
//! problem document for each error, a panic included.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::problem::Problem;
use crate::id::RequestId;

/// How long a request may take, its body included.
const DEADLINE: Duration = Duration::from_secs(30);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The id of a request: the client's if it has a sane form, else one of ours.
#[derive(Debug, Clone)]
pub(super) struct Rid(pub(super) Arc<str>);

/// Wraps everything.
pub(super) async fn wrap(mut request: Request, next: Next) -> Response {
    let rid = request_id(&request);
    request.extensions_mut().insert(Rid(Arc::clone(&rid)));
    let answer = tokio::time::timeout(DEADLINE, AssertUnwindSafe(next.run(request)).catch_unwind()).await;
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            tracing::error!(request_id = &*rid, "a handler panicked");
            Problem::internal().into_response()
        }
        Err(_elapsed) => {
            Problem::unavailable("timed_out", "the request took too long; whether it changed anything is not known").into_response()
        }
    };
    explain(&mut response, &rid);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&rid) {
        headers.insert(X_REQUEST_ID, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Gives an error the body it must have. Errors that come without a [`Problem`] are the router's own.
fn explain(response: &mut Response, rid: &str) {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return;
    }
    if response.headers().get(header::CONTENT_TYPE) == Some(&HeaderValue::from_static("application/json")) {
        // Health and readiness have a body of their own.
        return;
    }
    let problem = response.extensions_mut().remove::<Problem>();
    let problem = problem.unwrap_or_else(|| Problem::of_status(status));
    *response.body_mut() = Body::from(problem.document(rid));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, PROBLEM);
    if status == StatusCode::REQUEST_TIMEOUT {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn request_id(request: &Request) -> Arc<str> {
    let sent = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    sent.filter(sane).map_or_else(|| RequestId::mint().to_string().into(), Arc::from)
}
