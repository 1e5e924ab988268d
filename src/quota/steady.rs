//! Calendar time for budgets that a step of the wall clock does not move.
//!
//! A budget's day and month are the calendar's, so they need the wall clock; but a clock that is set wrong for a while
//! (an operator's slip, a virtual machine, a bad time server) must not open the next day's budget early or close this
//! one's. So the wall clock is followed where it goes on evenly, as it does while it is slewed, and a step is not believed
//! until it has stood for [`TRUST_NS`] of monotonic time. Until then time goes on evenly from before the step.
//!
//! Monotonic time stands still while a machine is suspended, so waking up is a step as well.

use super::Moment;
use crate::units::UnixMs;

/// How far apart from its even course the wall clock may be found and still be followed, in milliseconds. More than a
/// leap second.
pub const SLEW_MS: i64 = 2_000;

/// How long a step must have stood before it is believed: an hour.
pub const TRUST_NS: u64 = 3_600_000_000_000;

/// A step of the wall clock that is not believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    offset_ms: i64,
    since: Moment,
}

/// What a look at the wall clock amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It went on evenly: what it says is the time, and its offset from now on is this.
    Even(i64),
    /// It has made a step that is not believed; to be remembered for the next look.
    Doubted(Doubt),
}

/// Wall-clock time minus monotonic time, in milliseconds: constant while the wall clock goes on evenly.
#[must_use]
pub fn offset_ms(wall: UnixMs, now: Moment) -> i64 {
    wall.0.saturating_sub(ms(now))
}

/// The time that an offset means now.
#[must_use]
pub fn at_offset(offset_ms: i64, now: Moment) -> UnixMs {
    UnixMs(offset_ms.saturating_add(ms(now)))
}

/// Judges what the wall clock says against the offset it had and the step that is in doubt, if one is.
#[must_use]
pub fn judge(offset_ms: i64, doubt: Option<Doubt>, wall: UnixMs, now: Moment) -> Course {
    let told = self::offset_ms(wall, now);
    let near = |offset: i64| told.abs_diff(offset) <= SLEW_MS.unsigned_abs();
    if near(offset_ms) {
        return Course::Even(told);
    }
    match doubt {
        Some(doubt) if near(doubt.offset_ms) => {
            if now.0.saturating_sub(doubt.since.0) >= TRUST_NS {
                return Course::Even(told);
            }
            Course::Doubted(Doubt { offset_ms: told, ..doubt })
        }
        Some(_) | None => Course::Doubted(Doubt {
            offset_ms: told,
            since: now,
        }),
    }
}

fn ms(now: Moment) -> i64 {
    i64::try_from(now.0 / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const SECOND_NS: u64 = 1_000_000_000;
    const WALL: i64 = 1_795_500_000_000;

    #[test]
    fn a_slewed_clock_is_followed() {
        let mut offset = WALL;
        for second in 0..10_000 {
            let wall = UnixMs(WALL + second * 1_100);
            let now = Moment(u64::try_from(second).unwrap() * SECOND_NS);
            let Course::Even(next) = judge(offset, None, wall, now) else {
                unreachable!("a tenth of a second per second is no step")
            };
            assert_eq!(at_offset(next, now), wall);
            offset = next;
        }
    }

    #[test]
    fn a_step_is_not_believed_until_it_has_stood_for_an_hour_and_one_taken_back_never() {
        let (mut doubt, mut even) = (None, 0);
        for minute in 0..=60u64 {
            let now = Moment(minute * 60 * SECOND_NS);
            let wall = UnixMs(WALL + i64::try_from(minute).unwrap() * 60_000 + 10 * HOUR_MS);
            match judge(WALL, doubt, wall, now) {
                Course::Doubted(step) => doubt = Some(step),
                Course::Even(offset) => {
                    assert_eq!((minute, offset), (60, WALL + 10 * HOUR_MS));
                    even += 1;
                }
            }
        }
        assert_eq!(even, 1);
        let back = Moment(61 * 60 * SECOND_NS);
        assert_eq!(judge(WALL, doubt, at_offset(WALL, back), back), Course::Even(WALL));
    }

    #[test]
    fn another_step_starts_the_hour_anew() {
        let Course::Doubted(first) = judge(WALL, None, UnixMs(WALL + HOUR_MS), Moment(0)) else {
            unreachable!("an hour is a step")
        };
        let late = Moment(TRUST_NS);
        let Course::Doubted(second) = judge(WALL, Some(first), UnixMs(WALL + 9 * HOUR_MS), late) else {
            unreachable!("this one is new")
        };
        assert_eq!(second.since, late);
    }
}
