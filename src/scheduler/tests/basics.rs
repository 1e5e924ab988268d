//! Each rule once, by hand.

use super::*;
use crate::id::ModelId;
use crate::scheduler::{Cost, Entered, Grant, KeyIx, Leave, ModelIx, Refused, Request, Standing, TicketIx};

fn request(tenant: Handle<TenantIx>, owner: u32) -> Request {
    Request {
        tenant,
        key: None,
        model: None,
        input_tokens: 100,
        max_tokens: None,
        body_bytes: 1000,
        patience: None,
        owner,
    }
}

fn granted(entered: Result<Entered, Refused>) -> Grant {
    match entered {
        Ok(Entered::Granted(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

fn queued(entered: Result<Entered, Refused>) -> Handle<TicketIx> {
    match entered {
        Ok(Entered::Queued(ticket)) => ticket,
        other => panic!("not queued: {other:?}"),
    }
}

fn owners(events: &[Event]) -> Vec<u32> {
    let granted = |event: &Event| match *event {
        Event::Granted { owner, .. } => Some(owner),
        Event::Expired { .. } | Event::Dismissed { .. } => None,
    };
    events.iter().filter_map(granted).collect()
}

fn one_slot() -> (Scheduler, Handle<GroupIx>) {
    let mut scheduler = with_slots(1);
    let group = group(&mut scheduler, "default", 100);
    (scheduler, group)
}

const SETTLED: Leave = Leave::Settled { input: 100, output: 100 };

#[test]
fn a_free_slot_is_granted_at_once_and_the_next_one_waits_for_it() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let first = granted(scheduler.enter(&request(tenant, 1), at_ms(0)));
    queued(scheduler.enter(&request(tenant, 2), at_ms(10)));
    assert_eq!((scheduler.in_flight(), scheduler.queued()), (1, 1));
    assert!(scheduler.leave(first.ticket, SETTLED, at_ms(500)));
    let events = events(&mut scheduler);
    assert_eq!(owners(&events), [2]);
    let Event::Granted { grant, .. } = events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(grant.waited, Duration::from_millis(490));
    assert!(!scheduler.leave(first.ticket, SETTLED, at_ms(501)), "a second end changes nothing");
    assert_eq!((scheduler.in_flight(), scheduler.queued()), (1, 0));
}

#[test]
fn zero_slots_admit_nothing_and_slots_that_come_admit_those_who_wait() {
    let (mut scheduler, group) = one_slot();
    scheduler.set_max_in_flight(0);
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    for owner in 0..3 {
        queued(scheduler.enter(&request(tenant, owner), at_ms(0)));
    }
    scheduler.set_max_in_flight(2);
    assert_eq!(owners(&events(&mut scheduler)), [0, 1]);
    scheduler.set_max_in_flight(0);
    assert_eq!(scheduler.in_flight(), 2, "running requests are never cut");
}

#[test]
fn the_tenant_that_was_charged_less_by_weight_runs_next() {
    let (mut scheduler, group) = one_slot();
    let light = tenant(&mut scheduler, &terms(group, 100));
    let heavy = tenant(&mut scheduler, &terms(group, 300));
    let mut running = granted(scheduler.enter(&request(light, 0), at_ms(0)));
    for _ in 0..40 {
        queued(scheduler.enter(&request(light, 1), at_ms(0)));
        queued(scheduler.enter(&request(heavy, 3), at_ms(0)));
    }
    let mut served = [0_u32; 4];
    for _ in 0..40 {
        assert!(scheduler.leave(running.ticket, SETTLED, at_ms(0)));
        let Some(Event::Granted { owner, grant }) = scheduler.next_event() else {
            panic!("nobody runs")
        };
        served[owner as usize] += 1;
        running = grant;
    }
    // The idle-return burst of both (1000 units: 10 light requests' worth for each at its weight) may shift a few.
    assert!((9..=11).contains(&served[1]), "{served:?}");
}

#[test]
fn a_tenant_at_its_cap_blocks_nobody_and_comes_back_with_its_slot() {
    let mut scheduler = with_slots(10);
    let group = group(&mut scheduler, "default", 100);
    let capped = tenant(
        &mut scheduler,
        &TenantTerms {
            max_in_flight: Some(1),
            ..terms(group, 100)
        },
    );
    let other = tenant(&mut scheduler, &terms(group, 100));
    let first = granted(scheduler.enter(&request(capped, 0), at_ms(0)));
    queued(scheduler.enter(&request(capped, 1), at_ms(0)));
    granted(scheduler.enter(&request(other, 2), at_ms(0)));
    assert!(events(&mut scheduler).is_empty());
    scheduler.leave(first.ticket, SETTLED, at_ms(1));
    assert_eq!(owners(&events(&mut scheduler)), [1]);
}

#[test]
fn a_key_at_its_cap_parks_only_its_own_waiters() {
    let mut scheduler = with_slots(3);
    let group = group(&mut scheduler, "default", 100);
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let key: Handle<KeyIx> = scheduler.add_key(tenant, Some(1)).unwrap();
    let with_key = |owner| Request {
        key: Some(key),
        ..request(tenant, owner)
    };
    let first = granted(scheduler.enter(&with_key(0), at_ms(0)));
    queued(scheduler.enter(&with_key(1), at_ms(0)));
    granted(scheduler.enter(&request(tenant, 2), at_ms(0)));
    granted(scheduler.enter(&request(tenant, 3), at_ms(0)));
    queued(scheduler.enter(&request(tenant, 4), at_ms(0)));
    scheduler.leave(first.ticket, SETTLED, at_ms(1));
    assert_eq!(owners(&events(&mut scheduler)), [1], "the key's waiter is the older one");
    scheduler.set_key(key, None);
    queued(scheduler.enter(&with_key(5), at_ms(2)));
    scheduler.set_max_in_flight(9);
    assert_eq!(owners(&events(&mut scheduler)), [4, 5]);
}

#[test]
fn a_model_at_its_cap_blocks_only_itself() {
    let mut scheduler = with_slots(10);
    let group = group(&mut scheduler, "default", 100);
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let model: Handle<ModelIx> = scheduler.add_model(ModelId::mint(), 100, Some(1));
    let to_model = |owner| Request {
        model: Some(model),
        ..request(tenant, owner)
    };
    granted(scheduler.enter(&to_model(0), at_ms(0)));
    queued(scheduler.enter(&to_model(1), at_ms(0)));
    queued(scheduler.enter(&to_model(2), at_ms(0)));
    granted(scheduler.enter(&request(tenant, 3), at_ms(0)));
    scheduler.set_model(model, 100, Some(2));
    assert_eq!(owners(&events(&mut scheduler)), [1]);
    scheduler.set_model(model, 100, None);
    assert_eq!(owners(&events(&mut scheduler)), [2]);
    scheduler.set_model(model, 100, Some(2));
    queued(scheduler.enter(&to_model(4), at_ms(0)));
    assert_eq!(
        scheduler.snapshot().models[0].in_flight,
        3,
        "the three that run count against the new cap"
    );
}

#[test]
fn a_waiter_expires_at_its_deadline_and_is_never_dispatched_after() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let first = granted(scheduler.enter(&request(tenant, 0), at_ms(0)));
    let patient = Request {
        patience: Some(Duration::from_millis(200)),
        ..request(tenant, 1)
    };
    queued(scheduler.enter(&patient, at_ms(0)));
    scheduler.advance(at_ms(199));
    assert!(events(&mut scheduler).is_empty());
    scheduler.leave(first.ticket, SETTLED, at_ms(200));
    let events = events(&mut scheduler);
    assert!(matches!(events[..], [Event::Expired { owner: 1, .. }]), "{events:?}");
    assert_eq!((scheduler.in_flight(), scheduler.queued()), (0, 0));
}

#[test]
fn who_does_not_wait_is_refused_at_once() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    granted(scheduler.enter(&request(tenant, 0), at_ms(0)));
    let hurried = Request {
        patience: Some(Duration::ZERO),
        ..request(tenant, 1)
    };
    assert!(matches!(scheduler.enter(&hurried, at_ms(25)), Err(Refused::NoPatience { .. })));
}

#[test]
fn a_flood_fills_its_own_part_of_the_queue_and_a_newcomer_finds_room() {
    let mut scheduler = Scheduler::new(Settings {
        max_queued: 100,
        ..Settings::default()
    });
    let group = group(&mut scheduler, "default", 100);
    let flood = tenant(&mut scheduler, &terms(group, 100));
    let light = tenant(&mut scheduler, &terms(group, 100));
    let accepted = (0..1000)
        .filter(|owner| scheduler.enter(&request(flood, *owner), at_ms(0)).is_ok())
        .count();
    assert_eq!(accepted, 50, "half of an otherwise empty queue");
    let accepted = (0..1000)
        .filter(|owner| scheduler.enter(&request(light, *owner), at_ms(0)).is_ok())
        .count();
    assert_eq!(accepted, 25, "half of the rest");
}

#[test]
fn bodies_are_bounded_as_requests_are() {
    let mut scheduler = Scheduler::new(Settings {
        max_queued_bytes: 1000,
        ..Settings::default()
    });
    let group = group(&mut scheduler, "default", 100);
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let big = Request {
        body_bytes: 600,
        ..request(tenant, 0)
    };
    let ticket = queued(scheduler.enter(&big, at_ms(0)));
    assert!(matches!(scheduler.enter(&big, at_ms(0)), Err(Refused::QueueFull { .. })));
    assert!(scheduler.cancel(ticket));
    queued(scheduler.enter(&big, at_ms(0)));
}

#[test]
fn retry_after_is_the_queues_length_at_its_present_rate() {
    let (mut scheduler, group) = one_slot();
    let bounded = tenant(
        &mut scheduler,
        &TenantTerms {
            max_queued: Some(10),
            ..terms(group, 100)
        },
    );
    let mut running = granted(scheduler.enter(&request(bounded, 0), at_ms(0)));
    let mut now = 0;
    for owner in 1..=10 {
        queued(scheduler.enter(&request(bounded, owner), at_ms(now)));
    }
    for owner in 11..40 {
        now += 2000;
        scheduler.leave(running.ticket, SETTLED, at_ms(now));
        let Some(Event::Granted { grant, .. }) = scheduler.next_event() else {
            panic!("nobody runs")
        };
        running = grant;
        queued(scheduler.enter(&request(bounded, owner), at_ms(now)));
    }
    let Err(Refused::QueueFull { retry_after }) = scheduler.enter(&request(bounded, 99), at_ms(now)) else {
        panic!("not full")
    };
    assert_eq!(retry_after, Duration::from_secs(20), "ten waiters, one every two seconds");
}

#[test]
fn deleting_a_tenant_dismisses_its_waiters_and_lets_its_running_requests_end() {
    let (mut scheduler, group) = one_slot();
    let leaving = tenant(&mut scheduler, &terms(group, 100));
    let running = granted(scheduler.enter(&request(leaving, 0), at_ms(0)));
    queued(scheduler.enter(&request(leaving, 1), at_ms(0)));
    scheduler.remove_tenant(leaving);
    assert_eq!(events(&mut scheduler), [Event::Dismissed { owner: 1 }]);
    assert_eq!(scheduler.enter(&request(leaving, 2), at_ms(0)), Err(Refused::UnknownTenant));
    assert_eq!(scheduler.in_flight(), 1);
    assert!(scheduler.leave(running.ticket, SETTLED, at_ms(1)));
    assert_eq!(scheduler.in_flight(), 0);
    let next = tenant(&mut scheduler, &terms(group, 100));
    granted(scheduler.enter(&request(next, 3), at_ms(2)));
}

#[test]
fn an_unused_slot_costs_nothing_and_an_aborted_one_what_was_used() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let served = |scheduler: &mut Scheduler| scheduler.snapshot().tenants[0].served_tokens;
    let grant = granted(scheduler.enter(&request(tenant, 0), at_ms(0)));
    assert_eq!(served(&mut scheduler), 25 + 128, "input, and half of the mean of 256");
    scheduler.leave(grant.ticket, Leave::Unused, at_ms(1));
    assert_eq!(served(&mut scheduler), 0);
    let grant = granted(scheduler.enter(&request(tenant, 0), at_ms(0)));
    scheduler.leave(grant.ticket, Leave::Aborted { output: 10 }, at_ms(1));
    assert_eq!(served(&mut scheduler), 35);
}

