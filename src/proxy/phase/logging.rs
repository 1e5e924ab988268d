//! The end of every request: settles what it took and writes its row, which the request log is made from. Not called after a
//! panic, when the `Drop` of lease and bill do the settling.

use std::borrow::Cow;
use std::time::Instant;

use fail::fail_point;
use pingora_proxy::Session;

use super::super::attempts;
use super::super::ctx::{RequestCtx, Work};
use super::super::lease::Spent;
use super::super::mcp;
use super::super::rescue::Fault;
use super::super::{Gateway, cached, ms, replay, trace};
use crate::metering::{self, Charge, Outcome, Row, Timing, Tokens, UsageSource};
use crate::quota::estimate;
use crate::telemetry::Line;
use crate::upstreams;

pub(in crate::proxy) fn run(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) {
    let mut client_left = false;
    if let Some(home) = ctx.home.take() {
        replay::unwrap(session.as_mut(), &home);
        client_left = home.is_gone();
    }
    fail_point!("proxy::logging");
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
    let status = ctx
        .fault
        .as_ref()
        .filter(|fault| ctx.status == 0 || **fault == Fault::ClientGone)
        .map_or(ctx.status, Fault::status);
    let spent = ctx.work.as_ref().map(|work| spent(work)).unwrap_or_default();
    let (cache, saved) = (ctx.cache, ctx.saved);
    if let Some(row) = ctx.bill.as_mut().and_then(|bill| bill.row()) {
        row.status = status;
        row.outcome = ctx.fault.as_ref().map_or_else(|| outcome(status), |fault| fault.outcome());
        row.error_code = ctx.fault.as_ref().map(|fault| Cow::Borrowed(fault.code()));
        row.cache = cache;
        row.saved = saved
            .map(|saved| metering::Saved {
                tokens: saved.tokens(),
                cost: saved.cost,
            })
            .unwrap_or_default();
        if let Some(work) = &ctx.work {
            complete(row, work, &spent, ctx.born);
        }
        if let Some(call) = &ctx.mcp {
            mcp::end::complete(row, call, ctx.born);
        }
        if let Some(last) = attempts::present(ctx.work.as_deref(), ctx.mcp.as_deref()) {
            row.attempt_log = ctx.attempts.finish(last, ctx.born);
        }
    }
    trace::tell(gateway, session, ctx);
    if let Some(work) = &mut ctx.work {
        settle(gateway, work, spent, &ctx.principal, ended_well);
    }
    if let Some(call) = &mut ctx.mcp {
        mcp::end::settle(call, ended_well);
    }
    match &mut ctx.bill {
        Some(bill) => bill.settle(),
        None => without_row(gateway, ctx, status),
    }
}

/// What has no row in the ledger is counted here, and has its line from here: health checks, lists of models, and whom
/// nobody knows. No path, no method: before authentication they are what a stranger likes to write.
#[cold]
fn without_row(gateway: &Gateway, ctx: &RequestCtx, status: u16) {
    if let Some(fault) = &ctx.fault {
        gateway.refusals.count(fault.code());
    }
    gateway.request_log.tell(status < 400, || Line {
        request_id: ctx.id.to_string(),
        client_request_id: if ctx.shown_id == ctx.own_id {
            String::new()
        } else {
            ctx.shown_id().to_owned()
        },
        ts_ms: ctx.born_at.0,
        outcome: ctx.fault.as_ref().map_or_else(|| outcome(status), Fault::outcome).as_str(),
        status,
        error_code: ctx.fault.as_ref().map_or("", |fault| fault.code()).to_owned(),
        total_ms: ms(ctx.born, Instant::now()),
        ..Line::default()
    });
}

/// Gives back what the request took, less what it used, and tells those who learn from it.
fn settle(gateway: &Gateway, work: &mut Work, spent: Spent, principal: &Option<crate::catalog::Principal>, well: bool) {
    if work.lease.was_dispatched()
        && well
        && let Some(chosen) = work.lease.chosen()
    {
        let latency = work.answer.attempt_at.map(|at| at.elapsed()).unwrap_or_default();
        chosen.outcome(upstreams::Outcome::Done {
            latency,
            output_tokens: Some(spent.output),
        });
    }
    if spent.complete
        && let Some(principal) = principal
    {
        let output = spent.output / work.parsed.choices.max(1);
        gateway.limits.learn_output(&principal.tenant.id, &work.model.id, output);
    }
    work.lease.settle(spent);
}

/// How an answer without a fault of the gateway's ended.
fn outcome(status: u16) -> Outcome {
    if status < 400 { Outcome::Ok } else { Outcome::Error }
}

/// Fills in what is known of a request once its model was.
fn complete(row: &mut Row, work: &Work, spent: &Spent, born: Instant) {
    let tap = work.answer.tap.as_ref();
    if tap.is_some_and(|tap| tap.has_failed()) && row.outcome == Outcome::Ok {
        row.outcome = Outcome::Error;
    }
    row.attempts = u32::from(work.answer.attempts);
    row.timing = Timing {
        queue_ms: whole_ms(work.listened + work.lease.waited()),
        ttft_ms: work.answer.first_byte_at.map(|at| ms(born, at)),
        total_ms: 0,
    };
    if let Some(chosen) = work.lease.chosen() {
        row.endpoint = chosen.kept_label();
    }
    if !work.lease.was_dispatched() {
        return;
    }
    row.tokens = Tokens {
        input: spent.input,
        cached_input: spent.cached_input,
        output: spent.output,
        reasoning: tap.and_then(|tap| tap.usage()?.reasoning()).unwrap_or(0),
    };
    row.usage_source = match tap {
        Some(tap) if tap.is_reported() => UsageSource::Reported,
        _ if spent.input + spent.output > 0 => UsageSource::Estimated,
        _ => UsageSource::None,
    };
    let cost = spent.cost(&work.model.prices);
    row.charge = Charge {
        input: cost.input(),
        output: cost.output,
        request: cost.request,
    };
}

/// What the request used: as reported, else as counted.
pub(in crate::proxy) fn spent(work: &Work) -> Spent {
    let estimate = estimate::input_tokens(work.parsed.text_bytes);
    let Some(tap) = &work.answer.tap else {
        // No answer, or an error: whether the endpoint read the prompt is not known, and it produced nothing.
        let unanswered = work.lease.was_dispatched() && work.answer.status.is_none();
        return Spent {
            input: if unanswered { estimate } else { 0 },
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
        complete: work.answer.complete,
    }
}

fn whole_ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
