//! Marks: taken, bounded, waited for, and given back whatever happens.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

fn capped(caps: &[u32]) -> Model {
    let endpoint = |(host, cap): (u32, &u32)| catalog::Endpoint {
        max_in_flight: Some(*cap),
        ..endpoint(&format!("http://10.0.0.{host}:8000"))
    };
    model((1..).zip(caps).map(endpoint).collect())
}

fn choose(upstreams: &Upstreams, model: &Model) -> Result<Chosen, Unavailable> {
    upstreams.choose(&model.id, &Hint::default(), &[])
}

fn in_flight(upstreams: &Upstreams, model: &Model) -> u32 {
    upstreams.health(&model.id).iter().map(|endpoint| endpoint.in_flight).sum()
}

#[tokio::test]
async fn a_full_model_waits_for_room_and_gets_it() {
    let model = capped(&[1, 2]);
    let upstreams = with(&model);
    let mut taken: Vec<Chosen> = (0..3).map(|_| choose(&upstreams, &model).unwrap()).collect();
    assert_eq!(choose(&upstreams, &model).unwrap_err(), Unavailable::AtCapacity);
    let late = upstreams.room(&model.id, &Hint::default(), &[], Duration::from_millis(10)).await;
    assert_eq!(late.unwrap_err(), Unavailable::AtCapacity);
    let hint = Hint::default();
    let waiting = upstreams.room(&model.id, &hint, &[], Duration::from_secs(10));
    let leaving = async { drop(taken.pop()) };
    let (room, ()) = tokio::join!(biased; waiting, leaving);
    assert!(room.is_ok());
    assert_eq!(in_flight(&upstreams, &model), 3);
}

#[tokio::test]
async fn who_waits_at_a_model_that_is_deleted_or_widened_hears_of_it() {
    let model = capped(&[1]);
    for (after, expected) in [
        (catalog([]), false),
        (
            catalog([Model {
                endpoints: capped(&[2]).endpoints,
                ..model.clone()
            }]),
            true,
        ),
    ] {
        let upstreams = with(&model);
        let _taken = choose(&upstreams, &model).unwrap();
        let hint = Hint::default();
        let waiting = upstreams.room(&model.id, &hint, &[], Duration::from_secs(10));
        let change = async { upstreams.apply(&after) };
        let (room, ()) = tokio::join!(biased; waiting, change);
        assert_eq!(room.is_ok(), expected, "{room:?}");
    }
}

#[test]
fn a_change_of_weight_or_cap_keeps_the_marks_and_a_removed_endpoint_drains() {
    let before = capped(&[2, 2]);
    let upstreams = with(&before);
    let taken: Vec<Chosen> = (0..4).map(|_| choose(&upstreams, &before).unwrap()).collect();
    let mut after = before.clone();
    after.endpoints[0].weight = Weight::new(7).unwrap();
    after.endpoints[0].max_in_flight = Some(3);
    after.endpoints.pop();
    upstreams.apply(&catalog([after.clone()]));
    assert_eq!(in_flight(&upstreams, &after), 2, "the second endpoint's are no longer its own");
    let more = choose(&upstreams, &after).unwrap();
    assert_eq!(more.label(), "10.0.0.1:8000");
    assert_eq!(choose(&upstreams, &after).unwrap_err(), Unavailable::AtCapacity);
    drop(taken);
    assert_eq!(in_flight(&upstreams, &after), 1);
}

#[test]
fn the_next_priority_is_for_when_the_first_is_down_or_tried_not_for_when_it_is_busy() {
    let mut model = capped(&[1, 1]);
    model.endpoints[1].priority = 1;
    let upstreams = with(&model);
    let first = choose(&upstreams, &model).unwrap();
    assert_eq!(first.label(), "10.0.0.1:8000");
    assert_eq!(choose(&upstreams, &model).unwrap_err(), Unavailable::AtCapacity);
    let second = upstreams.choose(&model.id, &Hint::default(), &[first.id()]).unwrap();
    assert_eq!(second.label(), "10.0.0.2:8000");
}

type Told = (ModelId, Option<u32>);

