//! A request between its dispatch and its row.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::codec::Record;
use super::{CacheStatus, Charge, Outcome, Row, Saved, Shared, Timing, Tokens, UsageSource};
use crate::id::{KeyId, RequestId, TenantId};
use crate::units::{PicoUsd, UnixMs};

/// What is known of a request before it is dispatched: enough for a row, should nobody be left to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Minted by the gateway.
    pub request_id: RequestId,
    /// When it arrived.
    pub at: UnixMs,
    /// Whose.
    pub tenant: TenantId,
    /// With which key.
    pub key: KeyId,
    /// Registered name of the model.
    pub model: Arc<str>,
    /// `x-request-id` of the client.
    pub client_request_id: Option<Box<str>>,
    /// The session it named.
    pub session_id: Option<Box<str>>,
    /// Where it goes, if chosen already.
    pub endpoint: Arc<str>,
    /// The path of the data plane it came to.
    pub route: Cow<'static, str>,
    /// What the response cache had to do with it.
    pub cache: CacheStatus,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Estimated input.
    pub input_tokens: u64,
    /// What that costs.
    pub input_cost: PicoUsd,
}

/// Output of a request so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Delivered {
    pub(super) tokens: u64,
    pub(super) cost: PicoUsd,
}

impl Intent {
    /// The row of a request that nobody settled.
    pub(super) fn interrupted(self, delivered: Delivered, total: Duration) -> Row {
        Row {
            request_id: self.request_id,
            at: self.at,
            tenant: self.tenant,
            key: self.key,
            model: self.model,
            client_request_id: self.client_request_id,
            session_id: self.session_id,
            endpoint: self.endpoint,
            route: self.route,
            outcome: Outcome::Interrupted,
            status: 500,
            error_code: Some(Cow::Borrowed("gateway_interrupted")),
            attempts: 1,
            attempt_log: Box::default(),
            tokens: Tokens {
                input: self.input_tokens,
                output: delivered.tokens,
                ..Tokens::default()
            },
            usage_source: UsageSource::Estimated,
            charge: Charge {
                input: self.input_cost,
                output: delivered.cost,
                request: PicoUsd(0),
            },
            cache: self.cache,
            saved: Saved::default(),
            timing: Timing {
                total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX),
                ..Timing::default()
            },
            stream: self.stream,
        }
    }
}

/// How much output a crash may forget.
const PROGRESS_TOKENS: u64 = 256;
/// And for how long.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The right to dispatch one request, and the duty to say what became of it.
///
/// Open => Settled (its row is written) | Dropped (an `interrupted` row is written).
#[derive(Debug)]
#[must_use = "a ticket that is dropped writes an interrupted row"]
pub struct Ticket {
    shared: Arc<Shared>,
    /// `None` once settled.
    intent: Option<Box<Intent>>,
    delivered: Delivered,
    noted: Delivered,
    noted_at: Instant,
    began: Instant,
}

impl Ticket {
    pub(super) fn new(shared: Arc<Shared>, intent: Intent) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        Self {
            shared,
            intent: Some(Box::new(intent)),
            delivered: Delivered::default(),
            noted: Delivered::default(),
            noted_at: now,
            began: now,
        }
    }

    /// Notes the output so far (not the difference) and what it costs. Cheap: only every 256 tokens or 5 s a record is
    /// written, so that a crash forgets no more.
    pub fn progress(&mut self, output_tokens: u64, output_cost: PicoUsd) {
        self.delivered = Delivered {
            tokens: output_tokens,
            cost: output_cost,
        };
        let grown = output_tokens.saturating_sub(self.noted.tokens);
        if grown < PROGRESS_TOKENS && (grown == 0 || self.noted_at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        if let Some(intent) = &self.intent {
            self.noted = self.delivered;
            self.noted_at = Instant::now();
            // One that cannot be written only makes a crash more expensive.
            self.shared.append(&Record::Progress(intent.request_id, self.delivered));
        }
    }

    /// Writes the request's row.
    pub fn settle(mut self, row: Row) {
        debug_assert!(self.intent.as_ref().is_some_and(|intent| intent.request_id == row.request_id));
        self.intent = None;
        self.finish(row);
    }

    fn finish(&self, row: Row) {
        // Its room in the spool was seen to when it began.
        self.shared.settle(row, true);
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(intent) = self.intent.take() {
            self.finish(intent.interrupted(self.delivered, self.began.elapsed()));
        }
    }
}
