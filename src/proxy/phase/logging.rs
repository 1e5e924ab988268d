//! The end of every request: settles the lease and says in one line how it went. Not called after a panic, when the
//! lease's `Drop` does the settling.

use std::time::Instant;

use fail::fail_point;
use pingora_proxy::Session;
use tracing::debug;

use super::super::Gateway;
use super::super::ctx::{RequestCtx, Work};
use super::super::lease::Spent;
use super::super::rescue::Fault;
use super::super::{cached, replay};
use crate::quota::estimate;
use crate::upstreams::Outcome;

pub(in crate::proxy) fn run(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) {
    let mut client_left = false;
    if let Some(home) = ctx.home.take() {
        replay::unwrap(session.as_mut(), &home);
        client_left = home.is_gone();
    }
    fail_point!("proxy::logging");
    let now = Instant::now();
    let ended_well = ctx.fault.is_none();
    match ctx.fault.take() {
        Some(fault) => {
            cached::failed(ctx, &fault);
            ctx.fault = Some(fault);
        }
        None => {
            if let Some(work) = &mut ctx.work {
                cached::complete(work);
            }
            // The answer came whole, but for others.
            ctx.fault = client_left.then_some(Fault::ClientGone);
        }
    }
    let fault = ctx.fault.as_ref().map_or("", |fault| fault.code());
    let Some(work) = &mut ctx.work else {
        debug!(request_id = %ctx.id, status = ctx.status, error = fault, total_ms = ms(ctx.born, now), "request");
        return;
    };
    let spent = spent(work);
    let queue_ms = u64::try_from(work.lease.waited().as_millis()).unwrap_or(u64::MAX);
    if work.lease.was_dispatched() {
        if ended_well
            && let Some(chosen) = work.lease.chosen()
        {
            let latency = now - work.answer.attempt_at.unwrap_or(now);
            chosen.outcome(Outcome::Done {
                latency,
                output_tokens: Some(spent.output),
            });
        }
    }
    if spent.answered
        && work.answer.complete
        && let Some(principal) = &ctx.principal
    {
        gateway
            .limits
            .learn_output(&principal.tenant.id, &work.model.id, spent.output / work.parsed.choices.max(1));
    }
    work.lease.settle(spent);
    debug!(
        request_id = %ctx.id,
        tenant = ctx.principal.as_ref().map_or("", |principal| &principal.tenant.name),
        model = %work.model.name,
        status = ctx.status,
        error = fault,
        attempts = work.answer.attempts,
        input_tokens = spent.input,
        output_tokens = spent.output,
        queue_ms,
        ttft_ms = work.answer.first_byte_at.map(|at| ms(ctx.born, at)),
        total_ms = ms(ctx.born, now),
        "request"
    );
}

/// What the request used: as reported, else as counted.
pub(in crate::proxy) fn spent(work: &Work) -> Spent {
    let estimate = estimate::input_tokens(work.parsed.text_bytes);
    let Some(tap) = &work.answer.tap else {
        // No answer, or an error: whether the endpoint read the prompt is not known, and it produced nothing.
        return Spent {
            input: if work.answer.status.is_some() { 0 } else { estimate },
            ..Spent::default()
        };
    };
    let usage = tap.usage();
    Spent {
        input: usage.as_ref().and_then(|usage| usage.total_input()).unwrap_or(estimate),
        cached_input: usage.as_ref().and_then(|usage| usage.cached_input()).unwrap_or(0),
        output: usage
            .as_ref()
            .and_then(|usage| usage.output())
            .unwrap_or_else(|| tap.output_tokens_so_far()),
        answered: true,
    }
}

fn ms(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}
