//! The way up: to which address, under whose name, and whether a second time.

use std::time::{Duration, Instant};

use fail::fail_point;
use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use memchr::memmem;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, Result};
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::ctx::RequestCtx;
use super::super::lease::Spent;
use super::super::phase::request_filter::presented;
use super::super::phase::upstream_peer::{WRITE_TIMEOUT, gone};
use super::super::phase::upstream_request_filter::OURSELVES;
use super::super::rescue::Fault;
use super::arrive::SESSION_ID;
use super::call::Call;
use crate::pricing::Prices;
use crate::upstreams::{Chosen, ConnectFailure, Hint, Outcome, Unavailable};

/// What a client's head may contribute, beside every header of the protocol's own (`mcp-*`, also those not known yet).
const PASSED_ON: [HeaderName; 6] = [
    ACCEPT,
    ACCEPT_LANGUAGE,
    CONTENT_TYPE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
const OWN_PREFIX: &str = "mcp-";

/// How often an attempt that reached nobody is repeated, at another address.
const RETRIES_MAX: u8 = 1;

/// Chooses the address.
pub(in crate::proxy) async fn peer(gateway: &Gateway, session: &mut Session, call: &mut Call) -> Result<Box<HttpPeer>, Fault> {
    let choose = |call: &Call| match &call.session {
        // Only the address that opened the session knows it.
        Some((_, opened)) => gateway.upstreams.choose_at(&call.server.id, opened.addr),
        None => gateway.upstreams.choose(&call.server.id, &Hint::default(), &call.answer.tried),
    };
    let chosen = match choose(call) {
        Err(Unavailable::Unresolved { last_error: None }) => {
            let connect = Duration::from_millis(u64::from(crate::catalog::Timeouts::default().connect_ms));
            tokio::select! {
                biased;
                // What it says is said again by the choice.
                _resolved = gateway.upstreams.resolved(&call.server.id, connect) => {}
                end = session.as_mut().read_body_or_idle(true) => return Err(gone(end)),
            }
            choose(call)
        }
        chosen => chosen,
    };
    let chosen = chosen.map_err(|why| match (why, call.answer.attempts) {
        // The client begins a new session, elsewhere.
        (Unavailable::Left, _) => Fault::SessionNotFound,
        (why, 0) => Fault::NoHealthyUpstream(why.to_string()),
        _ => Fault::UpstreamUnreachable,
    })?;
    let mut peer = chosen.peer();
    // The deadlines of the answer are kept by the replay, and strike first.
    peer.options.write_timeout = Some(WRITE_TIMEOUT);
    call.answer.attempts = call.answer.attempts.saturating_add(1);
    call.answer.attempt_at = Some(Instant::now());
    call.answer.status = None;
    call.answer.tried.push(chosen.id());
    call.lease.place(chosen);
    fail_point!("proxy::upstream_peer");
    Ok(Box::new(peer))
}

/// Writes the head that goes up, and the intent that it goes.
pub(in crate::proxy) fn write(session: &Session, head: &mut RequestHeader, ctx: &mut RequestCtx) -> Result<(), Fault> {
    let (Some(call), Some(bill)) = (&mut ctx.mcp, &mut ctx.bill) else {
        return Err(Fault::Internal);
    };
    let chosen = call.lease.chosen().ok_or(Fault::Internal)?;
    *head = head_of(session, head, call, chosen, &ctx.shown_id).map_err(|_| Fault::Internal)?;
    ctx.trace.outward(head).map_err(|_| Fault::Internal)?;
    if let Some(row) = bill.row() {
        row.endpoint = chosen.kept_label();
    }
    // The ledger first: what is not written down must not be executed.
    bill.dispatch(&Spent::default(), &Prices::default())
        .map_err(|_| Fault::LedgerUnavailable)?;
    call.lease.dispatch();
    Ok(())
}

fn head_of(session: &Session, head: &RequestHeader, call: &Call, chosen: &Chosen, id: &HeaderValue) -> Result<RequestHeader> {
    let theirs = &session.req_header().headers;
    let path = path(chosen, &call.rest);
    let mut ours = RequestHeader::build_no_case(call.method.clone(), path.as_bytes(), Some(16))?;
    ours.set_version(head.version);
    ours.insert_header(HOST, chosen.host())?;
    let secret = presented(theirs).unwrap_or_default();
    for (name, value) in theirs {
        // An underscore, which CGI takes for a hyphen, would make a name that was judged out of one that was not.
        let own = name.as_str().starts_with(OWN_PREFIX) && *name != SESSION_ID && !name.as_str().contains('_');
        let passes = PASSED_ON.contains(name) || own;
        // The client's key goes nowhere, whatever it is put into.
        let tells = !secret.is_empty() && memmem::find(value.as_bytes(), secret).is_some();
        if passes && !tells {
            ours.append_header(name.clone(), value.clone())?;
        }
    }
    if let Some((_, opened)) = &call.session {
        ours.insert_header(SESSION_ID, opened.id.as_str())?;
    }
    ours.insert_header(USER_AGENT, HeaderValue::from_static(OURSELVES))?;
    ours.insert_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))?;
    ours.insert_header("x-request-id", id.clone())?;
    if call.method == http::Method::POST {
        ours.insert_header(CONTENT_LENGTH, HeaderValue::from(call.body_len))?;
    }
    if let Some(credential) = chosen.credential() {
        ours.insert_header(call.server.auth_header_name.clone(), credential)?;
    }
    Ok(ours)
}

/// The server's own path, and what the client put after its name.
fn path(chosen: &Chosen, rest: &str) -> String {
    let own = chosen.path_for("");
    match (&*own, rest) {
        ("", "") => "/".to_owned(),
        (own, "") => own.to_owned(),
        (own, rest) => format!("{}{rest}", own.trim_end_matches('/')),
    }
}

pub(in crate::proxy) fn fail_to_connect(gateway: &Gateway, ctx: &mut RequestCtx, mut error: Box<Error>) -> Box<Error> {
    let Some(call) = &ctx.mcp else { return error };
    if let Some(chosen) = call.lease.chosen() {
        chosen.outcome(Outcome::ConnectFailed(ConnectFailure::of(&error)));
    }
    let elsewhere = call.session.is_none() && call.answer.attempts <= RETRIES_MAX;
    let again = elsewhere && gateway.upstreams.may_retry(&call.server.id);
    error.set_retry(again);
    if !again {
        ctx.fault = Some(Fault::UpstreamUnreachable);
    }
    error
}

/// A call that a server may have executed is never sent again: nobody knows what a tool does.
pub(in crate::proxy) fn error_while_proxy(ctx: &RequestCtx, mut error: Box<Error>, late: bool) -> Box<Error> {
    error.set_retry(false);
    let chosen = ctx.mcp.as_ref().and_then(|call| call.lease.chosen());
    let outcome = match error.esource() {
        _ if late => Some(Outcome::TimedOut),
        ErrorSource::Upstream if ctx.fault.is_none() => Some(Outcome::DiedMidway),
        _ => None,
    };
    // A stream that was silent to its end, and one that the server closed, say nothing of its health.
    let listens = ctx.mcp.as_ref().is_some_and(|call| call.listens && call.answer.status.is_some());
    if let (Some(chosen), Some(outcome), false) = (chosen, outcome, listens) {
        chosen.outcome(outcome);
    }
    error
}
