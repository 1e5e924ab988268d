//! Each piece of the answer: counted, charged, and passed on as it came.

use std::time::Instant;

use bytes::Bytes;
use fail::fail_point;
use memchr::memmem;

use super::super::cached;
use super::super::ctx::{RequestCtx, Work};
use super::super::mcp;
use super::super::rescue::Fault;

/// The most of an error body that is searched for the endpoint's credential; what comes after is not passed on.
const ERROR_BODY_MAX: usize = 1 << 20;

pub(in crate::proxy) fn run(body: &mut Option<Bytes>, end: bool, ctx: &mut RequestCtx) -> Result<(), Fault> {
    if let Some(call) = &mut ctx.mcp {
        return mcp::downward::body(body, end, call);
    }
    let Some(work) = &mut ctx.work else { return Ok(()) };
    if work.answer.first_byte_at.is_none() && body.as_ref().is_some_and(|piece| !piece.is_empty()) {
        work.answer.first_byte_at = Some(Instant::now());
    }
    work.answer.complete |= end;
    if work.answer.masked.is_some() {
        mask(work, body, end);
    } else if let Some(tap) = &mut work.answer.tap {
        let piece = body.take().unwrap_or_default();
        let piece = match &mut work.answer.decoder {
            None => tap.feed(piece, end),
            Some(decoder) => {
                let plain = decoder.feed(&piece, end).map_err(|()| Fault::UpstreamInterrupted)?;
                let read = tap.feed(plain, end);
                if decoder.replaces { read } else { piece }
            }
        };
        if !piece.is_empty() {
            *body = Some(piece);
        }
        fail_point!("proxy::response_body_filter");
        let so_far = tap.output_tokens_so_far();
        work.lease.progress(so_far);
        if let Some(bill) = &mut ctx.bill {
            bill.progress(so_far, &work.model.prices);
        }
    }
    if work.leader.is_some() {
        cached::tell(work, body.as_ref(), end);
    }
    Ok(())
}

/// Holds an error body back to its end, and blots out the endpoint's credential should the upstream echo it. The blots
/// are as long as what they cover, so the announced length stays true.
fn mask(work: &mut Work, body: &mut Option<Bytes>, end: bool) {
    let Some(held) = &mut work.answer.masked else { return };
    if let Some(piece) = body.take() {
        let room = ERROR_BODY_MAX.saturating_sub(held.len());
        held.extend_from_slice(piece.get(..room).unwrap_or(&piece));
    }
    if !end {
        return;
    }
    if let Some(secret) = work
        .lease
        .chosen()
        .and_then(|chosen| chosen.credential())
        .filter(|secret| !secret.is_empty())
    {
        let found: Vec<usize> = memmem::find_iter(held, secret).collect();
        for at in found {
            if let Some(echo) = held.get_mut(at..at + secret.len()) {
                echo.fill(b'*');
            }
        }
    }
    *body = Some(Bytes::from(std::mem::take(held)));
}
