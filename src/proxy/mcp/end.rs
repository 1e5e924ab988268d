//! The end of an MCP request: its row, and what a stream that breaks off ends with.

use std::time::Instant;

use bytes::Bytes;
use pingora_proxy::Session;

use super::super::ctx::RequestCtx;
use super::super::ms;
use super::super::rescue::Fault;
use super::call::Call;
use crate::metering::{Row, Timing};
use crate::upstreams::Outcome;

/// Fills in what is known of a request once its server was.
pub(in crate::proxy) fn complete(row: &mut Row, call: &Call, born: Instant) {
    row.attempts = u32::from(call.answer.attempts);
    row.timing = Timing {
        queue_ms: u64::try_from(call.lease.waited().as_millis()).unwrap_or(u64::MAX),
        ttft_ms: call.answer.first_byte_at.map(|at| ms(born, at)),
        total_ms: 0,
    };
    if let Some(chosen) = call.lease.chosen() {
        row.endpoint = chosen.kept_label();
    }
}

/// Gives back what the request took. `well` says that the answer came to its end.
pub(in crate::proxy) fn settle(call: &mut Call, well: bool) {
    if well
        && call.lease.was_dispatched()
        && let Some(chosen) = call.lease.chosen()
    {
        chosen.outcome(Outcome::Done {
            latency: call.answer.attempt_at.map(|at| at.elapsed()).unwrap_or_default(),
            output_tokens: None,
        });
    }
    call.lease.settle();
}

/// The status is out. A stream that only listened and was silent for too long ends in order, and the client asks again;
/// anything else is cut. No event of the gateway's own is put into a stream of a protocol that has none for this.
pub(in crate::proxy) async fn end_stream(session: &mut Session, ctx: &RequestCtx, fault: &Fault) {
    let idle = ctx
        .mcp
        .as_ref()
        .is_some_and(|call| call.listens && call.answer.event_stream && *fault == Fault::UpstreamTimeout);
    if idle && session.as_mut().write_response_body(Bytes::new(), true).await.is_ok() {
        return;
    }
    session.as_mut().shutdown().await;
}
