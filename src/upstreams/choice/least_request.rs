//! The lesser loaded of two seats drawn by weight (power of two choices, Mitzenmacher 2001).
//!
//! The first draw stands unless the second is less loaded per weight, a random part of a request put on top of it. So an idle pool is
//! spread by weight, not by who is idle first, and a busy one by load per weight.
//!
//! A seat that answers several times slower than its peers is penalised: it is drawn rarely and must be that much emptier
//! to win. One draw in [`EXPLORE`] goes to it regardless, else nobody would learn that it has recovered.

use super::{EndpointId, Seat, Tier, below, mix};

/// One in this many choices visits a penalised seat: few enough to stay out of the 99th percentile.
const EXPLORE: u64 = 256;

pub(super) fn pick(tier: &Tier, entropy: u64, tried: &[EndpointId]) -> Option<usize> {
    if tier.penalised
        && let Some(index) = explore(tier, entropy, tried)
    {
        return Some(index);
    }
    if let [_] = tier.seats() {
        return tier.open(0, tried).then_some(0);
    }
    let dice = mix(entropy ^ 0x9e37_79b9_7f4a_7c15);
    let (first, second) = draw(tier, entropy, dice)?;
    match (tier.open(first, tried), tier.open(second, tried)) {
        (true, true) => {
            let (a, b) = (tier.seats.get(first)?, tier.seats.get(second)?);
            Some(if yields(a, b, dice) { second } else { first })
        }
        (true, false) => Some(first),
        (false, true) => Some(second),
        (false, false) => emptiest(tier, tried),
    }
}

/// Two different seats, each drawn by weight among those left.
fn draw(tier: &Tier, entropy: u64, dice: u64) -> Option<(usize, usize)> {
    let total = tier.weight();
    let first = tier.at(below(entropy, total));
    let top = *tier.cumulative.get(first)?;
    let bottom = first
        .checked_sub(1)
        .and_then(|before| tier.cumulative.get(before))
        .copied()
        .unwrap_or(0);
    let width = top - bottom;
    let point = below(dice, total - width);
    let second = tier.at(if point < bottom { point } else { point + width });
    Some((first, second))
}

/// Whether the request goes to `b` although `a` was drawn first.
fn yields(a: &Seat, b: &Seat, dice: u64) -> bool {
    let cost = |seat: &Seat, load: u64, other: &Seat| u128::from(load) * u128::from(seat.penalty) * u128::from(other.weight);
    if a.penalty == b.penalty {
        // Loads are whole requests and shares are not. Always rounding one way favours the heavy or the light seat by a
        // fifth while few requests are in flight; rounding by chance favours neither.
        let rounded = (b.load.get() << 8) | (dice & 0xff);
        cost(a, a.load.get() << 8, b) > cost(b, rounded, a)
    } else {
        cost(a, a.load.get() + 1, b) > cost(b, b.load.get() + 1, a)
    }
}

/// The least loaded of all that are open: what is left when both draws are tried or full.
pub(super) fn emptiest(tier: &Tier, tried: &[EndpointId]) -> Option<usize> {
    let mut best: Option<(usize, &Seat)> = None;
    for (index, seat) in tier.seats.iter().enumerate() {
        if !tier.open(index, tried) {
            continue;
        }
        let emptier = best.is_none_or(|(_, best)| {
            let cost = |seat: &Seat, other: &Seat| u128::from(seat.load.get() + 1) * u128::from(seat.penalty) * u128::from(other.weight);
            cost(seat, best) < cost(best, seat)
        });
        if emptier {
            best = Some((index, seat));
        }
    }
    best.map(|(index, _)| index)
}

/// A penalised seat with nothing in flight, now and then.
fn explore(tier: &Tier, entropy: u64, tried: &[EndpointId]) -> Option<usize> {
    let dice = mix(entropy ^ 0xd1b5_4a32_d192_ed03);
    if !dice.is_multiple_of(EXPLORE) {
        return None;
    }
    let start = usize::try_from(below(mix(dice), u64::try_from(tier.seats.len()).ok()?)).ok()?;
    let mut order = (start..tier.seats.len()).chain(0..start);
    order.find(|index| tier.seats.get(*index).is_some_and(|seat| seat.penalty > 1 && seat.load.get() == 0) && tier.open(*index, tried))
}
