//! Latency histograms with fixed buckets: they merge by addition, so percentiles over any stretch are those of the
//! requests, never averages of percentiles.
//!
//! Buckets are log-linear, as in HdrHistogram: exact below 16 ms, then sixteen per octave up to 2³² ms, so a percentile
//! is at most 6.25 % above the truth. On disk only what is not empty: pairs of (distance from the previous bucket, count)
//! as LEB128 varints.

use std::collections::BTreeMap;

const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.ilog2();
const MS_MAX: u64 = (1 << 32) - 1;

/// Counts per bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: BTreeMap<u16, u64>,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, ms: u64) {
        *self.counts.entry(bucket(ms)).or_default() += 1;
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            add(self.counts.entry(*bucket).or_default(), *count);
        }
    }

    /// Adds counts as [`encode`](Self::encode) wrote them. Stops at what it does not understand.
    pub fn merge_encoded(&mut self, mut bytes: &[u8]) {
        let mut at = 0u64;
        while let (Some(distance), Some(count)) = (varint(&mut bytes), varint(&mut bytes)) {
            at = at.saturating_add(distance);
            let Ok(bucket) = u16::try_from(at) else { return };
            add(self.counts.entry(bucket).or_default(), count);
        }
    }

    /// Its bytes on disk; empty for no counts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 * self.counts.len());
        let mut before = 0;
        for (bucket, count) in &self.counts {
            put_varint(&mut bytes, u64::from(bucket - before));
            put_varint(&mut bytes, *count);
            before = *bucket;
        }
        bytes
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The duration in milliseconds that `percent` of the requests do not exceed: the top of their bucket. `None` when
    /// nothing was counted.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| top(*bucket))
        })
    }
}

fn add(to: &mut u64, count: u64) {
    *to = to.saturating_add(count);
}

fn bucket(ms: u64) -> u16 {
    let ms = ms.min(MS_MAX);
    let index = if ms < STEPS {
        ms
    } else {
        let octave = ms.ilog2() - STEP_BITS;
        STEPS * u64::from(octave + 1) + (ms >> octave) - STEPS
    };
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// The largest duration in a bucket.
fn top(bucket: u16) -> u64 {
    let index = u64::from(bucket);
    if index < STEPS {
        return index;
    }
    let octave = index / STEPS - 1;
    ((index % STEPS + STEPS + 1) << octave) - 1
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_histogram_has_no_percentile_and_no_bytes() {
        assert_eq!(Histogram::default().percentile(50), None);
        assert!(Histogram::default().encode().is_empty());
    }

    proptest! {
        #[test]
        fn a_percentile_is_at_most_a_sixteenth_above_the_truth(mut all in prop::collection::vec(0u64..4_000_000, 1..200), percent in 1u64..=100) {
            let mut histogram = Histogram::default();
            for ms in &all {
                histogram.record(*ms);
            }
            all.sort_unstable();
            let rank = (all.len() * usize::try_from(percent).unwrap()).div_ceil(100).max(1);
            let truth = all[rank - 1];
            let shown = histogram.percentile(percent).unwrap();
            prop_assert!(shown >= truth && shown - truth <= truth / 16, "{shown} for {truth}");
        }

        #[test]
        fn merged_from_disk_is_as_if_counted_at_once(a in prop::collection::vec(any::<u64>(), 0..60), b in prop::collection::vec(0u64..100_000, 0..60)) {
            let of = |all: &[u64]| {
                let mut histogram = Histogram::default();
                for ms in all {
                    histogram.record(*ms);
                }
                histogram
            };
            let mut merged = Histogram::default();
            merged.merge_encoded(&of(&a).encode());
            merged.merge_encoded(&of(&b).encode());
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