#[test]
fn the_scheduler_is_told_of_every_cap_that_changes_and_of_no_other() {
    let fixed = |cap| Model {
        capacity: ModelCapacity::Fixed(cap),
        ..capped(&[4, 4])
    };
    let told: Arc<Mutex<Vec<Told>>> = Arc::default();
    let ear = Arc::clone(&told);
    let said = move || std::mem::take(&mut *ear.lock());
    let model = fixed(5);
    let upstreams = with(&model);
    let mouth = Arc::clone(&told);
    upstreams.on_capacity(Box::new(move |model, cap| mouth.lock().push((model, cap))));
    assert_eq!(said(), [(model.id, Some(5))], "its own cap binds");
    upstreams.tick(Instant::now());
    assert_eq!(said(), []);
    upstreams.apply(&catalog([Model {
        capacity: ModelCapacity::Fixed(50),
        ..model.clone()
    }]));
    assert_eq!(said(), [(model.id, Some(8))], "the endpoints' caps bind");
    let mut open = model.clone();
    open.capacity = ModelCapacity::Uncapped;
    open.endpoints[0].max_in_flight = None;
    upstreams.apply(&catalog([open.clone()]));
    assert_eq!(said(), [(model.id, None)]);
    open.capacity = ModelCapacity::Auto;
    upstreams.apply(&catalog([open]));
    let start = Settings::default().auto_capacity.start;
    assert_eq!(said(), [(model.id, Some(start))], "nothing is learned yet");
    upstreams.apply(&catalog([model.clone()]));
    upstreams.apply(&catalog([]));
    assert_eq!(said(), [(model.id, Some(5)), (model.id, None)], "forgotten with the model");
}

#[test]
fn a_learned_cap_follows_what_the_engines_say_and_stands_when_they_fall_silent() {
    let mut model = model(vec![endpoint("http://10.0.0.1:8000")]);
    model.capacity = ModelCapacity::Auto;
    model.engine = catalog::Engine::Vllm;
    let upstreams = with(&model);
    let pool = upstreams.pool(Owner::Model(model.id)).unwrap();
    let backend = pool.look(|inner| Arc::clone(&inner.sites[0].entries[0].backend));
    let start = upstreams.cap(&model.id).unwrap();
    let taken: Vec<Chosen> = (0..start).map(|_| choose(&upstreams, &model).unwrap()).collect();
    let mut now = Instant::now();
    let mut say = |waiting| {
        now += Duration::from_secs(1);
        let signals = signals::Signals {
            waiting: Some(waiting),
            running: Some(4.0),
            ..signals::Signals::default()
        };
        pool.scraped(&backend, Ok(Some(signals)), now);
        upstreams.tick(now);
        upstreams.cap(&model.id).unwrap()
    };
    assert_eq!(say(0.0), start + 1, "room for one more");
    let cut = say(20.0);
    assert!(cut < start, "{cut}");
    drop(taken);
    for after in [2, 60, 3600] {
        upstreams.tick(now + Duration::from_secs(after));
        assert_eq!(upstreams.cap(&model.id), Some(cut), "silent for {after} s");
    }
}

#[test]
fn peers_of_other_credentials_or_names_share_no_connections() {
    let peer = |edit: fn(&mut Model)| {
        let mut model = model(vec![endpoint("http://10.0.0.1:8000")]);
        edit(&mut model);
        choose(&with(&model), &model).unwrap().peer()
    };
    let plain = peer(|_| {});
    assert_eq!(
        plain.group_key,
        peer(|model| model.load_balancing = LoadBalancing::Session).group_key
    );
    let others = [
        peer(|model| {
            model.endpoints[0].credential = Some(catalog::Credential {
                reference: None,
                secret: Some("a".into()),
            })
        }),
        peer(|model| {
            model.endpoints[0].credential = Some(catalog::Credential {
                reference: None,
                secret: Some("b".into()),
            })
        }),
        peer(|model| model.http2 = true),
    ];
    let keys: BTreeSet<u64> = others.iter().chain([&plain]).map(|peer| peer.group_key).collect();
    assert_eq!(keys.len(), 4);
    assert!(
        plain.options.idle_timeout.unwrap() < Duration::from_secs(5),
        "uvicorn closes after five"
    );
}

#[test]
fn an_endpoint_that_lacks_its_credential_is_not_asked_without() {
    let mut model = model(vec![endpoint("http://10.0.0.1:8000")]);
    model.endpoints[0].credential = Some(catalog::Credential {
        reference: Some("env:GONE".into()),
        secret: None,
    });
    let refused = choose(&with(&model), &model).unwrap_err();
    assert_eq!(
        refused,
        Unavailable::AllDown {
            last_error: "the credential cannot be read".into()
        }
    );
}

