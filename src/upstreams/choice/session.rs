//! By session: weighted rendezvous hashing (Thaler and Ravishankar 1998) with bounded loads.
//!
//! A seat's score for a session depends on nothing but the two, so a seat that comes or goes moves only the sessions it
//! wins or had, and every gateway agrees without talking. A seat a quarter above its share passes the session to the next
//! in its order; one that cools down gets its sessions back.

use super::{EndpointId, Tier, mix};

/// The hash of a session id, or of what a conversation starts with. Stable across processes and versions: FNV-1a, mixed.
#[must_use]
pub fn session_hash(text: &[u8]) -> u64 {
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

pub(super) fn pick(tier: &Tier, session: u64, in_flight: u32, tried: &[EndpointId]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    let mut overloaded: Option<(usize, f64)> = None;
    for (index, seat) in tier.seats.iter().enumerate() {
        let hash = mix(session ^ seat.seed);
        if best.is_some_and(|(_, best)| !tier.equal && hopeless(hash, seat.weight, best)) {
            continue;
        }
        let score = if tier.equal { uniform(hash) } else { weighted(hash, seat.weight) };
        if best.is_some_and(|(_, best)| score <= best) || !tier.open(index, tried) {
            continue;
        }
        if tier.bounded(seat, in_flight) {
            best = Some((index, score));
        } else if overloaded.is_none_or(|(_, best)| score > best) {
            overloaded = Some((index, score));
        }
    }
    // Loads move while they are read: should everyone look overloaded, the session's own seat is as good as any.
    best.or(overloaded).map(|(index, _)| index)
}

/// The hash's upper 52 bits as a number in `[1, 2)`.
fn uniform(hash: u64) -> f64 {
    f64::from_bits(0x3ff0_0000_0000_0000 | (hash >> 12))
}

/// `weight / -log2(u)` of a uniform `u` in `(0, 1)`: the seat with the greatest wins in proportion to its weight.
#[expect(clippy::cast_precision_loss, reason = "weights are below 2^40; a score needs no more than 52 bits")]
fn weighted(hash: u64, weight: u64) -> f64 {
    weight as f64 / -log2(hash | 1)
}

/// Whether a seat's score is below the best for certain, told without a logarithm: `-log2(u)` is at least
/// `(1 - u) / ln 2`, and the factor is a little less than that, for the errors of [`log2`].
#[expect(clippy::cast_precision_loss, reason = "weights are below 2^40; a score needs no more than 52 bits")]
fn hopeless(hash: u64, weight: u64, best: f64) -> bool {
    let missing = 2.0 - uniform(hash);
    // Nearer to 1 than that, the last bits of the hash decide.
    missing > 1e-9 && weight as f64 <= best * 1.442 * missing
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
                let score = weighted(hash, weight);
                assert!(!hopeless(hash, weight, score * 0.999_9), "{hash} with weight {weight}");
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
