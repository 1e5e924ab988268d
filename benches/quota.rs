//! Reserve and settle at one key with all four buckets, beside a naive rival: one mutex around a map of counters.
#![expect(clippy::unwrap_used, reason = "a bench has no readers of its API and no client to disappoint")]

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use obleth::catalog::{ApiKey, Budget, Catalog, DEFAULT_GROUP, Principal, Provenance, Tenant, TenantStatus};
use obleth::id::{KeyId, TenantId};
use obleth::limits::{Actual, Ask, Limits, Settings};
use obleth::quota::Moment;
use obleth::units::{PicoUsd, UnixMs, Weight};
use parking_lot::Mutex;

const LIMIT: u64 = 1 << 40;
const WALL: UnixMs = UnixMs(1_795_500_000_000);

fn catalog(tokens_budget: Option<u64>) -> (Catalog, Principal) {
    let budget = Budget {
        tokens: tokens_budget,
        ..Budget::default()
    };
    let tenant = Tenant {
        id: TenantId::mint(),
        name: "acme".to_owned(),
        description: String::new(),
        group: DEFAULT_GROUP.into(),
        weight: Weight::default(),
        tokens_per_minute: LIMIT,
        requests_per_minute: LIMIT,
        max_in_flight: None,
        max_queued: None,
        status: TenantStatus::Active,
        allowed_models: None,
        budget,
        metadata: BTreeMap::new(),
        provenance: Provenance::default(),
    };
    let key = ApiKey {
        id: KeyId::mint(),
        tenant_id: tenant.id,
        name: "prod".to_owned(),
        description: String::new(),
        prefix: String::new(),
        digest: [7; 32],
        retired: None,
        disabled: false,
        expires_at: None,
        allowed_models: None,
        tokens_per_minute: LIMIT,
        requests_per_minute: LIMIT,
        max_in_flight: None,
        budget,
        provenance: Provenance::default(),
    };
    let mut catalog = Catalog::empty(1);
    catalog.put_tenant(tenant).unwrap();
    catalog.put_key(key).unwrap();
    let who = catalog.principal(&[7; 32]).unwrap();
    (catalog, who)
}

fn ours(c: &mut Criterion, name: &str, budget: Option<u64>) {
    let (catalog, who) = catalog(budget);
    let limits = Limits::new(Settings { epoch: Instant::now() });
    limits.apply(&catalog);
    let ask = Ask {
        input_tokens: 100,
        max_tokens: Some(200),
        learned_output: 256,
        cost_estimate: PicoUsd(0),
    };
    let actual = Actual {
        input: 100,
        output: 50,
        cost: PicoUsd(0),
    };
    let mut now = 0;
    c.bench_function(name, |b| {
        b.iter(|| {
            now += 1_000;
            let reservation = limits.reserve(black_box(&who), &ask, Moment(now), WALL).unwrap();
            reservation.settle_at(black_box(actual), Moment(now));
        });
    });
}

/// What one would write first: a fixed window per key and per tenant in a map behind a mutex.
#[derive(Default)]
struct Rival {
    windows: Mutex<HashMap<[u8; 16], (u64, u64, u64)>>,
}

impl Rival {
    fn add(&self, id: [u8; 16], minute: u64, requests: u64, tokens: i64) -> bool {
        let mut windows = self.windows.lock();
        let window = windows.entry(id).or_default();
        if window.0 != minute {
            *window = (minute, 0, 0);
        }
        let after = window.2.saturating_add_signed(tokens);
        if window.1 + requests > LIMIT || after > LIMIT {
            return false;
        }
        *window = (minute, window.1 + requests, after);
        true
    }
}

fn rival(c: &mut Criterion) {
    let (_, who) = catalog(None);
    let rival = Rival::default();
    let mut now = 0;
    c.bench_function("reserve + settle, rival: Mutex<HashMap>", |b| {
        b.iter(|| {
            now += 1_000;
            let minute = now / 60_000_000_000;
            for id in [*who.key.id.as_bytes(), *who.tenant.id.as_bytes()] {
                black_box(rival.add(black_box(id), minute, 1, 300));
            }
            for id in [*who.key.id.as_bytes(), *who.tenant.id.as_bytes()] {
                black_box(rival.add(black_box(id), minute, 0, -150));
            }
        });
    });
}

fn all(c: &mut Criterion) {
    ours(c, "reserve + settle, four buckets", None);
    ours(c, "reserve + settle, four buckets, two budgets", Some(u64::MAX / 2));
    rival(c);
}

criterion_group!(benches, all);
criterion_main!(benches);
