//! What a browser is told: that an allowed origin may ask, and what it may read of the answer.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderName, VARY,
};
use http::{HeaderMap, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

use super::super::destination::MCP_METHODS;

/// What clients of either generation send.
const SENT: &str = "authorization, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, last-event-id, \
                    x-api-key, x-request-id, x-obleth-max-queue-ms, traceparent, tracestate";
/// What of an answer's headers a page may read.
const READ: &str = "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, x-request-id, x-obleth-request-id";
/// Further headers that a page asks for by name, when they are the protocol's own.
const PARAMETERS: &str = "mcp-param-";
/// For how long the answer holds, in seconds.
const MAX_AGE: u16 = 600;

/// Names the origin that may read an answer.
pub(in crate::proxy) fn allow(head: &mut ResponseHeader, origin: &HeaderValue) -> Result<()> {
    head.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())?;
    head.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ))?;
    head.append_header(VARY, HeaderValue::from_static("Origin"))?;
    Ok(())
}

/// The answer to the question that a browser asks before it asks what it wants (`OPTIONS`). It carries no key, so it is
/// answered without one, and says nothing of whether the server exists.
pub(super) fn preflight(headers: &HeaderMap) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(204, Some(10))?;
    head.insert_header(ALLOW, HeaderValue::from_static(MCP_METHODS))?;
    head.insert_header(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"))?;
    head.insert_header(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(headers))?;
    head.insert_header(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE))?;
    Ok(head)
}

fn allowed_headers(headers: &HeaderMap) -> String {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|asked| asked.to_str().ok());
    let parameters = asked
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| name.as_str().starts_with(PARAMETERS)));
    parameters.fold(SENT.to_owned(), |all, name| format!("{all}, {name}"))
}
