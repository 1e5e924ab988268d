//! The way down: the server's answer, as it is but for what is nobody's business.

use std::time::Instant;

use bytes::Bytes;
use fail::fail_point;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, PROXY_AUTHENTICATE, SERVER, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::coding::{Coding, Decoder};
use super::super::ctx::RequestCtx;
use super::super::phase::response_filter::{sign, waited_for};
use super::super::rescue::Fault;
use super::arrive::SESSION_ID;
use super::call::{Call, holder};
use super::mask::Mask;
use crate::catalog::Principal;
use crate::mcp::{Filter, Opened};
use crate::upstreams::Outcome;

/// What does not come down: how a hop is framed, who the server is, its account's standing, what only it may say to
/// browsers, and its challenge, which is meant for the gateway.
const KEPT_BACK: [HeaderName; 15] = [
    CONNECTION,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    WWW_AUTHENTICATE,
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    SERVER,
    VIA,
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-request-id"),
];
const KEPT_BACK_PREFIXES: [&str; 5] = ["access-control-", "x-ratelimit-", "ratelimit", "alt-svc", "x-obleth-"];

/// Refuses what cannot be an answer to the client.
pub(in crate::proxy) fn judge(head: &ResponseHeader, call: &mut Call) -> Result<(), Fault> {
    let status = head.status.as_u16();
    call.answer.status = Some(status);
    if let Some(chosen) = call.lease.chosen() {
        let now = Instant::now();
        chosen.outcome(Outcome::HeadReceived {
            status,
            latency: now - call.answer.attempt_at.unwrap_or(now),
        });
    }
    match status {
        300..=399 => Err(Fault::UpstreamError(
            "The MCP server answered with a redirect, which is not followed.",
        )),
        // Passed on, it would send the client to authenticate where it is not to.
        401 | 407 => Err(Fault::UpstreamError("The MCP server does not take the gateway's credential.")),
        _ => Ok(()),
    }
}

/// Writes the head that the client gets.
pub(in crate::proxy) fn run(gateway: &Gateway, session: &Session, head: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<(), Fault> {
    let (Some(call), Some(principal)) = (&mut ctx.mcp, &ctx.principal) else {
        return Err(Fault::Internal);
    };
    let event_stream = is_event_stream(&head.headers);
    call.answer.event_stream = event_stream;
    call.answer.mask = Mask::of(call.lease.chosen().and_then(|chosen| chosen.credential()));
    if call.filters && head.status.is_success() {
        // What calls itself neither is read as JSON, and not passed on if it is none.
        call.answer.filter = Some(Filter::new(&call.tools(), event_stream));
    }
    call.answer.decoder = decoder(head, session, call)?;
    let session_id = session_id(gateway, principal, head, call)?;
    let ours = written(session, head, call, session_id).and_then(|mut ours| {
        waited_for(&mut ours, call.lease.waited())?;
        Ok(ours)
    });
    *head = ours.map_err(|_| Fault::Internal)?;
    ctx.status = head.status.as_u16();
    if let Some(row) = ctx.bill.as_mut().and_then(|bill| bill.row()) {
        row.stream = event_stream;
    }
    sign(head, ctx).map_err(|_| Fault::Internal)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let found = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..KIND.len()));
    found.is_some_and(|found| found.eq_ignore_ascii_case(KIND))
}

/// An answer that came compressed all the same is decoded for good where it has to be read, or the client cannot.
fn decoder(head: &ResponseHeader, session: &Session, call: &Call) -> Result<Option<Decoder>, Fault> {
    let Some(value) = head.headers.get(CONTENT_ENCODING) else {
        return Ok(None);
    };
    let coding = Coding::of(value.as_bytes());
    let coding = coding.map_err(|()| Fault::UpstreamError("The MCP server compressed its answer in a way that was not asked for."))?;
    let read = call.answer.filter.is_some() || call.answer.mask.is_some();
    let decode = |coding: &Coding| read || !coding.is_accepted(&session.req_header().headers);
    Ok(coding.filter(decode).map(|coding| Decoder::new(coding, true)))
}

