//! How models are shown and kept.

use std::sync::Arc;

use serde::Serialize;
use url::Url;

use super::slots;
use crate::admin::desk::{Desk, Noun};
use crate::admin::face::Face;
use crate::admin::provenance;
use crate::admin::shown::{self, text};
use crate::admin::words::spell;
use crate::catalog::{
    CacheMode, CacheScope, Catalog, Conflict, Engine, LoadBalancing, Model, ModelCapacity, ModelType, Protocol, Provenance,
};
use crate::id::ModelId;
use crate::pricing::Usd;
use crate::upstreams::{HealthState, Upstreams};

#[derive(Serialize)]
struct Settings<'a> {
    model_name: &'a str,
    aliases: &'a [String],
    description: &'a str,
    upstream_model: &'a str,
    api_base: Option<&'a str>,
    endpoints: Option<Vec<ShownEndpoint<'a>>>,
    #[serde(serialize_with = "spell")]
    engine: Engine,
    #[serde(serialize_with = "spell")]
    protocol: Protocol,
    #[serde(serialize_with = "spell")]
    model_type: ModelType,
    input_cost_per_token: Usd,
    output_cost_per_token: Usd,
    cached_input_cost_per_token: Option<Usd>,
    cost_per_request: Usd,
    context_window: u32,
    admission_weight: u32,
    #[serde(serialize_with = "slots::show")]
    max_in_flight: ModelCapacity,
    #[serde(serialize_with = "spell")]
    load_balancing: LoadBalancing,
    connect_timeout_ms: u32,
    first_byte_timeout_secs: u32,
    idle_timeout_secs: u32,
    total_timeout_secs: u32,
    max_retries: u8,
    retry_after_dispatch: bool,
    engine_priority: bool,
    http2: bool,
    tls_ca_file: Option<&'a str>,
    tls_server_name: Option<&'a str>,
    tls_client_cert_file: Option<&'a str>,
    tls_client_key_file: Option<&'a str>,
    supports_function_calling: bool,
    supports_system_messages: bool,
    supports_response_schema: bool,
    supports_tool_choice: bool,
    supports_vision: bool,
    tags: &'a [String],
    enabled: bool,
    cache_enabled: bool,
    cache_ttl_secs: u32,
    #[serde(serialize_with = "spell")]
    cache_scope: CacheScope,
    cache_max_entry_bytes: u64,
    #[serde(serialize_with = "spell")]
    cache_mode: CacheMode,
}

#[derive(Serialize)]
struct ShownEndpoint<'a> {
    url: &'a str,
    weight: u32,
    priority: u16,
    max_in_flight: Option<u32>,
    api_key_set: bool,
}

/// How an endpoint stands now.
#[derive(Serialize)]
struct Health<'a> {
    url: &'a str,
    status: &'static str,
    in_flight: u32,
    last_error: Option<Arc<str>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(serialize_with = "text")]
    id: ModelId,
    #[serde(flatten)]
    settings: Settings<'a>,
    api_key_set: bool,
    health: Vec<Health<'a>>,
    #[serde(flatten)]
    provenance: provenance::Shown<'a>,
}

/// A URL without the slash that parsing adds to a bare host: as most people type it.
pub(in crate::admin) fn address(url: &Url) -> &str {
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if bare { url.as_str().trim_end_matches('/') } else { url.as_str() }
}

