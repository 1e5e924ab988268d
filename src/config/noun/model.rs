//! Models in the file (API.md A4). Addresses and their credentials are one field, `endpoints`: a credential must not follow
//! an address that only one side has changed.

use serde_json::{Value, json};

use super::credential::{credential_shown, credential_taken};
use super::{Noun, SLOTS_MAX, WAIT_SECS_MAX, by_file};
use crate::catalog::{
    CacheMode, CachePolicy, CacheScope, Endpoint, Engine, LoadBalancing, Model, ModelCapacity, ModelType, Prices, Protocol, Provenance,
    RETRIES_MAX, Supports, Timeouts, Tls, Word,
};
use crate::config::field::{Field, Vault, field};
use crate::config::kind::Kind;
use crate::config::wire::Wire;
use crate::id::ModelId;

const NAME: Kind = Kind::Line(1, 256);

static FIELDS: &[Field<Model>] = &[
    field!("aliases": Kind::Set(&NAME, 100) => aliases),
    field!("description": Kind::Prose(4096) => description),
    Field {
        name: "upstream_model",
        kind: NAME,
        // Null is "as the model is called", which follows the name.
        get: |model| {
            if model.upstream_model == model.name {
                Value::Null
            } else {
                model.upstream_model.show()
            }
        },
        set: |model, value, _| {
            value
                .as_str()
                .unwrap_or(&model.name)
                .to_owned()
                .clone_into(&mut model.upstream_model)
        },
    },
    Field {
        name: "endpoints",
        kind: Kind::Endpoints,
        get: endpoints_shown,
        set: set_endpoints,
    },
    field!("engine": Kind::Word(Engine::NAMES) => engine),
    field!("protocol": Kind::Word(Protocol::NAMES) => protocol),
    field!("model_type": Kind::Word(ModelType::NAMES) => model_type),
    field!("input_cost_per_token": Kind::Money => prices.input),
    field!("output_cost_per_token": Kind::Money => prices.output),
    field!("cached_input_cost_per_token": Kind::Money => prices.cached_input),
    field!("cost_per_request": Kind::Money => prices.request),
    field!("context_window": Kind::Whole(1, 1_000_000_000) => context_window),
    field!("admission_weight": Kind::Whole(1, 1_000_000) => admission_weight),
    field!("max_in_flight": Kind::Slots(SLOTS_MAX) => capacity),
    field!("load_balancing": Kind::Word(LoadBalancing::NAMES) => load_balancing),
    field!("connect_timeout_ms": Kind::Whole(1, 600_000) => timeouts.connect_ms),
    field!("first_byte_timeout_secs": Kind::Whole(1, WAIT_SECS_MAX) => timeouts.first_byte_secs),
    field!("idle_timeout_secs": Kind::Whole(1, WAIT_SECS_MAX) => timeouts.idle_secs),
    field!("total_timeout_secs": Kind::Whole(1, WAIT_SECS_MAX) => timeouts.total_secs),
    field!("max_retries": Kind::Whole(0, RETRIES_MAX as u64) => max_retries),
    field!("retry_after_dispatch": Kind::Flag => retry_after_dispatch),
    field!("engine_priority": Kind::Flag => engine_priority),
    field!("http2": Kind::Flag => http2),
    field!("tls_ca_file": Kind::Path => tls.ca_file),
    field!("tls_server_name": Kind::Line(1, 253) => tls.server_name),
    field!("tls_client_cert_file": Kind::Path => tls.client_cert_file),
    field!("tls_client_key_file": Kind::Path => tls.client_key_file),
    field!("supports_function_calling": Kind::Flag => supports.function_calling),
    field!("supports_system_messages": Kind::Flag => supports.system_messages),
    field!("supports_response_schema": Kind::Flag => supports.response_schema),
    field!("supports_tool_choice": Kind::Flag => supports.tool_choice),
    field!("supports_vision": Kind::Flag => supports.vision),
    field!("tags": Kind::Set(&Kind::Line(1, 128), 100) => tags),
    field!("enabled": Kind::Flag => enabled),
    field!("cache_enabled": Kind::Flag => cache.enabled),
    field!("cache_ttl_secs": Kind::Whole(1, 366 * 86_400) => cache.ttl_secs),
    field!("cache_scope": Kind::Word(CacheScope::NAMES) => cache.scope),
    field!("cache_max_entry_bytes": Kind::Whole(1, 1_073_741_824) => cache.max_entry_bytes),
    field!("cache_mode": Kind::Word(CacheMode::NAMES) => cache.mode),
];

fn endpoints_shown(model: &Model) -> Value {
    let list: Vec<Value> = model
        .endpoints
        .iter()
        .map(|endpoint| {
            json!({
                "url": endpoint.url.as_str(),
                "weight": endpoint.weight.get(),
                "priority": endpoint.priority,
                "max_in_flight": endpoint.max_in_flight,
                "api_key": credential_shown(endpoint.credential.as_ref()),
            })
        })
        .collect();
    json!({"single": model.single, "list": list})
}

fn set_endpoints(model: &mut Model, value: &Value, vault: &Vault) {
    let take = |value: &Value| {
        let part = |name: &str| value.get(name).unwrap_or(&Value::Null);
        Some(Endpoint {
            url: Wire::take(part("url"))?,
            weight: Wire::take(part("weight"))?,
            priority: Wire::take(part("priority"))?,
            max_in_flight: Wire::take(part("max_in_flight"))?,
            credential: credential_taken(part("api_key"), vault),
        })
    };
    let list = value.get("list").and_then(Value::as_array);
    let endpoints: Option<Vec<Endpoint>> = list.and_then(|list| list.iter().map(take).collect());
    if let Some(endpoints) = endpoints {
        model.endpoints = endpoints;
        model.single = value.get("single").and_then(Value::as_bool).unwrap_or(false);
    }
}

impl Noun for Model {
    const NOUN: &'static str = "model";
    const A_NOUN: &'static str = "a model";
    const LIST: &'static str = "models";
    const NAME: &'static str = "model_name";
    const NAME_KIND: Kind = NAME;
    const ACTIONS: [&'static str; 3] = ["create_model", "update_model", "delete_model"];

    fn fields() -> &'static [Field<Self>] {
        FIELDS
    }

    fn blank(name: &str) -> Self {
        Self {
            id: ModelId::mint(),
            name: name.to_owned(),
            aliases: Vec::new(),
            description: String::new(),
            upstream_model: name.to_owned(),
            endpoints: Vec::new(),
            single: false,
            engine: Engine::default(),
            protocol: Protocol::default(),
            model_type: ModelType::default(),
            prices: Prices::default(),
            context_window: 8192,
            admission_weight: 100,
            capacity: ModelCapacity::default(),
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
            provenance: by_file(),
        }
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}
