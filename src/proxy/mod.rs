//! The data plane: one method per Pingora phase, in the order in which a request meets them.
//!
//! This file is a table of contents; each phase is a file under `phase/`. A request's memory is [`ctx::RequestCtx`], what
//! it has taken is [`lease::Lease`], and the only place that turns an error into a status is [`rescue`].

mod active;
mod attempts;
mod bill;
mod body;
mod budget;
mod cached;
mod clockwork;
mod coding;
mod ctx;
mod destination;
pub mod door;
mod lease;
mod listeners;
mod mcp;
mod phase;
mod placement;
mod rates;
mod refusals;
mod replay;
mod rescue;
mod trace;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

pub use active::Active;
pub use budget::Budget;
pub use ctx::RequestCtx;
pub use mcp::McpDoor;
pub use refusals::Refusals;
use rescue::Fault;

use crate::admission::Admission;
use crate::answers::Answers;
use crate::catalog::Live;
use crate::credential::KeyHasher;
use crate::limits::{Failures, Limits};
use crate::metering::Meter;
use crate::telemetry::{RequestLog, Traces};
use crate::units::UnixMs;
use crate::upstreams::Upstreams;

/// The bounds of what a client can hold open.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest request body, in bytes.
    pub max_body_bytes: u64,
    /// The longest a body may take to arrive.
    pub body_timeout: Duration,
    /// The longest a write to the client may take before it is given up.
    pub write_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// The handles a request needs; each is an engine of a floor below.
pub struct Gateway {
    /// What is configured.
    pub live: Arc<Live>,
    /// How secrets become digests.
    pub hasher: KeyHasher,
    /// Fair-share slots.
    pub admission: Arc<Admission>,
    /// What tenants and keys may spend.
    pub limits: Arc<Limits>,
    /// Who presented wrong credentials of late.
    pub failures: Arc<Failures>,
    /// Answers that are kept, or shared as they come.
    pub answers: Arc<Answers>,
    /// Inference servers.
    pub upstreams: Arc<Upstreams>,
    /// Requests that run.
    pub active: Arc<Active>,
    /// What was refused without a ledger row.
    pub refusals: Arc<Refusals>,
    /// Lines of requests without a ledger row.
    pub request_log: RequestLog,
    /// Spans of requests.
    pub traces: Traces,
    /// Bytes of bodies in memory.
    pub budget: Arc<Budget>,
    /// The ledger.
    pub meter: Arc<Meter>,
    /// What MCP requests need beside.
    pub mcp: McpDoor,
    /// Bounds per request.
    pub bounds: Bounds,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestCtx;

    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::new(self.active.mark())
    }

    /// None: the compression module would only be asked whether it is off.
    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    /// Comes with every request on a connection of ours, the first too: its head is whole.
    fn on_connection_reuse(&self, _session: &mut Session, _ctx: &mut RequestCtx, carried: Box<dyn Any + Send + Sync>) {
        if let Ok(arrival) = carried.downcast::<door::Arrival>() {
            arrival.head_is_whole();
        }
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<()> {
        phase::early_request_filter::run(self, session, ctx).map_err(|fault| refuse(ctx, fault))
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        phase::request_filter::run(self, session, ctx).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        phase::upstream_peer::run(self, session, ctx)
            .await
            .map_err(|fault| refuse(ctx, fault))
    }

    async fn upstream_request_filter(&self, session: &mut Session, head: &mut RequestHeader, ctx: &mut RequestCtx) -> Result<()> {
        phase::upstream_request_filter::run(session, head, ctx).map_err(|fault| refuse(ctx, fault))
    }

    async fn upstream_response_filter(&self, _session: &mut Session, head: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<()> {
        phase::response_filter::judge(head, ctx).map_err(|fault| refuse(ctx, fault))
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<()> {
        phase::response_filter::run(self, session, head, ctx).map_err(|fault| refuse(ctx, fault))
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<Duration>> {
        phase::response_body_filter::run(body, end_of_stream, ctx).map_err(|fault| refuse(ctx, fault))?;
        Ok(None)
    }

    fn fail_to_connect(&self, _session: &mut Session, _peer: &HttpPeer, ctx: &mut RequestCtx, error: Box<Error>) -> Box<Error> {
        phase::retry::fail_to_connect(self, ctx, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestCtx,
        client_reused: bool,
    ) -> Box<Error> {
        phase::retry::error_while_proxy(self, session, ctx, error, client_reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> FailToProxy {
        phase::fail_to_proxy::run(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut RequestCtx) {
        phase::logging::run(self, session, ctx);
    }

    /// The request's own line and its ledger row say how it ended; Pingora's would repeat it with the client's address.
    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestCtx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _session: &Session, _ctx: &RequestCtx, _error: &Error, _context: ProxyWarnLogContext) -> bool {
        true
    }
}

/// The wall clock, for expiry dates, budget periods and the ledger.
fn wall_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Whole milliseconds between two instants.
fn ms(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

/// Leaves a fault in the request's memory and gives Pingora an error that leads to `fail_to_proxy` without a repeat.
fn refuse(ctx: &mut RequestCtx, fault: Fault) -> Box<Error> {
    let mut error = Error::new(ErrorType::HTTPStatus(fault.status()));
    error.set_retry(false);
    ctx.fault = Some(fault);
    error
}
