//! What is kept, for whom, how long, and who gives way.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Room for about a hundred answers of 1000 bytes; a quarter of it for each tenant.
const SMALL: Settings = Settings {
    max_bytes: 200_000,
    max_entries: 1000,
    tenant_share_percent: 25,
    max_filling_bytes: 1 << 20,
    follower_buffer_bytes: 1000,
};

#[test]
fn an_answer_is_had_again_by_its_tenant_alone_unless_the_scope_is_wider() {
    for (scope, shared) in [(CacheScope::Tenant, false), (CacheScope::Group, true), (CacheScope::Global, true)] {
        let house = house(Settings::default(), scope);
        house.fill(0, 1, 10);
        assert!(house.is_kept(0, 1));
        assert_eq!(house.is_kept(1, 1), shared, "{scope:?}");
        assert!(!house.is_kept(0, 2));
    }
}

#[test]
fn an_answer_dies_at_the_end_of_its_time_and_its_bytes_with_it() {
    let mut house = house(Settings::default(), CacheScope::Tenant);
    house.fill(0, 1, 10);
    house.pass(Duration::from_millis(299_999));
    assert!(house.is_kept(0, 1));
    house.pass(Duration::from_millis(1));
    assert!(!house.is_kept(0, 1));
    let counters = house.answers.counters(house.now);
    assert_eq!((counters.entries, counters.bytes), (0, 0));
    assert_eq!((counters.hits, counters.misses), (1, 2));
    assert_eq!((counters.tokens_saved, counters.cost_saved), (15, PicoUsd(7)));
}

#[test]
fn a_flood_evicts_the_flooders_own_answers_only() {
    let house = house(SMALL, CacheScope::Global);
    for question in 0..10 {
        house.fill(1, question, 1000);
    }
    for question in 100..1000 {
        house.fill(0, question, 1000);
    }
    assert!((0..10).all(|question| house.is_kept(1, question)));
    let kept = (100..1000).filter(|question| house.is_kept(0, *question)).count();
    assert!((20..=50).contains(&kept), "{kept}");
    assert!(house.is_kept(0, 999));
}

#[test]
fn where_the_whole_is_full_whoever_holds_most_gives_way() {
    // Shares that together are more than the whole.
    let house = house(
        Settings {
            tenant_share_percent: 80,
            ..SMALL
        },
        CacheScope::Tenant,
    );
    for question in 0..500 {
        house.fill(0, question, 1000);
    }
    for question in 0..500 {
        house.fill(1, question, 1000);
        house.fill(2, question, 1000);
    }
    let kept: Vec<usize> = (0..3)
        .map(|tenant| (0..500).filter(|question| house.is_kept(tenant, *question)).count())
        .collect();
    assert!(kept[0].abs_diff(kept[1]) <= 1 && kept[1].abs_diff(kept[2]) <= 1, "{kept:?}");
    assert!(kept[0] >= 30, "{kept:?}");
}

#[test]
fn what_is_wanted_again_survives_a_scan() {
    let house = house(SMALL, CacheScope::Tenant);
    for question in 0..10 {
        house.fill(0, question, 1000);
    }
    assert!((0..10).all(|question| house.is_kept(0, question)));
    for question in 100..2000 {
        house.fill(0, question, 1000);
    }
    let survivors = (0..10).filter(|question| house.is_kept(0, *question)).count();
    assert!(survivors >= 8, "{survivors} of 10");
}

#[test]
fn an_answer_larger_than_its_bounds_is_not_kept_and_evicts_nothing() {
    let house = house(SMALL, CacheScope::Tenant);
    house.fill(0, 1, 1000);
    house.fill(0, 2, 60_000);
    assert!(house.is_kept(0, 1) && !house.is_kept(0, 2));
}

#[test]
fn only_whole_good_answers_are_kept() {
    let house = house(Settings::default(), CacheScope::Tenant);
    let try_keeping = |question, status, body: &'static [u8], sound| {
        let leader = house.leader(0, question);
        leader.begin(head(status));
        leader.push(body);
        leader.end(SAVED, sound, house.now);
        house.is_kept(0, question)
    };
    assert!(try_keeping(1, 200, b"{}", true));
    assert!(!try_keeping(2, 201, b"{}", true));
    assert!(!try_keeping(3, 400, b"{}", true));
    assert!(!try_keeping(4, 200, b"{\"a\":", true));
    assert!(!try_keeping(5, 200, b"{}", false));
    assert!(!try_keeping(6, 200, b"", true));
    let short = house.leader(0, 7);
    let length = HeaderValue::from_static("3");
    short.begin(Head::new(200, false, [(&http::header::CONTENT_LENGTH, &length)]));
    short.push(b"{}");
    short.end(SAVED, true, house.now);
    assert!(!house.is_kept(0, 7));
    let encoded = house.leader(0, 8);
    let gzip = HeaderValue::from_static("gzip");
    encoded.begin(Head::new(200, false, [(&http::header::CONTENT_ENCODING, &gzip)]));
    encoded.push(b"{}");
    encoded.end(SAVED, true, house.now);
    assert!(!house.is_kept(0, 8));
}

