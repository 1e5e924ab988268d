//! What an MCP request has taken, in one object, given back exactly once on every way out.
//!
//! States: `empty → reserved → granted → placed → dispatched → settled`, as for a model's request ([`super::super::lease`]).
//! What is charged to the fair-share clock is the time that a call held its slot; tokens there are none.

use std::time::{Duration, Instant};

use super::listening::Listener;
use crate::admission::Permit;
use crate::limits::{Actual, Reservation};
use crate::upstreams::Chosen;

/// What every call is charged beside its time, in tokens: calls that take no time are not for nothing.
pub(super) const CALL_TOKENS: u64 = 40;

/// What a request has taken.
#[derive(Default)]
pub(in crate::proxy) struct CallLease {
    reservation: Option<Reservation>,
    permit: Option<Permit>,
    listener: Option<Listener>,
    chosen: Option<Chosen>,
    dispatched_at: Option<Instant>,
    waited: Duration,
}

impl CallLease {
    /// Empty => Reserved.
    pub(super) fn reserve(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
    }

    /// Reserved => Granted: a slot.
    pub(super) fn grant(&mut self, permit: Permit) {
        self.waited = permit.waited();
        self.permit = Some(permit);
    }

    /// Reserved => Granted: a stream.
    pub(super) fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// The queue refused it after a while.
    pub(super) fn gave_up(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// How long the request waited for its slot, or for its refusal.
    pub(in crate::proxy) fn waited(&self) -> Duration {
        self.waited
    }

    /// Granted | Placed => Placed.
    pub(super) fn place(&mut self, chosen: Chosen) {
        self.chosen = Some(chosen);
    }

    /// The address of the present attempt.
    pub(in crate::proxy) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// Placed => Dispatched.
    pub(super) fn dispatch(&mut self) {
        self.dispatched_at.get_or_insert_with(Instant::now);
        if let Some(permit) = &mut self.permit {
            permit.dispatched();
        }
    }

    /// Whether the request went to the server.
    pub(in crate::proxy) fn was_dispatched(&self) -> bool {
        self.dispatched_at.is_some()
    }

    /// Any => Settled. What never went to the server is given back whole.
    pub(super) fn settle(&mut self) {
        let (reservation, permit) = (self.reservation.take(), self.permit.take());
        self.chosen = None;
        self.listener = None;
        let Some(dispatched_at) = self.dispatched_at else { return };
        if let Some(reservation) = reservation {
            reservation.settle(Actual::default());
        }
        if let Some(permit) = permit {
            let held = u64::try_from(dispatched_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            permit.settle(CALL_TOKENS, held);
        }
    }
}

impl Drop for CallLease {
    fn drop(&mut self) {
        self.settle();
    }
}
