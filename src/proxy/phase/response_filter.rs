//! The head of the answer: judged, stripped to an allow-list, and signed with our own headers.

use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use memchr::memmem;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::coding::{Coding, Decoder};
use super::super::ctx::{RequestCtx, Work};
use super::super::mcp;
use super::super::rates;
use super::super::rescue::Fault;
use crate::answers::{CacheStatus, Head};
use crate::llm::Tap;
use crate::upstreams::Outcome;

/// What an upstream may tell the client. The rest (cookies, the upstream account's rate limits and organisation, its
/// server's name) is nobody's business; hop-by-hop fields are framed anew.
const PASSED_BACK: [HeaderName; 13] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    http::header::CONTENT_DISPOSITION,
    http::header::CONTENT_LANGUAGE,
    http::header::DATE,
    CACHE_CONTROL,
    http::header::RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("openai-processing-ms"),
    HeaderName::from_static("openai-version"),
    HeaderName::from_static("openai-model"),
];

/// Our own headers. Constants, because a name given as text is parsed and copied for each answer.
const QUEUE_MS: HeaderName = HeaderName::from_static("x-obleth-queue-ms");
const MODEL: HeaderName = HeaderName::from_static("x-obleth-model");
const CACHE: HeaderName = HeaderName::from_static("x-obleth-cache");
const OWN_ID: HeaderName = HeaderName::from_static("x-obleth-request-id");
/// The client's id, or ours.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The largest status there is (RFC 9110, 15).
const STATUS_MAX: u16 = 599;

/// Takes note of the head as it came, and refuses what cannot be an answer.
pub(in crate::proxy) fn judge(head: &ResponseHeader, ctx: &mut RequestCtx) -> Result<(), Fault> {
    if head.status == http::StatusCode::SWITCHING_PROTOCOLS || head.status.as_u16() > STATUS_MAX {
        return Err(Fault::UpstreamError("The upstream answered with a status that is no answer."));
    }
    if head.status.is_informational() {
        return Ok(());
    }
    ctx.trace.answered(head.status.as_u16());
    if let Some(call) = &mut ctx.mcp {
        return mcp::downward::judge(head, call);
    }
    let Some(work) = &mut ctx.work else { return Err(Fault::Internal) };
    let now = Instant::now();
    work.answer.head_at = Some(now);
    work.answer.status = Some(head.status.as_u16());
    if let Some(chosen) = work.lease.chosen() {
        chosen.outcome(Outcome::HeadReceived {
            status: head.status.as_u16(),
            latency: now - work.answer.attempt_at.unwrap_or(now),
        });
    }
    if head.status.is_redirection() {
        return Err(Fault::UpstreamError(
            "The upstream answered with a redirect, which is not followed.",
        ));
    }
    Ok(())
}

