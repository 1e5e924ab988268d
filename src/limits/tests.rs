//! Limits under threads, and across changes of the catalog.
mod handing_over;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::catalog::{Budget, BudgetPeriod, DEFAULT_GROUP, Provenance, TenantStatus};
use crate::store::ledger::{Lifetime, Owner, Past, Use};
use crate::units::Weight;

pub(super) const WALL: UnixMs = UnixMs(1_795_500_000_000);
pub(super) const NOW: Moment = Moment(3_600_000_000_000);

pub(super) fn tenant(requests: u64, tokens: u64, budget: Budget) -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: "acme".to_owned(),
        description: String::new(),
        group: DEFAULT_GROUP.into(),
        weight: Weight::default(),
        tokens_per_minute: tokens,
        requests_per_minute: requests,
        max_in_flight: None,
        max_queued: None,
        status: TenantStatus::Active,
        allowed_models: None,
        budget,
        metadata: std::collections::BTreeMap::new(),
        provenance: Provenance::default(),
    }
}

pub(super) fn key(tenant: &Tenant, requests: u64, tokens: u64) -> ApiKey {
    let id = KeyId::mint();
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(id.as_bytes());
    ApiKey {
        id,
        tenant_id: tenant.id,
        name: "prod".to_owned(),
        description: String::new(),
        prefix: String::new(),
        digest,
        retired: None,
        disabled: false,
        expires_at: None,
        allowed_models: None,
        tokens_per_minute: tokens,
        requests_per_minute: requests,
        max_in_flight: None,
        budget: Budget::default(),
        provenance: Provenance::default(),
    }
}

/// One tenant with one key, in force.
pub(super) struct House {
    pub(super) limits: Arc<Limits>,
    catalog: Catalog,
    pub(super) who: Principal,
}

impl House {
    pub(super) fn new(tenant: Tenant, key: ApiKey) -> Self {
        let mut catalog = Catalog::empty(1);
        catalog.put_tenant(tenant).unwrap();
        let digest = key.digest;
        catalog.put_key(key).unwrap();
        let limits = Limits::new(Settings { epoch: Instant::now() });
        limits.apply_at(&catalog, Moment(0));
        let who = catalog.principal(&digest).unwrap();
        Self { limits, catalog, who }
    }

    pub(super) fn of_tenant(requests: u64, tokens: u64, budget: Budget) -> Self {
        let tenant = tenant(requests, tokens, budget);
        let key = key(&tenant, 0, 0);
        Self::new(tenant, key)
    }

    pub(super) fn reserve(&self, ask: &Ask, now: Moment) -> Result<Reservation, Exceeded> {
        self.limits.reserve(&self.who, ask, now, WALL)
    }

    pub(super) fn remaining(&self, now: Moment) -> (Option<u64>, Option<u64>) {
        let view = self.limits.view(&self.who, now).unwrap_or_default();
        (
            view.requests.map(|window| window.remaining),
            view.tokens.map(|window| window.remaining),
        )
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Tenant), now: Moment) {
        let mut tenant = (**self.catalog.tenants().get(&self.who.tenant.id).unwrap()).clone();
        change(&mut tenant);
        self.catalog.put_tenant(tenant).unwrap();
        self.limits.apply_at(&self.catalog, now);
    }
}

pub(super) fn ask(input_tokens: u64, output: u64) -> Ask {
    Ask {
        input_tokens,
        max_tokens: Some(output),
        learned_output: u64::MAX,
        cost_estimate: PicoUsd(0),
    }
}

pub(super) fn used(input: u64, output: u64) -> Actual {
    Actual {
        input,
        output,
        cost: PicoUsd(0),
    }
}

#[test]
fn of_200_requests_at_once_with_room_for_10_exactly_10_pass() {
    for (requests, tokens) in [(10, 0), (0, 100), (10, 100)] {
        let house = House::of_tenant(requests, tokens, Budget::default());
        let gate = Barrier::new(200);
        let passed = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    gate.wait();
                    if let Ok(reservation) = house.reserve(&ask(6, 4), NOW) {
                        reservation.settle_at(used(6, 4), NOW);
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 10, "with {requests} requests and {tokens} tokens a minute");
        let Err(Exceeded::Rate { retry_after, .. }) = house.reserve(&ask(6, 4), NOW) else {
            unreachable!("ten used it up")
        };
        assert_eq!(retry_after, Duration::from_secs(6), "a tenth of a minute");
        let full = |now| {
            let view = house.limits.view(&house.who, now).unwrap();
            [view.requests, view.tokens]
                .into_iter()
                .flatten()
                .all(|window| window.remaining == window.limit)
        };
        assert!(full(Moment(NOW.0 + 60_000_000_000)));
        assert!(!full(Moment(NOW.0 + 60_000_000_000 - 1)));
    }
}

