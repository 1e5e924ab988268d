//! Usage over 90 days: every route's question to a ledger of `OBLETH_BENCH_REQUESTS` requests (a million unless said
//! otherwise) by 20 tenants with two keys each, to 5 models. The bound is 200 ms at ten million.
#![expect(clippy::unwrap_used, reason = "a bench has no client to disappoint")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use obleth::id::{KeyId, RequestId, TenantId};
use obleth::store::ledger::{CacheStatus, Charge, Cursor, Outcome, Row, Saved, Timing, Tokens, UsageSource};
use obleth::store::usage::{Filter, GroupBy};
use obleth::store::{Options, Store};
use obleth::units::{PicoUsd, UnixMs};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const DAY_MS: i64 = 86_400_000;
const DAYS: i64 = 90;
const T0: i64 = 20_000 * DAY_MS;

fn row(random: &mut StdRng, at: i64, people: &[(TenantId, KeyId)], models: &[Arc<str>]) -> Row {
    let (tenant, key) = people[random.random_range(0..people.len())];
    let output = random.random_range(10..800);
    Row {
        request_id: RequestId::mint(),
        at: UnixMs(at),
        tenant,
        key,
        model: Arc::clone(&models[random.random_range(0..models.len())]),
        client_request_id: None,
        session_id: None,
        endpoint: Arc::from("http://127.0.0.1:8000"),
        route: "/v1/chat/completions".into(),
        outcome: if random.random_range(0..50) == 0 {
            Outcome::Error
        } else {
            Outcome::Ok
        },
        status: 200,
        error_code: None,
        attempts: 1,
        attempt_log: Box::default(),
        tokens: Tokens {
            input: random.random_range(10..2_000),
            cached_input: 0,
            output,
            reasoning: 0,
        },
        usage_source: UsageSource::Reported,
        charge: Charge {
            input: PicoUsd(1_000_000),
            output: PicoUsd(u128::from(output) * 2_000),
            request: PicoUsd(0),
        },
        cache: CacheStatus::Off,
        saved: Saved::default(),
        timing: Timing {
            queue_ms: random.random_range(0..200),
            ttft_ms: Some(random.random_range(20..900)),
            total_ms: random.random_range(900..20_000),
        },
        stream: true,
    }
}

fn filled(requests: i64) -> (Arc<Store>, (TenantId, KeyId), tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(dir.path().join("obleth.db"))).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let tenants: Vec<TenantId> = (0..20).map(|_| TenantId::mint()).collect();
    let people: Vec<_> = tenants
        .iter()
        .flat_map(|tenant| [(*tenant, KeyId::mint()), (*tenant, KeyId::mint())])
        .collect();
    let models: Vec<Arc<str>> = (0..5).map(|number| Arc::from(format!("model-{number}"))).collect();
    let mut rows = Vec::new();
    for number in 0..requests {
        rows.push(row(&mut random, T0 + number * (DAYS * DAY_MS) / requests, &people, &models));
        if rows.len() == 10_000 || number + 1 == requests {
            store.append(Arc::new(std::mem::take(&mut rows)), Cursor::default()).unwrap();
        }
    }
    (store, people[3], dir)
}

fn usage(c: &mut Criterion) {
    let requests = std::env::var("OBLETH_BENCH_REQUESTS").map_or(1_000_000, |text| text.parse().unwrap());
    let (store, (tenant, key), _dir) = filled(requests);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Neither end on a minute: the remainders are read from rows.
    let all = Filter {
        tenant: None,
        key: None,
        model: None,
        since: UnixMs(T0 + 12_345_678),
        until: UnixMs(T0 + DAYS * DAY_MS - 9_876_543),
    };
    let of_tenant = Filter {
        tenant: Some(tenant),
        ..all.clone()
    };
    let of_key = Filter {
        key: Some(key),
        ..all.clone()
    };
    let now = UnixMs(T0 + 100 * DAY_MS);
    let mut group = c.benchmark_group(format!("90 days of {requests} requests"));
    group.sample_size(10);
    for (name, by) in [("tenant", GroupBy::Tenant), ("key", GroupBy::Key), ("model", GroupBy::Model)] {
        group.bench_function(format!("usage by {name}"), |b| {
            b.iter(|| runtime.block_on(store.usage(all.clone(), by, now)).unwrap());
        });
    }
    group.bench_function("models", |b| {
        b.iter(|| runtime.block_on(store.usage_models(all.clone(), now)).unwrap())
    });
    group.bench_function("models of a tenant", |b| {
        b.iter(|| runtime.block_on(store.usage_models(of_tenant.clone(), now)).unwrap());
    });
    group.bench_function("series of 5 minutes", |b| {
        b.iter(|| runtime.block_on(store.usage_series(all.clone(), 300_000, now)).unwrap());
    });
    group.bench_function("series of 5 minutes of a key", |b| {
        b.iter(|| runtime.block_on(store.usage_series(of_key.clone(), 300_000, now)).unwrap());
    });
    group.bench_function("series of a day by tenant", |b| {
        b.iter(|| runtime.block_on(store.usage_series_by_tenant(all.clone(), DAY_MS, now)).unwrap());
    });
    group.bench_function("log of a tenant", |b| {
        b.iter(|| runtime.block_on(store.requests(of_tenant.clone(), 100, None)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, usage);
criterion_main!(benches);
