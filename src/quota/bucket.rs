//! An exact token bucket whose whole state is one `u64`.
//!
//! The generic cell rate algorithm (ITU-T I.371) keeps one number, the theoretical arrival time. Kept in nanoseconds it
//! rounds: seven cells a minute have no whole interval, and the seventh request at a full bucket would be refused. Here
//! the axis is turned: time is counted *in tokens*. [`Rate::reached`] is how many tokens have flowed in up to `now`, the
//! mark is how far they are spent, and both are whole. A bucket is full while its mark is not past `reached`, and empty
//! when the mark is one limit past it.
//!
//! The axis goes on without a jump when the limit changes, so a reader that still holds the old [`Rate`] does no harm.
//!
//! A refund moves the mark back, and a mark before `reached` counts as a full bucket. What was held while the bucket
//! refilled to the brim comes back as room of now; what is bounded is what was taken *less what was given back*, in every
//! stretch of time.

use std::num::NonZeroU64;
use std::time::Duration;

/// Nanoseconds in the minute that quotas are counted by.
pub const MINUTE_NS: u64 = 60_000_000_000;

/// The largest limit per minute that is told from a larger one.
pub const LIMIT_MAX: u64 = 1 << 40;

/// The mark of a bucket that nothing was ever taken from.
pub const FULL: u64 = 0;

/// Where the axis of a bucket starts. Far from zero: what a ledger remembers lies before it, and after a limit was
/// lowered, refunds counted under the higher one may move a mark to before it.
const START: u64 = 1 << 61;

// Ten years at the largest limit do not run off the axis.
const _: () = assert!(LIMIT_MAX < (u64::MAX - START) / (10 * 366 * 24 * 60));

/// A point of monotonic time: nanoseconds since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Takes a time since the process began; past 584 years it stands still.
    #[must_use]
    pub fn from_start(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Refused now; the same amount passes after this time, and not a nanosecond earlier, if nothing else is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("passes in {0:?}")]
pub struct Wait(pub Duration);

/// What a bucket shows to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its size, which is also what flows in per minute.
    pub limit: u64,
    /// What may be taken now; 0 while in debt.
    pub remaining: u64,
    /// How long until it is full.
    pub reset: Duration,
}

/// How a bucket refills: `limit` tokens a minute, evenly, from a point of its axis on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    limit: u64,
    base: u64,
    since: Moment,
}

impl Rate {
    /// A bucket of `limit` per minute (1 to [`LIMIT_MAX`]; more counts as that). Its first mark is [`FULL`].
    #[must_use]
    pub fn new(limit: NonZeroU64, now: Moment) -> Self {
        Self {
            limit: limit.get().min(LIMIT_MAX),
            base: START,
            since: now,
        }
    }

    /// The same axis under another limit from `now` on. At most one token that had not flowed in whole is lost.
    #[must_use]
    pub fn changed(&self, limit: NonZeroU64, now: Moment) -> Self {
        Self {
            limit: limit.get().min(LIMIT_MAX),
            base: self.reached(now),
            since: now.max(self.since),
        }
    }

    /// The bucket's size, and what flows in per minute.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The point of the axis that refilling has reached.
    #[must_use]
    pub fn reached(&self, now: Moment) -> u64 {
        let elapsed = now.0.saturating_sub(self.since.0);
        self.base.saturating_add(self.flowed(elapsed))
    }

    /// Takes `amount` (at most the limit; more never passes) and returns the new mark.
    ///
    /// # Errors
    /// [`Wait`] when the bucket holds less: the least time after which it holds enough.
    pub fn take(&self, mark: u64, amount: u64, now: Moment) -> Result<u64, Wait> {
        debug_assert!(amount <= self.limit, "callers cap a reservation at the bucket's size");
        let reached = self.reached(now);
        let taken = mark.max(reached).saturating_add(amount);
        if taken - reached <= self.limit {
            return Ok(taken);
        }
        Err(Wait(self.until(taken - self.limit, now)))
    }

    /// Charges what was used beyond a reservation. Never refused: the bucket goes into debt, at most by its own size.
    #[must_use]
    pub fn charge(&self, mark: u64, amount: u64, now: Moment) -> u64 {
        self.charged(mark, amount, self.reached(now))
    }

    /// [`charge`](Self::charge) for what was used some time ago, before this process began: what has flowed in since is
    /// there again. Charges come in the order of time.
    #[must_use]
    pub fn charge_past(&self, mark: u64, amount: u64, ago: Duration, now: Moment) -> u64 {
        let since = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
        self.charged(mark, amount, self.reached(now).saturating_sub(self.flowed(since)))
    }

    /// What to give back when this rate takes over from `before`, so that a lowered limit leaves the same *part* of the
    /// bucket spent as before (rounded up). A raised limit gives nothing back: what was spent stays spent, and the new
    /// room is there at once.
    #[must_use]
    pub fn forgiven(&self, before: &Self, mark: u64, now: Moment) -> u64 {
        if self.limit >= before.limit {
            return 0;
        }
        let spent = mark.saturating_sub(before.reached(now));
        let part = (u128::from(spent) * u128::from(self.limit)).div_ceil(u128::from(before.limit));
        spent - saturated(part)
    }

    /// What its owner may know.
    #[must_use]
    pub fn window(&self, mark: u64, now: Moment) -> Window {
        Window {
            limit: self.limit,
            remaining: self.limit.saturating_sub(mark.saturating_sub(self.reached(now))),
            reset: self.until(mark, now),
        }
    }

    /// Whole tokens that flow in within so many nanoseconds.
    fn flowed(&self, elapsed_ns: u64) -> u64 {
        saturated(u128::from(elapsed_ns) * u128::from(self.limit) / u128::from(MINUTE_NS))
    }

    fn charged(&self, mark: u64, amount: u64, reached: u64) -> u64 {
        let bound = reached.saturating_add(2 * self.limit);
        mark.max(reached).saturating_add(amount).min(bound).max(mark)
    }

    /// How long until refilling reaches `target`.
    fn until(&self, target: u64, now: Moment) -> Duration {
        let missing = u128::from(target.saturating_sub(self.base));
        let elapsed = (missing * u128::from(MINUTE_NS)).div_ceil(u128::from(self.limit));
        let at = u128::from(self.since.0) + elapsed;
        Duration::from_nanos(saturated(at.saturating_sub(u128::from(now.0))))
    }
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
