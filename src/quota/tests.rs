//! The invariants of buckets and budgets.
use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::bucket::{FULL, LIMIT_MAX, MINUTE_NS};
use super::estimate::{ExceedsQuota, MeanOutput, output_tokens, reservation};
use super::*;
use crate::units::{PicoUsd, UnixMs};

fn rate(limit: u64) -> Rate {
    Rate::new(NonZeroU64::new(limit).unwrap(), Moment(0))
}

#[test]
fn a_bucket_holds_exactly_one_minute_of_an_odd_limit() {
    for limit in [1, 3, 7, 59, 61, 1_000_003, LIMIT_MAX] {
        let rate = rate(limit);
        let mark = rate.take(FULL, limit, Moment(5)).unwrap();
        assert_eq!(rate.window(mark, Moment(5)).remaining, 0);
        let Wait(wait) = rate.take(mark, 1, Moment(5)).unwrap_err();
        assert!(wait <= Duration::from_nanos(MINUTE_NS.div_ceil(limit)));
        let refilled = Moment(5 + MINUTE_NS);
        assert_eq!(rate.window(mark, refilled).remaining, limit);
        assert_eq!(rate.window(mark, refilled).reset, Duration::ZERO);
    }
}

#[test]
fn the_bucket_is_full_again_when_it_says_so_and_not_before() {
    let rate = rate(7);
    let mark = rate.take(FULL, 5, Moment(1)).unwrap();
    let reset = u64::try_from(rate.window(mark, Moment(1)).reset.as_nanos()).unwrap();
    assert_eq!(rate.window(mark, Moment(1 + reset)).remaining, 7);
    assert_eq!(rate.window(mark, Moment(reset)).remaining, 6);
}

#[test]
fn debt_is_at_most_one_bucket() {
    let rate = rate(100);
    let mark = rate.charge(FULL, 1_000_000, Moment(0));
    assert_eq!(rate.window(mark, Moment(0)).remaining, 0);
    assert_eq!(rate.window(mark, Moment(0)).reset, Duration::from_secs(120));
    assert_eq!(rate.take(mark, 100, Moment(0)), Err(Wait(Duration::from_secs(120))));
    assert_eq!(rate.charge(mark, 5, Moment(0)), mark, "more debt than a bucket is forgiven");
}

#[test]
fn a_raised_limit_gives_room_at_once_and_a_lowered_one_keeps_the_part_spent() {
    let low = rate(100);
    let now = Moment(MINUTE_NS);
    let mark = low.take(FULL, 100, now).unwrap();
    let high = low.changed(NonZeroU64::new(1_000).unwrap(), now);
    assert_eq!(high.forgiven(&low, mark, now), 0);
    assert_eq!(high.window(mark, now).remaining, 900);

    let mark = high.take(mark, 400, now).unwrap();
    let lowered = high.changed(NonZeroU64::new(10).unwrap(), now);
    let mark = mark - lowered.forgiven(&high, mark, now);
    assert_eq!(lowered.window(mark, now).remaining, 5, "half was spent, half is spent");
}

#[test]
fn a_guess_makes_no_request_impossible_but_an_input_can() {
    assert_eq!(reservation(10, 5_000, 100), Ok(100));
    assert_eq!(reservation(100, 1, 100), Ok(100));
    assert_eq!(reservation(101, 0, 100), Err(ExceedsQuota));
    assert_eq!(output_tokens(Some(1), 256), 1);
    assert_eq!(output_tokens(Some(4_096), 256), 256);
    assert_eq!(output_tokens(None, 256), 256);
}

#[test]
fn the_mean_output_starts_at_256_and_follows_what_it_sees() {
    let mut mean = MeanOutput::default();
    assert_eq!(mean.tokens(), 256);
    for _ in 0..100 {
        mean = mean.with(16);
    }
    assert_eq!(mean.tokens(), 17, "within one token, from above");
    assert!(mean.with(0).with(u64::MAX).tokens() > 1 << 36, "counted as 2^40, not wrapped");
}

