//! Refusals as RFC 9457 problems. A handler returns a [`Problem`]; the [envelope](super::envelope) writes its body, because
//! only it knows the request's id.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::fault::{Fault, Faults};
use crate::catalog::Conflict;
use crate::store::{ChangeError, ReadError};

/// Seconds after which a client may try again when the store could not be reached.
const RETRY_AFTER_SECS: u32 = 1;

/// Why a request was refused: what the operator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// The stable word that programs look at.
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) errors: Vec<Fault>,
    pub(super) retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// 404 for an object: its id is unknown, or is not an id at all.
    pub(super) fn no_such(noun: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {noun}"))
    }

    /// 422: what was sent was understood and is not acceptable.
    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        let code = match faults.first().and_then(|fault| fault.code) {
            Some(code) if faults.iter().all(|fault| fault.code == Some(code)) => code,
            Some(_) | None => "invalid",
        };
        let detail = match &*faults {
            [only] => only.to_string(),
            several => format!("{} fields are not acceptable", several.len()),
        };
        Self {
            errors: faults,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
        }
    }

    /// 422 for one field or header.
    pub(super) fn invalid_at(path: &str, message: impl Into<String>) -> Self {
        let mut faults = Faults::default();
        faults.add(path, message);
        Self::invalid(faults.into_vec())
    }

    /// 503 with `Retry-After`.
    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_SECS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    /// 500, which says nothing about the inside; the log does.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request failed by a fault of the gateway",
        )
    }

    /// The problem behind a bare status: what the router says by itself.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(status, "not_found", "there is no such route"),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(status, "method_not_allowed", "the route does not have this method; see Allow"),
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "body_too_large", "the body is larger than 1 MiB"),
            other if other.is_client_error() => Self::new(other, "bad_request", "the request cannot be understood"),
            _ => Self::internal(),
        }
    }

    /// The body.
    pub(super) fn document(&self, request_id: &str) -> Vec<u8> {
        let document = Document {
            kind: format!("urn:obleth:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            errors: self.errors.clone(),
            request_id: request_id.to_owned(),
        };
        // Strings and numbers only: what serde_json cannot fail on.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if let Some(secs) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        let detail = conflict.to_string();
        let taken = |code| Self::new(StatusCode::CONFLICT, code, detail.clone());
        match conflict {
            Conflict::NameTaken { .. } => taken("name_taken"),
            Conflict::GroupInUse(_) => taken("group_in_use"),
            Conflict::DefaultGroup => taken("default_group"),
            Conflict::SecretInUse => taken("secret_in_use"),
            Conflict::UnknownGroup(_) => Self::invalid_at("fairshare_group", detail),
            Conflict::UnknownTenant => Self::no_such("tenant"),
        }
    }
}

impl From<ChangeError<Self>> for Problem {
    fn from(error: ChangeError<Self>) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Refused(problem) => problem,
            ChangeError::IdempotencyMismatch => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail),
            ChangeError::NoSealingKey => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no_sealing_key", detail),
            ChangeError::TooLarge(field) => Self::invalid_at(field, "is too large to be stored"),
            ChangeError::Unavailable(why) => {
                tracing::error!(error = why, "the store refused a change");
                Self::unavailable("store_unavailable", "the store cannot be written now; nothing has changed")
            }
            ChangeError::Panicked => Self::internal(),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::warn!(%error, "the store refused a query");
        match error {
            ReadError::Busy | ReadError::TimedOut => Self::unavailable("store_busy", error.to_string()),
            ReadError::Failed(_) => Self::unavailable("store_unavailable", "the store cannot be read now"),
        }
    }
}

/// An error, as RFC 9457 has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document {
    /// `urn:obleth:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:obleth:problem:not_found")]
    kind: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// What happened, for people.
    #[schema(example = "there is no such tenant")]
    detail: String,
    /// What happened, for programs.
    #[schema(example = "not_found")]
    code: String,
    /// What is wrong with which field.
    errors: Vec<Fault>,
    /// The request's id, as in `x-request-id`.
    request_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rooms_below_refuse_has_its_status_and_code() {
        let change = |error: ChangeError<Problem>| Problem::from(error);
        let cases = [
            (change(ChangeError::Refused(Problem::no_such("tenant"))), 404, "not_found", false),
            (change(ChangeError::IdempotencyMismatch), 422, "idempotency_key_reused", false),
            (change(ChangeError::NoSealingKey), 422, "no_sealing_key", false),
            (change(ChangeError::TooLarge("weight")), 422, "invalid", false),
            (
                change(ChangeError::Unavailable("disk full at /secret/place".to_owned())),
                503,
                "store_unavailable",
                true,
            ),
            (change(ChangeError::Panicked), 500, "internal", false),
            (Problem::from(ReadError::Busy), 503, "store_busy", true),
            (Problem::from(ReadError::TimedOut), 503, "store_busy", true),
            (
                Problem::from(ReadError::Failed("disk at /secret/place".to_owned())),
                503,
                "store_unavailable",
                true,
            ),
            (Problem::from(Conflict::SecretInUse), 409, "secret_in_use", false),
            (Problem::from(Conflict::UnknownTenant), 404, "not_found", false),
        ];
        for (problem, status, code, again) in cases {
            assert_eq!((problem.status.as_u16(), problem.code), (status, code), "{problem:?}");
            assert!(!problem.detail.contains("/secret/"), "{problem:?}");
            let response = problem.into_response();
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), again, "{code}");
        }
    }
}
