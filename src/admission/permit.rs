//! A slot that gives itself back.

use std::sync::Arc;
use std::time::Duration;

use super::Admission;
use crate::scheduler::{Grant, Leave, Standing};

/// The right to have one request upstream. Dropping it gives the slot back, exactly once, and wakes the next waiter.
#[derive(Debug)]
#[must_use = "a permit that is dropped gives its slot back"]
pub struct Permit {
    admission: Arc<Admission>,
    grant: Grant,
    dispatched: bool,
    output_tokens: u64,
    /// Whether the slot is still to be given back.
    held: bool,
}

impl Permit {
    pub(super) const fn new(admission: Arc<Admission>, grant: Grant) -> Self {
        Self {
            admission,
            grant,
            dispatched: false,
            output_tokens: 0,
            held: true,
        }
    }

    /// How long the request waited for it.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.grant.waited
    }

    /// Whether its slot lies within its tenant's fair share now, or is one that others leave unused.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.admission.standing(&self.grant)
    }

    /// The request goes upstream: from now on dropping the permit charges its input and the progress seen.
    pub const fn dispatched(&mut self) {
        self.dispatched = true;
    }

    /// So many output tokens have come by now. What exceeds the estimate is charged in steps; between them this is one
    /// comparison.
    pub fn progress(&mut self, output_tokens_so_far: u64) {
        self.output_tokens = self.output_tokens.max(output_tokens_so_far);
        if self.output_tokens >= self.grant.charge_at {
            self.grant.charge_at = self.admission.progress(self.grant.ticket, self.output_tokens);
        }
    }

    /// The request has ended: charges what it really took, in tokens, and gives the slot back.
    pub fn settle(mut self, input: u64, output: u64) {
        self.give_back(Leave::Settled { input, output });
    }

    fn give_back(&mut self, how: Leave) {
        if self.held {
            self.held = false;
            self.admission.leave(self.grant.ticket, how);
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
