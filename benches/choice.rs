//! Choosing an endpoint among 64 and giving it back, per policy, beside a naive rival: one mutex around a scan for the
//! least loaded. The choice allocates nothing: it loads two pointers, clones two `Arc`s and counts in three atomics.
#![expect(clippy::unwrap_used, reason = "a bench has no readers of its API and no client to disappoint")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use obleth::catalog::{self, Catalog, LoadBalancing, Model};
use obleth::id::ModelId;
use obleth::units::Weight;
use obleth::upstreams::{Blocks, Hint, Settings, Upstreams};
use parking_lot::Mutex;

const ENDPOINTS: u16 = 64;

fn model(policy: LoadBalancing) -> Model {
    let endpoint = |host: u16| catalog::Endpoint {
        url: format!("http://10.0.0.{host}:8000").parse().unwrap(),
        // Unequal, so that no shortcut for equal weights is taken.
        weight: Weight::new(u64::from(100 + host)).unwrap(),
        priority: 0,
        max_in_flight: Some(1000),
        credential: None,
    };
    Model {
        id: ModelId::mint(),
        name: "llama".to_owned(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: "llama".to_owned(),
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        single: false,
        engine: catalog::Engine::Vllm,
        protocol: catalog::Protocol::default(),
        model_type: catalog::ModelType::default(),
        prices: catalog::Prices::default(),
        context_window: 8192,
        admission_weight: 100,
        capacity: catalog::ModelCapacity::default(),
        load_balancing: policy,
        timeouts: catalog::Timeouts::default(),
        max_retries: 1,
        retry_after_dispatch: false,
        engine_priority: false,
        http2: false,
        tls: catalog::Tls::default(),
        supports: catalog::Supports::default(),
        tags: Vec::new(),
        enabled: true,
        cache: catalog::CachePolicy::default(),
        provenance: catalog::Provenance::default(),
    }
}

fn upstreams(policy: LoadBalancing) -> (Arc<Upstreams>, ModelId) {
    let model = model(policy);
    let id = model.id;
    let mut catalog = Catalog::empty(64);
    catalog.put_model(model).unwrap();
    let upstreams = Upstreams::new(Settings::default());
    upstreams.apply(&catalog);
    (upstreams, id)
}

/// A session and a prompt of eight blocks.
fn hint(blocks: &Blocks, turn: u64) -> Hint<'_> {
    Hint {
        session: Some(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        prefix: blocks.as_slice(),
    }
}

/// The naive rival.
struct Scan(Mutex<Vec<(SocketAddr, u32, u32)>>);

impl Scan {
    fn new() -> Self {
        let row = |host: u16| (format!("10.0.0.{host}:8000").parse().unwrap(), u32::from(100 + host), 0);
        Self(Mutex::new((0..ENDPOINTS).map(row).collect()))
    }

    fn choose(&self) -> usize {
        let mut rows = self.0.lock();
        let least = (0..rows.len())
            .min_by_key(|at| u64::from(rows[*at].2 + 1) * 1_000_000 / u64::from(rows[*at].1))
            .unwrap();
        rows[least].2 += 1;
        least
    }

    fn give_back(&self, at: usize) {
        self.0.lock()[at].2 -= 1;
    }
}

fn choice(c: &mut Criterion) {
    let blocks = Blocks::of(&[&[b'x'; 4096]], 0);
    let policies = [
        ("least_request", LoadBalancing::LeastRequest),
        ("round_robin", LoadBalancing::RoundRobin),
        ("session", LoadBalancing::Session),
        ("prefix", LoadBalancing::Prefix),
    ];
    let mut group = c.benchmark_group("choice/64");
    for (name, policy) in policies {
        let (upstreams, id) = upstreams(policy);
        let mut turn = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                turn += 1;
                black_box(upstreams.choose(&id, &hint(&blocks, turn), &[]).unwrap())
            });
        });
    }
    let scan = Scan::new();
    group.bench_function("rival: mutex and scan", |b| {
        b.iter(|| scan.give_back(black_box(scan.choose())));
    });
    group.finish();
}

/// The same while another thread chooses too.
fn contended(c: &mut Criterion) {
    let blocks = Blocks::of(&[&[b'x'; 4096]], 0);
    let mut group = c.benchmark_group("choice/64/contended");
    let (upstreams, id) = upstreams(LoadBalancing::LeastRequest);
    beside(
        || drop(black_box(upstreams.choose(&id, &hint(&blocks, 1), &[]))),
        || {
            group.bench_function("least_request", |b| {
                b.iter(|| black_box(upstreams.choose(&id, &hint(&blocks, 1), &[]).unwrap()));
            });
        },
    );
    let scan = Scan::new();
    beside(
        || scan.give_back(black_box(scan.choose())),
        || {
            group.bench_function("rival: mutex and scan", |b| {
                b.iter(|| scan.give_back(black_box(scan.choose())));
            });
        },
    );
    group.finish();
}

/// Runs `measured` while another thread does `work` over and over.
fn beside(work: impl Fn() + Sync, measured: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                work();
            }
        });
        measured();
        stop.store(true, Ordering::Relaxed);
    });
}

fn hints(c: &mut Criterion) {
    let prompt = vec![b'x'; 16 << 10];
    c.bench_function("blocks of 16 KiB", |b| b.iter(|| Blocks::of(&[black_box(&prompt)], 0)));
}

criterion_group!(benches, choice, contended, hints);
criterion_main!(benches);