fn settings(model: &Model) -> Settings<'_> {
    let single = model.endpoints.first().filter(|_| model.single);
    let endpoints = || model.endpoints.iter().map(endpoint).collect();
    Settings {
        model_name: &model.name,
        aliases: &model.aliases,
        description: &model.description,
        upstream_model: &model.upstream_model,
        api_base: single.map(|endpoint| address(&endpoint.url)),
        endpoints: single.is_none().then(endpoints),
        engine: model.engine,
        protocol: model.protocol,
        model_type: model.model_type,
        input_cost_per_token: Usd(model.prices.input),
        output_cost_per_token: Usd(model.prices.output),
        cached_input_cost_per_token: model.prices.cached_input.map(Usd),
        cost_per_request: Usd(model.prices.request),
        context_window: model.context_window,
        admission_weight: model.admission_weight,
        max_in_flight: model.capacity,
        load_balancing: model.load_balancing,
        connect_timeout_ms: model.timeouts.connect_ms,
        first_byte_timeout_secs: model.timeouts.first_byte_secs,
        idle_timeout_secs: model.timeouts.idle_secs,
        total_timeout_secs: model.timeouts.total_secs,
        max_retries: model.max_retries,
        retry_after_dispatch: model.retry_after_dispatch,
        engine_priority: model.engine_priority,
        http2: model.http2,
        tls_ca_file: model.tls.ca_file.as_deref(),
        tls_server_name: model.tls.server_name.as_deref(),
        tls_client_cert_file: model.tls.client_cert_file.as_deref(),
        tls_client_key_file: model.tls.client_key_file.as_deref(),
        supports_function_calling: model.supports.function_calling,
        supports_system_messages: model.supports.system_messages,
        supports_response_schema: model.supports.response_schema,
        supports_tool_choice: model.supports.tool_choice,
        supports_vision: model.supports.vision,
        tags: &model.tags,
        enabled: model.enabled,
        cache_enabled: model.cache.enabled,
        cache_ttl_secs: model.cache.ttl_secs,
        cache_scope: model.cache.scope,
        cache_max_entry_bytes: model.cache.max_entry_bytes,
        cache_mode: model.cache.mode,
    }
}

fn endpoint(endpoint: &crate::catalog::Endpoint) -> ShownEndpoint<'_> {
    ShownEndpoint {
        url: address(&endpoint.url),
        weight: endpoint.weight.get(),
        priority: endpoint.priority,
        max_in_flight: endpoint.max_in_flight,
        api_key_set: endpoint.credential.is_some(),
    }
}

/// The endpoints as the catalog names them, beside what the upstreams room knows of them: for a moment it may not have
/// heard of a change yet.
fn health<'a>(model: &'a Model, upstreams: &Upstreams) -> Vec<Health<'a>> {
    let known = upstreams.health(&model.id);
    let known = if known.len() == model.endpoints.len() { known } else { Vec::new() };
    let mut known = known.into_iter();
    let show = |endpoint: &'a crate::catalog::Endpoint| {
        let known = known.next();
        Health {
            url: address(&endpoint.url),
            status: match known.as_ref().map(|known| known.state) {
                Some(HealthState::Healthy) => "healthy",
                Some(HealthState::Unhealthy) => "unhealthy",
                Some(HealthState::Unknown) | None => "unknown",
            },
            in_flight: known.as_ref().map_or(0, |known| known.in_flight),
            last_error: known.and_then(|known| known.last_error),
        }
    };
    model.endpoints.iter().map(show).collect()
}

impl Noun for Model {
    type Id = ModelId;
    const NAME: &'static str = "model";

    fn find<'a>(catalog: &'a Catalog, id: &ModelId) -> Option<&'a Arc<Self>> {
        catalog.models().get(id)
    }

    fn put(self, catalog: &mut Catalog) -> Result<(), Conflict> {
        catalog.put_model(self)
    }

    fn remove(catalog: &mut Catalog, id: &ModelId) -> Result<(), Conflict> {
        catalog.remove_model(id);
        Ok(())
    }

    fn id(&self) -> ModelId {
        self.id
    }

    fn read_id(text: &str) -> Option<ModelId> {
        text.parse().ok()
    }

    fn label(&self) -> String {
        self.id.to_string()
    }

    fn path(&self) -> String {
        format!("/api/v1/models/{}", self.id)
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }

    fn face(&self) -> Face {
        let credentials: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.credential.as_ref()).collect();
        Face::of(&settings(self)).with_credentials("api_key", &credentials)
    }

    fn json(&self, desk: &Desk, _: &Catalog) -> String {
        let shown = Shown {
            id: self.id,
            settings: settings(self),
            api_key_set: !self.endpoints.is_empty() && self.endpoints.iter().all(|endpoint| endpoint.credential.is_some()),
            health: health(self, &desk.upstreams),
            provenance: provenance::Shown::of(&self.provenance),
        };
        shown::json(&shown)
    }
}
