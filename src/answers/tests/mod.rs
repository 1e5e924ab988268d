//! The store and the flights, under pretend time.

mod flights;
mod keeping;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::*;
use crate::cache::Directives;
use crate::catalog::{
    Budget, CachePolicy, CacheScope, DEFAULT_GROUP, Engine, LoadBalancing, ModelCapacity, ModelType, Prices, Protocol, Provenance,
    Supports, Tenant, TenantStatus, Timeouts, Tls,
};
use crate::llm::{self, Parsed, Route};
use crate::units::{PicoUsd, Weight};

pub(super) const SAVED: Saved = Saved {
    input_tokens: 10,
    output_tokens: 5,
    cost: PicoUsd(7),
};

fn tenant(name: &str) -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: name.to_owned(),
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
    }
}

fn model() -> Model {
    Model {
        id: ModelId::mint(),
        name: "m".to_owned(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: "m".to_owned(),
        endpoints: Vec::new(),
        single: false,
        engine: Engine::Vllm,
        protocol: Protocol::Openai,
        model_type: ModelType::Embedding,
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

/// A catalog with tenants and one model, and the cache that follows it.
pub(super) struct House {
    pub(super) answers: Arc<Answers>,
    pub(super) catalog: Catalog,
    pub(super) model: Arc<Model>,
    pub(super) tenants: Vec<Arc<Tenant>>,
    pub(super) now: Instant,
}

pub(super) fn house(settings: Settings, scope: CacheScope) -> House {
    let mut catalog = Catalog::empty(1);
    let mut tenants = Vec::new();
    for name in ["a", "b", "c"] {
        let tenant = tenant(name);
        catalog.put_tenant(tenant.clone()).unwrap();
        tenants.push(Arc::new(tenant));
    }
    let mut model = model();
    model.cache = CachePolicy {
        enabled: true,
        scope,
        ..CachePolicy::default()
    };
    model.provenance.version = 1;
    catalog.put_model(model.clone()).unwrap();
    let answers = Answers::new(settings);
    answers.apply(&catalog);
    House {
        answers,
        catalog,
        model: Arc::new(model),
        tenants,
        now: Instant::now(),
    }
}

impl House {
    /// Asks as a tenant, with a question of a number.
    pub(super) fn ask(&self, tenant: usize, question: usize) -> Turn {
        self.ask_with(tenant, question, Directives::default())
    }

    pub(super) fn ask_with(&self, tenant: usize, question: usize, directives: Directives) -> Turn {
        let body = Bytes::from(format!(r#"{{"model":"m","input":"{question}"}}"#));
        let parsed: Parsed = llm::read(Route::Embeddings, None, &body).unwrap();
        let ask = Ask {
            tenant: &self.tenants[tenant],
            model: &self.model,
            route: Route::Embeddings,
            parsed: &parsed,
            body: &body,
            dialect: &[],
            directives,
        };
        self.answers.ask(&ask, self.now)
    }

    pub(super) fn leader(&self, tenant: usize, question: usize) -> Leader {
        match self.ask(tenant, question) {
            Turn::Lead(leader) => leader,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn follower(&self, tenant: usize, question: usize) -> Follower {
        match self.ask(tenant, question) {
            Turn::Follow(follower) => follower,
            other => panic!("{other:?}"),
        }
    }

    /// Has a question answered with a body of about `length` bytes.
    pub(super) fn fill(&self, tenant: usize, question: usize, length: usize) {
        answer(self.leader(tenant, question), length, self.now);
    }

    pub(super) fn is_kept(&self, tenant: usize, question: usize) -> bool {
        matches!(
            self.ask_with(tenant, question, Directives::read([b"only-if-cached".as_slice()])),
            Turn::Hit(_)
        )
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

pub(super) fn head(status: u16) -> Head {
    let kind = HeaderValue::from_static("application/json");
    Head::new(status, false, [(&CONTENT_TYPE, &kind)])
}

pub(super) fn answer(leader: Leader, length: usize, now: Instant) {
    leader.begin(head(200));
    leader.push(b"{\"data\":\"");
    leader.push(&vec![b'x'; length]);
    leader.push(b"\"}");
    leader.end(SAVED, true, now);
}
