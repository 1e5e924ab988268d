//! The hit path: the key of a request by its size, and the look-up with everything under its lock; beside it a miss that
//! leads, is told a hundred pieces, and is kept.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench has no readers of its API and no client to disappoint"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::header::{CONTENT_TYPE, HeaderValue};
use obleth::answers::{Answers, Ask, Head, Saved, Settings, Turn};
use obleth::cache::Directives;
use obleth::catalog::{
    Budget, CachePolicy, Catalog, DEFAULT_GROUP, Engine, LoadBalancing, Model, ModelCapacity, ModelType, Prices, Protocol, Provenance,
    Supports, Tenant, TenantStatus, Timeouts, Tls,
};
use obleth::id::{ModelId, TenantId};
use obleth::llm::{self, Parsed, Route};
use obleth::units::Weight;

struct House {
    answers: Arc<Answers>,
    tenant: Tenant,
    model: Model,
}

fn house() -> House {
    let tenant = Tenant {
        id: TenantId::mint(),
        name: "acme".to_owned(),
        description: String::new(),
        group: DEFAULT_GROUP.into(),
        weight: Weight::default(),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight: None,
        max_queued: None,
        status: TenantStatus::Active,
        allowed_models: None,
        budget: Budget::default(),
        metadata: BTreeMap::new(),
        provenance: Provenance::default(),
    };
    let model = Model {
        id: ModelId::mint(),
        name: "m".to_owned(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: "m".to_owned(),
        endpoints: Vec::new(),
        single: false,
        engine: Engine::Vllm,
        protocol: Protocol::Openai,
        model_type: ModelType::Chat,
        prices: Prices::default(),
        context_window: 8192,
        admission_weight: 100,
        capacity: ModelCapacity::Uncapped,
        load_balancing: LoadBalancing::LeastRequest,
        timeouts: Timeouts::default(),
        max_retries: 1,
        retry_after_dispatch: false,
        engine_priority: false,
        http2: false,
        tls: Tls::default(),
        supports: Supports::default(),
        tags: Vec::new(),
        enabled: true,
        cache: CachePolicy {
            enabled: true,
            ..CachePolicy::default()
        },
        provenance: Provenance::default(),
    };
    let mut catalog = Catalog::empty(1);
    catalog.put_tenant(tenant.clone()).unwrap();
    catalog.put_model(model.clone()).unwrap();
    let answers = Answers::new(Settings::default());
    answers.apply(&catalog);
    House { answers, tenant, model }
}

struct Question {
    body: Bytes,
    parsed: Parsed,
}

fn question(number: usize, length: usize) -> Question {
    let text = "All work and no play. ".repeat(length / 22 + 1);
    let body = Bytes::from(format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"system","content":"{number}"}},{{"role":"user","content":"{text}"}}]}}"#
    ));
    let parsed = llm::read(Route::ChatCompletions, None, &body).unwrap();
    Question { body, parsed }
}

impl House {
    fn ask(&self, question: &Question, now: Instant) -> Turn {
        let ask = Ask {
            tenant: &self.tenant,
            model: &self.model,
            route: Route::ChatCompletions,
            parsed: &question.parsed,
            body: &question.body,
            dialect: &[None, None],
            directives: Directives::default(),
        };
        self.answers.ask(&ask, now)
    }

    fn answer(&self, question: &Question, now: Instant) {
        let Turn::Lead(leader) = self.ask(question, now) else {
            panic!("asked before")
        };
        let kind = HeaderValue::from_static("text/event-stream");
        leader.begin(Head::new(200, true, [(&CONTENT_TYPE, &kind)]));
        for _ in 0..100 {
            leader.push(b"data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n");
        }
        leader.push(b"data: [DONE]\n\n");
        leader.end(Saved::default(), true, now);
    }
}

fn hit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answers/hit");
    let now = Instant::now();
    for length in [100, 4_000, 64_000] {
        let house = house();
        // Among many others, as it will be.
        for number in 0..5_000 {
            house.answer(&question(number, 10), now);
        }
        let question = question(0, length);
        house.answer(&question, now);
        group.throughput(Throughput::Bytes(question.body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(length), &question, |bencher, question| {
            bencher.iter(|| {
                let Turn::Hit(stored) = house.ask(black_box(question), now) else {
                    panic!("not kept")
                };
                stored.pieces().len()
            });
        });
    }
    group.finish();
}

fn miss(criterion: &mut Criterion) {
    let house = house();
    let now = Instant::now();
    let mut number = 0;
    criterion.bench_function("answers/miss of 100 pieces, kept", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                question(number, 100)
            },
            |question| house.answer(&question, now),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, hit, miss);
criterion_main!(benches);
