//! Which endpoint takes the next request: pure, wait-free, without allocation. Randomness is an argument.
//!
//! A [`Tier`] is what is usable now, prepared so that a choice touches as little as possible: `least_request` looks at two
//! seats however many there are, `round_robin` at one, `session` hashes once per
//! seat. Only seats that turn out to be tried
//! or full cost a scan.

mod least_request;
mod prefix;
mod round_robin;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(super) use prefix::Digest;
pub use prefix::{Blocks, Prefixes, PrefixesError};
pub use session::session_hash;

/// One address of an endpoint, for as long as the process lives. What `tried` lists are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub(crate) u64);

/// What a request brings to the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint<'a> {
    /// Hash of the session id, or of the conversation's first messages ([`session_hash`]). Without one, policy `session`
    /// is `least_request`.
    pub session: Option<u64>,
    /// Chained hashes of the prompt's blocks, first block first ([`Blocks`]). Without any, policy `prefix` is
    /// `least_request`.
    pub prefix: &'a [u64],
}

/// How loaded an address is. Shared by every view that shows it.
#[derive(Debug, Default)]
pub struct Load {
    /// Requests of ours that are there now.
    pub in_flight: AtomicU32,
    /// Requests of others and waiting ones, by the last scrape that is fresh; 0 when nothing is known.
    pub extra: AtomicU32,
}

impl Load {
    fn get(&self) -> u64 {
        u64::from(self.in_flight.load(Ordering::Relaxed)) + u64::from(self.extra.load(Ordering::Relaxed))
    }
}

/// A place in the choice.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Whose it is.
    pub id: EndpointId,
    /// What rendezvous hashing knows it by: the same in every process.
    pub seed: u64,
    /// How loaded it is.
    pub load: Arc<Load>,
    /// Requests of the whole endpoint, of which this may be one address among several, and how many it takes.
    pub cap: Option<(Arc<AtomicU32>, u32)>,
    /// Its share in thousandths of a weight: slow start scales it.
    pub weight: u64,
    /// How much slower than its peers it answers; 1 is not noticeably.
    pub penalty: u32,
    /// Where its prefix-cache entries point; unique within a model, and new after a restart of the engine.
    pub slot: u16,
}

impl Seat {
    fn full(&self) -> bool {
        self.cap
            .as_ref()
            .is_some_and(|(in_flight, cap)| in_flight.load(Ordering::Relaxed) >= *cap)
    }
}

/// The usable addresses of one priority.
#[derive(Debug, Default)]
pub struct Tier {
    seats: Box<[Seat]>,
    /// Sums of the effective weights up to and including each seat: a uniform number falls on seats by weight.
    cumulative: Box<[u64]>,
    /// What the session choice reads of each seat, side by side.
    racers: Box<[session::Racer]>,
    /// Whether some seat is slower than its peers.
    penalised: bool,
    equal: bool,
    by_slot: Box<[u16]>,
}

/// No member of a tier has this index.
const NOBODY: u16 = u16::MAX;

impl Tier {
    /// Prepares a tier. At most [`Tier::MAX`] seats are kept.
    #[must_use]
    pub fn new(mut seats: Vec<Seat>) -> Self {
        seats.truncate(Self::MAX);
        let mut sum = 0_u64;
        let cumulative = seats
            .iter()
            .map(|seat| {
                // A slow seat is drawn as rarely as it is slow, but never never.
                sum += (seat.weight / u64::from(seat.penalty.max(1))).max(1);
                sum
            })
            .collect();
        let slots = seats.iter().map(|seat| usize::from(seat.slot) + 1).max().unwrap_or(0);
        let mut by_slot = vec![NOBODY; slots];
        for (index, seat) in (0..).zip(&seats) {
            if let Some(entry) = by_slot.get_mut(usize::from(seat.slot)) {
                *entry = index;
            }
        }
        Self {
            penalised: seats.iter().any(|seat| seat.penalty > 1),
            equal: seats.windows(2).all(|pair| matches!(pair, [a, b] if a.weight == b.weight)),
            racers: seats.iter().map(session::Racer::of).collect(),
            seats: seats.into_boxed_slice(),
            cumulative,
            by_slot: by_slot.into_boxed_slice(),
        }
    }

    /// The most seats a tier has.
    pub const MAX: usize = 4096;

    /// The seats, in the order they were given.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    fn weight(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or(0)
    }

    /// The seat a number in `0..weight()` falls on.
    fn at(&self, point: u64) -> usize {
        self.cumulative
            .partition_point(|sum| *sum <= point)
            .min(self.seats.len().saturating_sub(1))
    }

    fn open(&self, index: usize, tried: &[EndpointId]) -> bool {
        self.seats.get(index).is_some_and(|seat| !tried.contains(&seat.id) && !seat.full())
    }

    fn slot(&self, slot: u16) -> Option<usize> {
        let index = *self.by_slot.get(usize::from(slot))?;
        (index != NOBODY).then_some(usize::from(index))
    }

    /// The most a seat may carry when requests stick to seats: a quarter above its share, rounded up (bounded loads,
    /// Mirrokni, Thorup and Zadimoghaddam 2016).
    fn bounded(&self, seat: &Seat, in_flight: u32) -> bool {
        let total = u128::from(in_flight) + 1;
        let load = u128::from(seat.load.in_flight.load(Ordering::Relaxed));
        // load < ceil(total × 5/4 × share), without the division.
        load * 4 * u128::from(self.weight()) < total * 5 * u128::from(seat.weight)
    }
}

/// How a model's endpoint is chosen, and what that needs to remember.
#[derive(Debug)]
pub enum Policy {
    /// The lesser loaded of two.
    LeastRequest,
    /// In turn.
    RoundRobin(AtomicU64),
    /// By session.
    Session,
    /// By prefix.
    Prefix(Prefixes),
}

/// Why a tier has nobody to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody {
    /// Each was tried by this request.
    Tried,
    /// Each that was not tried is at its cap.
    Full,
}

/// Chooses a seat by index. `in_flight` is the model's total; `entropy` a uniform random number.
///
/// # Errors
/// [`Nobody`] when no seat is open.
pub fn pick(policy: &Policy, tier: &Tier, hint: &Hint<'_>, in_flight: u32, entropy: u64, tried: &[EndpointId]) -> Result<usize, Nobody> {
    let found = match policy {
        Policy::LeastRequest => least_request::pick(tier, entropy, tried),
        Policy::RoundRobin(turn) => round_robin::pick(tier, turn, tried),
        Policy::Session => match hint.session {
            Some(session) => session::pick(tier, session, in_flight, tried),
            None => least_request::pick(tier, entropy, tried),
        },
        Policy::Prefix(prefixes) => prefixes.pick(tier, hint.prefix, in_flight, entropy, tried),
    };
    found.ok_or_else(|| {
        if tier.seats.iter().all(|seat| tried.contains(&seat.id)) {
            Nobody::Tried
        } else {
            Nobody::Full
        }
    })
}

/// A bijection that spreads every bit over all (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Scales a uniform 64-bit number to `0..bound`.
fn below(uniform: u64, bound: u64) -> u64 {
    let scaled = (u128::from(uniform) * u128::from(bound)) >> 64;
    u64::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests;
