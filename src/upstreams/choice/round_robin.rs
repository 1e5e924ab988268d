//! In turn, by weight, without a lock: one counter.
//!
//! Equal weights go round. Unequal ones step through the circle of weights by the golden ratio: the points reached by any
//! number of steps are spread as evenly as points can be (the three-distance theorem, Sós 1958), so every seat gets its
//! share within a request or so at any time, and heavy seats are not served in bursts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{EndpointId, Tier, below};

/// 2⁶⁴ divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) fn pick(tier: &Tier, turn: &AtomicU64, tried: &[EndpointId]) -> Option<usize> {
    let seats = u64::try_from(tier.seats.len()).ok().filter(|seats| *seats > 0)?;
    let turn = turn.fetch_add(1, Ordering::Relaxed);
    let start = if tier.equal {
        usize::try_from(turn % seats).ok()?
    } else {
        tier.at(below(turn.wrapping_mul(STEP), tier.weight()))
    };
    (start..tier.seats.len()).chain(0..start).find(|index| tier.open(*index, tried))
}
