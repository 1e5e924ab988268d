//! Failed authentications, damped per client address: both doors ask here before they say no.
//!
//! Only a wrong credential is ever counted or refused, never a right one: checking costs less than refusing, secrets are
//! too long to be guessed, and a flood must lock nobody out. What the damping ends is the noise, and what it asks for is
//! patience (429 instead of 401).
//!
//! Addresses are unbounded, so they are counted in a sketch of fixed size (64 KiB). It over-counts, which can only turn a
//! 401 into a 429.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora_limits::rate::Rate;
use tracing::warn;

use crate::telemetry::Seldom;

/// The interval in which failures are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Failures of one address per interval that are answered as they are. Far above what a misconfigured client does, far
/// below what a guesser needs.
const FAILURES_MAX: isize = 1000;
/// How often a flood is worth a line.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// An address has failed too often of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed authentications from this address")]
pub struct TooMany {
    /// When it may try again.
    pub retry_after: Duration,
}

/// Counts the failed authentications at one door.
pub struct Failures {
    door: &'static str,
    /// Behind a lock, since two threads that start a new interval more than a second apart panic in it.
    rate: Mutex<Rate>,
    seen: AtomicU64,
    damped: AtomicU64,
    told: Seldom,
}

impl Failures {
    /// Nobody has failed yet. `door` is how log lines call it.
    #[must_use]
    pub fn new(door: &'static str) -> Self {
        Self {
            door,
            rate: Mutex::new(Rate::new(WINDOW)),
            seen: AtomicU64::new(0),
            damped: AtomicU64::new(0),
            told: Seldom::new(TELL_EVERY),
        }
    }

    /// Counts a failure.
    ///
    /// # Errors
    /// [`TooMany`]: there were more than 1000 from this address (of IPv6 its /64, which one customer has) within 10 s.
    pub fn count(&self, peer: Option<IpAddr>) -> Result<(), TooMany> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        if self.rate.lock().observe(&Source::of(peer), 1) <= FAILURES_MAX {
            return Ok(());
        }
        self.damped.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.told.turn() {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            warn!(door = self.door, peer, left_out, "too many failed authentications from an address");
        }
        Err(TooMany { retry_after: WINDOW })
    }

    /// How many there were so far, those answered with [`TooMany`] included.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// How many were answered with [`TooMany`] so far.
    #[must_use]
    pub fn damped(&self) -> u64 {
        self.damped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").field("door", &self.door).finish_non_exhaustive()
    }
}

/// Whom failures are counted against: an address, or the network that one IPv6 customer has.
#[derive(Hash)]
enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
    Unknown,
}

impl Source {
    fn of(peer: Option<IpAddr>) -> Self {
        match peer.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Self::V4(ip.octets()),
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
            None => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two intervals' worth, should one end in between.
    fn until_refused(failures: &Failures, peer: &str) -> usize {
        let peer = Some(peer.parse().unwrap());
        (1..=2_002).find(|_| failures.count(peer).is_err()).expect("a flood is damped")
    }

    #[test]
    fn a_flood_is_damped_and_others_are_not() {
        let failures = Failures::new("test");
        assert!(until_refused(&failures, "192.0.2.1") > 1_000);
        assert_eq!(failures.damped(), 1);
        for peer in ["192.0.2.2", "2001:db8::1"] {
            assert_eq!(failures.count(Some(peer.parse().unwrap())), Ok(()), "{peer}");
        }
        assert_eq!(failures.count(None), Ok(()));
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_a_mapped_address_is_the_address() {
        let failures = Failures::new("test");
        until_refused(&failures, "2001:db8::1");
        assert!(failures.count(Some("2001:db8::2:3".parse().unwrap())).is_err());
        assert!(failures.count(Some("2001:db8:0:1::1".parse().unwrap())).is_ok());
        until_refused(&failures, "192.0.2.1");
        assert!(failures.count(Some("::ffff:192.0.2.1".parse().unwrap())).is_err());
    }
}
