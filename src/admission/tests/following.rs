//! The catalog's changes obeyed while requests wait and run.

use super::*;

#[test]
fn an_unknown_tenant_is_refused_and_a_deleted_ones_waiters_are_too() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let stranger = tenant("stranger");
    assert_eq!(house.ask(ask(&stranger)).now().unwrap_err(), Refusal::UnknownTenant);
    let held = house.ask(ask(&acme)).now().unwrap();
    let waiting = house.ask(ask(&acme));
    house.catalog.remove_tenant(&acme.id);
    house.apply();
    assert_eq!(waiting.now().unwrap_err(), Refusal::UnknownTenant);
    assert_eq!(house.ask(ask(&acme)).now().unwrap_err(), Refusal::UnknownTenant);
    held.settle(1, 1);
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn capacity_follows_up_and_down() {
    let mut house = House::new(0);
    let acme = house.tenant("acme");
    let mut first = house.ask(ask(&acme));
    let mut second = house.ask(ask(&acme));
    assert!(first.waits() && second.waits());
    house.catalog.set_max_in_flight(1);
    house.apply();
    let first = first.now().unwrap();
    assert!(second.waits());
    house.catalog.set_max_in_flight(0);
    house.apply();
    drop(first);
    assert!(second.waits(), "0 admits nothing");
    house.catalog.set_max_in_flight(5);
    house.apply();
    drop(second.now().unwrap());
}

#[test]
fn a_tenants_cap_and_group_follow_with_its_waiters() {
    let mut house = House::new(8);
    let mut acme = house.tenant("acme");
    acme.max_in_flight = Some(1);
    house.catalog.put_group(Group::new("research"));
    house.catalog.put_tenant(acme.clone()).unwrap();
    house.apply();
    let held = house.ask(ask(&acme)).now().unwrap();
    let mut waiting = house.ask(ask(&acme));
    assert!(waiting.waits());
    acme.group = Arc::from("research");
    house.catalog.put_tenant(acme.clone()).unwrap();
    house.apply();
    let live = house.admission.live();
    assert_eq!(live.tenants[0].group, Arc::from("research"));
    let research = live.groups.iter().find(|group| &*group.name == "research").unwrap();
    assert_eq!((research.in_flight, research.queued), (1, 1));
    acme.max_in_flight = None;
    house.catalog.put_tenant(acme).unwrap();
    house.apply();
    drop(waiting.now().unwrap());
    drop(held);
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn a_group_may_go_when_its_tenants_have_moved_out() {
    let mut house = House::new(8);
    house.catalog.put_group(Group::new("research"));
    let mut acme = tenant("acme");
    acme.group = Arc::from("research");
    house.catalog.put_tenant(acme.clone()).unwrap();
    house.apply();
    let held = house.ask(ask(&acme)).now().unwrap();
    acme.group = Arc::from(DEFAULT_GROUP);
    house.catalog.put_tenant(acme.clone()).unwrap();
    house.catalog.remove_group("research").unwrap();
    house.apply();
    let names: Vec<Arc<str>> = house.admission.live().groups.iter().map(|group| Arc::clone(&group.name)).collect();
    assert_eq!(names, [Arc::from(DEFAULT_GROUP)]);
    held.settle(1, 1);
}

#[test]
fn a_keys_cap_follows_and_counts_what_already_runs() {
    let mut house = House::new(8);
    let acme = house.tenant("acme");
    let mut prod = house.key(&acme, None);
    let by_key = Ask {
        key: prod.id,
        ..ask(&acme)
    };
    let first = house.ask(by_key).now().unwrap();
    let second = house.ask(by_key).now().unwrap();
    prod.max_in_flight = Some(2);
    house.catalog.put_key(prod.clone()).unwrap();
    house.apply();
    let mut third = house.ask(by_key);
    assert!(third.waits());
    drop(house.ask(ask(&acme)).now().unwrap());
    house.catalog.remove_key(&prod.id);
    house.apply();
    assert!(third.waits(), "it was let in under the cap");
    drop(first);
    drop(third.now().unwrap());
    drop(house.ask(by_key).now().unwrap());
    drop(second);
    assert_eq!(house.counts(), (0, 0));
}

#[test]
fn a_models_cap_follows_the_catalog_or_if_auto_whoever_learns_it() {
    let mut house = House::new(8);
    let acme = house.tenant("acme");
    let mut llama = house.model(ModelCapacity::Fixed(1));
    let to_llama = Ask {
        model: llama.id,
        ..ask(&acme)
    };
    let first = house.ask(to_llama).now().unwrap();
    let mut second = house.ask(to_llama);
    assert!(second.waits());
    house.admission.set_model_cap(llama.id, Some(7));
    assert!(second.waits(), "a fixed cap is the catalog's");
    llama.capacity = ModelCapacity::Auto;
    house.catalog.put_model(llama.clone()).unwrap();
    house.apply();
    drop(second.now().unwrap());
    house.admission.set_model_cap(llama.id, Some(1));
    let mut third = house.ask(to_llama);
    assert!(third.waits());
    house.catalog.remove_model(&llama.id);
    house.apply();
    assert!(third.waits(), "its cap holds for who is in");
    drop(house.ask(to_llama).now().unwrap());
    drop(first);
    drop(third.now().unwrap());
    assert_eq!(house.admission.live().models, []);
}

#[test]
fn a_weight_changed_live_changes_the_next_picks() {
    let mut house = House::new(1);
    let acme = house.tenant("acme");
    let mut other = house.tenant("other");
    let mut running = house.ask(ask(&acme)).now().unwrap();
    other.weight = Weight::new(900).unwrap();
    house.catalog.put_tenant(other.clone()).unwrap();
    house.apply();
    let mut waiting: Vec<(bool, Asking)> = Vec::new();
    for _ in 0..40 {
        waiting.push((true, house.ask(ask(&acme))));
        waiting.push((false, house.ask(ask(&other))));
    }
    let mut served_acme = 0;
    for _ in 0..40 {
        running.settle(100, 100);
        let granted = waiting.iter_mut().enumerate().find_map(|(at, (_, asking))| match asking.poll() {
            Poll::Ready(answer) => Some((at, answer.unwrap())),
            Poll::Pending => None,
        });
        let (at, permit) = granted.unwrap();
        served_acme += u32::from(waiting.remove(at).0);
        running = permit;
    }
    assert!((3..=5).contains(&served_acme), "{served_acme} of 40 at a tenth of the weight");
}
