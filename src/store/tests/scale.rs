//! Ten thousand tenants, fifty thousand keys, two hundred models.

use std::time::Instant;

use url::Url;

use super::*;
use crate::catalog::{
    ApiKey, CachePolicy, Endpoint, Engine, LoadBalancing, Model, ModelCapacity, ModelType, Prices, Protocol, Supports, Timeouts, Tls,
};
use crate::id::{KeyId, ModelId};

const TENANTS: u32 = 10_000;
const KEYS_EACH: u32 = 5;
const MODELS: u32 = 200;

/// What a release build is held to; a debug build gets ten times as long, for it is ten times slower.
const SLACK: u32 = if cfg!(debug_assertions) { 10 } else { 1 };
const LOAD_MAX: Duration = Duration::from_secs(1);
const CHANGE_MAX: Duration = Duration::from_millis(20);

fn key(tenant_id: TenantId, number: u32) -> ApiKey {
    let id = KeyId::mint();
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(id.as_bytes());
    digest[16..20].copy_from_slice(&number.to_be_bytes());
    ApiKey {
        id,
        tenant_id,
        name: format!("key {number}"),
        description: String::new(),
        prefix: "sk_0123456789abcde".to_owned(),
        digest,
        retired: None,
        disabled: false,
        expires_at: None,
        allowed_models: None,
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight: None,
        budget: Budget::default(),
        provenance: Provenance::default(),
    }
}

fn model(number: u32) -> Model {
    Model {
        id: ModelId::mint(),
        name: format!("model-{number}"),
        aliases: vec![format!("alias-{number}")],
        description: String::new(),
        upstream_model: "m".to_owned(),
        endpoints: vec![Endpoint {
            url: Url::parse("http://127.0.0.1:8000/v1").unwrap(),
            weight: Weight::default(),
            priority: 0,
            max_in_flight: None,
            credential: None,
        }],
        single: true,
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
        cache: CachePolicy::default(),
        provenance: Provenance::default(),
    }
}

fn populate(catalog: &mut Catalog) {
    for number in 0..TENANTS {
        let tenant = tenant(&format!("tenant {number}"));
        let id = tenant.id;
        catalog.put_tenant(tenant).unwrap();
        for number in 0..KEYS_EACH {
            catalog.put_key(key(id, number)).unwrap();
        }
    }
    for number in 0..MODELS {
        catalog.put_model(model(number)).unwrap();
    }
}

#[tokio::test]
async fn a_large_store_opens_quickly_and_changes_quickly() {
    let scratch = Scratch::new();
    let filling = Instant::now();
    edit(&scratch.store, populate).await;
    println!(
        "one change of {} objects: {:?}",
        TENANTS * (1 + KEYS_EACH) + MODELS,
        filling.elapsed()
    );
    let (options, _dir) = scratch.closed();
    let opening = Instant::now();
    let (store, catalog) = Store::open(options).unwrap();
    let opening = opening.elapsed();
    println!("opening: {opening:?}");
    assert_eq!(catalog.keys().len(), (TENANTS * KEYS_EACH) as usize);
    assert!(opening < LOAD_MAX * SLACK, "opening took {opening:?}");
    let some: Vec<_> = catalog.keys().values().take(50).cloned().collect();
    drop(catalog);
    let mut waits: Vec<_> = Vec::with_capacity(some.len());
    for key in some {
        let began = Instant::now();
        edit(&store, move |catalog| {
            let key = ApiKey {
                disabled: true,
                ..ApiKey::clone(&key)
            };
            catalog.put_key(key).unwrap();
        })
        .await;
        waits.push(began.elapsed());
    }
    waits.sort();
    let median = waits[waits.len() / 2];
    println!("disabling one key: median {median:?}, worst {:?}", waits[waits.len() - 1]);
    assert!(median < CHANGE_MAX * SLACK, "a change took {median:?}");
    let began = Instant::now();
    let creates: Vec<_> = (0..100)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { create(&store, author(), &format!("new {number}")).await.map(drop) })
        })
        .collect();
    for create in creates {
        create.await.unwrap().unwrap();
    }
    println!("a hundred creates at once: {:?}", began.elapsed());
}
