//! The lease: everything a request has taken, in one object, given back exactly once on every way out.
//!
//! States: `empty → reserved → granted → placed → dispatched → settled`. [`Lease::settle`] is the ordinary end and says what
//! really happened, and gives back whole what never went upstream; `Drop` is the extraordinary end (a panic,
//! a runtime that goes down) and settles to what had been seen by then. Each field gives itself back by its own
//! `Drop`, so there is nothing here to forget. The row in the ledger is owed longer than anything is held, and has a state
//! of its own: [`super::bill`].

use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::limits::{Actual, Reservation};
use crate::pricing::{self, Prices, Used};
use crate::scheduler::Standing;
use crate::upstreams::Chosen;

/// What a request has taken. Nothing on the request's path is taken outside it.
#[derive(Default)]
pub(super) struct Lease {
    reservation: Option<Reservation>,
    permit: Option<Permit>,
    chosen: Option<Chosen>,
    dispatched_at: Option<Instant>,
    waited: Duration,
    /// The most output there can be.
    output_max: u64,
    /// What is charged should nobody come to settle.
    seen: Spent,
    prices: Prices,
}

/// What really happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    /// Input tokens.
    pub(super) input: u64,
    /// Those of them that the upstream had cached.
    pub(super) cached_input: u64,
    /// Output tokens.
    pub(super) output: u64,
    /// Whether the upstream answered 2xx.
    pub(super) answered: bool,
    /// Whether the answer came to its end.
    pub(super) complete: bool,
}

impl Spent {
    /// What it costs.
    pub(super) fn cost(&self, prices: &Prices) -> pricing::Cost {
        let used = Used {
            input: self.input,
            cached_input: self.cached_input,
            output: self.output,
            requests: u64::from(self.answered),
        };
        pricing::cost(prices, &used)
    }
}

impl Lease {
    /// Empty => Reserved. `input` is the estimate that is charged should the request end without anybody to settle it;
    /// `output_max` what the client allows.
    pub(super) fn reserve(&mut self, reservation: Reservation, input: u64, output_max: Option<u64>, prices: Prices) {
        self.output_max = output_max.unwrap_or(u64::MAX);
        self.reservation = Some(reservation);
        self.seen.input = input;
        self.prices = prices;
    }

    /// Reserved => Granted.
    pub(super) fn grant(&mut self, permit: Permit) {
        self.waited = permit.waited();
        self.permit = Some(permit);
    }

    /// Where its tenant stands with the slot it has; without one there is nothing to stand on.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.permit.as_ref().map(Permit::standing)
    }

    /// The queue refused it after a while.
    pub(super) fn gave_up(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// How long the request waited for its slot, or for its refusal.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// What would be charged now.
    pub(super) fn seen(&self) -> &Spent {
        &self.seen
    }

    /// Granted | Placed => Placed. A repeated attempt exchanges the endpoint.
    pub(super) fn place(&mut self, chosen: Chosen) {
        self.chosen = Some(chosen);
    }

    /// Placed => Dispatched: there is a connection, and from now on an abort is charged.
    pub(super) fn dispatch(&mut self) {
        self.dispatched_at.get_or_insert_with(Instant::now);
        if let Some(permit) = &mut self.permit {
            permit.dispatched();
        }
    }

    /// The endpoint of the present attempt.
    pub(super) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// Charges the fair-share clock as the answer streams.
    pub(super) fn progress(&mut self, output_tokens: u64) {
        self.seen.output = output_tokens;
        self.seen.answered = true;
        if let Some(permit) = &mut self.permit {
            permit.progress(output_tokens);
        }
    }

    /// Whether the request went upstream.
    pub(super) fn was_dispatched(&self) -> bool {
        self.dispatched_at.is_some()
    }

    /// Any => Settled, with what really happened. What never went upstream is given back whole: a refusal burns nothing.
    pub(super) fn settle(&mut self, spent: Spent) {
        let (reservation, permit, chosen) = (self.reservation.take(), self.permit.take(), self.chosen.take());
        let Some(dispatched_at) = self.dispatched_at else { return };
        if let Some(reservation) = reservation {
            let cost = spent.cost(&self.prices).total();
            reservation.settle(Actual {
                input: spent.input,
                output: spent.output,
                cost,
            });
        }
        let Some(mut permit) = permit else { return };
        if spent.complete {
            permit.settle(spent.input, spent.output);
            return;
        }
        // Broken off. What came out is counted where it streams; an answer that comes in one piece shows nothing until its
        // end, and is charged to the fair-share clock by the time it held its slot: else whoever leaves just before the
        // end would get the node for nothing. It teaches the scheduler nothing about how long answers are.
        let unseen = chosen
            .map_or(0, |chosen| chosen.tokens_in(dispatched_at.elapsed()))
            .min(self.output_max);
        permit.progress(spent.output.max(if spent.output == 0 { unseen } else { 0 }));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.settle(self.seen);
    }
}