#[test]
fn output_beyond_the_estimate_is_charged_in_steps() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let grant = granted(scheduler.enter(
        &Request {
            max_tokens: Some(50),
            ..request(tenant, 0)
        },
        at_ms(0),
    ));
    let served = |scheduler: &mut Scheduler| scheduler.snapshot().tenants[0].served_tokens;
    assert_eq!((grant.charge_at, served(&mut scheduler)), (66, 75));
    assert_eq!(scheduler.progress(grant.ticket, 65), 66);
    assert_eq!(served(&mut scheduler), 75);
    assert_eq!(scheduler.progress(grant.ticket, 70), 86);
    assert_eq!(served(&mut scheduler), 95);
    scheduler.leave(grant.ticket, Leave::Settled { input: 100, output: 80 }, at_ms(1));
    assert_eq!(served(&mut scheduler), 105);
}

#[test]
fn under_lasting_overload_the_newest_is_served_first() {
    let settings = Settings {
        overload_wait: Duration::from_secs(2),
        ..Settings::default()
    };
    let mut scheduler = Scheduler::new(settings);
    scheduler.set_max_in_flight(1);
    let group = group(&mut scheduler, "default", 100);
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let mut running = granted(scheduler.enter(&request(tenant, 0), at_ms(0)));
    for owner in 1..=9 {
        queued(scheduler.enter(&request(tenant, owner), at_ms(0)));
    }
    let mut served = Vec::new();
    for second in 1..=5 {
        scheduler.leave(running.ticket, SETTLED, at_ms(second * 1000));
        let Some(Event::Granted { owner, grant }) = scheduler.next_event() else {
            panic!("nobody runs")
        };
        served.push(owner);
        running = grant;
    }
    assert_eq!(served, [1, 2, 9, 8, 7], "overdue at 2 s, for a second at 3 s");
}

