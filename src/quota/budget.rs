//! Budgets: what may be spent per day, month or lifetime, by the UTC calendar.
//!
//! A request belongs to the period in which it began, as its ledger row does. All three periods are counted for
//! everybody at all times, so a budget that is set or changed in the middle of a month knows what was spent before it.
//! What is held by running requests is counted apart and belongs to no period.
//!
//! The last few days and months are kept, not only the present ones: a wall clock that jumps ahead and back again finds
//! the period it returns to as it was left.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::units::{PicoUsd, UnixMs};

/// When a budget starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// At midnight.
    Day,
    /// On the first of the month.
    Month,
    /// Never.
    Lifetime,
}

/// An amount of both things that budgets count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sum {
    /// Money.
    pub cost: PicoUsd,
    /// Input and output tokens together.
    pub tokens: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.cost = PicoUsd(self.cost.0.saturating_add(other.cost.0));
        self.tokens = self.tokens.saturating_add(other.tokens);
    }

    fn take_off(&mut self, other: Self) {
        debug_assert!(
            self.cost >= other.cost && self.tokens >= other.tokens,
            "given back more than was held"
        );
        self.cost = PicoUsd(self.cost.0.saturating_sub(other.cost.0));
        self.tokens = self.tokens.saturating_sub(other.tokens);
    }
}

/// The budget itself; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// The period of both.
    pub period: Period,
    /// Money.
    pub cost: Option<PicoUsd>,
    /// Input and output tokens together.
    pub tokens: Option<u64>,
}

/// The budget is used up until the period ends; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget is used up")]
pub struct Exhausted {
    /// Time to the end of the period.
    pub reset_after: Option<Duration>,
}

/// What a running request holds of a budget; to be given to [`Spent::release`] once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held(Sum);

impl Held {
    /// What requests of another process hold together, as its [`Spent`] said when it was handed over.
    #[must_use]
    pub const fn elsewhere(sum: Sum) -> Self {
        Self(sum)
    }

    /// How much.
    #[must_use]
    pub const fn sum(&self) -> Sum {
        self.0
    }
}

/// The counters of one tenant or key; at first, nothing was ever spent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    days: Counters,
    months: Counters,
    lifetime: Sum,
    held: Sum,
}

/// How many days, and how many months, are kept.
const KEPT: usize = 4;

/// The counters of a few periods of one length, the one that was asked for last in front.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Counters([Counter; KEPT]);

/// What was spent in one period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    starts: UnixMs,
    ends: UnixMs,
    sum: Sum,
}

impl Spent {
    /// What a request of `estimate` would hold. Its input must fit; of its guessed output as much is held as is left, so
    /// that a guess alone refuses nobody. A request that costs nothing is not refused for want of money.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn check(&mut self, cap: &Cap, input_tokens: u64, estimate: Sum, wall: UnixMs) -> Result<Held, Exhausted> {
        let (spent, ends) = self.of(cap.period, wall);
        let exhausted = Exhausted {
            reset_after: ends.map(|ends| Duration::from_millis(u64::try_from(ends.0.saturating_sub(wall.0)).unwrap_or(0))),
        };
        let mut held = estimate;
        if let Some(limit) = cap.tokens {
            let left = limit.saturating_sub(spent.tokens.saturating_add(self.held.tokens));
            if left < input_tokens.max(1) {
                return Err(exhausted);
            }
            held.tokens = held.tokens.min(left);
        }
        if let Some(PicoUsd(limit)) = cap.cost {
            let left = limit.saturating_sub(spent.cost.0.saturating_add(self.held.cost.0));
            if left == 0 && estimate.cost.0 > 0 {
                return Err(exhausted);
            }
            held.cost = PicoUsd(held.cost.0.min(left));
        }
        Ok(Held(held))
    }

    /// Holds what [`check`](Self::check) says, until it is [released](Self::release).
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn hold(&mut self, cap: &Cap, input_tokens: u64, estimate: Sum, wall: UnixMs) -> Result<Held, Exhausted> {
        let held = self.check(cap, input_tokens, estimate, wall)?;
        self.held.add(held.0);
        Ok(held)
    }

    /// Gives back what a request held.
    pub fn release(&mut self, held: Held) {
        self.held.take_off(held.0);
    }

    /// Counts what a request that began at `began` used.
    pub fn count(&mut self, used: Sum, began: UnixMs) {
        self.count_in_periods(used, began);
        self.count_for_life(used);
    }

    /// Counts what was used around `began` in its day and month only. A period long past, such as the one in which a stream of
    /// days began, is of interest to nobody and must not take the place of one that is.
    pub fn count_in_periods(&mut self, used: Sum, began: UnixMs) {
        for (counters, period) in [(&mut self.days, Period::Day), (&mut self.months, Period::Month)] {
            if !counters.are_all_after(began) {
                counters.at(period, began).sum.add(used);
            }
        }
    }

    /// Counts what was used at some time, in no day and no month.
    pub fn count_for_life(&mut self, used: Sum) {
        self.lifetime.add(used);
    }

    /// What was spent in a period up to `wall`, without what is held.
    #[must_use]
    pub fn spent(&mut self, period: Period, wall: UnixMs) -> Sum {
        self.of(period, wall).0
    }

    /// What running requests hold.
    #[must_use]
    pub const fn held(&self) -> Sum {
        self.held
    }

    /// What was spent in the period of `wall`, and when that ends.
    fn of(&mut self, period: Period, wall: UnixMs) -> (Sum, Option<UnixMs>) {
        let counter = match period {
            Period::Day => self.days.at(period, wall),
            Period::Month => self.months.at(period, wall),
            Period::Lifetime => return (self.lifetime, None),
        };
        (counter.sum, Some(counter.ends))
    }
}

