//! `ETag` and `If-Match`: a change that was meant for another version is refused.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::problem::Problem;

/// The `ETag` of a version.
pub(super) fn etag(version: u64) -> HeaderValue {
    // Digits, a letter and quotes are a header value.
    HeaderValue::from_str(&format!("\"v{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"v0\""))
}

/// The `If-Match` of a request (RFC 9110 §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Not sent, or `*`: any version will do.
    Any,
    /// One of these entity tags, as they were written.
    OneOf(Vec<String>),
}

impl IfMatch {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut tags = Vec::new();
        for value in headers.get_all(header::IF_MATCH) {
            let Ok(value) = value.to_str() else {
                // Not one of our tags, so it cannot match.
                tags.push(String::new());
                continue;
            };
            tags.extend(value.split(',').map(|tag| tag.trim().to_owned()));
        }
        if tags.is_empty() || tags.iter().any(|tag| tag == "*") {
            Self::Any
        } else {
            Self::OneOf(tags)
        }
    }

    /// Compares strongly: a weak tag (`W/`) never matches.
    ///
    /// # Errors
    /// 412.
    pub(super) fn check(&self, version: u64) -> Result<(), Problem> {
        match self {
            Self::Any => Ok(()),
            Self::OneOf(tags) if tags.iter().any(|tag| etag(version) == tag.as_str()) => Ok(()),
            Self::OneOf(_) => Err(Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "version_mismatch",
                format!("the object has changed meanwhile: it is at \"v{version}\""),
            )),
        }
    }
}
