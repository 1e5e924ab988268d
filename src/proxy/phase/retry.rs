//! Whether an attempt is repeated on another endpoint.
//!
//! An inference is not repeated by guess: a POST is sent again only if no upstream can have executed it. That is so when
//! no connection came about, and when the endpoint died before it was handed the last byte of the body, or before its
//! socket took it. A connection taken from the pool that turns out dead after the whole body was written proves nothing
//! (the endpoint may have died of this very request), so it is repeated only where the operator said that twice is better
//! than not at all (`retry_after_dispatch`).
//!
//! Pingora marks errors with `RetryType::ReusedOnly`, whose `retry()` panics until it is decided; every error that
//! leaves this file is decided.

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::attempts;
use super::super::clockwork::Late;
use super::super::ctx::RequestCtx;
use super::super::mcp;
use super::super::rescue::Fault;
use super::fail_to_proxy;
use crate::upstreams::{ConnectFailure, Outcome};

pub(in crate::proxy) fn fail_to_connect(gateway: &Gateway, ctx: &mut RequestCtx, mut error: Box<Error>) -> Box<Error> {
    attempts::unconnected(ctx, &error);
    ctx.trace.attempt_failed(&error);
    if ctx.mcp.is_some() {
        return mcp::upward::fail_to_connect(gateway, ctx, error);
    }
    report(ctx, Outcome::ConnectFailed(ConnectFailure::of(&error)));
    let again = may_repeat(gateway, ctx);
    error.set_retry(again);
    let first = ctx.work.as_mut().map(|work| &mut work.answer.first_fault);
    match first {
        Some(first) if again => _ = first.get_or_insert(Fault::UpstreamUnreachable),
        // If an attempt before this one was sent, the client must not hear that nothing was.
        first => ctx.fault = Some(first.and_then(Option::take).unwrap_or(Fault::UpstreamUnreachable)),
    }
    error
}

pub(in crate::proxy) fn error_while_proxy(
    gateway: &Gateway,
    session: &Session,
    ctx: &mut RequestCtx,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    attempts::failed(ctx, &error, reused);
    if ctx.fault.is_none() && *error.esource() == ErrorSource::Upstream {
        ctx.trace.attempt_failed(&error);
    }
    if ctx.mcp.is_some() {
        let late = Late::of(&error).is_some();
        return mcp::upward::error_while_proxy(ctx, error, late);
    }
    error.set_retry(false);
    if ctx.fault.is_some() || *error.esource() != ErrorSource::Upstream {
        if Late::of(&error).is_some() {
            report(ctx, Outcome::TimedOut);
        }
        return error;
    }
    report(ctx, Outcome::DiedMidway);
    let untouched = session.as_ref().response_written().is_none();
    let handed_out = ctx.home.as_ref().is_none_or(super::super::replay::Home::body_handed_out);
    let willing = ctx.work.as_ref().is_some_and(|work| work.model.retry_after_dispatch);
    let incomplete = !handed_out || never_left(ctx, &error);
    let lawful = incomplete || (willing && (reused || died_without_a_word(ctx)));
    let again = untouched && lawful && may_repeat(gateway, ctx);
    error.set_retry(again);
    if again {
        let fault = fail_to_proxy::diagnose(&error, session, ctx);
        if let Some(work) = &mut ctx.work {
            work.answer.first_fault.get_or_insert(fault);
        }
    }
    error
}

/// Whether the last byte of the body never left: the socket did not take it. HTTP/1 writes nothing after the body, which has
/// its length in the head, so what could not be written was of it; HTTP/2 ends it with a frame of its own.
fn never_left(ctx: &RequestCtx, error: &Error) -> bool {
    let chosen = ctx.work.as_ref().and_then(|work| work.lease.chosen());
    *error.etype() == ErrorType::WriteError && chosen.is_some_and(|chosen| !chosen.http2())
}

fn died_without_a_word(ctx: &RequestCtx) -> bool {
    ctx.work.as_ref().is_some_and(|work| work.answer.status.is_none())
}

/// Tells the endpoint's record how the attempt went.
fn report(ctx: &RequestCtx, outcome: Outcome) {
    if let Some(chosen) = ctx.work.as_ref().and_then(|work| work.lease.chosen()) {
        chosen.outcome(outcome);
    }
}

/// Whether another attempt is allowed by the model's limit and by the retry budget, which keeps a failing model from being
/// asked twice as often as a healthy one. Asking spends.
fn may_repeat(gateway: &Gateway, ctx: &RequestCtx) -> bool {
    ctx.work
        .as_ref()
        .is_some_and(|work| work.answer.attempts <= work.model.max_retries && gateway.upstreams.may_retry(&work.model.id))
}