#[test]
fn a_snapshot_shows_shares_down_the_tree() {
    let mut scheduler = with_slots(8);
    let research = group(&mut scheduler, "research", 300);
    let default = group(&mut scheduler, "default", 100);
    let a = tenant(&mut scheduler, &terms(research, 100));
    let b = tenant(&mut scheduler, &terms(research, 300));
    let c = tenant(&mut scheduler, &terms(default, 1));
    for who in [a, b, c] {
        granted(scheduler.enter(&request(who, 0), at_ms(0)));
    }
    for _ in 0..5 {
        granted(scheduler.enter(&request(c, 0), at_ms(0)));
    }
    queued(scheduler.enter(&request(c, 0), at_ms(0)));
    scheduler.advance(at_ms(500));
    let snapshot = scheduler.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.max_in_flight), (8, 1, 8));
    let names: Vec<&str> = snapshot.groups.iter().map(|group| &*group.name).collect();
    assert_eq!(names, ["default", "research"]);
    assert!((snapshot.groups[1].weight_share - 0.75).abs() < 1e-9);
    assert!((snapshot.tenants[1].expected_slots - 0.75 * 0.75 * 8.0).abs() < 1e-9);
    assert!((snapshot.tenants[2].borrowed - 4.0).abs() < 1e-9);
    assert_eq!(snapshot.tenants[2].oldest_wait, Duration::from_millis(500));
    assert_eq!(snapshot.fairness_index, None, "one backlogged tenant compares with nobody");
}

