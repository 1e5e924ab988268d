//! The row that a request owes the ledger, from the moment it is known whose it is.
//!
//! States: `Owed → Dispatched → Settled`. Between the first two the intent is written to the spool, so that not even the
//! end of the process loses the row. Dropped unsettled (a panic, a runtime that goes down), it writes what it knows.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::lease::Spent;
use crate::catalog::Principal;
use crate::id::RequestId;
use crate::metering::{Charge, Intent, Meter, Outcome, Row, Ticket, Tokens, Unavailable, UsageSource};
use crate::pricing::Prices;
use crate::units::{PicoUsd, UnixMs};

/// How much output passes between two notes to the ticket.
const NOTE_EVERY_TOKENS: u64 = 16;

/// A row that is owed.
pub(super) struct Bill {
    meter: Arc<Meter>,
    born: Instant,
    /// `None` once settled.
    row: Option<Row>,
    ticket: Option<Ticket>,
    noted: u64,
}

/// Whose request it is, and where it came to.
pub(super) struct Origin<'a> {
    pub(super) request_id: RequestId,
    pub(super) client_request_id: Option<&'a str>,
    pub(super) session_id: Option<&'a str>,
    pub(super) principal: &'a Principal,
    pub(super) route: &'static str,
    pub(super) born: Instant,
    pub(super) at: UnixMs,
}

impl Bill {
    /// (new) => Owed.
    pub(super) fn owed(meter: &Arc<Meter>, origin: &Origin<'_>) -> Self {
        let row = Row {
            request_id: origin.request_id,
            at: origin.at,
            tenant: origin.principal.tenant.id,
            key: origin.principal.key.id,
            model: Arc::default(),
            client_request_id: origin.client_request_id.map(Box::from),
            session_id: origin.session_id.map(Box::from),
            endpoint: Arc::default(),
            route: Cow::Borrowed(origin.route),
            outcome: Outcome::Interrupted,
            status: 500,
            error_code: Some(Cow::Borrowed("internal_error")),
            attempts: 0,
            attempt_log: Box::default(),
            tokens: Tokens::default(),
            usage_source: UsageSource::None,
            charge: Charge::default(),
            cache: crate::metering::CacheStatus::Off,
            saved: crate::metering::Saved::default(),
            timing: crate::metering::Timing::default(),
            stream: false,
        };
        Self {
            meter: Arc::clone(meter),
            born: origin.born,
            row: Some(row),
            ticket: None,
            noted: 0,
        }
    }

    /// What is known so far, to be completed.
    pub(super) fn row(&mut self) -> Option<&mut Row> {
        self.row.as_mut()
    }

    /// Owed => Dispatched: writes the intent. A repeated attempt has it already.
    ///
    /// # Errors
    /// [`Unavailable`]: the request must not go upstream.
    pub(super) fn dispatch(&mut self, expected: &Spent, prices: &Prices) -> Result<(), Unavailable> {
        let Some(row) = self.row.as_ref().filter(|_| self.ticket.is_none()) else {
            return Ok(());
        };
        let ticket = self.meter.begin(Intent {
            request_id: row.request_id,
            at: row.at,
            tenant: row.tenant,
            key: row.key,
            model: Arc::clone(&row.model),
            client_request_id: row.client_request_id.clone(),
            session_id: row.session_id.clone(),
            endpoint: Arc::clone(&row.endpoint),
            route: row.route.clone(),
            cache: row.cache,
            stream: row.stream,
            input_tokens: expected.input,
            input_cost: expected.cost(prices).input(),
        })?;
        self.ticket = Some(ticket);
        Ok(())
    }

    /// Notes the output so far, for the row of a request that nobody will be left to settle.
    pub(super) fn progress(&mut self, output_tokens: u64, prices: &Prices) {
        if output_tokens < self.noted.saturating_add(NOTE_EVERY_TOKENS) {
            return;
        }
        self.noted = output_tokens;
        if let Some(ticket) = &mut self.ticket {
            let cost = prices.output.0.saturating_mul(u128::from(output_tokens));
            ticket.progress(output_tokens, PicoUsd(cost));
        }
    }

    /// Owed | Dispatched => Settled.
    pub(super) fn settle(&mut self) {
        let Some(mut row) = self.row.take() else { return };
        row.timing.total_ms = super::ms(self.born, Instant::now());
        match self.ticket.take() {
            Some(ticket) => ticket.settle(row),
            None => self.meter.record(row),
        }
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            // The ticket's own Drop knows the input estimate and the output so far.
            return;
        }
        self.settle();
    }
}
