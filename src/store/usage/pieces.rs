//! Cutting a stretch of time into pieces that roll-ups know, and remainders.

use super::super::ledger::rollup::{DAY_MS, FIVE_MS, HOUR_MS, MINUTE_MS};

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

/// From when on the finer sources are all there. Multiples of an hour and of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) minutes_from: i64,
    pub(super) rows_from: i64,
}

impl Kept {
    /// Nothing was pruned.
    #[cfg(test)]
    const ALL: Self = Self {
        minutes_from: i64::MIN,
        rows_from: i64::MIN,
    };
}

/// Cuts `from..to` into pieces, ascending, none of a level that does not divide `width` (of any level without a width)
/// unless nothing finer is kept. There, remainders are taken whole: a part of an hour is its hour.
pub(super) fn pieces(from: i64, to: i64, width: Option<i64>, kept: Kept) -> Vec<Piece> {
    let levels = |finest: i64| -> Vec<i64> {
        // Without a width only the ends are fine, and an hour's end has too few minutes to be worth a further piece.
        let divides = |level: i64| level == finest || width.map_or(level != FIVE_MS, |width| width % level == 0);
        [DAY_MS, HOUR_MS, FIVE_MS, MINUTE_MS]
            .into_iter()
            .filter(|level| *level >= finest && divides(*level))
            .collect()
    };
    let (minutes, rows) = (kept.minutes_from, kept.rows_from.max(kept.minutes_from));
    let mut all = Vec::new();
    if from >= to {
        return all;
    }
    if from < minutes {
        cut(floor(from, HOUR_MS), ceil(to.min(minutes), HOUR_MS), &levels(HOUR_MS), &mut all);
    }
    let from = from.max(minutes);
    if from < rows && from < to {
        cut(floor(from, MINUTE_MS), ceil(to.min(rows), MINUTE_MS), &levels(MINUTE_MS), &mut all);
    }
    cut(from.max(rows), to, &levels(0), &mut all);
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
            let all = pieces(from, from + length, None, Kept::ALL);
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

        #[test]
        fn what_is_not_kept_is_read_from_what_is(from in 0..DAY_MS * 9, length in 1..DAY_MS * 9, minutes in 0..200i64, rows in 0..20_000i64, width in prop::option::of(prop::sample::select(vec![10_000, MINUTE_MS, 5 * MINUTE_MS, DAY_MS]))) {
            let kept = Kept { minutes_from: minutes * HOUR_MS, rows_from: rows * MINUTE_MS };
            let all = pieces(from, from + length, width, kept);
            prop_assert!(all[0].from <= from && all[0].from > from - HOUR_MS);
            let last = all.last().unwrap().to;
            prop_assert!(last >= from + length && last < from + length + HOUR_MS);
            prop_assert!(all.windows(2).all(|two| two[0].to == two[1].from), "{all:?}");
            for piece in &all {
                let allowed = match piece.source {
                    Source::Rows => kept.rows_from.max(kept.minutes_from),
                    Source::Level(MINUTE_MS | FIVE_MS) => kept.minutes_from,
                    Source::Level(_) => i64::MIN,
                };
                prop_assert!(piece.from >= allowed, "{piece:?}");
            }
        }
    }
}
