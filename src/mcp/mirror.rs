//! The headers in which revision 2026-07-28 repeats what the body says. The body decides what may be done; a header that
//! says otherwise is meant for somebody who believes headers, and is refused.
//!
//! Headers that are missing are not missed here: whether they must be there is the server's to say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fault::RpcError;
use super::{Asked, Message};

/// The revision.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Compares the headers that are there with the body.
///
/// # Errors
/// The answer to a request whose header is there twice, cannot be decoded, or differs.
pub fn check(asked: &Asked, headers: &HeaderMap) -> Result<(), RpcError> {
    for message in &asked.messages {
        if asked.batch && (headers.contains_key(METHOD) || headers.contains_key(NAME)) {
            return Err(RpcError::mismatch(message, "Mcp-Method", "cannot mirror a batch"));
        }
        one(headers, &PROTOCOL_VERSION, message, message.version.as_deref())?;
        one(headers, &METHOD, message, Some(&message.method))?;
        if let Some(member) = Message::mirrored_name(&message.method) {
            let none = "does not match the request body, which has none";
            match (&message.name, headers.contains_key(NAME)) {
                (Some(name), _) => one(headers, &NAME, message, Some(name))?,
                (None, true) => return Err(RpcError::mismatch(message, NAME.as_str(), &format!("{none} in \"{member}\""))),
                (None, false) => {}
            }
        }
    }
    Ok(())
}

/// One header. A body that says nothing of the matter (`None`) contradicts nothing.
fn one(headers: &HeaderMap, header: &HeaderName, message: &Message, body: Option<&str>) -> Result<(), RpcError> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(()) };
    if values.next().is_some() {
        return Err(RpcError::mismatch(message, header.as_str(), "is there more than once"));
    }
    let Some(said) = decoded(value) else {
        return Err(RpcError::mismatch(message, header.as_str(), "cannot be decoded"));
    };
    match body {
        Some(body) if body != said => Err(RpcError::mismatch(message, header.as_str(), "does not match the request body")),
        Some(_) | None => Ok(()),
    }
}

/// A header's text: as it stands, or out of `=?base64?…?=`, in which what a header cannot carry is wrapped.
fn decoded(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(wrapped) => String::from_utf8(STANDARD.decode(wrapped).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}
