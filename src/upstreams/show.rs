//! How endpoints stand, for `GET /models/{id}`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::health::State;
use super::pool::Inner;
use super::signals::Signals;
use super::site::{Entry, Site};

/// Whether requests are sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// Yes.
    Healthy,
    /// No.
    Unhealthy,
    /// Yes, but nothing is known of it yet.
    Unknown,
}

/// How an endpoint stands.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointHealth {
    /// Host and port.
    pub label: String,
    /// Healthy when one address is, unhealthy when none may be used.
    pub state: HealthState,
    /// Requests there now.
    pub in_flight: u32,
    /// What went wrong last, while it is not healthy or for as long as it lasts.
    pub last_error: Option<Arc<str>>,
    /// Its addresses.
    pub addresses: Vec<AddressHealth>,
}

/// How an address stands.
#[derive(Debug, Clone, PartialEq)]
pub struct AddressHealth {
    /// The address.
    pub addr: SocketAddr,
    /// Whether requests are sent there.
    pub state: HealthState,
    /// How long an ejection still lasts.
    pub ejected_for: Option<Duration>,
    /// Requests there now.
    pub in_flight: u32,
    /// Its weight in thousandths of its share: less than 1000 while it starts slowly.
    pub weight_permille: u64,
    /// 1, or by how much it is avoided for being slower than its peers.
    pub penalty: u32,
    /// What went wrong last.
    pub last_error: Option<Arc<str>>,
    /// What the engine says of its load, and how old that is.
    pub signals: Option<(Signals, Duration)>,
}

pub(super) fn endpoints(inner: &Inner, now: Instant) -> Vec<EndpointHealth> {
    inner.sites.iter().map(|site| endpoint(site, now)).collect()
}

fn endpoint(site: &Site, now: Instant) -> EndpointHealth {
    let addresses: Vec<AddressHealth> = site.entries.iter().map(|entry| address(entry, now)).collect();
    let has = |state| addresses.iter().any(|address| address.state == state);
    let state = if site.barred.is_some() || site.trust_error.is_some() && !site.endpoint.trusted() {
        HealthState::Unhealthy
    } else if has(HealthState::Healthy) {
        HealthState::Healthy
    } else if has(HealthState::Unknown) || site.names.never_asked() && addresses.is_empty() {
        HealthState::Unknown
    } else {
        HealthState::Unhealthy
    };
    let of_address = || addresses.iter().find_map(|address| address.last_error.clone());
    EndpointHealth {
        label: site.endpoint.label.to_string(),
        state,
        in_flight: site.endpoint.in_flight.load(Ordering::Relaxed),
        last_error: site
            .barred
            .clone()
            .or_else(|| site.trust_error.clone())
            .or_else(|| site.names.last_error.clone())
            .or_else(of_address),
        addresses,
    }
}

fn address(entry: &Entry, now: Instant) -> AddressHealth {
    let health = &entry.health;
    AddressHealth {
        addr: entry.backend.addr,
        state: match health.state() {
            State::Up => HealthState::Healthy,
            State::Unknown => HealthState::Unknown,
            State::Down | State::Ejected { .. } => HealthState::Unhealthy,
        },
        ejected_for: match health.state() {
            State::Ejected { until } => Some(until.saturating_duration_since(now)),
            State::Up | State::Unknown | State::Down => None,
        },
        in_flight: entry.backend.load.in_flight.load(Ordering::Relaxed),
        weight_permille: entry.weight_permille,
        penalty: entry.backend.speed.penalty(),
        last_error: health.last_error().cloned(),
        signals: entry.signals.zip(entry.signal_age(now)).map(|((_, signals), age)| (signals, age)),
    }
}
