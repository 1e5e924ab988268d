//! The state machine in pretend time.

use proptest::prelude::*;

use super::*;

const ALONE: Others = Others { all: 1, out: 0 };
const AMONG_FOUR: Others = Others { all: 4, out: 0 };

fn bad() -> Arc<str> {
    "connection refused".into()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// An address that has been checked and is up.
fn up(now: Instant) -> Health {
    let mut health = Health::default();
    health.check_passed(now, AMONG_FOUR, &Rules::default());
    health
}

#[test]
fn the_first_check_decides_and_later_ones_need_company() {
    let (now, rules) = (Instant::now(), Rules::default());
    let mut health = Health::default();
    assert!(health.usable(), "offered before it is known");
    assert!(health.check_failed(now, bad(), &rules));
    assert_eq!(health.state(), State::Down);

    let mut health = up(now);
    assert!(!health.check_failed(now, bad(), &rules));
    assert!(!health.check_failed(now, bad(), &rules));
    assert!(health.usable() && health.doubtful());
    assert!(health.check_failed(now, bad(), &rules));
    assert_eq!((health.state(), health.last_error()), (State::Down, Some(&bad())));
}

#[test]
fn a_good_check_between_bad_ones_starts_the_count_anew() {
    let (now, rules) = (Instant::now(), Rules::default());
    let mut health = up(now);
    for _ in 0..10 {
        health.check_failed(now, bad(), &rules);
        health.check_failed(now, bad(), &rules);
        health.check_passed(now, AMONG_FOUR, &rules);
    }
    assert_eq!(health.state(), State::Up);
}

#[test]
fn a_flapping_address_must_prove_itself_longer_each_time_until_it_is_quiet() {
    let rules = Rules::default();
    let mut now = Instant::now();
    let mut health = up(now);
    let fall_and_return = |now: &mut Instant, health: &mut Health| {
        while health.usable() {
            health.check_failed(*now, bad(), &rules);
        }
        let mut checks = 0;
        while !health.usable() {
            checks += 1;
            *now += seconds(1);
            health.check_passed(*now, AMONG_FOUR, &rules);
        }
        checks
    };
    let proofs: Vec<u32> = (0..9).map(|_| fall_and_return(&mut now, &mut health)).collect();
    assert_eq!(proofs, [2, 3, 4, 5, 6, 7, 8, 8, 8]);
    now += rules.flap_memory;
    health.tick(now, AMONG_FOUR, &rules);
    assert_eq!(fall_and_return(&mut now, &mut health), 2, "forgiven");
}

#[test]
fn the_only_hope_returns_at_once_and_at_full_weight() {
    let (now, rules) = (Instant::now(), Rules::default());
    let mut health = up(now);
    for _ in 0..3 {
        health.check_failed(now, bad(), &rules);
    }
    let last_of_four = Others { all: 4, out: 3 };
    assert!(health.check_passed(now, last_of_four, &rules));
    assert_eq!(health.weight_permille(now, &rules), 1000);
}

#[test]
fn ejections_double_and_are_bounded_and_forgotten() {
    let rules = Rules::default();
    let mut now = Instant::now();
    let mut health = up(now);
    let mut times = Vec::new();
    for _ in 0..8 {
        assert!(health.eject(now, AMONG_FOUR, &rules));
        assert!(!health.eject(now, AMONG_FOUR, &rules), "it is out already");
        let State::Ejected { until } = health.state() else {
            panic!("{health:?}")
        };
        times.push((until - now).as_secs());
        assert!(!health.tick(until - Duration::from_millis(1), AMONG_FOUR, &rules));
        assert!(health.tick(until, AMONG_FOUR, &rules));
        now = until;
    }
    assert_eq!(times, [5, 10, 20, 40, 80, 160, 300, 300]);
    now += rules.flap_memory;
    assert!(health.eject(now, AMONG_FOUR, &rules));
    assert_eq!(
        health.state(),
        State::Ejected {
            until: now + rules.eject_base
        }
    );
}

#[test]
fn good_checks_do_not_end_an_ejection_and_bad_ones_make_it_a_fall() {
    let (now, rules) = (Instant::now(), Rules::default());
    let mut health = up(now);
    health.eject(now, AMONG_FOUR, &rules);
    assert!(!health.check_passed(now, AMONG_FOUR, &rules));
    assert!(!health.usable());
    for _ in 0..3 {
        health.check_failed(now, bad(), &rules);
    }
    assert_eq!(health.state(), State::Down);
    assert!(!health.tick(now + seconds(3600), AMONG_FOUR, &rules), "only checks bring it back");
}

#[test]
fn no_more_than_the_allowed_share_is_ejected() {
    let (now, rules) = (Instant::now(), Rules::default());
    for (all, out, allowed) in [
        (1, 0, false),
        (2, 0, true),
        (2, 1, false),
        (4, 1, true),
        (4, 2, false),
        (5, 1, true),
        (5, 2, false),
    ] {
        let mut health = up(now);
        assert_eq!(health.eject(now, Others { all, out }, &rules), allowed, "{out} of {all} are out");
    }
    assert!(!up(now).eject(now, ALONE, &rules));
}

#[test]
fn whoever_returns_starts_at_a_tenth_and_grows() {
    let (now, rules) = (Instant::now(), Rules::default());
    let mut health = up(now);
    assert_eq!(health.weight_permille(now, &rules), 1000, "a newcomer takes its share");
    health.eject(now, AMONG_FOUR, &rules);
    let back = now + rules.eject_base;
    health.tick(back, AMONG_FOUR, &rules);
    let weight = |after| health.weight_permille(back + seconds(after), &rules);
    assert_eq!([0, 3, 15, 29, 30].map(weight), [100, 100, 500, 966, 1000]);
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Pass,
    Fail,
    Eject,
    Pause(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Pass),
        4 => Just(Event::Fail),
        2 => Just(Event::Eject),
        2 => (1..400_u64).prop_map(Event::Pause),
    ]
}

proptest! {
    /// Whatever happens, an address is never out for good: checks that pass and time that passes bring it back, and its
    /// weight returns to the whole.
    #[test]
    fn nobody_is_out_for_good(events in prop::collection::vec(event(), 0..200)) {
        let rules = Rules::default();
        let mut now = Instant::now();
        let mut health = Health::default();
        for event in events {
            let usable = health.usable();
            let changed = match event {
                Event::Pass => health.check_passed(now, AMONG_FOUR, &rules),
                Event::Fail => health.check_failed(now, bad(), &rules),
                Event::Eject => health.eject(now, AMONG_FOUR, &rules),
                Event::Pause(secs) => { now += seconds(secs); health.tick(now, AMONG_FOUR, &rules) }
            };
            prop_assert!(changed || usable == health.usable(), "a change that nobody is told of: {event:?}");
            let weight = health.weight_permille(now, &rules);
            prop_assert!((100..=1000).contains(&weight), "{weight}");
        }
        for _ in 0..rules.rise_max {
            now += rules.eject_max;
            health.tick(now, AMONG_FOUR, &rules);
            health.check_passed(now, AMONG_FOUR, &rules);
        }
        prop_assert!(health.usable(), "{health:?}");
        prop_assert_eq!(health.weight_permille(now + rules.slow_start, &rules), 1000);
    }
}