#[test]
fn a_refused_request_takes_nothing_and_names_the_longest_wait() {
    let tenant = tenant(600, 60, Budget::default());
    let key = key(&tenant, 60, 0);
    let house = House::new(tenant, key);
    let first = house.reserve(&ask(30, 30), NOW).unwrap();
    assert_eq!(house.remaining(NOW), (Some(59), Some(0)), "the tightest of key and tenant is shown");
    let refusal = house.reserve(&ask(15, 0), NOW).unwrap_err();
    let Exceeded::Rate { retry_after, scope } = refusal else {
        unreachable!("{refusal:?}")
    };
    assert_eq!(retry_after, Duration::from_secs(15));
    assert_eq!(scope.to_string(), "tenant's tokens-per-minute");
    assert_eq!(house.remaining(NOW), (Some(59), Some(0)), "not even a request");
    drop(first);
    assert_eq!(
        house.remaining(NOW),
        (Some(60), Some(60)),
        "never dispatched: everything is given back"
    );
}

#[test]
fn a_settled_request_counts_and_its_tokens_become_what_was_used() {
    let house = House::of_tenant(10, 1_000, Budget::default());
    house.reserve(&ask(100, 400), NOW).unwrap().settle_at(used(90, 10), NOW);
    assert_eq!(house.remaining(NOW), (Some(9), Some(900)));
    house.reserve(&ask(100, 0), NOW).unwrap().settle_at(used(100, 1_100), NOW);
    assert_eq!(house.remaining(NOW), (Some(8), Some(0)));
    let Err(Exceeded::Rate { retry_after, .. }) = house.reserve(&ask(1, 0), NOW) else {
        unreachable!("in debt")
    };
    assert_eq!(retry_after, Duration::from_millis(18_060), "301 tokens short");
}

#[test]
fn an_input_larger_than_a_minute_is_refused_for_good_and_a_large_guess_is_not() {
    let house = House::of_tenant(0, 100, Budget::default());
    assert_eq!(house.reserve(&ask(101, 0), NOW).unwrap_err(), Exceeded::TooLarge);
    let reservation = house.reserve(&ask(1, 1_000_000), NOW).unwrap();
    assert_eq!(house.remaining(NOW), (None, Some(0)));
    drop(reservation);
}

#[test]
fn a_budget_is_refused_before_a_rate_and_remembers_what_came_before_it() {
    let mut house = House::of_tenant(1, 0, Budget::default());
    house.reserve(&ask(50, 0), NOW).unwrap().settle_at(
        Actual {
            input: 50,
            output: 0,
            cost: PicoUsd(7),
        },
        NOW,
    );
    let lifetime = Budget {
        cost: Some(PicoUsd(7)),
        tokens: None,
        period: BudgetPeriod::Lifetime,
    };
    house.change(|tenant| tenant.budget = lifetime, NOW);
    let costly = Ask {
        cost_estimate: PicoUsd(1),
        ..ask(1, 0)
    };
    assert_eq!(house.reserve(&costly, NOW).unwrap_err(), Exceeded::Budget { reset_after: None });
    assert!(matches!(house.reserve(&ask(1, 0), NOW), Err(Exceeded::Rate { .. })));
}

#[test]
fn limits_follow_the_catalog_and_keep_what_was_spent() {
    let mut house = House::of_tenant(0, 100, Budget::default());
    let held = house.reserve(&ask(60, 0), NOW).unwrap();
    house.change(|tenant| tenant.tokens_per_minute = 1_000, NOW);
    assert_eq!(house.remaining(NOW), (None, Some(940)));
    held.settle_at(used(50, 0), NOW);
    assert_eq!(house.remaining(NOW), (None, Some(950)), "settled in the bucket that is in force");
    house.change(|tenant| tenant.tokens_per_minute = 0, NOW);
    assert_eq!(house.limits.view(&house.who, NOW), None);
    house.catalog.remove_tenant(&house.who.tenant.id);
    house.limits.apply_at(&house.catalog, NOW);
    assert_eq!(house.reserve(&ask(1, 0), NOW).unwrap_err(), Exceeded::Gone);
}

