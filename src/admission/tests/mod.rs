//! Permits and places from outside: a small catalog, pretend time, and real threads.

mod following;
mod giving_back;
mod hammer;
mod handing_over;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock::Clock;
use super::{Admission, Ask, Permit, Refusal, Settings, Slots, Stats};
use crate::catalog::{
    ApiKey, Budget, CachePolicy, Catalog, DEFAULT_GROUP, Engine, Group, LoadBalancing, Model, ModelCapacity, ModelType, Prices, Protocol,
    Provenance, Supports, Tenant, TenantStatus, Timeouts, Tls,
};
use crate::id::{KeyId, ModelId, TenantId};
use crate::units::Weight;

/// An admission whose time stands still until the test moves it, and the catalog it follows.
struct House {
    admission: Arc<Admission>,
    now_ms: Arc<AtomicU64>,
    catalog: Catalog,
}

impl House {
    fn new(slots: u32) -> Self {
        Self::with(slots, &Settings::default())
    }

    fn with(slots: u32, settings: &Settings) -> Self {
        let now_ms = Arc::new(AtomicU64::new(1));
        let admission = Arc::new(Admission::with_clock(settings, Clock::Pretend(Arc::clone(&now_ms)), Slots::Models));
        let house = Self {
            admission,
            now_ms,
            catalog: Catalog::empty(slots),
        };
        house.apply();
        house
    }

    fn apply(&self) {
        self.admission.apply(&self.catalog);
    }

    /// Lets time pass as the clock thread would.
    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
        self.admission.tick();
    }

    fn tenant(&mut self, name: &str) -> Tenant {
        let tenant = tenant(name);
        self.catalog.put_tenant(tenant.clone()).unwrap();
        self.apply();
        tenant
    }

    fn key(&mut self, tenant: &Tenant, max_in_flight: Option<u32>) -> ApiKey {
        let key = key(tenant, max_in_flight);
        self.catalog.put_key(key.clone()).unwrap();
        self.apply();
        key
    }

    fn model(&mut self, capacity: ModelCapacity) -> Model {
        let model = model(capacity);
        self.catalog.put_model(model.clone()).unwrap();
        self.apply();
        model
    }

    /// Asks, and polls once.
    fn ask(&self, ask: Ask) -> Asking {
        let admission = Arc::clone(&self.admission);
        let mut asking = Asking(Box::pin(async move { admission.admit(ask).await }));
        asking.first_poll();
        asking
    }

    fn counts(&self) -> (u32, u32) {
        let Stats { in_flight, queued, .. } = self.admission.stats();
        (in_flight, queued)
    }
}

/// A request in the middle of asking.
struct Asking(std::pin::Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + Send>>);

impl Asking {
    /// Enters; what was granted at once is kept for `now`.
    fn first_poll(&mut self) {
        if let Poll::Ready(answer) = self.poll() {
            *self = Self(Box::pin(async move { answer }));
        }
    }

    fn poll(&mut self) -> Poll<Result<Permit, Refusal>> {
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn now(mut self) -> Result<Permit, Refusal> {
        match self.poll() {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("still waiting"),
        }
    }

    fn waits(&mut self) -> bool {
        self.poll().is_pending()
    }
}

fn ask(tenant: &Tenant) -> Ask {
    Ask {
        tenant: tenant.id,
        key: KeyId::mint(),
        model: ModelId::mint(),
        input_tokens: 100,
        max_tokens: None,
        body_bytes: 1000,
        patience: None,
    }
}

fn tenant(name: &str) -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: name.to_owned(),
        description: String::new(),
        group: Arc::from(DEFAULT_GROUP),
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

fn key(tenant: &Tenant, max_in_flight: Option<u32>) -> ApiKey {
    let id = KeyId::mint();
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(id.as_bytes());
    ApiKey {
        id,
        tenant_id: tenant.id,
        name: "key".to_owned(),
        description: String::new(),
        prefix: String::new(),
        digest,
        retired: None,
        disabled: false,
        expires_at: None,
        allowed_models: None,
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight,
        budget: Budget::default(),
        provenance: Provenance::default(),
    }
}

fn model(capacity: ModelCapacity) -> Model {
    let id = ModelId::mint();
    Model {
        id,
        name: id.to_string(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: "llama".to_owned(),
        endpoints: Vec::new(),
        single: false,
        engine: Engine::default(),
        protocol: Protocol::default(),
        model_type: ModelType::default(),
        prices: Prices::default(),
        context_window: 8192,
        admission_weight: 100,
        capacity,
        load_balancing: LoadBalancing::default(),
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