#[test]
fn a_purge_empties_the_model_and_what_was_asked_before_it_is_not_kept_after_it() {
    let house = house(Settings::default(), CacheScope::Tenant);
    house.fill(0, 1, 10);
    let before = house.leader(0, 2);
    house.answers.purge(&house.model.id);
    assert_eq!(house.answers.counters(house.now).entries, 0);
    // A newcomer does not join what began before the purge.
    let after = house.leader(0, 2);
    answer(before, 10, house.now);
    assert!(!house.is_kept(0, 2));
    answer(after, 10, house.now);
    assert!(house.is_kept(0, 2));
}

#[test]
fn a_changed_a_removed_and_a_switched_off_model_lose_their_answers_and_an_unchanged_one_does_not() {
    let change = |edit: &dyn Fn(&mut House)| {
        let mut house = house(Settings::default(), CacheScope::Tenant);
        house.fill(0, 1, 10);
        let running = house.leader(0, 2);
        edit(&mut house);
        house.answers.apply(&house.catalog);
        answer(running, 10, house.now);
        house.answers.counters(house.now).entries
    };
    let edit = |house: &mut House, edit: &dyn Fn(&mut Model)| {
        let mut model = Model::clone(&house.model);
        edit(&mut model);
        house.catalog.put_model(model).unwrap();
    };
    assert_eq!(change(&|_| {}), 2);
    assert_eq!(change(&|house| edit(house, &|_| {})), 2);
    assert_eq!(change(&|house| edit(house, &|model| model.provenance.version = 2)), 0);
    assert_eq!(change(&|house| edit(house, &|model| model.cache.enabled = false)), 0);
    assert_eq!(change(&|house| drop(house.catalog.remove_model(&house.model.id))), 0);
    // A tenant that is gone takes along what was kept for it; what still runs goes by itself when its time is over.
    assert_eq!(change(&|house| drop(house.catalog.remove_tenant(&house.tenants[0].id))), 1);
}

#[test]
fn the_client_may_pass_the_cache_by_and_still_fill_it() {
    let house = house(Settings::default(), CacheScope::Tenant);
    let say = |text: &'static str| Directives::read([text.as_bytes()]);
    assert!(matches!(house.ask_with(0, 1, say("no-store")), Turn::Bypass(None)));
    let Turn::Bypass(Some(leader)) = house.ask_with(0, 1, say("no-cache")) else {
        panic!("no-cache is a bypass that is kept")
    };
    // Nobody joins it.
    let other = house.leader(0, 1);
    answer(leader, 10, house.now);
    assert!(house.is_kept(0, 1));
    drop(other);
    assert!(house.is_kept(0, 1));
    assert!(matches!(house.ask_with(0, 2, say("only-if-cached")), Turn::NotCached));
    assert_eq!(house.answers.counters(house.now).bypasses, 2);
}

#[derive(Debug, Clone)]
enum Do {
    Fill(usize, usize, usize),
    Get(usize, usize),
    Pass(u64),
    Purge,
}

fn doings() -> impl Strategy<Value = Vec<Do>> {
    prop::collection::vec(
        prop_oneof![
            6 => (0..3_usize, 0..60_usize, 0..6000_usize).prop_map(|(tenant, question, length)| Do::Fill(tenant, question, length)),
            6 => (0..3_usize, 0..60_usize).prop_map(|(tenant, question)| Do::Get(tenant, question)),
            1 => (0..200_u64).prop_map(Do::Pass),
            1 => Just(Do::Purge),
        ],
        0..300,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, no bound is passed, no share either, and the books are right.
    #[test]
    fn the_bounds_hold(doings in doings()) {
        let mut house = house(SMALL, CacheScope::Tenant);
        for doing in doings {
            match doing {
                Do::Fill(tenant, question, length) => {
                    if let Turn::Lead(leader) = house.ask(tenant, question) {
                        answer(leader, length, house.now);
                    }
                }
                Do::Get(tenant, question) => drop(house.is_kept(tenant, question)),
                Do::Pass(seconds) => house.pass(Duration::from_secs(seconds)),
                Do::Purge => house.answers.purge(&house.model.id),
            }
            let inner = house.answers.inner.lock();
            prop_assert!(inner.flights.is_empty());
            prop_assert!(inner.shelf.bytes() <= SMALL.max_bytes);
            let held: Vec<u64> = house.tenants.iter().map(|tenant| inner.shelf.held_by(&tenant.id)).collect();
            prop_assert!(held.iter().all(|held| *held <= SMALL.share()), "{held:?}");
            prop_assert!(held.iter().sum::<u64>() <= SMALL.max_bytes);
            drop(inner);
            prop_assert_eq!(house.answers.filling.held.load(std::sync::atomic::Ordering::Relaxed), 0);
        }
        house.answers.purge(&house.model.id);
        let counters = house.answers.counters(house.now);
        prop_assert_eq!((counters.entries, counters.bytes), (0, 0));
        let inner = house.answers.inner.lock();
        prop_assert!(house.tenants.iter().all(|tenant| inner.shelf.held_by(&tenant.id) == 0));
    }
}
