//! By session: weighted rendezvous hashing (Thaler and Ravishankar 1998) with bounded loads.
//!
//! A seat's score for a session depends on nothing but the two, so a seat that comes or goes moves only the sessions it
//! wins or had, and every gateway agrees without talking. A seat a quarter above its share passes the session to the next
//! in its order; one that cools down gets its sessions back.

use super::{EndpointId, Seat, Tier, mix};

/// The hash of a session id, or of what a conversation starts with. Stable across processes and versions: FNV-1a, mixed.
#[must_use]
pub fn session_hash(text: &[u8]) -> u64 {
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// A seat as the race for a session sees it: each runs for an exponentially distributed time, by its weight, and the first
/// to arrive wins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Racer {
    seed: u64,
    /// One over the weight.
    pace: f64,
}

/// Bits of a key that hold the seat's index; the others are its time's.
const INDEX: u64 = (1 << 12) - 1;
const _: () = assert!(Tier::MAX as u64 <= INDEX + 1);

impl Racer {
    #[expect(clippy::cast_precision_loss, reason = "weights are below 2^40; a time needs no more than 52 bits")]
    pub(super) fn of(seat: &Seat) -> Self {
        Self {
            seed: seat.seed,
            pace: 1.0 / seat.weight.max(1) as f64,
        }
    }

    /// `-log2(u) / weight` of a uniform `u` in `(0, 1)`.
    fn time(self, hash: u64) -> f64 {
        let missing = missing(hash);
        // So near to 1 the hash as a float has lost what decides, and the logarithm is a line.
        let log = if missing < 1e-6 {
            missing * std::f64::consts::LOG2_E
        } else {
            -log2(hash | 1)
        };
        log * self.pace
    }

    /// Less than that for certain, and little less where it is short, at the cost of a product: `-log2(u)` is at least
    /// `(1 - u) / ln 2`, and the factor leaves room for the errors of [`log2`].
    fn at_least(self, hash: u64) -> f64 {
        missing(hash) * 1.442 * self.pace
    }
}

/// `1 - u`, above 0.
#[expect(clippy::cast_possible_wrap, reason = "the upper bit is shifted out")]
#[expect(clippy::cast_precision_loss, reason = "52 of 63 bits are plenty")]
fn missing(hash: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 63) as f64;
    (!hash >> 1 | 1) as i64 as f64 * UNIT
}

pub(super) fn pick(tier: &Tier, session: u64, in_flight: u32, tried: &[EndpointId]) -> Option<usize> {
    // Nearly always the winner takes it, and nobody else need be looked at more closely.
    let winner = winner(tier, session)?;
    let fits = |index: usize| tier.open(index, tried) && tier.seats.get(index).is_some_and(|seat| tier.bounded(seat, in_flight));
    if fits(winner) {
        return Some(winner);
    }
    // Loads move while they are read: should everyone look overloaded, the session's own seat is as good as any.
    race(tier, session, fits).or_else(|| race(tier, session, |index| tier.open(index, tried)))
}

/// The first to arrive. The two least times are told without logarithms and without a branch; one logarithm then nearly
/// always shows that the first is first.
fn winner(tier: &Tier, session: u64) -> Option<usize> {
    let never = f64::INFINITY.to_bits();
    let (mut first, mut second) = (never, never);
    for (index, racer) in (0_u64..).zip(&tier.racers) {
        // Times are positive: as numbers their bits have the same order.
        let key = (racer.at_least(meet(session, racer.seed)).to_bits() & !INDEX) | index;
        second = second.min(first.max(key));
        first = first.min(key);
    }
    let index = usize::try_from(first & INDEX).ok()?;
    let racer = tier.racers.get(index)?;
    if racer.time(meet(session, racer.seed)) <= f64::from_bits(second & !INDEX) {
        return Some(index);
    }
    race(tier, session, |_| true)
}

/// The first to arrive of those that may.
fn race(tier: &Tier, session: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
    let mut first = f64::INFINITY;
    let mut winner = None;
    for (index, racer) in tier.racers.iter().enumerate() {
        let hash = meet(session, racer.seed);
        if racer.at_least(hash) >= first {
            continue;
        }
        let time = racer.time(hash);
        if time < first && may(index) {
            first = time;
            winner = Some(index);
        }
    }
    winner
}

/// A hash of two that are hashes already: the halves of a product, folded (as in wyhash, Wang Yi 2019). The seat's seed is
/// the other factor, so that the order of two seats is not the same for all sessions.
#[expect(clippy::cast_possible_truncation, reason = "the other half is folded in")]
const fn meet(session: u64, seed: u64) -> u64 {
    let product = (session ^ 0x2d35_8dcc_aa6c_78a5) as u128 * (seed | 1) as u128;
    (product >> 64) as u64 ^ product as u64
}

/// log2 of `hash / 2^64`, from the float's own exponent and a polynomial for the mantissa, at a tenth of the cost of the
/// library's. The polynomial has the factor `m - 1`, so the relative error stays below 0.0001 also where the logarithm
/// goes to 0, which is where winners are.
#[expect(clippy::cast_precision_loss, reason = "52 of 64 bits are plenty for a score")]
#[expect(clippy::cast_possible_wrap, reason = "the exponent of a float has eleven bits")]
fn log2(hash: u64) -> f64 {
    let bits = (hash as f64).to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023 - 64;
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000) - 1.0;
    let q = 0.999_949_82 + m * (-0.440_145_16 + m * (0.256_498_2 + m * (-0.127_901_19 + m * 0.032_973_68)));
    ((exponent + 1) as f64 + (m - 1.0) * q).min(-1e-15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seat_that_would_win_is_passed_over() {
        let mut hash = 1_u64;
        for weight in (0..20_000).map(|turn| 1 + turn % 977) {
            hash = mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15));
            // Few fall near the edges by chance.
            for hash in [hash, hash | 0xffff_f000_0000_0000, u64::MAX - (hash >> 50)] {
                let racer = Racer {
                    seed: 0,
                    pace: 1.0 / f64::from(weight),
                };
                assert!(racer.at_least(hash) < racer.time(hash), "{hash} with weight {weight}");
            }
        }
    }

    #[test]
    fn the_short_way_finds_the_winner_of_the_race() {
        let seat = |nth: u64| Seat {
            id: EndpointId(nth),
            seed: session_hash(&nth.to_le_bytes()),
            load: std::sync::Arc::default(),
            cap: None,
            weight: 1 + nth * nth,
            penalty: 1,
            slot: 0,
        };
        assert_eq!(winner(&Tier::default(), 1), None);
        for seats in [1, 2, 3, 17, 64] {
            let tier = Tier::new((0..seats).map(seat).collect());
            for session in (0..20_000).map(|nth: u64| mix(nth)) {
                assert_eq!(winner(&tier, session), race(&tier, session, |_| true));
            }
        }
    }

    #[test]
    fn the_quick_logarithm_is_close() {
        let mut hash = 1_u64;
        for _ in 0..10_000 {
            hash = mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15));
            let exact = (hash as f64).log2() - 64.0;
            assert!((log2(hash) / exact - 1.0).abs() < 1e-4, "{hash}: {} for {exact}", log2(hash));
        }
    }
}