/// What the client is given in the place of the server's session id.
fn session_id(gateway: &Gateway, principal: &Principal, head: &ResponseHeader, call: &Call) -> Result<Option<HeaderValue>, Fault> {
    let (Some(theirs), false) = (head.headers.get(SESSION_ID), call.modern) else {
        return Ok(None);
    };
    if let Some((sent, opened)) = &call.session
        && opened.id.as_bytes() == theirs.as_bytes()
    {
        // The same session under the name that the client knows.
        return Ok(Some(sent.clone()));
    }
    let session = call.lease.chosen().zip(theirs.to_str().ok()).map(|(chosen, id)| Opened {
        addr: chosen.addr(),
        id: id.to_owned(),
    });
    let sealed = session.and_then(|session| gateway.mcp.sealer.seal(&holder(&call.server, principal), &session));
    let sealed = sealed.and_then(|sealed| HeaderValue::try_from(sealed).ok());
    sealed
        .map(Some)
        .ok_or(Fault::UpstreamError("The MCP server gave a session id that is none."))
}

fn written(session: &Session, head: &ResponseHeader, call: &Call, session_id: Option<HeaderValue>) -> Result<ResponseHeader> {
    let mut ours = ResponseHeader::build_no_case(head.status, Some(24))?;
    ours.set_version(head.version);
    let nominated: Vec<&str> = head
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    for (name, value) in &head.headers {
        let kept_back = KEPT_BACK.contains(name)
            || *name == SESSION_ID
            || KEPT_BACK_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
            || nominated.iter().any(|names| {
                names
                    .split(',')
                    .any(|nominated| nominated.trim().eq_ignore_ascii_case(name.as_str()))
            });
        let echoes = call.answer.mask.as_ref().is_some_and(|mask| mask.finds(value.as_bytes()));
        if !kept_back && !echoes {
            ours.append_header(name.clone(), value.clone())?;
        }
    }
    if let Some(id) = session_id {
        ours.insert_header(SESSION_ID, id)?;
    }
    if call.answer.event_stream && !ours.headers.contains_key("x-accel-buffering") {
        ours.insert_header("x-accel-buffering", HeaderValue::from_static("no"))?;
    }
    if call.answer.decoder.is_some() {
        ours.remove_header(&CONTENT_ENCODING);
    }
    if call.answer.decoder.is_some() || call.answer.filter.is_some() {
        ours.remove_header(&CONTENT_LENGTH);
    }
    if call.answer.filter.is_some() {
        // They speak of the body that was not filtered, which is not everybody's.
        for of_the_whole in ["etag", "digest", "content-digest", "repr-digest", "content-md5"] {
            ours.remove_header(of_the_whole);
        }
        ours.insert_header(CACHE_CONTROL, HeaderValue::from_static("private, no-store"))?;
    }
    let has_body = head.status != StatusCode::NO_CONTENT && head.status != StatusCode::NOT_MODIFIED;
    if has_body && !ours.headers.contains_key(CONTENT_LENGTH) && session.req_header().version == Version::HTTP_11 {
        ours.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(ours)
}

/// Passes on a piece of the answer.
pub(in crate::proxy) fn body(body: &mut Option<Bytes>, end: bool, call: &mut Call) -> Result<(), Fault> {
    let answer = &mut call.answer;
    let mut piece = body.take().unwrap_or_default();
    if answer.first_byte_at.is_none() && !piece.is_empty() {
        answer.first_byte_at = Some(Instant::now());
    }
    fail_point!("proxy::response_body_filter");
    if let Some(decoder) = &mut answer.decoder {
        piece = decoder.feed(&piece, end).map_err(|()| Fault::UpstreamInterrupted)?;
    }
    if let Some(filter) = &mut answer.filter {
        let unfilterable = |_| Fault::UpstreamError("The MCP server's list of tools cannot be read, and so not be shown.");
        piece = filter.feed(piece, end).map_err(unfilterable)?;
    }
    if let Some(mask) = &mut answer.mask {
        piece = mask.feed(piece, end);
    }
    if !piece.is_empty() {
        *body = Some(piece);
    }
    Ok(())
}
