//! Whether the floods got what their weights entitle them to, while they both had work waiting.

use std::time::Duration;

/// How far a share may be off what its weight entitles to, relatively.
pub(super) const TOLERANCE: f64 = 0.10;

/// One flood: its weight, and its tokens while all floods were backlogged.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Flood {
    pub(super) name: &'static str,
    pub(super) weight: u32,
    pub(super) tokens: u64,
    /// Tokens at the last sample.
    last: u64,
}

/// The floods over the saturated part of a run. Fairness promises nothing to a tenant with nothing to do, so only the time
/// between two samples that both find every flood backlogged counts.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) floods: Vec<Flood>,
    pub(super) saturated: Duration,
    was_backlogged: bool,
}

/// A flood's share of the floods' tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) entitled: f64,
    pub(super) attained: f64,
}

impl Share {
    /// Relative: 0.1 is ten per cent more than entitled.
    pub(super) fn off(&self) -> f64 {
        self.attained / self.entitled - 1.0
    }

    pub(super) fn is_fair(&self) -> bool {
        self.off().abs() <= TOLERANCE
    }
}

impl Verdict {
    /// Over floods given by name and weight.
    pub(super) fn new(floods: &[(&'static str, u32)]) -> Self {
        let floods = floods
            .iter()
            .map(|&(name, weight)| Flood {
                name,
                weight,
                tokens: 0,
                last: 0,
            })
            .collect();
        Self {
            floods,
            saturated: Duration::ZERO,
            was_backlogged: false,
        }
    }

    /// Takes a sample, `elapsed` after the one before: each flood's tokens since the start and how many of its requests wait.
    pub(super) fn sample(&mut self, elapsed: Duration, now: &[(u64, u32)]) {
        let backlogged = now.iter().all(|&(_, queued)| queued > 0);
        for (flood, &(tokens, _)) in self.floods.iter_mut().zip(now) {
            if backlogged && self.was_backlogged {
                flood.tokens += tokens.saturating_sub(flood.last);
            }
            flood.last = tokens;
        }
        if backlogged && self.was_backlogged {
            self.saturated += elapsed;
        }
        self.was_backlogged = backlogged;
    }

    /// The shares, in the order of the floods.
    pub(super) fn shares(&self) -> Vec<Share> {
        let tokens: u64 = self.floods.iter().map(|flood| flood.tokens).sum();
        let weights: u32 = self.floods.iter().map(|flood| flood.weight).sum();
        let share = |flood: &Flood| Share {
            entitled: f64::from(flood.weight) / f64::from(weights),
            attained: flood.tokens as f64 / tokens.max(1) as f64,
        };
        self.floods.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_saturated_time_counts() {
        let mut verdict = Verdict::new(&[("gold", 500), ("bronze", 50)]);
        verdict.sample(SECOND, &[(1000, 5), (0, 0)]);
        verdict.sample(SECOND, &[(2000, 5), (10, 5)]);
        verdict.sample(SECOND, &[(3000, 5), (110, 5)]);
        verdict.sample(SECOND, &[(4000, 5), (210, 5)]);
        verdict.sample(SECOND, &[(4000, 0), (900, 5)]);
        assert_eq!(verdict.saturated, SECOND * 2);
        assert_eq!((verdict.floods[0].tokens, verdict.floods[1].tokens), (2000, 200));
        assert!(verdict.shares().iter().all(Share::is_fair));
    }

    #[test]
    fn a_share_that_is_off_is_unfair() {
        let mut verdict = Verdict::new(&[("gold", 500), ("bronze", 50)]);
        verdict.sample(SECOND, &[(0, 5), (0, 5)]);
        verdict.sample(SECOND, &[(1000, 5), (115, 5)]);
        let shares = verdict.shares();
        assert!(shares[0].is_fair() && !shares[1].is_fair(), "{shares:?}");
        assert!(
            !Verdict::new(&[("gold", 500), ("bronze", 50)]).shares()[0].is_fair(),
            "no tokens are no proof"
        );
    }
}
