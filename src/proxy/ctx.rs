//! One request's memory, from its first byte to its ledger row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::active::Mark;
use super::attempts::{Attempts, Present};
use super::bill::Bill;
use super::coding::Decoder;
use super::lease::Lease;
use super::mcp::Call;
use super::placement::Placement;
use super::replay::Home;
use super::rescue::Fault;
use super::trace::Trace;
use crate::answers::{CacheStatus, Leader, Saved};
use crate::catalog::{Model, Principal};
use crate::id::RequestId;
use crate::limits::RateView;
use crate::llm::{Dialect, Parsed, Route, Tap};
use crate::units::UnixMs;
use crate::upstreams::EndpointId;

/// What is known of a request while it runs. Pingora makes one per request and drops it last, also after a panic.
pub struct RequestCtx {
    pub(super) born: Instant,
    pub(super) born_at: UnixMs,
    pub(super) id: RequestId,
    mark: Option<Mark>,
    /// The gateway's own id as a header.
    pub(super) own_id: HeaderValue,
    /// The `x-request-id` of the answer: the client's own, or the gateway's.
    pub(super) shown_id: HeaderValue,
    pub(super) dialect: Dialect,
    /// The route, once it is known to be one that does work.
    pub(super) route: Option<Route>,
    /// Who asks, once authenticated.
    pub(super) principal: Option<Principal>,
    /// What the limits of the key and its tenant showed after this request.
    pub(super) rates: Option<RateView>,
    /// The ledger row it owes, once it is known whose it is.
    pub(super) bill: Option<Bill>,
    /// What became of the request at the response cache, where the model has one.
    pub(super) cache: CacheStatus,
    /// What a cached answer, or one that came for another, saved the client's tenant.
    pub(super) saved: Option<Saved>,
    /// What is asked, once understood.
    pub(super) work: Option<Box<Work>>,
    /// The same for a request to an MCP server.
    pub(super) mcp: Option<Box<Call>>,
    /// How its attempts ended.
    pub(super) attempts: Attempts,
    /// The browser's origin that may read the answer.
    pub(super) cors: Option<HeaderValue>,
    /// The client's session while the replay stands in its place.
    pub(super) home: Option<Home>,
    /// What its spans will tell.
    pub(super) trace: Trace,
    /// Why the request ended badly, if it did.
    pub(super) fault: Option<Fault>,
    /// The status the client got.
    pub(super) status: u16,
}

/// A request that asks a model for something.
pub(super) struct Work {
    pub(super) model: Arc<Model>,
    pub(super) parsed: Parsed,
    pub(super) placement: Placement,
    pub(super) body_len: usize,
    pub(super) lease: Lease,
    pub(super) answer: Answer,
    /// Those who wait for the same answer, and the cache that keeps it.
    pub(super) leader: Option<Leader>,
    /// How long the request listened to another before it had to go itself.
    pub(super) listened: Duration,
}

impl Work {
    /// The present attempt.
    pub(super) fn attempt(&self) -> Present<'_> {
        Present {
            number: self.answer.attempts,
            chosen: self.lease.chosen(),
            began: self.answer.attempt_at,
            status: self.answer.status,
            error_event: self.answer.tap.as_ref().is_some_and(Tap::has_failed),
        }
    }
}

/// What has come back so far.
#[derive(Default)]
pub(super) struct Answer {
    /// Attempts made, the present one included.
    pub(super) attempts: u8,
    /// When the present attempt began.
    pub(super) attempt_at: Option<Instant>,
    /// The endpoints tried.
    pub(super) tried: Vec<EndpointId>,
    /// What ended the first attempt, where there was another after it.
    pub(super) first_fault: Option<Fault>,
    /// The upstream's status.
    pub(super) status: Option<u16>,
    /// When the head came.
    pub(super) head_at: Option<Instant>,
    /// When the first piece of the body came: the time to first token.
    pub(super) first_byte_at: Option<Instant>,
    /// Counts tokens in the body.
    pub(super) tap: Option<Tap>,
    /// Undoes the coding of a body that came compressed.
    pub(super) decoder: Option<Decoder>,
    /// Holds an error body back until the endpoint's credential is masked in it.
    pub(super) masked: Option<Vec<u8>>,
    /// Whether the body is an event stream, which can carry an error at its end.
    pub(super) event_stream: bool,
    /// What closes the event being sent, where the answer is another request's and there is no tap of its own.
    pub(super) closing: &'static [u8],
    /// Whether the body is complete.
    pub(super) complete: bool,
}

impl RequestCtx {
    pub(super) fn new(mark: Mark) -> Self {
        let id = RequestId::mint();
        // Hexadecimal and hyphens: always a header value.
        let own_id = HeaderValue::try_from(id.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            born: Instant::now(),
            born_at: super::wall_now(),
            id,
            mark: Some(mark),
            shown_id: own_id.clone(),
            own_id,
            dialect: Dialect::Openai,
            route: None,
            principal: None,
            rates: None,
            bill: None,
            cache: CacheStatus::Off,
            saved: None,
            work: None,
            mcp: None,
            attempts: Attempts::default(),
            cors: None,
            home: None,
            trace: Trace::new(),
            fault: None,
            status: 0,
        }
    }

    /// Takes the request out of those that a drain waits for.
    pub(super) fn uncount(&mut self) {
        self.mark = None;
    }

    /// The `x-request-id` as text; it was checked to be visible ASCII.
    pub(super) fn shown_id(&self) -> &str {
        self.shown_id.to_str().unwrap_or_default()
    }
}
