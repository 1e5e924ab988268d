//! The ranges of counts that several nouns have.

/// The highest quota per minute.
pub(super) const RATE_MAX: u64 = 1_000_000_000_000;
/// The highest cap on requests at once. The lowest is 1 where null means no cap: 0 would make every request wait for nothing.
pub(super) const SLOTS_MAX: u64 = 1_000_000;
/// The highest budget in tokens.
pub(super) const TOKENS_MAX: u64 = 1_000_000_000_000_000_000;
/// The longest time in seconds that something may be waited for.
pub(super) const WAIT_SECS_MAX: u64 = 86_400;
