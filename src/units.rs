//! Quantities with their ranges: what is checked once, in `new`, need not be checked again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value outside the range of its type. `Display` is fit to be shown to the person who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from {min} to {max}")]
pub struct OutOfRange {
    /// The least value allowed.
    pub min: u64,
    /// The greatest value allowed.
    pub max: u64,
}

/// A share relative to one's siblings: 1 to 1 000 000, default 100. Twice the weight gets twice the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// The least weight.
    pub const MIN: u32 = 1;
    /// The greatest weight.
    pub const MAX: u32 = 1_000_000;

    /// Checks the range.
    ///
    /// # Errors
    /// [`OutOfRange`] outside 1 to 1 000 000.
    pub fn new(value: u64) -> Result<Self, OutOfRange> {
        match u32::try_from(value) {
            Ok(value @ Self::MIN..=Self::MAX) => Ok(Self(value)),
            Ok(_) | Err(_) => Err(OutOfRange {
                min: u64::from(Self::MIN),
                max: u64::from(Self::MAX),
            }),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Money in pico-dollars (10⁻¹² USD): exact for prices of at most twelve decimals, never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PicoUsd(pub u128);

/// A point of wall-clock time in Unix milliseconds. Only for what people and ledgers read: waits, windows and deadlines
/// run on monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMs(pub i64);
