//! What a request asks of admission, and the ways it is refused.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{KeyId, ModelId, TenantId};

/// A request that wants a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who pays.
    pub tenant: TenantId,
    /// With which key.
    pub key: KeyId,
    /// For which model.
    pub model: ModelId,
    /// Input tokens by the gateway's own count.
    pub input_tokens: u64,
    /// The client's bound on output tokens; it can lower the first charge, never raise it.
    pub max_tokens: Option<u64>,
    /// What the waiting body holds in memory.
    pub body_bytes: u64,
    /// How long it will wait, if shorter than the queue's own deadline.
    pub patience: Option<Duration>,
}

/// Why a request got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The tenant's part of the queue is full.
    #[error("the queue is full")]
    QueueFull {
        /// When the tenant's queue will have drained, at its present rate.
        retry_after: Duration,
    },
    /// It waited as long as it may.
    #[error("no slot became free in time")]
    TimedOut {
        /// When the tenant's queue will have drained, at its present rate.
        retry_after: Duration,
        /// How long it waited.
        waited: Duration,
    },
    /// The gateway is going down.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// The tenant does not exist, or was deleted while the request waited.
    #[error("there is no such tenant")]
    UnknownTenant,
}
