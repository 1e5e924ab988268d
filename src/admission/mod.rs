//! Lock and wakers around the scheduler: hands out permits.

mod ask;

use std::sync::Arc;
use std::time::Duration;

pub use ask::{Ask, Refusal};

use crate::catalog::Catalog;
use crate::id::ModelId;
use crate::scheduler::Snapshot;

/// The bounds of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests that may wait at once.
    pub max_queued: u32,
    /// Body bytes that may wait at once.
    pub max_queued_bytes: u64,
    /// How long a request may wait.
    pub queue_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_queued: 10_000,
            max_queued_bytes: 1 << 30,
            queue_timeout: Duration::from_secs(60),
        }
    }
}

/// Counts for people and probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests upstream.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// How many may be upstream at once.
    pub max_in_flight: u32,
}

/// Hands out permits by fair share.
#[derive(Debug)]
pub struct Admission {
    settings: Settings,
}

impl Admission {
    /// Starts with no tenants and no slots; [`apply`](Self::apply) brings both.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    /// The bounds it was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Follows the catalog.
    pub fn apply(&self, catalog: &Catalog) {
        let _ = catalog;
    }

    /// Sets a model's cap from outside the catalog: the seam for learned caps.
    pub fn set_model_cap(&self, model: ModelId, cap: Option<u32>) {
        let _ = (model, cap);
    }

    /// Waits for a slot. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    #[expect(clippy::unused_async, reason = "the queue comes with the scheduler")]
    pub async fn admit(self: &Arc<Self>, ask: Ask) -> Result<Permit, Refusal> {
        let _ = ask;
        Err(Refusal::UnknownTenant)
    }

    /// Refuses all waiters and newcomers.
    pub const fn shut_down(&self) {}

    /// Counts now.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats {
            in_flight: 0,
            queued: 0,
            max_in_flight: 0,
        }
    }

    /// The scheduler's state now.
    #[must_use]
    pub fn live(&self) -> Snapshot {
        Snapshot::default()
    }
}

/// A slot, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    waited: Duration,
    dispatched: bool,
    output_tokens: u64,
}

impl Permit {
    /// How long the request waited for it.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// The request is going upstream: from now on dropping the permit is charged.
    pub const fn dispatched(&mut self) {
        self.dispatched = true;
    }

    /// So many output tokens have come by now.
    pub const fn progress(&mut self, output_tokens_so_far: u64) {
        self.output_tokens = output_tokens_so_far;
    }

    /// The request has ended with so many tokens: charges them and gives the slot back.
    pub const fn settle(self, input: u64, output: u64) {
        let _ = (input, output);
    }
}