fn at(text: &str) -> UnixMs {
    UnixMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

#[test]
fn periods_follow_the_calendar_in_utc() {
    let leap = at("2028-02-29T23:59:59.999Z");
    assert_eq!(
        budget::span(Period::Day, leap),
        (at("2028-02-29T00:00:00Z"), at("2028-03-01T00:00:00Z"))
    );
    assert_eq!(
        budget::span(Period::Month, leap),
        (at("2028-02-01T00:00:00Z"), at("2028-03-01T00:00:00Z"))
    );
    assert_eq!(
        budget::span(Period::Month, at("2026-12-31T12:00:00Z")).1,
        at("2027-01-01T00:00:00Z")
    );
    assert_eq!(
        budget::span(Period::Day, UnixMs(-1)),
        (at("1969-12-31T00:00:00Z"), UnixMs(0)),
        "before 1970 too"
    );
}

const fn tokens(tokens: u64) -> Sum {
    Sum { cost: PicoUsd(0), tokens }
}

const fn daily(tokens: u64) -> Cap {
    Cap {
        period: Period::Day,
        cost: None,
        tokens: Some(tokens),
    }
}

#[test]
fn a_budget_holds_what_is_left_and_refuses_when_nothing_is() {
    let noon = at("2026-11-24T12:00:00Z");
    let mut spent = Spent::default();
    let cap = daily(100);
    let held = spent.hold(&cap, 10, tokens(266), noon).unwrap();
    assert_eq!(spent.held(), tokens(100), "the guess is cut to what is left");
    let refused = spent.hold(&cap, 1, tokens(1), noon).unwrap_err();
    assert_eq!(refused.reset_after, Some(Duration::from_secs(12 * 3600)));
    spent.release(held);
    spent.count(tokens(30), noon);
    spent.hold(&cap, 70, tokens(70), noon).unwrap();
    assert!(
        spent.hold(&cap, 0, tokens(0), noon).is_err(),
        "used up refuses even an empty request"
    );
}

#[test]
fn a_free_request_passes_a_money_budget_that_is_used_up() {
    let now = at("2026-11-24T12:00:00Z");
    let mut spent = Spent::default();
    let cap = Cap {
        period: Period::Lifetime,
        cost: Some(PicoUsd(5)),
        tokens: None,
    };
    let money = |cost| Sum {
        cost: PicoUsd(cost),
        tokens: 1,
    };
    spent.count(money(5), now);
    assert_eq!(spent.hold(&cap, 1, money(1), now), Err(Exhausted { reset_after: None }));
    assert!(spent.hold(&cap, 1, money(0), now).is_ok());
}

#[test]
fn a_request_belongs_to_the_day_it_began_in() {
    let evening = at("2026-11-24T23:59:00Z");
    let morning = at("2026-11-25T00:01:00Z");
    let mut spent = Spent::default();
    let held = spent.hold(&daily(100), 1, tokens(100), evening).unwrap();
    assert_eq!(spent.spent(Period::Day, morning), tokens(0));
    spent.release(held);
    spent.count(tokens(80), evening);
    assert_eq!(spent.spent(Period::Day, morning), tokens(0), "that day is over");
    assert_eq!(spent.spent(Period::Month, morning), tokens(80));
}

#[test]
fn the_end_of_what_began_days_ago_forgets_no_day_that_counts() {
    let mut spent = Spent::default();
    for day in 25..=28 {
        spent.count(tokens(100), at(&format!("2026-11-{day}T12:00:00Z")));
    }
    for began in ["2026-11-24T12:00:00Z", "2026-07-24T12:00:00Z"] {
        spent.count(tokens(3), at(began));
    }
    assert_eq!(spent.spent(Period::Day, at("2026-11-28T13:00:00Z")), tokens(100));
    assert_eq!(spent.spent(Period::Lifetime, at("2026-11-28T13:00:00Z")), tokens(406));
}

#[test]
fn a_clock_that_jumps_ahead_and_back_finds_each_period_as_it_was() {
    let noon = at("2026-11-24T12:00:00Z");
    let mut spent = Spent::default();
    spent.count(tokens(100), noon);
    assert!(spent.hold(&daily(100), 1, tokens(1), noon).is_err());
    for ahead in [
        "2026-11-24T22:00:00Z",
        "2026-11-25T12:00:00Z",
        "2027-03-01T00:00:00Z",
        "2026-11-23T12:00:00Z",
    ] {
        let ahead = at(ahead);
        spent.count(tokens(7), ahead);
        assert!(
            spent.hold(&daily(100), 1, tokens(1), noon).is_err(),
            "back at noon, used up it stays"
        );
        let used = spent.spent(Period::Day, noon);
        spent.count(tokens(1), noon);
        assert_eq!(
            spent.spent(Period::Day, noon).tokens,
            used.tokens + 1,
            "what is used now is counted"
        );
    }
    assert_eq!(
        spent.spent(Period::Day, at("2026-11-25T00:00:00Z")),
        tokens(7),
        "what was used ahead of its time counts in its time"
    );
    assert_eq!(spent.spent(Period::Month, noon).tokens, 100 + 4 + 7 + 7 + 7, "in November");
}

#[test]
fn a_remembered_charge_has_been_refilled_since() {
    let rate = rate(60);
    let now = Moment(0);
    let mark = rate.charge_past(FULL, 60, Duration::from_secs(90), now);
    let mark = rate.charge_past(mark, 60, Duration::from_secs(30), now);
    assert_eq!(
        rate.window(mark, now).remaining,
        30,
        "the first minute is forgotten, of the second half is there again"
    );
}

proptest! {
    /// Invariant: never more than the bucket and its refill, in any stretch of time, refunds and waits included.
    #[test]
    fn never_more_than_the_bucket_and_its_refill(
        limit in 1u64..2_000,
        steps in prop::collection::vec((0u64..20_000_000_000, 0u64..2_500, any::<bool>()), 1..60),
    ) {
        let rate = rate(limit);
        let (mut mark, mut now) = (FULL, Moment(0));
        // (when, taken as positive, given back as negative)
        let mut log: Vec<(Moment, i128)> = Vec::new();
        let mut held: Vec<u64> = Vec::new();
        for (pause, amount, give_back) in steps {
            now = Moment(now.0 + pause);
            if give_back && let Some(amount) = held.pop() {
                mark -= amount;
                log.push((now, -i128::from(amount)));
            } else if let Ok(taken) = rate.take(mark, amount.min(limit), now) {
                mark = taken;
                held.push(amount.min(limit));
                log.push((now, i128::from(amount.min(limit))));
            }
        }
        for from in 0..log.len() {
            let mut net = 0;
            for to in from..log.len() {
                net += log[to].1;
                let refilled = rate.reached(log[to].0) - rate.reached(log[from].0);
                prop_assert!(net <= i128::from(limit + refilled), "{net} in {from}..={to}");
            }
        }
    }

    #[test]
    fn a_refund_restores_the_bucket_exactly(
        limit in 1u64..1_000_000, spent in 0u64..1_000_000, amount in 0u64..1_000_000, at in 0u64..MINUTE_NS * 3, later in 0u64..MINUTE_NS * 3,
    ) {
        let rate = rate(limit);
        let mark = rate.take(FULL, spent.min(limit), Moment(at)).unwrap();
        if let Ok(taken) = rate.take(mark, amount.min(limit), Moment(at)) {
            let now = Moment(at + later);
            prop_assert_eq!(rate.window(taken - amount.min(limit), now), rate.window(mark, now));
        }
    }

    #[test]
    fn a_wait_is_exactly_the_least_one(
        limit in 1u64..3_000_000, spent in 0u64..6_000_000, amount in 1u64..3_000_000, at in 0u64..MINUTE_NS * 3,
    ) {
        let rate = rate(limit);
        let amount = amount.min(limit);
        let mark = rate.charge(FULL, spent, Moment(at));
        if let Err(Wait(wait)) = rate.take(mark, amount, Moment(at)) {
            let wait = u64::try_from(wait.as_nanos()).unwrap();
            prop_assert!(wait > 0);
            prop_assert!(rate.take(mark, amount, Moment(at + wait)).is_ok());
            prop_assert!(rate.take(mark, amount, Moment(at + wait - 1)).is_err());
        }
    }

    #[test]
    fn a_changed_limit_never_shows_more_than_its_bucket_and_keeps_the_axis(
        before in 1u64..100_000, after in 1u64..100_000, spent in 0u64..200_000, at in 0u64..MINUTE_NS * 2,
    ) {
        let now = Moment(at);
        let old = rate(before);
        let mark = old.charge(FULL, spent, now);
        let new = old.changed(NonZeroU64::new(after).unwrap(), now);
        prop_assert_eq!(new.reached(now), old.reached(now));
        let mark = mark - new.forgiven(&old, mark, now);
        let (was, is) = (old.window(mark, now), new.window(mark, now));
        prop_assert!(is.remaining <= after);
        prop_assert!(after < before || is.remaining >= was.remaining, "raised, it must not take room away");
        prop_assert!(is.reset <= Duration::from_secs(121) || after < before || was.reset <= Duration::from_secs(120));
    }

    /// What is spent and held under a budget is never more than the budget while requests use what they reserved.
    #[test]
    fn held_and_spent_stay_within_the_budget(limit in 1u64..500, steps in prop::collection::vec((1u64..200, any::<bool>()), 1..80)) {
        let now = UnixMs(0);
        let mut spent = Spent::default();
        let mut running = Vec::new();
        for (amount, settle) in steps {
            if settle && let Some((held, used)) = running.pop() {
                spent.release(held);
                spent.count(tokens(used), now);
            } else {
                let before = spent.held().tokens;
                if let Ok(held) = spent.hold(&daily(limit), 1, tokens(amount), now) {
                    running.push((held, spent.held().tokens - before));
                }
            }
            prop_assert!(spent.held().tokens + spent.spent(Period::Day, now).tokens <= limit);
        }
        for (held, _) in running {
            spent.release(held);
        }
        prop_assert_eq!(spent.held(), tokens(0));
    }
}
