//! The shapes of successful answers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::condition::etag;
use crate::store::StoredAnswer;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// JSON that is written already.
pub(super) fn json(body: impl Into<Body>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into())
}

/// 200 with an object at a version.
pub(super) fn object(version: u64, body: String) -> axum::response::Response {
    ([(header::ETAG, etag(version))], json(body)).into_response()
}

/// 201 with the new object and where it is.
pub(super) fn created(location: &str, version: u64, body: String) -> axum::response::Response {
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(header::LOCATION, location);
    }
    (StatusCode::CREATED, headers, object(version, body)).into_response()
}

/// 204.
pub(super) fn gone() -> axum::response::Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The first answer again.
pub(super) fn replayed(stored: StoredAnswer) -> axum::response::Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(location) = stored.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(version) = version_in(&stored.body) {
        headers.insert(header::ETAG, etag(version));
    }
    *response.body_mut() = Body::from(stored.body);
    response
}

/// The version in a kept body: of the object itself, or of the key in a key creation's.
fn version_in(body: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Kept {
        version: Option<u64>,
        key: Option<Box<Self>>,
    }
    let kept: Kept = serde_json::from_str(body).ok()?;
    kept.version.or_else(|| kept.key?.version)
}
