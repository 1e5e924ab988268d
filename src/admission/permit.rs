//! A slot that gives itself back.

use std::sync::Arc;
use std::time::Duration;

use super::Admission;
use super::heir::{Heir, Parting};
use crate::scheduler::{Grant, Leave, Standing};

/// The right to have one request upstream. Dropping it gives the slot back, exactly once, and wakes the next waiter.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives its slot back"]
pub struct Permit {
    slot: Slot,
    dispatched: bool,
    output_tokens: u64,
    /// Whether the slot is still to be given back.
    held: bool,
    /// How long the request waited for it.
    waited: Duration,
}

/// Whose slot it is.
#[derive(Debug)]
enum Slot {
    /// This process's.
    Own(Arc<Admission>, Grant),
    /// The heir's, under this ticket.
    Heirs(Arc<Heir>, u64),
}

impl Permit {
    pub(super) const fn new(admission: Arc<Admission>, grant: Grant) -> Self {
        let waited = grant.waited;
        Self::in_slot(Slot::Own(admission, grant), waited)
    }

    pub(super) const fn of_heir(heir: Arc<Heir>, ticket: u64) -> Self {
        Self::in_slot(Slot::Heirs(heir, ticket), Duration::ZERO)
    }

    const fn in_slot(slot: Slot, waited: Duration) -> Self {
        Self {
            slot,
            dispatched: false,
            output_tokens: 0,
            held: true,
            waited,
        }
    }

    /// The same, after so long a wait.
    pub(super) const fn after(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// How long the request waited for it.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Whether its slot lies within its tenant's fair share now, or is one that others leave unused. Where an heir hands out the
    /// slots, it is not known and taken for within.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match &self.slot {
            Slot::Own(admission, grant) => admission.standing(grant),
            Slot::Heirs(..) => Standing::Owner,
        }
    }

    /// The request goes upstream: from now on dropping the permit charges its input and the progress seen.
    pub const fn dispatched(&mut self) {
        self.dispatched = true;
    }

    /// So many output tokens have come by now. What exceeds the estimate is charged in steps; between them this is one
    /// comparison. To an heir it is charged at the end.
    pub fn progress(&mut self, output_tokens_so_far: u64) {
        self.output_tokens = self.output_tokens.max(output_tokens_so_far);
        if let Slot::Own(admission, grant) = &mut self.slot
            && self.output_tokens >= grant.charge_at
        {
            grant.charge_at = admission.progress(grant.ticket, self.output_tokens);
        }
    }

    /// The request has ended: charges what it really took, in tokens, and gives the slot back.
    pub fn settle(mut self, input: u64, output: u64) {
        self.give_back(Leave::Settled { input, output });
    }

    fn give_back(&mut self, how: Leave) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        match &self.slot {
            Slot::Own(admission, grant) => admission.leave(grant.ticket, how),
            Slot::Heirs(heir, ticket) => heir.told(Parting::Leaves { ticket: *ticket, how }),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let how = if self.dispatched {
            Leave::Aborted {
                output: self.output_tokens,
            }
        } else {
            Leave::Unused
        };
        self.give_back(how);
    }
}
