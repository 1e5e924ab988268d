//! Every field of every noun goes out and comes back.

use std::ops::RangeInclusive;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use url::Url;

use super::*;
use crate::catalog::{
    ApiKey, BudgetPeriod, CacheMode, CachePolicy, CacheScope, Credential, Endpoint, Engine, Group, LoadBalancing, ManagedBy, McpServer,
    Model, ModelCapacity, ModelType, Prices, Protocol, Retired, Supports, Timeouts, Tls,
};
use crate::id::{KeyId, McpServerId, ModelId};
use crate::units::PicoUsd;

/// Makes objects whose every field is random, edges included.
struct Maker(StdRng);

impl Maker {
    fn flip(&mut self) -> bool {
        self.0.random()
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.random_range(0..values.len())]
    }

    fn small(&mut self) -> u32 {
        let any = self.0.random();
        self.pick(&[0, 1, u32::MAX, any])
    }

    /// As large as a column holds.
    fn count(&mut self) -> u64 {
        let any = self.0.random_range(0..=i64::MAX as u64);
        self.pick(&[0, 1, i64::MAX as u64, any])
    }

    fn money(&mut self) -> PicoUsd {
        let any = self.0.random();
        PicoUsd(self.pick(&[0, 1, u128::MAX, any]))
    }

    fn time(&mut self) -> UnixMs {
        let any = self.0.random_range(0..=4_102_444_800_000);
        UnixMs(self.pick(&[0, -1, i64::MAX, i64::MIN, any]))
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flip().then(|| make(self))
    }

    fn text(&mut self) -> String {
        const LETTERS: &[char] = &['a', 'Z', '0', ' ', '"', '\\', '\'', '%', '\u{0}', 'ß', '語', '🦀', '\n', '{', ':'];
        (0..self.0.random_range(0..12)).map(|_| self.pick(LETTERS)).collect()
    }

    /// Unlike any other.
    fn name(&mut self) -> String {
        format!("{}{}", self.text(), TenantId::mint())
    }

    fn texts(&mut self) -> Vec<String> {
        (0..self.0.random_range(0..4)).map(|_| self.text()).collect()
    }

    fn weight(&mut self) -> Weight {
        const RANGE: RangeInclusive<u64> = Weight::MIN as u64..=Weight::MAX as u64;
        let any = self.0.random_range(RANGE);
        Weight::new(self.pick(&[*RANGE.start(), *RANGE.end(), any])).unwrap()
    }

    fn budget(&mut self) -> Budget {
        Budget {
            cost: self.maybe(Self::money),
            tokens: self.maybe(Self::count),
            period: self.pick(&[BudgetPeriod::Day, BudgetPeriod::Month, BudgetPeriod::Lifetime]),
        }
    }

    /// Only what is the edit's; the store completes the rest.
    fn provenance(&mut self) -> Provenance {
        Provenance {
            managed_by: self.pick(&[ManagedBy::Api, ManagedBy::File]),
            overridden: self.texts(),
            ..Provenance::default()
        }
    }

    fn url(&mut self) -> Url {
        let port: u16 = self.0.random_range(1..=u16::MAX);
        format!("http://10.0.0.{}:{port}/v1", port % 250).parse().unwrap()
    }

    fn credential(&mut self) -> Credential {
        let secret = format!("secret {}", self.text());
        match self.0.random_range(0..4) {
            0 => Credential {
                reference: Some("env:KNOWN".to_owned()),
                secret: Some("known".into()),
            },
            1 => Credential {
                reference: Some("file:/unknown".to_owned()),
                secret: None,
            },
            2 => Credential {
                reference: None,
                secret: None,
            },
            _ => Credential {
                reference: None,
                secret: Some(secret.into()),
            },
        }
    }

    fn group(&mut self) -> Group {
        Group {
            name: self.name().into(),
            weight: self.weight(),
            provenance: self.provenance(),
        }
    }

    fn tenant(&mut self, group: &Arc<str>) -> Tenant {
        Tenant {
            id: TenantId::mint(),
            name: self.name(),
            description: self.text(),
            group: Arc::clone(group),
            weight: self.weight(),
            tokens_per_minute: self.count(),
            requests_per_minute: self.count(),
            max_in_flight: self.maybe(Self::small),
            max_queued: self.maybe(Self::small),
            status: self.pick(&[TenantStatus::Active, TenantStatus::Suspended]),
            allowed_models: self.maybe(Self::texts),
            budget: self.budget(),
            metadata: self.texts().into_iter().map(|key| (key, self.text())).collect(),
            provenance: self.provenance(),
        }
    }

    fn key(&mut self, tenant_id: TenantId) -> ApiKey {
        ApiKey {
            id: KeyId::mint(),
            tenant_id,
            name: self.text(),
            description: self.text(),
            prefix: self.text(),
            digest: self.0.random(),
            retired: self.maybe(|maker| Retired {
                digest: maker.0.random(),
                until: maker.time(),
            }),
            disabled: self.flip(),
            expires_at: self.maybe(Self::time),
            allowed_models: self.maybe(Self::texts),
            tokens_per_minute: self.count(),
            requests_per_minute: self.count(),
            max_in_flight: self.maybe(Self::small),
            budget: self.budget(),
            provenance: self.provenance(),
        }
    }

    fn endpoint(&mut self) -> Endpoint {
        Endpoint {
            url: self.url(),
            weight: self.weight(),
            priority: self.0.random(),
            max_in_flight: self.maybe(Self::small),
            credential: self.maybe(Self::credential),
        }
    }

    fn cache(&mut self) -> CachePolicy {
        CachePolicy {
            enabled: self.flip(),
            ttl_secs: self.small(),
            scope: self.pick(&[CacheScope::Tenant, CacheScope::Group, CacheScope::Global]),
            max_entry_bytes: self.count(),
            mode: self.pick(&[CacheMode::All, CacheMode::Deterministic]),
        }
    }

    fn model(&mut self) -> Model {
        use Engine::{LlamaCpp, Ollama, Other, Sglang, Tgi, Vllm};
        use ModelType::{AudioSpeech, AudioTranscription, Chat, Completion, Embedding, Image, Rerank};
        let slots = self.small();
        Model {
            id: ModelId::mint(),
            name: self.name(),
            aliases: vec![self.name(), self.name()],
            description: self.text(),
            upstream_model: self.text(),
            endpoints: (0..self.0.random_range(1..4)).map(|_| self.endpoint()).collect(),
            single: self.flip(),
            engine: self.pick(&[Vllm, Sglang, LlamaCpp, Ollama, Tgi, Engine::Openai, Other]),
            protocol: self.pick(&[Protocol::Openai, Protocol::Anthropic]),
            model_type: self.pick(&[Chat, Completion, Embedding, Rerank, Image, AudioSpeech, AudioTranscription]),
            prices: Prices {
                input: self.money(),
                output: self.money(),
                cached_input: self.maybe(Self::money),
                request: self.money(),
            },
            context_window: self.small(),
            admission_weight: self.small(),
            capacity: self.pick(&[ModelCapacity::Uncapped, ModelCapacity::Fixed(slots), ModelCapacity::Auto]),
            load_balancing: self.pick(&[
                LoadBalancing::LeastRequest,
                LoadBalancing::RoundRobin,
                LoadBalancing::Session,
                LoadBalancing::Prefix,
            ]),
            timeouts: Timeouts {
                connect_ms: self.small(),
                first_byte_secs: self.small(),
                idle_secs: self.small(),
                total_secs: self.small(),
            },
            max_retries: self.0.random(),
            retry_after_dispatch: self.flip(),
            engine_priority: self.flip(),
            http2: self.flip(),
            tls: Tls {
                ca_file: self.maybe(Self::text),
                server_name: self.maybe(Self::text),
                client_cert_file: self.maybe(Self::text),
                client_key_file: self.maybe(Self::text),
            },
            supports: Supports {
                function_calling: self.flip(),
                system_messages: self.flip(),
                response_schema: self.flip(),
                tool_choice: self.flip(),
                vision: self.flip(),
            },
            tags: self.texts(),
            enabled: self.flip(),
            cache: self.cache(),
            provenance: self.provenance(),
        }
    }

    fn mcp_server(&mut self, tenants: &[TenantId]) -> McpServer {
        McpServer {
            id: McpServerId::mint(),
            name: self.name(),
            upstream_url: self.url(),
            auth_header: self.maybe(Self::credential),
            auth_header_name: self.text(),
            enabled: self.flip(),
            allowed_tools: self.maybe(Self::texts),
            denied_tools: self.texts(),
            allowed_tenants: self.maybe(|_| tenants.to_vec()),
            allowed_origins: self.texts(),
            idle_timeout_secs: self.small(),
            max_in_flight: self.maybe(Self::small),
            provenance: self.provenance(),
        }
    }

    /// Puts four of everything.
    fn fill(&mut self, catalog: &mut Catalog) {
        catalog.set_max_in_flight(self.small());
        for _ in 0..4 {
            let group = self.group();
            let tenant = self.tenant(&group.name);
            let key = self.key(tenant.id);
            let server = self.mcp_server(&[tenant.id]);
            catalog.put_group(group);
            catalog.put_tenant(tenant).unwrap();
            catalog.put_key(key).unwrap();
            catalog.put_model(self.model()).unwrap();
            catalog.put_mcp_server(server).unwrap();
        }
    }
}

