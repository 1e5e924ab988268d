//! What a request costs the fair-share clock: token units, as integers.

use std::ops::{Add, AddAssign, Sub};

/// A cost in 1/1024 of a token unit. One output token of a model with admission weight 100 % is one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cost(u64);

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than any request is charged. Keeps all sums of tags in range, whatever a peer reports.
    pub const MAX: Self = Self(1 << 50);
    const GRAINS: u64 = 1024;

    /// So many whole units.
    #[must_use]
    pub const fn units(units: u64) -> Self {
        Self(units.saturating_mul(Self::GRAINS)).capped()
    }

    /// A quarter of a unit, what an input token costs unless it is set otherwise.
    pub const QUARTER: Self = Self(Self::GRAINS / 4);

    /// Whole units, rounded down.
    #[must_use]
    pub const fn to_units(self) -> u64 {
        self.0 / Self::GRAINS
    }

    /// What a tag counts in: 2^16 steps of virtual time per unit and weight 1.
    pub(super) const fn steps(self) -> u64 {
        self.0 << Self::STEP_SHIFT
    }
    const STEP_SHIFT: u32 = 6;

    pub(super) const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    const fn capped(self) -> Self {
        if self.0 > Self::MAX.0 { Self::MAX } else { self }
    }
}

const _: () = assert!(Cost::GRAINS << Cost::STEP_SHIFT == 1 << 16);
// A request's steps at weight 1 must leave room for many such requests in a u64 tag.
const _: () = assert!(Cost::MAX.0 << Cost::STEP_SHIFT <= 1 << 56);

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Cost {
    type Output = Self;

    /// Saturates at zero in release; an underflow is a fault of the caller.
    fn sub(self, other: Self) -> Self {
        debug_assert!(self >= other, "a cost cannot be negative");
        self.saturating_sub(other)
    }
}

/// What tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// An input token.
    pub input: Cost,
    /// An output token.
    pub output: Cost,
}

impl Default for Tariff {
    /// A quarter of a unit in, one unit out: prefill is that much cheaper on the engines this serves.
    fn default() -> Self {
        Self {
            input: Cost::QUARTER,
            output: Cost::units(1),
        }
    }
}

impl Tariff {
    /// What a request of so many tokens costs on a model of `percent` admission weight. Rounds down to 1/1024 unit.
    #[must_use]
    pub fn price(&self, input_tokens: u64, output_tokens: u64, percent: u32) -> Cost {
        let input = self.input.0.saturating_mul(input_tokens);
        let output = self.output.0.saturating_mul(output_tokens);
        let grains = Cost(input.saturating_add(output)).capped();
        // At most 2^50 · 2^32 before the division, so the common case (100 %) keeps to 64 bits.
        if percent == 100 {
            return grains;
        }
        let weighted = u128::from(grains.0) * u128::from(percent) / 100;
        Cost(u64::try_from(weighted).unwrap_or(u64::MAX)).capped()
    }
}

/// The mean number of output tokens, learned by exponential smoothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Learned(f32);

impl Learned {
    /// What is believed of a model before its first answer.
    pub(super) const AT_FIRST: Self = Self(256.0);
    /// How much of each new answer is believed.
    const GAIN: f32 = 0.1;
    /// No single report moves the mean further than this.
    const OUTPUT_MAX: u32 = 1 << 20;

    pub(super) fn learn(&mut self, output_tokens: u64) {
        let seen = u32::try_from(output_tokens).unwrap_or(u32::MAX).min(Self::OUTPUT_MAX);
        #[expect(clippy::cast_precision_loss, reason = "integers up to 2^20 are exact in an f32")]
        let seen = seen as f32;
        self.0 += Self::GAIN * (seen - self.0);
    }

    /// Half the mean: what is charged at dispatch. A smaller part lets requests that finish in lockstep oscillate, a larger
    /// one makes 10 s windows coarser; the simulations under `tests/` hold both ends.
    pub(super) fn estimate(self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of numbers from 0 to 2^20; rounds down"
        )]
        let half = (self.0 * 0.5) as u64;
        half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_costs_a_quarter_and_the_models_weight_multiplies() {
        let tariff = Tariff::default();
        assert_eq!(tariff.price(400, 100, 100).to_units(), 200);
        assert_eq!(tariff.price(400, 100, 250).to_units(), 500);
        assert_eq!(tariff.price(1, 0, 100), Cost::QUARTER);
    }

    #[test]
    fn no_report_can_cost_more_than_the_maximum() {
        assert_eq!(Tariff::default().price(u64::MAX, u64::MAX, u32::MAX), Cost::MAX);
    }

    #[test]
    fn the_estimate_is_half_of_what_was_learned() {
        let mut learned = Learned::AT_FIRST;
        assert_eq!(learned.estimate(), 128);
        for _ in 0..200 {
            learned.learn(1000);
        }
        assert_eq!(learned.estimate(), 499, "rounds down from just below the limit");
        learned.learn(u64::MAX);
        assert!(learned.estimate() < 1 << 20);
    }
}
