//! A start tag: where a group, tenant, branch or lane stands on its parent's clock.

use super::cost::Cost;

/// Where every clock begins: far enough above zero that an idle-return burst below it needs no special case.
///
/// A tag counts 2^16 steps per token unit and weight 1. A clock that runs a million units a second for siblings of weight 1
/// reaches the end of a `u64` after nine years, at the default weight after nine hundred, so tags do not wrap.
pub(super) const BEGIN: u64 = 1 << 32;

/// A start tag with its credit.
///
/// Invariant (I5): `start` never decreases but in [`rescale`](Self::rescale). Refunds become credit, which pays the next
/// charges instead of pulling the tag back, so every key in a ready heap stays a lower bound and nothing in it need move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) start: u64,
    pub(super) credit: u64,
    /// What the last division left over, below `weight`: without it, a tenant of weight 1 000 000 would have 5 % of its
    /// small charges rounded away.
    rest: u32,
    weight: u32,
}

impl Tag {
    pub(super) const fn new(start: u64, weight: u32) -> Self {
        Self {
            start,
            credit: 0,
            rest: 0,
            weight,
        }
    }

    pub(super) const fn weight(&self) -> u32 {
        self.weight
    }

    /// A cost by a weight, in steps, rounded down.
    pub(super) fn distance(cost: Cost, weight: u32) -> u64 {
        cost.steps() / u64::from(weight)
    }

    /// R4(f): credit pays first, the rest moves the tag.
    pub(super) fn charge(&mut self, cost: Cost) {
        let weight = u64::from(self.weight);
        let steps = cost.steps() + u64::from(self.rest);
        let moved = steps / weight;
        self.rest = low(steps % weight);
        let paid = moved.min(self.credit);
        self.credit -= paid;
        self.start = self.start.saturating_add(moved - paid);
    }

    /// Gives back what was charged too much.
    pub(super) fn refund(&mut self, cost: Cost) {
        let weight = u64::from(self.weight);
        let (back, over) = (cost.steps() / weight, low(cost.steps() % weight));
        self.credit += back;
        if self.rest >= over {
            self.rest -= over;
        } else {
            self.rest = self.rest + self.weight - over;
            self.credit += 1;
        }
    }

    /// R3: what comes back from idleness keeps its debt, and of the share it did not use no more than `burst`.
    pub(super) fn activate(&mut self, clock: u64, burst: u64) {
        let bottom = clock.saturating_sub(burst);
        if self.start < bottom {
            *self = Self::new(bottom, self.weight);
        } else {
            self.credit = self.credit.min(self.start.saturating_sub(clock));
        }
    }

    /// R4(e): the tag is at least `floor`.
    pub(super) fn raise(&mut self, floor: u64) {
        self.start = self.start.max(floor);
    }

    /// R8: the distance to the clock is a service, so it stretches or shrinks with the weight. Returns whether the tag
    /// decreased, which every ready heap that holds it must be told.
    pub(super) fn rescale(&mut self, clock: u64, weight: u32) -> bool {
        let before = self.start;
        let (from, to) = (u128::from(self.weight), u128::from(weight));
        let rest = u128::from(self.rest);
        // Service in steps of weight 1: exact, so that weights changed there and back lose nothing.
        if before >= clock {
            let service = u128::from(before - clock) * from + rest;
            self.start = clock.saturating_add(narrow(service / to));
            self.rest = low(narrow(service % to));
        } else {
            let lag = u128::from(clock - before) * from - rest;
            self.start = clock.saturating_sub(narrow(lag.div_ceil(to)));
            self.rest = low(narrow(lag.div_ceil(to) * to - lag));
        }
        self.credit = narrow(u128::from(self.credit) * from / to);
        self.weight = weight;
        self.start < before
    }
}

/// Half the range is further than any tag gets from its clock.
fn narrow(steps: u128) -> u64 {
    u64::try_from(steps).unwrap_or(u64::MAX >> 1)
}

/// A remainder of a division by a `u32`.
const fn low(remainder: u64) -> u32 {
    debug_assert!(remainder <= u32::MAX as u64, "smaller than a weight");
    #[expect(clippy::cast_possible_truncation, reason = "smaller than a weight, which is a u32")]
    let low = remainder as u32;
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_and_refunds_are_exact_at_any_weight() {
        for weight in [1, 3, 100, 999_983, 1_000_000] {
            let mut tag = Tag::new(BEGIN, weight);
            for _ in 0..100_000 {
                tag.charge(Cost::units(16));
            }
            let exact = (1_600_000_u64 << 16) / u64::from(weight);
            assert_eq!(tag.start - BEGIN, exact, "weight {weight}");
            for _ in 0..100_000 {
                tag.refund(Cost::units(16));
            }
            assert!(tag.credit.abs_diff(exact) <= 1, "weight {weight}: {} of {exact}", tag.credit);
        }
    }

    #[test]
    fn credit_pays_the_next_charge_and_the_tag_stands_still() {
        let mut tag = Tag::new(BEGIN, 1);
        tag.charge(Cost::units(10));
        let before = tag.start;
        tag.refund(Cost::units(10));
        assert_eq!(tag.start, before);
        tag.charge(Cost::units(4));
        assert_eq!(tag.start, before, "paid by credit");
        tag.charge(Cost::units(8));
        assert_eq!(tag.start, before + (2 << 16), "6 by credit, 2 by the tag");
    }

    #[test]
    fn idleness_forgives_no_debt_and_saves_no_more_than_the_burst() {
        let mut tag = Tag::new(BEGIN + 500, 1);
        tag.refund(Cost::units(1));
        tag.activate(BEGIN + 100, 50);
        assert_eq!(
            (tag.start, tag.credit),
            (BEGIN + 500, 400),
            "the debt stays, less the credit that balances it"
        );
        tag.activate(BEGIN + 1000, 50);
        assert_eq!((tag.start, tag.credit), (BEGIN + 950, 0));
    }

    #[test]
    fn a_heavier_weight_shrinks_the_distance_to_the_clock() {
        let mut ahead = Tag::new(BEGIN + 1000, 100);
        assert!(ahead.rescale(BEGIN, 200));
        assert_eq!(ahead.start, BEGIN + 500);
        let mut there_and_back = Tag::new(BEGIN, 1_000_000);
        there_and_back.charge(Cost::units(7));
        let before = there_and_back;
        there_and_back.rescale(BEGIN, 3);
        assert_eq!(there_and_back.start, BEGIN + (7 << 16) / 3);
        there_and_back.rescale(BEGIN, 1_000_000);
        assert_eq!(there_and_back, before);
        let mut behind = Tag::new(BEGIN - 1000, 100);
        assert!(!behind.rescale(BEGIN, 200));
        assert_eq!(behind.start, BEGIN - 500);
    }
}