impl Counters {
    fn are_all_after(&self, wall: UnixMs) -> bool {
        self.0.iter().all(|counter| wall < counter.starts)
    }

    /// The counter of the period that `wall` lies in. One that is not kept starts at nothing, in the place of the one that
    /// is farthest from it in time: where the clock only goes on, of the oldest.
    fn at(&mut self, period: Period, wall: UnixMs) -> &mut Counter {
        let kept = self.0.iter().position(|counter| counter.starts <= wall && wall < counter.ends);
        let place = kept.unwrap_or_else(|| {
            let far = |counter: &Counter| counter.starts.0.abs_diff(wall.0);
            let (place, _) = self
                .0
                .iter()
                .enumerate()
                .max_by_key(|(_, counter)| far(counter))
                .unwrap_or((0, &UNUSED));
            self.0[place] = Counter::new(period, wall);
            place
        });
        self.0[..=place].rotate_right(1);
        &mut self.0[0]
    }
}

/// A period that contains no time.
const UNUSED: Counter = Counter {
    starts: UnixMs(i64::MIN),
    ends: UnixMs(i64::MIN),
    sum: Sum {
        cost: PicoUsd(0),
        tokens: 0,
    },
};

impl Default for Counter {
    fn default() -> Self {
        UNUSED
    }
}

impl Counter {
    fn new(period: Period, wall: UnixMs) -> Self {
        let (starts, ends) = span(period, wall);
        Self {
            starts,
            ends,
            sum: Sum::default(),
        }
    }
}

/// The first millisecond of the period that `wall` lies in, and the first of the next.
#[must_use]
pub fn span(period: Period, wall: UnixMs) -> (UnixMs, UnixMs) {
    const ALWAYS: (UnixMs, UnixMs) = (UnixMs(i64::MIN), UnixMs(i64::MAX));
    let Ok(at) = Timestamp::from_millisecond(wall.0) else {
        return ALWAYS; // beyond the year 9999
    };
    let date = at.to_zoned(TimeZone::UTC).date();
    let (starts, length) = match period {
        Period::Day => (date, 1.day()),
        Period::Month => (date.first_of_month(), 1.month()),
        Period::Lifetime => return ALWAYS,
    };
    let ends = starts.checked_add(length).ok().and_then(midnight).unwrap_or(ALWAYS.1);
    (midnight(starts).unwrap_or(ALWAYS.0), ends)
}

fn midnight(date: Date) -> Option<UnixMs> {
    let zoned = date.to_zoned(TimeZone::UTC).ok()?;
    Some(UnixMs(zoned.timestamp().as_millisecond()))
}
