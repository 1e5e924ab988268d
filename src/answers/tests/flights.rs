//! Who leads, who listens, and what becomes of them when somebody leaves or fails.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;

use super::*;

/// What a follower hears without waiting; `None` if there is nothing yet.
fn hear(follower: &mut Follower) -> Option<Heard> {
    follower.next().now_or_never()
}

fn step(follower: &mut Follower) -> Step {
    match hear(follower) {
        Some(Heard::Step(step)) => step,
        other => panic!("{other:?}"),
    }
}

fn lead(follower: &mut Follower) -> Leader {
    match hear(follower) {
        Some(Heard::Lead(leader)) => leader,
        other => panic!("{other:?}"),
    }
}

fn text(step: &Step) -> String {
    String::from_utf8(step.pieces.concat()).unwrap()
}

fn tenants_house() -> House {
    house(Settings::default(), CacheScope::Tenant)
}

#[test]
fn followers_get_the_leaders_bytes_as_they_come_and_from_the_beginning() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let mut early = house.follower(0, 1);
    assert!(hear(&mut early).is_none() && early.is_queued());
    leader.sent();
    assert!(!early.is_queued());
    leader.begin(head(200));
    leader.push(b"{\"a\":");
    let heard = step(&mut early);
    assert_eq!((heard.head.unwrap().status, heard.end), (200, None));
    let mut late = house.follower(0, 1);
    leader.push(b"1}");
    let heard = step(&mut late);
    assert!(heard.head.is_some());
    assert_eq!(heard.pieces.len(), 2);
    assert_eq!(text(&heard), "{\"a\":1}");
    let heard = step(&mut early);
    assert!(heard.head.is_none());
    assert_eq!(text(&heard), "1}");
    leader.end(SAVED, true, house.now);
    assert_eq!(step(&mut early).end, Some(Ended::Complete(SAVED)));
    assert_eq!(step(&mut late).end, Some(Ended::Complete(SAVED)));
    assert!(house.is_kept(0, 1));
    drop((early, late));
    assert_eq!(house.answers.filling.held.load(Ordering::Relaxed), 0);
}

#[test]
fn another_tenant_begins_a_flight_of_its_own() {
    let house = tenants_house();
    let _one = house.leader(0, 1);
    let _other = house.leader(1, 1);
    let _follower = house.follower(1, 1);
}

#[test]
fn a_leader_that_steps_down_is_followed_by_the_next_in_line_and_by_nobody_else() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let mut followers: Vec<Follower> = (0..3).map(|_| house.follower(0, 1)).collect();
    leader.step_down();
    let second = lead(&mut followers[0]);
    assert!(hear(&mut followers[1]).is_none() && hear(&mut followers[2]).is_none());
    // As often as it is the leader's own affair.
    second.step_down();
    let third = lead(&mut followers[1]);
    third.begin(head(200));
    third.push(b"{}");
    third.end(SAVED, true, house.now);
    assert_eq!(text(&step(&mut followers[2])), "{}");
    assert_eq!(house.answers.inner.lock().flights.len(), 0);
}

#[test]
fn an_upstream_that_fails_is_asked_once_more_and_then_all_are_told() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let mut followers: Vec<Follower> = (0..3).map(|_| house.follower(0, 1)).collect();
    leader.fail(Failure::Unreachable, b"");
    let second = lead(&mut followers[0]);
    assert!(hear(&mut followers[1]).is_none());
    second.fail(Failure::Late, b"");
    for follower in &mut followers[1..] {
        assert_eq!(step(follower).end, Some(Ended::Failed(Failure::Late, b"")));
    }
    let _next = house.leader(0, 1);
}

#[test]
fn an_error_answer_is_the_leaders_alone_once_and_then_everybodys() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let mut followers: Vec<Follower> = (0..2).map(|_| house.follower(0, 1)).collect();
    leader.begin(head(503));
    leader.push(b"{}");
    let second = lead(&mut followers[0]);
    leader.push(b"late words of an earlier term");
    leader.end(SAVED, true, house.now);
    second.begin(head(503));
    second.push(b"{\"error\":1}");
    second.end(SAVED, true, house.now);
    let heard = step(&mut followers[1]);
    assert_eq!(heard.head.as_ref().unwrap().status, 503);
    assert_eq!(text(&heard), "{\"error\":1}");
    assert!(!house.is_kept(0, 1));
    // What the client did wrong is nobody's failure: it is shared at once.
    let leader = house.leader(0, 2);
    let mut follower = house.follower(0, 2);
    leader.begin(head(400));
    assert_eq!(step(&mut follower).head.unwrap().status, 400);
}

#[test]
fn a_leader_lost_in_a_panic_hands_over_before_the_answer_and_breaks_off_after_it() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let mut follower = house.follower(0, 1);
    let mut other = house.follower(0, 1);
    drop(leader);
    let second = lead(&mut follower);
    second.begin(head(200));
    drop(second);
    assert_eq!(step(&mut other).end, Some(Ended::Failed(Failure::Internal, b"")));
}

