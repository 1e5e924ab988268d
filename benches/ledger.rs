//! The ledger: what a request pays for its intent and its row, and how many rows a second reach the store.
#![expect(clippy::unwrap_used, reason = "a bench has no client to disappoint")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use obleth::id::{KeyId, RequestId, TenantId};
use obleth::metering::{CacheStatus, Charge, Intent, Meter, Outcome, Row, Saved, Settings, Timing, Tokens, UsageSource};
use obleth::store::{Options, Store};
use obleth::units::{PicoUsd, UnixMs};

struct People {
    tenants: Vec<(TenantId, KeyId)>,
    models: Vec<Arc<str>>,
}

impl People {
    fn new() -> Self {
        Self {
            tenants: (0..20).map(|_| (TenantId::mint(), KeyId::mint())).collect(),
            models: (0..5).map(|number| Arc::from(format!("model-{number}"))).collect(),
        }
    }

    fn intent(&self, number: usize) -> Intent {
        let (tenant, key) = self.tenants[number % self.tenants.len()];
        Intent {
            request_id: RequestId::mint(),
            at: UnixMs(1_795_500_000_000 + i64::try_from(number / 20).unwrap()),
            tenant,
            key,
            model: Arc::clone(&self.models[number / 7 % self.models.len()]),
            client_request_id: Some("req-0123456789abcdef".into()),
            session_id: None,
            endpoint: Arc::from("http://127.0.0.1:8000"),
            route: "/v1/chat/completions".into(),
            cache: CacheStatus::Off,
            stream: true,
            input_tokens: 250,
            input_cost: PicoUsd(250_000),
        }
    }
}

fn row(intent: &Intent) -> Row {
    Row {
        request_id: intent.request_id,
        at: intent.at,
        tenant: intent.tenant,
        key: intent.key,
        model: Arc::clone(&intent.model),
        client_request_id: intent.client_request_id.clone(),
        session_id: None,
        endpoint: Arc::clone(&intent.endpoint),
        route: intent.route.clone(),
        outcome: Outcome::Ok,
        status: 200,
        error_code: None,
        attempts: 1,
        attempt_log: Box::default(),
        tokens: Tokens {
            input: 240,
            cached_input: 0,
            output: 180,
            reasoning: 0,
        },
        usage_source: UsageSource::Reported,
        charge: Charge {
            input: PicoUsd(240_000),
            output: PicoUsd(360_000),
            request: PicoUsd(0),
        },
        cache: CacheStatus::Off,
        saved: Saved::default(),
        timing: Timing {
            queue_ms: 4,
            ttft_ms: Some(120),
            total_ms: 3_400,
        },
        stream: true,
    }
}

fn house() -> (Arc<Meter>, Arc<Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(dir.path().join("obleth.db"))).unwrap();
    let mut settings = Settings::new(dir.path().join("spool"), Arc::new(|| UnixMs(0)));
    settings.spool_bytes_max = 4 << 30;
    let meter = Meter::open(&settings, Arc::clone(&store) as _).unwrap();
    (meter, store, dir)
}

/// One request's share on the request thread, with the mover at work beside it.
fn begin_and_settle(c: &mut Criterion) {
    let (meter, _store, _dir) = house();
    let people = People::new();
    let mut number = 0;
    c.bench_function("begin + settle", |b| {
        b.iter_custom(|rounds| {
            let intents: Vec<(Intent, Row)> = (0..rounds)
                .map(|_| {
                    number += 1;
                    let intent = people.intent(number);
                    let row = row(&intent);
                    (intent, row)
                })
                .collect();
            let start = Instant::now();
            for (intent, row) in intents {
                meter.begin(intent).unwrap().settle(row);
            }
            start.elapsed()
        });
    });
    assert!(meter.flush(Duration::from_secs(120)));
}

/// Rows a second from `begin` to the store, everything included: the time until the last is durable.
fn sustained(c: &mut Criterion) {
    let (meter, _store, _dir) = house();
    let people = People::new();
    let mut group = c.benchmark_group("sustained");
    group.sample_size(10).throughput(criterion::Throughput::Elements(50_000));
    let mut number = 0;
    group.bench_function("50 000 requests into the store", |b| {
        b.iter(|| {
            for _ in 0..50_000 {
                number += 1;
                let intent = people.intent(number);
                let row = row(&intent);
                meter.begin(intent).unwrap().settle(row);
            }
            assert!(meter.flush(Duration::from_secs(120)));
        });
    });
    group.finish();
}

criterion_group!(benches, begin_and_settle, sustained);
criterion_main!(benches);