#[test]
fn who_went_idle_is_listed_for_a_minute() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let grant = granted(scheduler.enter(&request(tenant, 0), at_ms(0)));
    scheduler.leave(grant.ticket, SETTLED, at_ms(1000));
    scheduler.advance(at_ms(60_000));
    assert_eq!(scheduler.snapshot().tenants.len(), 1);
    scheduler.advance(at_ms(61_500));
    assert_eq!(scheduler.snapshot().tenants.len(), 0);
}

#[test]
fn a_cost_is_charged_by_the_models_weight() {
    let (mut scheduler, group) = one_slot();
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let model = scheduler.add_model(ModelId::mint(), 300, None);
    let grant = granted(scheduler.enter(
        &Request {
            model: Some(model),
            ..request(tenant, 0)
        },
        at_ms(0),
    ));
    scheduler.leave(grant.ticket, SETTLED, at_ms(1));
    assert_eq!(scheduler.snapshot().tenants[0].served_tokens, Cost::units(375).to_units());
}

#[test]
fn deadlines_beyond_a_turn_of_the_wheel_keep_their_time() {
    let expired_at = |steps_ms: &[u64]| {
        let mut scheduler = Scheduler::new(Settings {
            queue_timeout: Duration::from_secs(900),
            ..Settings::default()
        });
        let group = group(&mut scheduler, "default", 100);
        let tenant = tenant(&mut scheduler, &terms(group, 100));
        for n in 1..=12 {
            let patience = Some(Duration::from_secs(50 * u64::from(n)));
            queued(scheduler.enter(
                &Request {
                    patience,
                    ..request(tenant, n)
                },
                at_ms(3),
            ));
        }
        let mut expired = Vec::new();
        for &ms in steps_ms {
            scheduler.advance(at_ms(ms));
            for event in events(&mut scheduler) {
                let Event::Expired { owner, .. } = event else { panic!("{event:?}") };
                expired.push((owner, ms));
            }
        }
        expired.sort_unstable();
        expired
    };
    let each_tick: Vec<u64> = (0..13_000).map(|tick| tick * 50).collect();
    // 3 ms into a tick, so each is due at the next tick's beginning.
    let due: Vec<(u32, u64)> = (1..=12).map(|n| (n, u64::from(n) * 50_000 + 50)).collect();
    assert_eq!(expired_at(&each_tick), due);
    let all_at_once: Vec<(u32, u64)> = (1..=12).map(|n| (n, 5_000_000)).collect();
    assert_eq!(expired_at(&[5_000_000]), all_at_once);
}

