//! Sums of token buckets and budgets: what a tenant or key may still take, and when it may take more.
//!
//! Four rules, each arithmetic on plain integers with `now` as an argument:
//!
//! - [`Rate`] over a mark: a token bucket that holds one minute's quota and refills evenly ([`bucket`]).
//! - [`Spent`] under a [`Cap`]: money and tokens per day, month or lifetime, in UTC ([`budget`]).
//! - [`steady`]: calendar time that a step of the wall clock does not move.
//! - [`estimate`]: how much to reserve before anybody knows what a request will use.
//!
//! Invariant: **never more than the bucket and its refill.** In any stretch of time, what was taken less what was given
//! back in it is at most the bucket's size plus what refilled meanwhile.

pub mod bucket;
pub mod budget;
pub mod estimate;
pub mod steady;

pub use bucket::{Moment, Rate, Wait, Window};
pub use budget::{Cap, Exhausted, Held, Period, Spent, Sum};

#[cfg(test)]
mod tests;