fn sealed() -> Scratch {
    Scratch::with(|options| {
        options.sealing_key = Some([7; 32]);
        options.resolve = Arc::new(|reference| (reference == "env:KNOWN").then(|| "known".into()));
    })
}

#[tokio::test]
async fn every_field_of_every_noun_survives_a_reopening() {
    for seed in 0..24 {
        let scratch = sealed();
        let mut maker = Maker(StdRng::seed_from_u64(seed));
        let before = edit(&scratch.store, move |catalog| maker.fill(catalog)).await;
        assert_same(&before, &scratch.reopened().store.catalog(), &format!("seed {seed}"));
    }
}

#[tokio::test]
async fn a_history_of_random_edits_is_on_disk_as_it_is_in_memory() {
    for seed in 100..108 {
        let scratch = sealed();
        let mut maker = Maker(StdRng::seed_from_u64(seed));
        for _ in 0..12 {
            let step = Maker(StdRng::seed_from_u64(maker.0.random()));
            edit(&scratch.store, move |catalog| shake(catalog, step)).await;
        }
        let before = scratch.store.catalog();
        assert_same(&before, &scratch.reopened().store.catalog(), &format!("seed {seed}"));
    }
}

/// Adds, alters and removes.
fn shake(catalog: &mut Catalog, mut maker: Maker) {
    maker.fill(catalog);
    let tenants: Vec<_> = catalog.tenants().values().cloned().collect();
    for tenant in tenants {
        match maker.0.random_range(0..4) {
            0 => drop(catalog.remove_tenant(&tenant.id)),
            1 => catalog
                .put_tenant(Tenant {
                    id: tenant.id,
                    ..maker.tenant(&tenant.group)
                })
                .unwrap(),
            _ => {}
        }
    }
    let models: Vec<_> = catalog.models().values().cloned().collect();
    for model in models {
        match maker.0.random_range(0..3) {
            0 => drop(catalog.remove_model(&model.id)),
            1 => catalog
                .put_model(Model {
                    id: model.id,
                    ..maker.model()
                })
                .unwrap(),
            _ => {}
        }
    }
    let groups: Vec<_> = catalog.groups().values().map(|group| Arc::clone(&group.name)).collect();
    for group in groups {
        // One that is in use stays.
        let _ = catalog.remove_group(&group);
    }
}

