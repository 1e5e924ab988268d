//! What Pingora lets through and we do not: heads that two readers could read in two ways, and heads too large to keep.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Version};
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::ctx::RequestCtx;
use super::super::rescue::Fault;
use crate::llm::Dialect;

/// The largest head, in bytes: request line and fields.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most fields.
const FIELDS_MAX: usize = 100;
/// The longest request id of a client's that is taken over.
const REQUEST_ID_MAX: usize = 128;

pub(in crate::proxy) fn run(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Fault> {
    session.set_write_timeout(Some(gateway.bounds.write_timeout));
    let head = session.req_header();
    ctx.trace.begin(gateway, head, ctx.born);
    if let Some(theirs) = head.headers.get("x-request-id").filter(fit) {
        ctx.shown_id = theirs.clone();
    }
    ctx.dialect = Dialect::of_path(head.uri.path());
    if head.headers.len() > FIELDS_MAX || head_bytes(head) > HEAD_BYTES_MAX {
        return Err(Fault::HeadTooLarge);
    }
    if head.method == Method::TRACE || head.method == Method::CONNECT {
        return Err(Fault::MethodNotAllowed("GET, HEAD, POST"));
    }
    if head.headers.contains_key(UPGRADE) {
        return Err(Fault::BadRequest("Protocol upgrades are not supported."));
    }
    if head.version == Version::HTTP_11 && !head.headers.contains_key(HOST) {
        return Err(Fault::BadRequest("The Host header is missing."));
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(Fault::BadRequest("The Content-Length header is there twice."));
    }
    // Pingora drops a Content-Length beside a Transfer-Encoding before we see it, so the raw head is asked.
    if head.headers.contains_key(TRANSFER_ENCODING) && raw_head_has_content_length(&session.to_h1_raw()) {
        return Err(Fault::BadRequest("Content-Length and Transfer-Encoding exclude each other."));
    }
    Ok(())
}

/// A client's request id that is fit to be taken over: `[A-Za-z0-9._-]{1,128}`.
fn fit(id: &&HeaderValue) -> bool {
    (1..=REQUEST_ID_MAX).contains(&id.len())
        && id
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn head_bytes(head: &pingora::http::RequestHeader) -> usize {
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    fields + head.raw_path().len()
}

fn raw_head_has_content_length(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_framing_is_found_however_it_is_spelt() {
        assert!(raw_head_has_content_length(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-length: 3\r\n\r\n"
        ));
        assert!(!raw_head_has_content_length(b"POST / HTTP/1.1\r\nx-content-length: 3\r\n\r\n"));
    }
}
