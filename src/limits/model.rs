//! Buckets and reservations under every interleaving of a few threads, stale reads included (loom).
//!
//! A reservation is the part of a request's lease that threads share; its other part, the permit, lives under the
//! scheduler's one lock (`admission`). The models run the room's own code on loom's atomics and locks.
use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::thread;

use super::shared::modelled::{BROKEN, MODEL};
use super::tests::{House, NOW, WALL, ask, used};
use super::*;
use crate::catalog::{Budget, BudgetPeriod};
use crate::quota::Period;

/// How often threads are interrupted where they need not wait: most races show with two (Musuvathi and Qadeer, PLDI 2007).
/// So many for two threads take a second, for three a minute.
const PREEMPTIONS: usize = 5;
const PREEMPTIONS_OF_THREE: usize = 2;

fn model(run: impl Fn() + Send + Sync + 'static) {
    bounded_model(PREEMPTIONS, run);
}

fn bounded_model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    MODEL.set(true);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    let outcome = catch_unwind(AssertUnwindSafe(|| builder.check(run)));
    MODEL.set(false);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn budget(tokens: u64) -> Budget {
    Budget {
        cost: None,
        tokens: Some(tokens),
        period: BudgetPeriod::Day,
    }
}

/// Two at once where there is room for one: one passes, and what the other has taken meanwhile is there again.
fn room_for_one() {
    let house = Arc::new(House::of_tenant(2, 10, Budget::default()));
    let try_it = |house: &House| house.reserve(&ask(6, 0), NOW).map(|held| held.settle_at(used(6, 0), NOW)).is_ok();
    let other = thread::spawn({
        let house = Arc::clone(&house);
        move || try_it(&house)
    });
    let passed = u32::from(try_it(&house)) + u32::from(other.join().unwrap());
    assert_eq!(passed, 1);
    assert_eq!(house.remaining(NOW), (Some(1), Some(4)));
}

#[test]
fn two_at_once_pass_where_there_is_room_for_one_in_no_interleaving() {
    model(room_for_one);
}

#[test]
fn a_seeded_bug_is_found() {
    // Reading and writing the mark apart: what one would write without thinking of threads.
    BROKEN.set(true);
    let found = catch_unwind(|| model(room_for_one));
    BROKEN.set(false);
    assert!(found.is_err(), "the model is blind");
}

#[test]
fn what_is_settled_is_what_is_missing_whoever_goes_first() {
    model(|| {
        let house = Arc::new(House::of_tenant(0, 100, budget(1_000)));
        let settling = thread::spawn({
            let house = Arc::clone(&house);
            move || house.reserve(&ask(10, 30), NOW).unwrap().settle_at(used(10, 45), NOW)
        });
        drop(house.reserve(&ask(10, 20), NOW).unwrap());
        settling.join().unwrap();
        assert_eq!(house.remaining(NOW), (None, Some(45)));
        let records = house.limits.records.load();
        let mut spent = records.tenants[&house.who.tenant.id].account.spent.lock();
        assert_eq!((spent.held().tokens, spent.spent(Period::Day, WALL).tokens), (0, 55));
    });
}

#[test]
fn of_three_who_come_while_one_gives_back_no_more_pass_than_there_is_room() {
    bounded_model(PREEMPTIONS_OF_THREE, || {
        let house = Arc::new(House::of_tenant(0, 12, Budget::default()));
        let threads = [0; 2].map(|_| {
            let house = Arc::clone(&house);
            thread::spawn(move || house.reserve(&ask(6, 0), NOW).map(|held| held.settle_at(used(6, 0), NOW)).is_ok())
        });
        drop(house.reserve(&ask(6, 0), NOW).ok());
        let passed = threads.map(|thread| u64::from(thread.join().unwrap())).iter().sum::<u64>();
        assert!((1..=2).contains(&passed));
        assert_eq!(house.remaining(NOW), (None, Some(12 - 6 * passed)));
    });
}

#[test]
fn a_budget_is_held_by_one_of_two_who_both_want_the_rest() {
    model(|| {
        let house = Arc::new(House::of_tenant(0, 0, budget(10)));
        let other = thread::spawn({
            let house = Arc::clone(&house);
            move || house.reserve(&ask(6, 0), NOW).ok()
        });
        let mine = house.reserve(&ask(6, 0), NOW).ok();
        let both = [mine, other.join().unwrap()];
        assert_eq!(both.iter().flatten().count(), 1);
        drop(both);
        let records = house.limits.records.load();
        assert_eq!(records.tenants[&house.who.tenant.id].account.spent.lock().held().tokens, 0);
    });
}

#[test]
fn a_limit_that_changes_under_a_reservation_neither_loses_nor_makes_tokens() {
    for limit in [1_000, 10] {
        model(move || {
            let mut house = House::of_tenant(0, 100, Budget::default());
            let (limits, who) = (Arc::clone(&house.limits), house.who.clone());
            let running = thread::spawn(move || {
                let held = limits.reserve(&who, &ask(5, 3), NOW, WALL).unwrap();
                held.settle_at(used(5, 1), NOW);
            });
            house.change(|tenant| tenant.tokens_per_minute = limit, NOW);
            running.join().unwrap();
            let (_, left) = house.remaining(NOW);
            let spent = limit - left.unwrap();
            // Lowered, the part that is spent stays spent: of a hundred, or after the change of ten.
            let possible = if limit > 100 { 6..=6 } else { 0..=6 };
            assert!(possible.contains(&spent), "{spent} of {limit}");
        });
    }
}