#[tokio::test]
async fn two_tenants_swap_their_names_in_one_change() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (tenant("left"), tenant("right"));
    let (l, r) = (left.clone(), right.clone());
    edit(&scratch.store, |catalog| {
        catalog.put_tenant(l).unwrap();
        catalog.put_tenant(r).unwrap();
    })
    .await;
    std::mem::swap(&mut left.name, &mut right.name);
    let id = left.id;
    edit(&scratch.store, |catalog| {
        let aside = Tenant {
            name: "aside".to_owned(),
            ..left.clone()
        };
        catalog.put_tenant(aside).unwrap();
        catalog.put_tenant(right).unwrap();
        catalog.put_tenant(left).unwrap();
    })
    .await;
    let catalog = scratch.reopened().store.catalog();
    assert_eq!(catalog.tenant_named("right").unwrap().id, id);
    assert_eq!(catalog.tenants().get(&id).unwrap().provenance.version, 2);
}

#[tokio::test]
async fn a_deleted_tenant_takes_its_keys_along() {
    let scratch = Scratch::new();
    let tenant = tenant("acme");
    let id = tenant.id;
    let key = Maker(StdRng::seed_from_u64(1)).key(id);
    edit(&scratch.store, |catalog| {
        catalog.put_tenant(tenant).unwrap();
        catalog.put_key(key).unwrap();
    })
    .await;
    edit(&scratch.store, move |catalog| catalog.remove_tenant(&id).is_some()).await;
    let scratch = scratch.reopened();
    assert!(scratch.store.catalog().keys().is_empty());
    let rows = scratch.store.read(Duration::from_secs(5), |connection| {
        connection.query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(rows.await, Ok(0));
}

#[tokio::test]
async fn a_number_that_a_column_cannot_hold_is_refused_by_name() {
    let scratch = Scratch::new();
    let tenant = Tenant {
        tokens_per_minute: i64::MAX as u64 + 1,
        ..tenant("acme")
    };
    let change = scratch
        .store
        .change(author(), |catalog, _| catalog.put_tenant(tenant).map(Change::new));
    assert_eq!(change.await.unwrap_err(), ChangeError::TooLarge("tokens_per_minute"));
    assert!(scratch.store.catalog().tenants().is_empty());
}
