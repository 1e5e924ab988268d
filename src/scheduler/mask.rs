//! Sets of pools as bits: R1's eligible set is one AND per 64 pools.

use super::arena::{Ix, PoolIx};

/// A set of pools.
#[derive(Debug, Default)]
pub(super) struct Mask(Vec<u64>);

impl Mask {
    pub(super) fn set(&mut self, pool: PoolIx, member: bool) {
        let (word, bit) = (pool.at() / 64, 1 << (pool.at() % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if member {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(super) const fn words(&self) -> usize {
        self.0.len()
    }

    /// The given 64 pools, as bits.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

/// The pools of a word.
pub(super) fn pools(at: usize, mut bits: u64) -> impl Iterator<Item = PoolIx> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        let word = u32::try_from(at).unwrap_or(u32::MAX);
        (bit < 64).then(|| PoolIx::new(word.saturating_mul(64) + bit))
    })
}
