//! The scheduler's bounds and constants, each with its name and default.

use std::time::Duration;

use super::cost::{Cost, Tariff};

/// How the scheduler behaves; fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests that may wait at once. Default 10 000.
    pub max_queued: u32,
    /// Body bytes that may wait at once. Default 1 GiB.
    pub max_queued_bytes: u64,
    /// How long a request may wait. Default 60 s.
    pub queue_timeout: Duration,
    /// R12: a tenant may have this many times the queue's free places waiting. Default 1: a lone flood gets half the queue
    /// and a newcomer always finds room.
    pub tenant_queue_alpha: u32,
    /// R12 for groups. Default 8: a lone group gets eight ninths.
    pub group_queue_alpha: u32,
    /// What tokens cost. Default a quarter of a unit in, a unit out.
    pub tariff: Tariff,
    /// R3: how much of the share it did not use a tenant has on return. Default 1000 token units.
    pub idle_burst: Cost,
    /// R6: while a request runs, output beyond its estimate is charged in steps of at least this. Default 16 tokens.
    pub progress_step: u32,
    /// R13: when the oldest waiter of a lane has waited this long, for `overload_interval`, the lane serves its newest
    /// first. Default 30 s: half the queue's timeout, where the old are about to be lost anyway. A wait of seconds is no
    /// overload here; it is what a queue in front of inference servers is for.
    pub overload_wait: Duration,
    /// R13: how long it must have been so. Default 1 s.
    pub overload_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_queued: 10_000,
            max_queued_bytes: 1 << 30,
            queue_timeout: Duration::from_secs(60),
            tenant_queue_alpha: 1,
            group_queue_alpha: 8,
            tariff: Tariff::default(),
            idle_burst: Cost::units(1000),
            progress_step: 16,
            overload_wait: Duration::from_secs(30),
            overload_interval: Duration::from_secs(1),
        }
    }
}
