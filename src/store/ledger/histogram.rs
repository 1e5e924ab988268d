//! Latency histograms with fixed buckets: they merge by addition, so percentiles over any stretch are those of the
//! requests, never averages of percentiles.
//!
//! Buckets are log-linear, as in HdrHistogram: exact below 16 ms, then sixteen per octave up to 2³² ms, so a percentile
//! is at most 6.25 % above the truth. On disk only what is not empty: pairs of (distance from the previous bucket, count)
//! as LEB128 varints.

const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.ilog2();
const MS_MAX: u64 = (1 << 32) - 1;

/// Counts per bucket, as far as there are any: a question about three months merges some ten thousand of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: Vec<u64>,
}

/// One more than the last bucket.
const BUCKETS: usize = 464;
const _: () = assert!(BUCKETS as u64 == STEPS * (MS_MAX.ilog2() as u64 + 1 - STEP_BITS as u64 + 1));

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, ms: u64) {
        self.add(bucket(ms), 1);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// Adds counts as [`encode`](Self::encode) wrote them. Stops at what it does not understand.
    pub fn merge_encoded(&mut self, mut bytes: &[u8]) {
        let mut at = 0u64;
        while let (Some(distance), Some(count)) = (varint(&mut bytes), varint(&mut bytes)) {
            at = at.saturating_add(distance);
            let Ok(bucket) = usize::try_from(at) else { return };
            if bucket >= BUCKETS {
                return;
            }
            self.add(bucket, count);
        }
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if count > 0 && self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(sum) = self.counts.get_mut(bucket) {
            *sum = sum.saturating_add(count);
        }
    }

    /// The buckets that are not empty.
    fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// Its bytes on disk; empty for no counts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut before = 0;
        for (bucket, count) in self.filled() {
            put_varint(&mut bytes, (bucket - before) as u64);
            put_varint(&mut bytes, count);
            before = bucket;
        }
        bytes
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The duration in milliseconds that `percent` of the requests do not exceed: the top of their bucket. `None` when
    /// nothing was counted.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = self.count().saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0_u64;
        self.filled().find_map(|(bucket, count)| {
            seen = seen.saturating_add(count);
            (seen >= rank).then(|| top(bucket))
        })
    }
}

fn bucket(ms: u64) -> usize {
    let ms = ms.min(MS_MAX);
    let index = if ms < STEPS {
        ms
    } else {
        let octave = ms.ilog2() - STEP_BITS;
        STEPS * u64::from(octave + 1) + (ms >> octave) - STEPS
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The largest duration in a bucket.
fn top(bucket: usize) -> u64 {
    let index = bucket as u64;
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

    #[test]
    fn the_longest_duration_is_in_the_last_bucket_and_damage_is_in_none() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let mut histogram = Histogram::default();
        histogram.merge_encoded(&[0xff, 0xff, 0xff, 0x7f, 1]);
        assert_eq!(histogram, Histogram::default());
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
