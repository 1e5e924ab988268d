//! Real threads, the real clock, and many cancellations: at the end nothing is held and nobody was forgotten.

use std::sync::atomic::AtomicU32;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn admission_of(slots: u32, tenants: usize) -> (Arc<Admission>, Vec<Tenant>) {
    let admission = Admission::new(Settings {
        max_queued: 1_000_000,
        ..Settings::default()
    });
    let mut catalog = Catalog::empty(slots);
    let tenants: Vec<Tenant> = (0..tenants).map(|n| tenant(&format!("tenant {n}"))).collect();
    for tenant in &tenants {
        catalog.put_tenant(tenant.clone()).unwrap();
    }
    admission.apply(&catalog);
    (admission, tenants)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap()
}

/// Nobody times out here, so a lost wake-up shows as a test that does not end; this ends it.
async fn within_a_minute<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("a wake-up was lost")
}

#[test]
fn no_wake_up_is_lost_and_the_maximum_is_kept() {
    let (admission, tenants) = admission_of(7, 13);
    let running = Arc::new(AtomicU32::new(0));
    runtime().block_on(within_a_minute(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..64 {
            let (admission, running) = (Arc::clone(&admission), Arc::clone(&running));
            let tenant = tenants[n % tenants.len()].clone();
            tasks.spawn(async move {
                for turn in 0..200 {
                    let mut permit = admission.admit(ask(&tenant)).await.unwrap();
                    assert!(running.fetch_add(1, Ordering::SeqCst) < 7);
                    permit.dispatched();
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    match turn % 3 {
                        0 => drop(permit),
                        _ => permit.settle(100, 50),
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }));
    assert_eq!(
        admission.stats(),
        Stats {
            in_flight: 0,
            queued: 0,
            max_in_flight: 7
        }
    );
    assert_eq!(admission.inner.lock().mailboxes.len(), 0);
}

#[test]
fn ten_thousand_random_cancels_leave_nothing_behind() {
    let seed = 0x0b1e_7400;
    let (admission, tenants) = admission_of(5, 20);
    runtime().block_on(within_a_minute(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..10_000_u64 {
            let admission = Arc::clone(&admission);
            let mut random = StdRng::seed_from_u64(seed + n);
            let tenant = tenants[random.random_range(0..tenants.len())].clone();
            let patience = Duration::from_micros(random.random_range(0..3000));
            let hold = random.random_range(0..4_u32);
            tasks.spawn(async move {
                let asking = async {
                    let mut permit = admission.admit(ask(&tenant)).await?;
                    permit.dispatched();
                    for held in 0..hold {
                        permit.progress(u64::from(held) * 200);
                        tokio::task::yield_now().await;
                    }
                    if hold % 2 == 0 {
                        permit.settle(100, 300);
                    }
                    Ok::<(), Refusal>(())
                };
                // Both ends are lawful: it was served in time, or it was dropped wherever it stood.
                let _served_or_cancelled = tokio::time::timeout(patience, asking).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }));
    assert_eq!(
        admission.stats(),
        Stats {
            in_flight: 0,
            queued: 0,
            max_in_flight: 5
        },
        "seed {seed}"
    );
    assert_eq!(admission.inner.lock().mailboxes.len(), 0);
}

#[test]
fn the_clock_refuses_the_overdue_without_any_other_traffic_and_ends_with_its_admission() {
    let (admission, tenants) = admission_of(0, 1);
    let impatient = Ask {
        patience: Some(Duration::from_millis(120)),
        ..ask(&tenants[0])
    };
    let refused = runtime().block_on(within_a_minute(admission.admit(impatient)));
    let Err(Refusal::TimedOut { waited, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(waited >= Duration::from_millis(120), "{waited:?}");
    let (gone, bell) = (Arc::downgrade(&admission), Arc::downgrade(&admission.bell));
    drop(admission);
    let began = std::time::Instant::now();
    while bell.strong_count() > 0 && began.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    assert_eq!(gone.strong_count(), 0);
    assert_eq!(bell.strong_count(), 0, "the clock thread holds the bell until it ends");
}

#[test]
fn catalogs_may_change_under_load() {
    let (admission, tenants) = admission_of(3, 8);
    runtime().block_on(within_a_minute(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..32 {
            let admission = Arc::clone(&admission);
            let tenant = tenants[n % tenants.len()].clone();
            tasks.spawn(async move {
                for _ in 0..100 {
                    match admission.admit(ask(&tenant)).await {
                        Ok(permit) => permit.settle(10, 10),
                        Err(Refusal::UnknownTenant) => {}
                        Err(other) => panic!("{other}"),
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        let mut catalog = Catalog::empty(3);
        let mut random = StdRng::seed_from_u64(7);
        for tenant in &tenants {
            catalog.put_tenant(tenant.clone()).unwrap();
        }
        for _ in 0..300 {
            let mut tenant = tenants[random.random_range(0..tenants.len())].clone();
            match random.random_range(0..4) {
                0 => drop(catalog.remove_tenant(&tenant.id)),
                1 => catalog.set_max_in_flight(random.random_range(1..6)),
                _ => {
                    tenant.max_in_flight = Some(random.random_range(1..4));
                    tenant.weight = Weight::new(random.random_range(1..1000)).unwrap();
                    catalog.put_tenant(tenant).unwrap();
                }
            }
            admission.apply(&catalog);
            tokio::task::yield_now().await;
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }));
    let Stats { in_flight, queued, .. } = admission.stats();
    assert_eq!((in_flight, queued), (0, 0));
}
