//! How fast an address answers compared with its peers: what tells a limping server from a busy one.
//!
//! Two averages, either of which can convict: time to the first byte, and time per output token over whole answers. They
//! are compared with the median of the peers only, so a model that is slow everywhere has no slow address. Updates may
//! lose a race against each other; averages do not mind.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Averages follow with 1/8 of each sample: eight samples make a change of speed two thirds visible.
const SHARE: u64 = 8;
/// Fewer samples convict nobody.
const SAMPLES_MIN: u32 = 8;
/// An address this many tenths slower than the median of its peers is penalised …
const SLOW_TENTHS: u64 = 25;
/// … until it is less than this many.
const FINE_TENTHS: u64 = 17;
/// The greatest penalty.
pub(super) const PENALTY_MAX: u32 = 64;

/// The averages of one address.
#[derive(Debug, Default)]
pub struct Speed {
    samples: AtomicU32,
    first_byte_us: AtomicU64,
    answer_us: AtomicU64,
    answer_tokens_milli: AtomicU64,
    penalty: AtomicU32,
}

impl Speed {
    /// The head of an answer came this long after the request was sent.
    pub fn first_byte(&self, latency: Duration) {
        follow(&self.first_byte_us, micros(latency));
        self.samples.fetch_add(1, Ordering::Relaxed);
    }

    /// A whole answer took this long and had this many tokens.
    pub fn answer(&self, latency: Duration, tokens: u64) {
        follow(&self.answer_us, micros(latency));
        follow(&self.answer_tokens_milli, tokens.saturating_mul(1000));
    }

    /// Output tokens that an answer has after so long, by the average of whole answers; 0 before there was one.
    #[must_use]
    pub fn tokens_in(&self, time: Duration) -> u64 {
        let answer_us = self.answer_us.load(Ordering::Relaxed);
        let tokens_milli = u128::from(self.answer_tokens_milli.load(Ordering::Relaxed));
        let tokens = time
            .as_micros()
            .saturating_mul(tokens_milli)
            .checked_div(u128::from(answer_us))
            .unwrap_or(0)
            / 1000;
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// Forgets: the server behind the address was replaced or restarted.
    pub fn reset(&self) {
        for average in [&self.first_byte_us, &self.answer_us, &self.answer_tokens_milli] {
            average.store(0, Ordering::Relaxed);
        }
        self.samples.store(0, Ordering::Relaxed);
        self.penalty.store(0, Ordering::Relaxed);
    }

    /// By how much it is to be avoided; 1 is not at all.
    #[must_use]
    pub fn penalty(&self) -> u32 {
        self.penalty.load(Ordering::Relaxed).max(1)
    }

    /// Judges all addresses of a model against each other. Returns whether a penalty changed.
    pub fn judge(all: &[&Self]) -> bool {
        let first_bytes: Vec<_> = all
            .iter()
            .map(|speed| speed.known(speed.first_byte_us.load(Ordering::Relaxed)))
            .collect();
        let per_token: Vec<_> = all.iter().map(|speed| speed.token_time_ns()).collect();
        let mut changed = false;
        for (index, speed) in all.iter().enumerate() {
            let tenths = slowness(&first_bytes, index).max(slowness(&per_token, index));
            let before = speed.penalty();
            let threshold = if before > 1 { FINE_TENTHS } else { SLOW_TENTHS };
            let after = if tenths < threshold {
                1
            } else {
                // Squared: one five times slower must be 25 times emptier, so it stays out of the 99th percentile.
                u32::try_from(tenths * tenths / 100).unwrap_or(PENALTY_MAX).clamp(2, PENALTY_MAX)
            };
            speed.penalty.store(after, Ordering::Relaxed);
            changed |= before != after;
        }
        changed
    }

    /// The mean time per output token over whole answers, in nanoseconds, once it is known.
    #[must_use]
    pub fn token_time_ns(&self) -> Option<u64> {
        self.known(self.token_ns())
    }

    fn token_ns(&self) -> u64 {
        let tokens_milli = self.answer_tokens_milli.load(Ordering::Relaxed);
        self.answer_us
            .load(Ordering::Relaxed)
            .saturating_mul(1_000_000)
            .checked_div(tokens_milli)
            .unwrap_or(0)
    }

    fn known(&self, average: u64) -> Option<u64> {
        (average > 0 && self.samples.load(Ordering::Relaxed) >= SAMPLES_MIN).then_some(average)
    }
}

/// How many tenths of the median of the others.
fn slowness(all: &[Option<u64>], index: usize) -> u64 {
    let Some(own) = all.get(index).copied().flatten() else { return 10 };
    let mut others: Vec<u64> = all
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != index)
        .filter_map(|(_, value)| *value)
        .collect();
    others.sort_unstable();
    // The lower of two medians: two healthy peers and one sick one must not make the sick one the measure.
    match others.get(others.len().saturating_sub(1) / 2) {
        Some(median) => own.saturating_mul(10) / (*median).max(1),
        None => 10,
    }
}

fn follow(average: &AtomicU64, sample: u64) {
    let before = average.load(Ordering::Relaxed);
    let after = if before == 0 {
        sample
    } else {
        (before * (SHARE - 1) + sample) / SHARE
    };
    average.store(after.max(1), Ordering::Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / SHARE).min(u64::MAX / SHARE)
}
