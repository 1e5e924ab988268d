//! Chooses the endpoint of an attempt, and says how long its connection may take.

use std::time::{Duration, Instant};

use fail::fail_point;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::clockwork::Late;
use super::super::ctx::{RequestCtx, Work};
use super::super::mcp;
use super::super::rescue::Fault;
use crate::upstreams::{Chosen, Unavailable, Upstreams};

/// How long a single write to the endpoint may take. Reads have no timeout of their own: the request's deadlines strike for as
/// long as one pends, and Pingora's would set a timer for every piece of the answer.
pub(in crate::proxy) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

pub(in crate::proxy) async fn run(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>, Fault> {
    if let Some(call) = &mut ctx.mcp {
        let peer = mcp::upward::peer(gateway, session, call).await?;
        if let Some(chosen) = call.lease.chosen() {
            ctx.trace.attempt(chosen);
        }
        return Ok(peer);
    }
    let work = ctx.work.as_mut().ok_or(Fault::Internal)?;
    let chosen = match gateway.upstreams.choose(&work.model.id, &work.placement.hint(), &work.answer.tried) {
        Err(Unavailable::Unresolved { last_error: None } | Unavailable::AtCapacity) => {
            // The one await of this phase. The replay watches the client and the total deadline meanwhile.
            tokio::select! {
                biased;
                chosen = wait(&gateway.upstreams, work) => chosen,
                end = session.as_mut().read_body_or_idle(true) => return Err(gone(end)),
            }
        }
        chosen => chosen,
    };
    let chosen = chosen.map_err(|why| match work.answer.attempts {
        0 => Fault::NoHealthyUpstream(why.to_string()),
        // All that could be tried has been; how the first attempt ended says more than that there is no other.
        _ => work.answer.first_fault.take().unwrap_or(Fault::UpstreamUnreachable),
    })?;
    let mut peer = chosen.peer();
    peer.options.write_timeout = Some(WRITE_TIMEOUT);
    work.answer.attempts = work.answer.attempts.saturating_add(1);
    work.answer.attempt_at = Some(Instant::now());
    // What an attempt before this one got counts no more.
    work.answer.status = None;
    work.answer.head_at = None;
    work.answer.tried.push(chosen.id());
    ctx.trace.attempt(&chosen);
    work.lease.place(chosen);
    fail_point!("proxy::upstream_peer");
    Ok(Box::new(peer))
}

/// Waits for the first address of a model registered a moment ago, or for room where every endpoint is at its own cap.
async fn wait(upstreams: &Upstreams, work: &Work) -> Result<Chosen, Unavailable> {
    let connect = Duration::from_millis(u64::from(work.model.timeouts.connect_ms));
    upstreams.resolved(&work.model.id, connect).await?;
    let patience = Duration::from_secs(u64::from(work.model.timeouts.first_byte_secs));
    upstreams
        .room(&work.model.id, &work.placement.hint(), &work.answer.tried, patience)
        .await
}

pub(in crate::proxy) fn gone(end: pingora::Result<Option<bytes::Bytes>>) -> Fault {
    match end {
        Err(error) if Late::of(&error).is_some() => Fault::UpstreamTimeout,
        Ok(_) | Err(_) => Fault::ClientGone,
    }
}
