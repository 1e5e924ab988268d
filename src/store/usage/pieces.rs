//! Cutting a stretch of time into pieces that roll-ups know, and remainders.

use super::super::ledger::rollup::{DAY_MS, HOUR_MS, MINUTE_MS};

/// Where a piece is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The rows themselves.
    Rows,
    /// Roll-ups of a level, in milliseconds.
    Level(i64),
}

/// From `from` to before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) source: Source,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Cuts `from..to` into pieces, ascending, none of a level that does not divide `width` (of any level without a width).
pub(super) fn pieces(from: i64, to: i64, width: Option<i64>) -> Vec<Piece> {
    let levels: Vec<i64> = [DAY_MS, HOUR_MS, MINUTE_MS]
        .into_iter()
        .filter(|level| width.is_none_or(|width| width % level == 0))
        .collect();
    let mut all = Vec::new();
    cut(from, to, &levels, &mut all);
    all
}

fn cut(from: i64, to: i64, levels: &[i64], out: &mut Vec<Piece>) {
    if from >= to {
        return;
    }
    let Some((level, finer)) = levels.split_first() else {
        out.push(Piece {
            source: Source::Rows,
            from,
            to,
        });
        return;
    };
    let first = ceil(from, *level);
    let last = floor(to, *level);
    if first >= last {
        return cut(from, to, finer, out);
    }
    cut(from, first, finer, out);
    out.push(Piece {
        source: Source::Level(*level),
        from: first,
        to: last,
    });
    cut(last, to, finer, out);
}

/// The multiple of `step` at or before.
pub(super) const fn floor(ms: i64, step: i64) -> i64 {
    ms.div_euclid(step) * step
}

/// The multiple of `step` at or after.
pub(super) const fn ceil(ms: i64, step: i64) -> i64 {
    floor(ms, step) + if ms.rem_euclid(step) == 0 { 0 } else { step }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_lie_end_to_end_and_remainders_are_short(from in -DAY_MS * 3..DAY_MS * 400, length in 0..DAY_MS * 120) {
            let all = pieces(from, from + length, None);
            let mut at = from;
            for piece in &all {
                prop_assert_eq!(piece.from, at);
                prop_assert!(piece.to > piece.from);
                at = piece.to;
                match piece.source {
                    Source::Rows => prop_assert!(piece.to - piece.from < 2 * MINUTE_MS),
                    Source::Level(level) => {
                        prop_assert_eq!((piece.from % level, piece.to % level), (0, 0));
                        prop_assert!(level == DAY_MS || piece.to - piece.from < 48 * HOUR_MS);
                    }
                }
            }
            prop_assert_eq!(at, from + length);
            prop_assert!(all.len() <= 7);
        }
    }
}