#[test]
fn a_restart_remembers_the_last_minute_and_the_period() {
    let budget = Budget {
        cost: None,
        tokens: Some(1_000),
        period: BudgetPeriod::Month,
    };
    let house = House::of_tenant(60, 600, budget);
    let entry = |seconds_ago: i64, requests, tokens| Use {
        tenant: house.who.tenant.id,
        key: KeyId::mint(),
        requests,
        tokens,
        cost: PicoUsd(0),
        at: UnixMs(WALL.0 - seconds_ago * 1_000),
    };
    let past = Past {
        lifetimes: vec![Lifetime {
            owner: Owner::Tenant(house.who.tenant.id),
            tokens: 5_950,
            cost: PicoUsd(0),
        }],
        periods: vec![entry(40 * 86_400, 9, 5_000), entry(3_600, 100, 500), entry(-3_600, 7, 0)],
        recent: vec![entry(30, 45, 450)],
    };
    house.limits.rebuild(&past, NOW, WALL);
    assert_eq!(
        house.remaining(NOW),
        (Some(45), Some(450)),
        "half of the minute's use has flowed in again"
    );
    assert!(house.reserve(&ask(50, 0), NOW).is_ok());
    assert!(
        matches!(house.reserve(&ask(51, 0), NOW), Err(Exceeded::Budget { .. })),
        "50 of 1000 are left"
    );
    let records = house.limits.records.load();
    let mut spent = records.tenants[&house.who.tenant.id].account.spent.lock();
    assert_eq!(spent.spent(crate::quota::Period::Lifetime, WALL).tokens, 5_950);
}

#[test]
fn the_mean_output_is_learned_per_tenant_and_model() {
    let house = House::of_tenant(0, 0, Budget::default());
    let (tenant, model) = (house.who.tenant.id, ModelId::mint());
    assert_eq!(house.limits.learned_output(&tenant, &model), 256);
    for _ in 0..40 {
        house.limits.learn_output(&tenant, &model, 8);
    }
    assert!(house.limits.learned_output(&tenant, &model) < 20);
    assert_eq!(house.limits.learned_output(&tenant, &ModelId::mint()), 256);
    for _ in 0..2 * MODELS_MAX {
        house.limits.learn_output(&tenant, &ModelId::mint(), 1);
    }
    let records = house.limits.records.load();
    assert_eq!(records.tenants[&tenant].outputs.lock().len(), MODELS_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Σ reserved = Σ settled + Σ returned, whatever threads do: what is missing in the end is what was used.
    #[test]
    fn what_is_missing_in_the_end_is_what_was_used(
        plans in prop::collection::vec(prop::collection::vec((1u64..40, 0u64..60, 0u8..4), 1..40), 4),
    ) {
        let limit = 200_000;
        let tenant = tenant(100_000, limit, Budget { cost: None, tokens: Some(1_000_000), period: BudgetPeriod::Day });
        let key = key(&tenant, 90_000, limit);
        let house = House::new(tenant, key);
        let (tokens, requests) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let (house, tokens, requests) = (&house, &tokens, &requests);
            for plan in &plans {
                scope.spawn(move || {
                    let mut running = Vec::new();
                    for (input, output, what) in plan {
                        running.push(house.reserve(&ask(*input, 30), NOW).unwrap());
                        if *what == 0 {
                            running.pop();
                        } else if *what < 3 && let Some(reservation) = running.pop() {
                            reservation.settle_at(used(*input, *output), NOW);
                            tokens.fetch_add(input + output, Ordering::Relaxed);
                            requests.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let (tokens, requests) = (tokens.into_inner(), requests.into_inner());
        prop_assert_eq!(house.remaining(NOW), (Some(90_000 - requests), Some(limit - tokens)));
        let records = house.limits.records.load();
        let mut spent = records.tenants[&house.who.tenant.id].account.spent.lock();
        prop_assert_eq!(spent.held().tokens, 0);
        prop_assert_eq!(spent.spent(crate::quota::Period::Day, WALL).tokens, tokens);
    }

    /// Threads on one bucket never take more than it holds, also while others give back.
    #[test]
    fn threads_never_hold_more_than_the_bucket(limit in 1u64..50, rounds in 1usize..200) {
        let house = House::of_tenant(0, limit, Budget::default());
        let held = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        if let Ok(reservation) = house.reserve(&ask(1, 0), NOW) {
                            let now_held = held.fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now_held <= limit);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(reservation);
                        }
                    }
                });
            }
        });
        prop_assert_eq!(house.remaining(NOW), (None, Some(limit)));
    }
}
