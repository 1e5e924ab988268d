//! What is asked of the scheduler, and what becomes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arena::{Handle, KeyIx, ModelIx, TenantIx, TicketIx};
use super::standing::Rank;

/// A request that wants a slot.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Who pays.
    pub tenant: Handle<TenantIx>,
    /// With which key; `None`, or one that is gone, has no cap of its own.
    pub key: Option<Handle<KeyIx>>,
    /// For which model; `None`, or one that is gone, shares the slots of the models without a cap.
    pub model: Option<Handle<ModelIx>>,
    /// Input tokens by the gateway's own count.
    pub input_tokens: u64,
    /// The client's bound on output tokens. It can lower the estimate, never raise it: hints are not trusted.
    pub max_tokens: Option<u64>,
    /// What the waiting body holds in memory.
    pub body_bytes: u64,
    /// How long it will wait, if shorter than the queue's timeout.
    pub patience: Option<Duration>,
    /// The caller's number for it, handed back in events.
    pub owner: u32,
}

/// What became of a request that entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It runs.
    Granted(Grant),
    /// It waits; an [`Event`] will tell.
    Queued(Handle<TicketIx>),
}

/// A slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To be handed to [`progress`](super::Scheduler::progress) and [`leave`](super::Scheduler::leave).
    pub ticket: Handle<TicketIx>,
    /// How long it waited.
    pub waited: Duration,
    /// From this output token on, `progress` charges; telling it earlier does nothing.
    pub charge_at: u64,
    pub(super) rank: Rank,
}

/// Why a request could not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The tenant's part of the queue is full (R12).
    #[error("the tenant's part of the queue is full")]
    QueueFull {
        /// When the tenant's queue will have drained, at its present rate; at least a second.
        retry_after: Duration,
    },
    /// It would not wait at all and had to.
    #[error("no slot is free and the request does not wait")]
    NoPatience {
        /// When the tenant's queue will have drained, at its present rate; at least a second.
        retry_after: Duration,
    },
    /// The tenant was deleted.
    #[error("there is no such tenant")]
    UnknownTenant,
}

/// What became of a waiter. Each gets exactly one, unless it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It runs.
    Granted {
        /// The request's own number.
        owner: u32,
        /// Its slot.
        grant: Grant,
    },
    /// Its deadline came first.
    Expired {
        /// The request's own number.
        owner: u32,
        /// How long it waited.
        waited: Duration,
        /// When its tenant's queue will have drained, at its present rate; at least a second.
        retry_after: Duration,
    },
    /// Its tenant was deleted, or everybody was dismissed.
    Dismissed {
        /// The request's own number.
        owner: u32,
    },
}

/// How a running request ends (R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// It was never sent upstream: everything is refunded.
    Unused,
    /// It was broken off: what it has used is charged. Refunding it would give the node to whoever aborts most.
    Aborted {
        /// Output tokens seen.
        output: u64,
    },
    /// It ended.
    Settled {
        /// Input tokens, as reported.
        input: u64,
        /// Output tokens, as reported.
        output: u64,
    },
}
