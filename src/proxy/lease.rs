//! The lease: everything a request has taken, in one object, given back exactly once on every way out.
//!
//! States: `empty → queued → granted → dispatched → settled`. `settle` is the ordinary end and says what really
//! happened; `Drop` is the extraordinary one (a panic, a runtime that goes down) and gives back what is still held. Each
//! field gives itself back by its own `Drop`, so there is nothing here to forget.

use std::time::Duration;

use crate::admission::Permit;
use crate::upstreams::Chosen;

/// What a request has taken. Nothing on the request's path is taken outside it.
#[derive(Default)]
pub(super) struct Lease {
    permit: Option<Permit>,
    chosen: Option<Chosen>,
}

/// What really happened, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    /// Input tokens.
    pub(super) input: u64,
    /// Output tokens.
    pub(super) output: u64,
}

impl Lease {
    /// Queued => Granted.
    pub(super) fn grant(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// How long the request waited for its slot.
    pub(super) fn waited(&self) -> Duration {
        self.permit.as_ref().map_or(Duration::ZERO, Permit::waited)
    }

    /// Granted => Dispatched: from now on an abort is charged. A repeated attempt exchanges the endpoint.
    pub(super) fn dispatch(&mut self, chosen: Chosen) {
        if let Some(permit) = &mut self.permit {
            permit.dispatched();
        }
        self.chosen = Some(chosen);
    }

    /// The endpoint of the present attempt.
    pub(super) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// Charges the fair-share clock as the answer streams.
    pub(super) fn progress(&mut self, output_tokens: u64) {
        if let Some(permit) = &mut self.permit {
            permit.progress(output_tokens);
        }
    }

    /// Whether the request went upstream.
    pub(super) fn was_dispatched(&self) -> bool {
        self.chosen.is_some()
    }

    /// Any => Settled. What was never dispatched is given back whole.
    pub(super) fn settle(&mut self, spent: Spent) {
        self.chosen = None;
        if let Some(permit) = self.permit.take() {
            permit.settle(spent.input, spent.output);
        }
    }

    /// Any => Settled, without having asked anything of an upstream: a refusal burns nothing.
    pub(super) fn release(&mut self) {
        self.chosen = None;
        self.permit = None;
    }
}
