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
    /// Reads it.
    ///
    /// # Errors
    /// 422 if it has not the form. (Taking it for a mismatch would hide the client's mistake behind a retry.)
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut tags = Vec::new();
        for value in headers.get_all(header::IF_MATCH) {
            let value = value.to_str().ok().and_then(list);
            tags.extend(value.ok_or_else(|| Problem::invalid_at("If-Match", "must be * or entity tags like \"v3\", quotes included"))?);
        }
        if tags.is_empty() || tags.iter().any(|tag| tag == "*") {
            Ok(Self::Any)
        } else {
            Ok(Self::OneOf(tags))
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

/// The entity tags of a list. A version whose quotes got lost in a shell is let through, and matches nothing.
fn list(value: &str) -> Option<Vec<String>> {
    value.split(',').map(|tag| tag_of(tag.trim())).collect()
}

fn tag_of(tag: &str) -> Option<String> {
    let quoted = tag.strip_prefix("W/").unwrap_or(tag);
    let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let bare = tag
        .strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
    let fits = tag == "*" || bare || opaque.is_some_and(|opaque| opaque.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
    fits.then(|| tag.to_owned())
}
