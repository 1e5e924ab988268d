//! Usage over 90 days: every route's question to a ledger of `OBLETH_BENCH_REQUESTS` requests (a million unless said
//! otherwise) by 20 tenants with two keys each, to 5 models. The bound is 200 ms at ten million. `OBLETH_BENCH_STORE` names a
//! directory in which the ledger is kept for the next run, which then asks the same one.
#![expect(clippy::unwrap_used, reason = "a bench has no client to disappoint")]

use std::path::{Path, PathBuf};
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

/// As the gateway would have minted it then.
fn minted_at(ms: i64) -> RequestId {
    let ms = ms.unsigned_abs();
    let nanoseconds = u32::try_from(ms % 1_000).unwrap() * 1_000_000;
    let time = uuid::Timestamp::from_unix(uuid::NoContext, ms / 1_000, nanoseconds);
    RequestId::from_bytes(uuid::Uuid::new_v7(time).into_bytes())
}

fn row(random: &mut StdRng, at: i64, people: &[(TenantId, KeyId)], models: &[Arc<str>]) -> Row {
    let (tenant, key) = people[random.random_range(0..people.len())];
    let output = random.random_range(10..800);
    Row {
        request_id: minted_at(at),
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

fn filled(requests: i64, dir: &Path) -> (Arc<Store>, (TenantId, KeyId)) {
    let path = dir.join("obleth.db");
    let filled = path.exists();
    let (store, _) = Store::open(Options::new(path)).unwrap();
    // The same people in every run: ids from a seed.
    let mut random = StdRng::seed_from_u64(7);
    let mut people = Vec::new();
    for _ in 0..20 {
        let tenant = TenantId::from_bytes(random.random());
        people.extend([
            (tenant, KeyId::from_bytes(random.random())),
            (tenant, KeyId::from_bytes(random.random())),
        ]);
    }
    let models: Vec<Arc<str>> = (0..5).map(|number| Arc::from(format!("model-{number}"))).collect();
    let mut rows = Vec::new();
    for number in 0..requests {
        if filled {
            break;
        }
        rows.push(row(&mut random, T0 + number * (DAYS * DAY_MS) / requests, &people, &models));
        if rows.len() == 10_000 || number + 1 == requests {
            store.append(Arc::new(std::mem::take(&mut rows)), Cursor::default()).unwrap();
        }
    }
    (store, people[3])
}

fn usage(c: &mut Criterion) {
    let requests = std::env::var("OBLETH_BENCH_REQUESTS").map_or(1_000_000, |text| text.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("OBLETH_BENCH_STORE").map(PathBuf::from);
    let (store, (tenant, key)) = filled(requests, kept.as_deref().unwrap_or(scratch.path()));
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
    group.bench_function("series of 5 minutes of a tenant", |b| {
        b.iter(|| runtime.block_on(store.usage_series(of_tenant.clone(), 300_000, now)).unwrap());
    });
    let of_model = Filter {
        model: Some("model-1".to_owned()),
        ..of_tenant.clone()
    };
    group.bench_function("series of 5 minutes of a tenant's model", |b| {
        b.iter(|| runtime.block_on(store.usage_series(of_model.clone(), 300_000, now)).unwrap());
    });
    group.bench_function("series of 7 minutes, refused", |b| {
        b.iter(|| runtime.block_on(store.usage_series_by_tenant(all.clone(), 420_000, now)).unwrap());
    });
    group.bench_function("series of an hour by tenant", |b| {
        b.iter(|| runtime.block_on(store.usage_series_by_tenant(all.clone(), 3_600_000, now)).unwrap());
    });
    group.bench_function("series of a day by tenant", |b| {
        b.iter(|| runtime.block_on(store.usage_series_by_tenant(all.clone(), DAY_MS, now)).unwrap());
    });
    group.bench_function("log of a tenant", |b| {
        b.iter(|| runtime.block_on(store.requests(of_tenant.clone(), 100, None)).unwrap());
    });
    group.bench_function("log of a tenant's model", |b| {
        b.iter(|| runtime.block_on(store.requests(of_model.clone(), 100, None)).unwrap());
    });
    group.bench_function("log of a key", |b| {
        b.iter(|| runtime.block_on(store.requests(of_key.clone(), 100, None)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, usage);
criterion_main!(benches);