/// Writes the head that the client gets.
pub(in crate::proxy) fn run(gateway: &Gateway, session: &Session, head: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<(), Fault> {
    if head.status.is_informational() {
        return Ok(());
    }
    if ctx.mcp.is_some() {
        return mcp::downward::run(gateway, session, head, ctx);
    }
    if head.status.is_success()
        && let Some(work) = &mut ctx.work
    {
        work.answer.decoder = decoder(head, session, work)?;
    }
    write(session, head, ctx).map_err(|_| Fault::Internal)
}

/// What undoes the coding of an answer that came compressed all the same. Kept answers and those that need changing are
/// decoded for good.
fn decoder(head: &ResponseHeader, session: &Session, work: &Work) -> Result<Option<Decoder>, Fault> {
    let Some(value) = head.headers.get(CONTENT_ENCODING) else {
        return Ok(None);
    };
    let coding = Coding::of(value.as_bytes());
    let coding = coding.map_err(|()| Fault::UpstreamError("The upstream compressed its answer in a way that was not asked for."))?;
    Ok(coding.map(|coding| {
        let accepted = coding.is_accepted(&session.req_header().headers);
        Decoder::new(coding, !accepted || work.leader.is_some() || work.parsed.injected_usage())
    }))
}

fn write(session: &Session, head: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<()> {
    let mut ours = ResponseHeader::build_no_case(head.status, Some(16))?;
    ours.set_version(head.version);
    let secret = ctx.work.as_ref().and_then(|work| work.lease.chosen()?.credential());
    let echoes = |value: &HeaderValue| {
        secret.is_some_and(|secret| !secret.is_empty() && memmem::find(value.as_bytes(), secret.as_bytes()).is_some())
    };
    for name in &PASSED_BACK {
        if let Some(value) = head.headers.get(name).filter(|value| !echoes(value)) {
            ours.insert_header(name.clone(), value.clone())?;
        }
    }
    let event_stream = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if event_stream {
        // The format is UTF-8 by definition; some clients compare the whole value.
        ours.insert_header(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))?;
        ours.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-cache"))?;
        ours.insert_header("x-accel-buffering", HeaderValue::from_static("no"))?;
    }
    ctx.status = head.status.as_u16();
    if let (Some(work), Some(route)) = (&mut ctx.work, ctx.route) {
        work.answer.event_stream = event_stream;
        if head.status.is_success() {
            let tap = Tap::new(route, event_stream, work.parsed.injected_usage());
            let decoded = work.answer.decoder.as_ref().is_some_and(|decoder| decoder.replaces);
            if decoded {
                ours.remove_header(&CONTENT_ENCODING);
            }
            // An event may be taken out, or an error event put at the end.
            if event_stream || tap.may_shorten() || decoded {
                ours.remove_header(&CONTENT_LENGTH);
            }
            work.answer.tap = Some(tap);
        } else if work.lease.chosen().is_some_and(|chosen| chosen.credential().is_some()) {
            work.answer.masked = Some(Vec::new());
            // What lies beyond the bound is not passed on.
            ours.remove_header(&CONTENT_LENGTH);
        }
        if let Some(leader) = &work.leader {
            leader.begin(Head::new(ctx.status, event_stream, &ours.headers));
        }
        let waited = work.listened + work.lease.waited();
        tell(&mut ours, &work.model.name, waited)?;
    }
    sign(&mut ours, ctx)?;
    let has_body = head.status != http::StatusCode::NO_CONTENT && head.status != http::StatusCode::NOT_MODIFIED;
    if has_body && !ours.headers.contains_key(CONTENT_LENGTH) && session.req_header().version == http::Version::HTTP_11 {
        ours.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    *head = ours;
    Ok(())
}

/// The headers of every answer that a model gave: how long it was waited for, and which model.
pub(in crate::proxy) fn tell(head: &mut ResponseHeader, model: &str, waited: Duration) -> Result<()> {
    waited_for(head, waited)?;
    if let Ok(name) = HeaderValue::from_str(model) {
        head.insert_header(MODEL, name)?;
    }
    Ok(())
}

/// How long a slot was waited for.
pub(in crate::proxy) fn waited_for(head: &mut ResponseHeader, waited: Duration) -> Result<()> {
    let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    head.insert_header(QUEUE_MS, HeaderValue::from(waited))?;
    Ok(())
}

/// The headers of every answer on the data plane.
pub(in crate::proxy) fn sign(head: &mut ResponseHeader, ctx: &RequestCtx) -> Result<()> {
    head.insert_header(REQUEST_ID, ctx.shown_id.clone())?;
    head.insert_header(OWN_ID, ctx.own_id.clone())?;
    if ctx.cache != CacheStatus::Off {
        head.insert_header(CACHE, HeaderValue::from_static(ctx.cache.as_str()))?;
    }
    if let Some(origin) = &ctx.cors {
        mcp::allow(head, origin)?;
    }
    ctx.rates.as_ref().map_or(Ok(()), |view| rates::write(head, view))
}