#[test]
fn a_leader_that_fails_mid_answer_fails_its_followers_the_same_way() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let mut follower = house.follower(0, 1);
    leader.begin(head(200));
    leader.push(b"data: x");
    leader.fail(Failure::Interrupted, b"\n\n");
    let heard = step(&mut follower);
    assert_eq!(text(&heard), "data: x");
    assert_eq!(heard.end, Some(Ended::Failed(Failure::Interrupted, b"\n\n")));
    assert!(!house.is_kept(0, 1));
}

#[test]
fn the_flight_outlives_its_leaders_client_while_anyone_listens() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let audience = leader.audience();
    let one = house.follower(0, 1);
    let other = house.follower(0, 1);
    assert!(audience.goes_on() && audience.is_there());
    assert!(audience.gone().now_or_never().is_none());
    drop(one);
    // Whoever comes meanwhile may still join.
    let third = house.follower(0, 1);
    drop(other);
    assert!(audience.gone().now_or_never().is_none());
    drop(third);
    assert!(audience.gone().now_or_never().is_some());
    // From then on nobody may.
    let _next = house.leader(0, 1);
    leader.step_down();
    assert_eq!(house.answers.inner.lock().flights.len(), 1);
}

#[test]
fn a_leader_without_followers_takes_its_flight_along() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let audience = leader.audience();
    assert!(!audience.goes_on());
    let next = house.leader(0, 1);
    leader.step_down();
    let mut follower = house.follower(0, 1);
    next.begin(head(200));
    assert!(step(&mut follower).head.is_some());
}

#[test]
fn an_heir_that_leaves_before_it_heard_passes_the_lead_on() {
    let house = tenants_house();
    let leader = house.leader(0, 1);
    let heir = house.follower(0, 1);
    let mut next = house.follower(0, 1);
    leader.step_down();
    drop(heir);
    let second = lead(&mut next);
    drop(next);
    drop(second);
    assert_eq!(house.answers.inner.lock().flights.len(), 0);
    let last = house.leader(0, 1);
    let only = house.follower(0, 1);
    last.step_down();
    drop(only);
    assert_eq!(house.answers.inner.lock().flights.len(), 0);
}

#[test]
fn a_flight_too_large_to_keep_holds_no_more_than_its_slowest_listener_needs_and_cuts_who_falls_behind() {
    let house = house(
        Settings {
            max_filling_bytes: 5000,
            follower_buffer_bytes: 3000,
            ..Settings::default()
        },
        CacheScope::Tenant,
    );
    let held = || house.answers.filling.held.load(Ordering::Relaxed);
    let leader = house.leader(0, 1);
    let mut quick = house.follower(0, 1);
    let mut slow = house.follower(0, 1);
    leader.begin(head(200));
    let mut had = 0;
    for round in 0..100 {
        leader.push(&[b'x'; 1000]);
        had += step(&mut quick).pieces.concat().len();
        assert!(held() <= 6000, "round {round}: {}", held());
    }
    assert_eq!(had, 100_000);
    assert_eq!(step(&mut slow).end, Some(Ended::LeftBehind));
    leader.push(b"x");
    assert!(held() <= 1001, "{}", held());
    // Its beginning is gone, so an equal request begins anew.
    let _other = house.leader(0, 1);
    leader.end(SAVED, true, house.now);
    assert_eq!(step(&mut quick).end, Some(Ended::Complete(SAVED)));
    assert!(!house.is_kept(0, 1));
    drop((quick, slow));
    assert_eq!(held(), 0);
}

#[test]
fn a_flight_that_nobody_listens_to_and_that_is_not_kept_holds_nothing() {
    let house = house(
        Settings {
            max_filling_bytes: 5000,
            ..Settings::default()
        },
        CacheScope::Tenant,
    );
    let leader = house.leader(0, 1);
    leader.begin(head(200));
    for _ in 0..20 {
        leader.push(&[b'x'; 1000]);
    }
    assert_eq!(house.answers.filling.held.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_crowd_exactly_one_leads_and_all_get_the_same() {
    let house = Arc::new(tenants_house());
    for question in 0..50 {
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let house = Arc::clone(&house);
            crowd.spawn(async move {
                match house.ask(0, question) {
                    Turn::Lead(leader) => {
                        tokio::task::yield_now().await;
                        answer(leader, 100, house.now);
                        1
                    }
                    Turn::Follow(mut follower) => {
                        let mut body = Vec::new();
                        loop {
                            let Heard::Step(step) = follower.next().await else {
                                panic!("nobody failed")
                            };
                            body.extend(step.pieces.concat());
                            if step.end.is_some() {
                                break;
                            }
                        }
                        assert_eq!(body.len(), 111);
                        0
                    }
                    Turn::Hit(stored) => {
                        assert_eq!(stored.body().len(), 111);
                        0
                    }
                    other => panic!("{other:?}"),
                }
            });
        }
        let leaders: u32 = crowd.join_all().await.into_iter().sum();
        assert_eq!(leaders, 1);
    }
}