/// What can happen to a pool.
#[derive(Debug, Clone)]
enum Step {
    Choose(u64),
    Retry(usize),
    Outcome(usize, Outcome),
    Leave(usize),
    Apply(Vec<(u8, u32, Option<u32>, u16)>, LoadBalancing),
    Tick(u64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let latency = Duration::from_millis(7);
    prop_oneof![
        Just(Outcome::ConnectFailed(ConnectFailure::Refused)),
        (200..600_u16).prop_map(move |status| Outcome::HeadReceived { status, latency }),
        Just(Outcome::DiedMidway),
        Just(Outcome::TimedOut),
        Just(Outcome::Done {
            latency,
            output_tokens: Some(3)
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let endpoint = (1..6_u8, 1..200_u32, prop::option::of(1..4_u32), 0..2_u16);
    let policy = prop_oneof![
        Just(LoadBalancing::LeastRequest),
        Just(LoadBalancing::RoundRobin),
        Just(LoadBalancing::Session),
        Just(LoadBalancing::Prefix),
    ];
    prop_oneof![
        8 => any::<u64>().prop_map(Step::Choose),
        2 => any::<usize>().prop_map(Step::Retry),
        4 => (any::<usize>(), outcome()).prop_map(|(at, outcome)| Step::Outcome(at, outcome)),
        6 => any::<usize>().prop_map(Step::Leave),
        1 => (prop::collection::vec(endpoint, 0..5), policy).prop_map(|(endpoints, policy)| Step::Apply(endpoints, policy)),
        1 => (0..40_u64).prop_map(Step::Tick),
    ]
}

fn reshaped(model: &Model, endpoints: &[(u8, u32, Option<u32>, u16)], policy: LoadBalancing) -> Model {
    let endpoint = |(host, weight, cap, priority): &(u8, u32, Option<u32>, u16)| catalog::Endpoint {
        weight: Weight::new(u64::from(*weight)).unwrap(),
        max_in_flight: *cap,
        priority: *priority,
        ..endpoint(&format!("http://10.0.0.{host}:8000"))
    };
    Model {
        endpoints: endpoints.iter().map(endpoint).collect(),
        load_balancing: policy,
        ..model.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Invariant: marks equal requests, whatever comes in between; and none is left at the end.
    #[test]
    fn no_slot_is_lost_or_given_back_twice(steps in prop::collection::vec(step(), 1..150)) {
        let model = capped(&[2, 3, 4]);
        let upstreams = with(&model);
        let mut pools: Vec<Arc<Pool>> = vec![upstreams.pool(Owner::Model(model.id)).unwrap()];
        let mut taken: Vec<Chosen> = Vec::new();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Choose(session) => {
                    let blocks = [session, session ^ 1];
                    taken.extend(upstreams.choose(&model.id, &Hint { session: Some(session), prefix: &blocks }, &[]));
                }
                Step::Retry(at) if !taken.is_empty() => {
                    let failed = taken.swap_remove(at % taken.len());
                    if upstreams.may_retry(&model.id) {
                        taken.extend(upstreams.choose(&model.id, &Hint::default(), &[failed.id()]));
                    }
                }
                Step::Outcome(at, outcome) if !taken.is_empty() => {
                    let at = at % taken.len();
                    taken[at].outcome(outcome);
                }
                Step::Leave(at) if !taken.is_empty() => drop(taken.swap_remove(at % taken.len())),
                Step::Apply(endpoints, policy) => upstreams.apply(&catalog([reshaped(&model, &endpoints, policy)])),
                Step::Tick(secs) => {
                    now += Duration::from_secs(secs);
                    upstreams.tick(now);
                }
                Step::Retry(_) | Step::Outcome(..) | Step::Leave(_) => {}
            }
            pools.extend(upstreams.pool(Owner::Model(model.id)));
            let marks = pools[0].in_flight.load(Ordering::Relaxed);
            prop_assert_eq!(usize::try_from(marks).unwrap(), taken.len());
        }
        taken.clear();
        prop_assert!(pools.iter().all(|pool| pool.in_flight.load(Ordering::Relaxed) == 0));
        for endpoint in upstreams.health(&model.id) {
            prop_assert_eq!(endpoint.in_flight, 0);
            prop_assert!(endpoint.addresses.iter().all(|address| address.in_flight == 0));
        }
    }
}

#[test]
fn choices_from_many_threads_survive_changes_and_respect_caps() {
    let model = capped(&[2, 3, 4, 5]);
    let upstreams = with(&model);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let choosers: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (upstreams, model, stop) = (&upstreams, &model, &stop);
                scope.spawn(move || {
                    let mut made = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        let hint = Hint {
                            session: Some(thread),
                            prefix: &[thread],
                        };
                        if let Ok(chosen) = upstreams.choose(&model.id, &hint, &[]) {
                            made += 1;
                            if made.is_multiple_of(5) {
                                chosen.outcome(Outcome::DiedMidway);
                            }
                        }
                    }
                    made
                })
            })
            .collect();
        let policies = [
            LoadBalancing::LeastRequest,
            LoadBalancing::RoundRobin,
            LoadBalancing::Session,
            LoadBalancing::Prefix,
        ];
        for round in 0..400_usize {
            let mut next = model.clone();
            next.load_balancing = policies[round % 4];
            next.endpoints[round % 4].weight = Weight::new(round as u64 + 1).unwrap();
            upstreams.apply(&catalog([next]));
            upstreams.tick(Instant::now() + Duration::from_secs(round as u64));
            for (endpoint, cap) in upstreams.health(&model.id).iter().zip([2, 3, 4, 5]) {
                assert!(endpoint.in_flight <= cap, "{endpoint:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        for chooser in choosers {
            assert!(chooser.join().unwrap() > 0, "nobody may starve");
        }
    });
    assert_eq!(in_flight(&upstreams, &model), 0);
}