/// The twin found this one: the list of a key with a cap stood in its lane's heap by a younger waiter than the one that the
/// model brought along.
#[test]
fn a_model_that_loses_its_cap_brings_its_waiters_in_the_order_they_came() {
    let mut scheduler = with_slots(0);
    let group = group(&mut scheduler, "default", 100);
    let tenant = tenant(&mut scheduler, &terms(group, 100));
    let key = scheduler.add_key(tenant, Some(9));
    let model = scheduler.add_model(ModelId::mint(), 100, Some(1));
    let with_key = |owner| Request {
        key,
        ..request(tenant, owner)
    };
    let to_model = Request {
        model: Some(model),
        ..with_key(0)
    };
    queued(scheduler.enter(&to_model, at_ms(0)));
    queued(scheduler.enter(&request(tenant, 1), at_ms(0)));
    queued(scheduler.enter(&with_key(2), at_ms(0)));
    scheduler.set_model(model, 100, None);
    scheduler.set_max_in_flight(3);
    assert_eq!(owners(&events(&mut scheduler)), [0, 1, 2]);
}

#[test]
fn a_slot_above_the_tenants_share_is_borrowed_and_its_first_never_is() {
    let mut scheduler = with_slots(8);
    let (small, large) = (group(&mut scheduler, "small", 100), group(&mut scheduler, "large", 300));
    let only = tenant(&mut scheduler, &terms(small, 100));
    let other = tenant(&mut scheduler, &terms(large, 100));
    let mut enter = |tenant, count| -> Vec<Grant> {
        (0..count)
            .map(|owner| granted(scheduler.enter(&request(tenant, owner), at_ms(0))))
            .collect()
    };
    // Alone it has all; beside the other a quarter of eight.
    let (mine, theirs) = (enter(only, 4), enter(other, 4));
    let standings = |grants: &[Grant]| grants.iter().map(|grant| scheduler.standing(grant)).collect::<Vec<_>>();
    use Standing::{Borrower, Owner};
    assert_eq!(standings(&mine), [Owner, Owner, Borrower, Borrower]);
    assert_eq!(standings(&theirs), [Owner; 4]);
    scheduler.set_max_in_flight(0);
    assert_eq!(scheduler.standing(&mine[0]), Owner, "the first, whatever the share");
    assert_eq!(scheduler.standing(&mine[1]), Borrower);
}

#[test]
fn where_a_model_has_a_cap_the_share_is_one_of_its_slots() {
    let mut scheduler = with_slots(100);
    let group = group(&mut scheduler, "default", 100);
    let (one, two) = (
        tenant(&mut scheduler, &terms(group, 100)),
        tenant(&mut scheduler, &terms(group, 100)),
    );
    let model = scheduler.add_model(ModelId::mint(), 100, Some(4));
    let asks = |tenant, model| Request {
        model,
        ..request(tenant, 0)
    };
    // What runs elsewhere is not held against it.
    for _ in 0..10 {
        granted(scheduler.enter(&asks(one, None), at_ms(0)));
    }
    let grants = [one, one, one, two].map(|tenant| granted(scheduler.enter(&asks(tenant, Some(model)), at_ms(0))));
    use Standing::{Borrower, Owner};
    assert_eq!(grants.map(|grant| scheduler.standing(&grant)), [Owner, Owner, Borrower, Owner]);
    scheduler.set_model(model, 100, None);
    assert_eq!(scheduler.standing(&grants[2]), Owner, "without the cap the node's slots count");
}
