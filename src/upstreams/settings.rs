//! What an operator may tune, with the defaults.

use std::net::SocketAddr;
use std::time::Duration;

use super::retry_budget::Budget;
use super::{auto_capacity, health};
use crate::egress;

/// Settings of the room, fixed at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How far the gateway may reach.
    pub egress: egress::Policy,
    /// The gateway's own listeners, which are no upstreams.
    pub own_listeners: Vec<SocketAddr>,
    /// Resolution of names.
    pub dns: Dns,
    /// When an endpoint is out and when it comes back.
    pub health: health::Rules,
    /// Active checks.
    pub probe: Probe,
    /// Load signals.
    pub scrape: Scrape,
    /// How capacity is learned where a model asks for it.
    pub auto_capacity: auto_capacity::Rules,
    /// Files of certificates and keys are looked at this often.
    pub certificates_refresh: Duration,
    /// How much may be retried.
    pub retries: Budget,
    /// Entries of a model's prefix table, 8 bytes each.
    pub prefix_entries: usize,
}

/// Resolution of names.
#[derive(Debug, Clone)]
pub struct Dns {
    /// A name is asked for again after this long.
    pub refresh: Duration,
    /// And this long after a lookup that failed.
    pub retry: Duration,
    /// A lookup may take this long.
    pub timeout: Duration,
    /// Addresses are kept this long after the last answer while lookups fail.
    pub stale_max: Duration,
    /// So many addresses of a name are used.
    pub addresses_max: usize,
    /// So many lookups run at once.
    pub lookups_max: usize,
}

/// Active checks.
#[derive(Debug, Clone)]
pub struct Probe {
    /// An address that is up is checked this often.
    pub interval: Duration,
    /// One that is not, this often.
    pub interval_down: Duration,
    /// A check may take this long.
    pub timeout: Duration,
    /// So many checks and scrapes run at once.
    pub at_once: usize,
}

/// Load signals.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// How often they are read.
    pub interval: Duration,
    /// How often they are asked for where the engine has answered that it has none.
    pub interval_absent: Duration,
    /// Reading them may take this long.
    pub timeout: Duration,
    /// Older ones do not count.
    pub stale_after: Duration,
    /// A metrics page longer than this, in bytes, is not read.
    pub page_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            egress: egress::Policy::default(),
            own_listeners: Vec::new(),
            dns: Dns {
                refresh: Duration::from_secs(30),
                retry: Duration::from_secs(2),
                timeout: Duration::from_secs(5),
                stale_max: Duration::from_secs(3600),
                addresses_max: 32,
                lookups_max: 16,
            },
            health: health::Rules::default(),
            probe: Probe {
                interval: Duration::from_secs(5),
                interval_down: Duration::from_secs(1),
                timeout: Duration::from_secs(2),
                at_once: 64,
            },
            scrape: Scrape {
                interval: Duration::from_secs(1),
                interval_absent: Duration::from_secs(60),
                timeout: Duration::from_secs(1),
                stale_after: Duration::from_secs(5),
                page_max: 4 << 20,
            },
            auto_capacity: auto_capacity::Rules::default(),
            certificates_refresh: Duration::from_secs(10),
            retries: Budget::default(),
            prefix_entries: 1 << 16,
        }
    }
}
