//! What was taken is given back exactly once, on every way out.

use super::*;

#[test]
fn a_dropped_permit_goes_to_the_next_waiter() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let first = house.ask(ask(&acme)).now().unwrap();
    let mut second = house.ask(ask(&acme));
    assert!(second.waits());
    assert_eq!(house.counts(), (1, 1));
    house.pass(Duration::from_millis(700));
    drop(first);
    let second = second.now().unwrap();
    assert_eq!(second.waited(), Duration::from_millis(700));
    second.settle(100, 20);
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn a_waiter_that_goes_leaves_no_trace() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let first = house.ask(ask(&acme)).now().unwrap();
    let second = house.ask(ask(&acme));
    let third = house.ask(ask(&acme));
    drop(second);
    assert_eq!(house.counts(), (1, 1));
    drop(first);
    third.now().unwrap().settle(1, 1);
    assert_eq!(house.counts(), (0, 0));
    assert_eq!(house.admission.inner.lock().mailboxes.len(), 0);
}

#[test]
fn a_slot_granted_to_one_who_never_polled_again_is_refunded_and_wakes_the_next() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let first = house.ask(ask(&acme)).now().unwrap();
    let second = house.ask(ask(&acme));
    let third = house.ask(ask(&acme));
    drop(first);
    assert_eq!(house.counts(), (1, 1), "granted to the second");
    drop(second);
    assert_eq!(house.counts(), (1, 0), "passed on to the third");
    drop(third.now().unwrap());
    assert_eq!(house.counts(), (0, 0));
    assert_eq!(house.admission.live().tenants[0].served_tokens, 0, "nobody was dispatched");
}

#[test]
fn an_aborted_request_pays_for_what_it_used() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let mut permit = house.ask(ask(&acme)).now().unwrap();
    permit.dispatched();
    permit.progress(30);
    permit.progress(10);
    drop(permit);
    assert_eq!(house.admission.live().tenants[0].served_tokens, 25 + 30);
}

#[test]
fn a_deadline_refuses_at_its_time_and_not_before() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let held = house.ask(ask(&acme)).now().unwrap();
    let mut hurried = house.ask(Ask {
        patience: Some(Duration::from_millis(300)),
        ..ask(&acme)
    });
    let mut patient = house.ask(ask(&acme));
    house.pass(Duration::from_millis(299));
    assert!(hurried.waits());
    house.pass(Duration::from_millis(51));
    let Err(Refusal::TimedOut { waited, retry_after }) = hurried.now() else {
        panic!("not timed out")
    };
    assert!(
        waited >= Duration::from_millis(300) && waited <= Duration::from_millis(350),
        "{waited:?}"
    );
    assert!(retry_after >= Duration::from_secs(1));
    assert!(patient.waits());
    house.pass(Duration::from_secs(60));
    assert!(matches!(patient.now(), Err(Refusal::TimedOut { .. })), "the queue's own deadline");
    drop(held);
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn shutting_down_refuses_all_and_keeps_permits() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let held = house.ask(ask(&acme)).now().unwrap();
    let waiting = house.ask(ask(&acme));
    house.admission.shut_down();
    assert_eq!(waiting.now().unwrap_err(), Refusal::ShuttingDown);
    assert_eq!(house.ask(ask(&acme)).now().unwrap_err(), Refusal::ShuttingDown);
    assert_eq!(house.counts(), (1, 0));
    held.settle(1, 1);
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn a_panic_while_holding_a_permit_gives_it_back() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let permit = house.ask(ask(&acme)).now().unwrap();
    let waiting = house.ask(ask(&acme));
    let panicked = std::thread::spawn(move || {
        let _permit = permit;
        panic!("a request's own fault");
    })
    .join();
    assert!(panicked.is_err());
    drop(waiting.now().unwrap());
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn the_queue_is_bounded_by_requests_and_bytes() {
    let settings = Settings {
        max_queued: 4,
        max_queued_bytes: 100_000,
        ..Settings::default()
    };
    let mut house = House::with(0, &settings);
    let acme = house.tenant("acme");
    let mut waiting = vec![house.ask(ask(&acme)), house.ask(ask(&acme))];
    let Err(Refusal::QueueFull { retry_after }) = house.ask(ask(&acme)).now() else {
        panic!("not full")
    };
    assert!(retry_after >= Duration::from_secs(1));
    waiting.clear();
    let big = Ask {
        body_bytes: 100_001,
        ..ask(&acme)
    };
    assert!(matches!(house.ask(big).now(), Err(Refusal::QueueFull { .. })));
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn a_patience_of_zero_takes_a_free_slot_or_none() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let hurried = Ask {
        patience: Some(Duration::ZERO),
        ..ask(&acme)
    };
    let held = house.ask(hurried).now().unwrap();
    let refused = house.ask(hurried).now().unwrap_err();
    assert!(matches!(
        refused,
        Refusal::TimedOut {
            waited: Duration::ZERO,
            ..
        }
    ));
    drop(held);
}
