//! The room from outside: what a catalog makes choosable, and what becomes of the marks.

mod checks;
mod names;
mod server;
mod slots;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::catalog::{self, Catalog, McpServer, Model};
use crate::units::Weight;

pub(super) fn endpoint(url: &str) -> catalog::Endpoint {
    catalog::Endpoint {
        url: url.parse().unwrap(),
        weight: Weight::default(),
        priority: 0,
        max_in_flight: None,
        credential: None,
    }
}

pub(super) fn model(endpoints: Vec<catalog::Endpoint>) -> Model {
    Model {
        id: ModelId::mint(),
        name: "llama".to_owned(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: "llama".to_owned(),
        endpoints,
        single: false,
        engine: catalog::Engine::default(),
        protocol: catalog::Protocol::default(),
        model_type: catalog::ModelType::default(),
        prices: catalog::Prices::default(),
        context_window: 8192,
        admission_weight: 100,
        capacity: catalog::ModelCapacity::default(),
        load_balancing: LoadBalancing::default(),
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

pub(super) fn catalog(models: impl IntoIterator<Item = Model>) -> Catalog {
    let mut catalog = Catalog::empty(64);
    for model in models {
        catalog.put_model(model).unwrap();
    }
    catalog
}

fn with(model: &Model) -> Arc<Upstreams> {
    let upstreams = Upstreams::new(Settings::default());
    upstreams.apply(&catalog([model.clone()]));
    upstreams
}

#[test]
fn a_model_registered_with_an_address_is_choosable_at_once() {
    let model = model(vec![endpoint("http://10.0.0.7:8000/v1")]);
    let upstreams = with(&model);
    let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
    assert_eq!(chosen.addr(), "10.0.0.7:8000".parse().unwrap());
    assert_eq!(chosen.host(), "10.0.0.7:8000");
    assert_eq!(chosen.label(), "10.0.0.7:8000");
    assert_eq!(chosen.path_for("/v1/chat/completions"), "/v1/chat/completions");
    assert_eq!(upstreams.health(&model.id)[0].in_flight, 1);
    drop(chosen);
    assert_eq!(upstreams.health(&model.id)[0].in_flight, 0);
}

#[test]
fn the_base_path_is_kept_with_and_without_v1() {
    for (base, path) in [
        ("http://10.0.0.7", "/v1/embeddings"),
        ("http://10.0.0.7/", "/v1/embeddings"),
        ("http://10.0.0.7/v1", "/v1/embeddings"),
        ("http://10.0.0.7/v1/", "/v1/embeddings"),
        ("http://10.0.0.7/openai/v1", "/openai/v1/embeddings"),
        ("http://10.0.0.7/openai", "/openai/v1/embeddings"),
    ] {
        let model = model(vec![endpoint(base)]);
        let chosen = with(&model).choose(&model.id, &Hint::default(), &[]).unwrap();
        assert_eq!(chosen.path_for("/v1/embeddings"), path, "{base}");
    }
}

#[test]
fn each_address_is_tried_once_and_then_nobody_is_left() {
    let model = model((1..=3).map(|host| endpoint(&format!("http://10.0.0.{host}:8000"))).collect());
    let upstreams = with(&model);
    let mut tried = Vec::new();
    let mut addresses = BTreeSet::new();
    for _ in 0..3 {
        let chosen = upstreams.choose(&model.id, &Hint::default(), &tried).unwrap();
        tried.push(chosen.id());
        addresses.insert(chosen.addr());
    }
    assert_eq!(addresses.len(), 3);
    assert_eq!(
        upstreams.choose(&model.id, &Hint::default(), &tried).unwrap_err(),
        Unavailable::AllTried
    );
}

#[test]
fn an_unknown_model_has_no_endpoints() {
    let upstreams = Upstreams::new(Settings::default());
    let refused = upstreams.choose(&ModelId::mint(), &Hint::default(), &[]).unwrap_err();
    assert_eq!(refused, Unavailable::NoEndpoints);
}

#[test]
fn a_name_is_unresolved_until_it_is_looked_up() {
    let model = model(vec![endpoint("http://vllm.internal:8000")]);
    let refused = with(&model).choose(&model.id, &Hint::default(), &[]).unwrap_err();
    assert_eq!(refused, Unavailable::Unresolved { last_error: None });
}

#[test]
fn a_model_over_tls_is_not_asked_in_the_clear() {
    let model = model(vec![endpoint("https://10.0.0.7:8443")]);
    let chosen = with(&model).choose(&model.id, &Hint::default(), &[]);
    if cfg!(feature = "tls") {
        let peer = chosen.unwrap().peer();
        assert_eq!((peer.is_tls(), peer.sni.as_str()), (true, "10.0.0.7"));
    } else {
        let refused = chosen.unwrap_err();
        assert!(refused.to_string().contains("no TLS"), "{refused}");
    }
}

/// Waits until `ready` says so, at most ten seconds.
async fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
