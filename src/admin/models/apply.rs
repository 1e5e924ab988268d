//! From what a body says to a model: defaults, endpoints and their credentials, and the rules between fields.
//!
//! Invariant: a stored credential never goes to another URL than the one it was given for, unless the same body gives it
//! again: a stolen admin session must not be able to send it elsewhere.

use std::collections::HashSet;

use super::draft::{CacheDraft, EndpointDraft, ModelDraft};
use crate::admin::credential::{Handed, check_seal};
use crate::admin::draft::Given;
use crate::admin::fault::Faults;
use crate::admin::rules::Rules;
use crate::catalog::{
    CacheMode, CachePolicy, CacheScope, Credential, Endpoint, Engine, LoadBalancing, Model, ModelCapacity, ModelType, Prices, Protocol,
    Supports, Timeouts,
};
use crate::store::Store;
use crate::units::{PicoUsd, Weight};
use url::Url;

/// A body whose values are right by themselves, with its credentials looked up.
#[derive(Clone)]
pub(super) struct Plan {
    draft: ModelDraft,
    endpoints: Option<Endpoints>,
    api_key: Resolved,
}

/// What is to become of a credential: `None` keeps it.
type Resolved = Option<Option<Credential>>;

#[derive(Clone)]
struct Endpoints {
    /// Whether they were given as `api_base`.
    single: bool,
    list: Vec<Planned>,
}

#[derive(Clone)]
struct Planned {
    /// Where faults are told.
    at: String,
    url: Url,
    weight: Weight,
    priority: u16,
    max_in_flight: Option<u32>,
    api_key: Resolved,
}

/// Checks what can be judged from the body alone.
pub(super) fn check(draft: &ModelDraft, rules: &Rules, faults: &mut Faults) {
    check_seal(&draft.api_key, rules.seals, "api_key", faults);
    if let Given::Is(Some(url)) = &draft.api_base {
        rules.check_url(url, "api_base", faults);
    }
    let Given::Is(Some(endpoints)) = &draft.endpoints else {
        return;
    };
    if matches!(draft.api_base, Given::Is(_)) {
        faults.add("endpoints", "cannot stand beside api_base");
    }
    let mut seen = HashSet::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let at = format!("endpoints[{index}]");
        check_seal(&endpoint.api_key, rules.seals, &format!("{at}.api_key"), faults);
        if let Given::Is(url) = &endpoint.url {
            rules.check_url(url, &format!("{at}.url"), faults);
            if !seen.insert(url) {
                faults.add(&format!("{at}.url"), "is given twice");
            }
        }
    }
}

impl Plan {
    /// Looks the credentials up. Blocks on files.
    pub(super) fn new(mut draft: ModelDraft, store: &Store) -> Self {
        let resolve = |handed: Given<Handed>| handed.value().map(|handed| handed.resolve(store));
        let endpoints = match (std::mem::take(&mut draft.endpoints), std::mem::take(&mut draft.api_base)) {
            (Given::Is(Some(list)), _) => Some(Endpoints {
                single: false,
                list: list
                    .into_iter()
                    .enumerate()
                    .filter_map(|(index, endpoint)| planned(index, endpoint, resolve))
                    .collect(),
            }),
            (_, Given::Is(Some(url))) => Some(Endpoints {
                single: true,
                list: vec![Planned {
                    at: "api_key".to_owned(),
                    url,
                    weight: Weight::default(),
                    priority: 0,
                    max_in_flight: None,
                    api_key: None,
                }],
            }),
            (Given::Absent | Given::Null | Given::Is(None), _) => None,
        };
        let api_key = resolve(std::mem::take(&mut draft.api_key));
        Self { draft, endpoints, api_key }
    }

    /// Whether the body says what the endpoints call the model.
    pub(super) const fn names_upstream_model(&self) -> bool {
        self.draft.upstream_model.is_value()
    }

    /// Writes what was given into a model, and tells what then does not fit together.
    pub(super) fn apply(self, model: &mut Model, faults: &mut Faults) {
        let Self { draft, endpoints, api_key } = self;
        place(endpoints, api_key, model, faults);
        draft.model_name.settle(&mut model.name, String::new);
        draft.upstream_model.settle(&mut model.upstream_model, || model.name.clone());
        draft.aliases.settle(&mut model.aliases, Vec::new);
        draft.description.settle(&mut model.description, String::new);
        draft.engine.settle(&mut model.engine, Engine::default);
        draft.protocol.settle(&mut model.protocol, Protocol::default);
        draft.model_type.settle(&mut model.model_type, ModelType::default);
        let Prices {
            input,
            output,
            cached_input,
            request,
        } = &mut model.prices;
        draft.input_cost_per_token.settle(input, PicoUsd::default);
        draft.output_cost_per_token.settle(output, PicoUsd::default);
        draft.cached_input_cost_per_token.settle_option(cached_input);
        draft.cost_per_request.settle(request, PicoUsd::default);
        draft.context_window.settle(&mut model.context_window, || 8192);
        draft.admission_weight.settle(&mut model.admission_weight, || 100);
        draft.max_in_flight.settle(&mut model.capacity, ModelCapacity::default);
        draft.load_balancing.settle(&mut model.load_balancing, LoadBalancing::default);
        let usual = Timeouts::default();
        draft.connect_timeout_ms.settle(&mut model.timeouts.connect_ms, || usual.connect_ms);
        draft
            .first_byte_timeout_secs
            .settle(&mut model.timeouts.first_byte_secs, || usual.first_byte_secs);
        draft.idle_timeout_secs.settle(&mut model.timeouts.idle_secs, || usual.idle_secs);
        draft.total_timeout_secs.settle(&mut model.timeouts.total_secs, || usual.total_secs);
        draft.max_retries.settle(&mut model.max_retries, || 1);
        draft.retry_after_dispatch.settle(&mut model.retry_after_dispatch, || false);
        draft.engine_priority.settle(&mut model.engine_priority, || false);
        draft.http2.settle(&mut model.http2, || false);
        draft.tls_ca_file.settle_option(&mut model.tls.ca_file);
        draft.tls_server_name.settle_option(&mut model.tls.server_name);
        draft.tls_client_cert_file.settle_option(&mut model.tls.client_cert_file);
        draft.tls_client_key_file.settle_option(&mut model.tls.client_key_file);
        let usual = Supports::default();
        draft
            .supports_function_calling
            .settle(&mut model.supports.function_calling, || usual.function_calling);
        draft
            .supports_system_messages
            .settle(&mut model.supports.system_messages, || usual.system_messages);
        draft
            .supports_response_schema
            .settle(&mut model.supports.response_schema, || usual.response_schema);
        draft
            .supports_tool_choice
            .settle(&mut model.supports.tool_choice, || usual.tool_choice);
        draft.supports_vision.settle(&mut model.supports.vision, || usual.vision);
        draft.tags.settle(&mut model.tags, Vec::new);
        draft.enabled.settle(&mut model.enabled, || true);
        let cache = CacheDraft {
            cache_enabled: draft.cache_enabled,
            cache_ttl_secs: draft.cache_ttl_secs,
            cache_scope: draft.cache_scope,
            cache_max_entry_bytes: draft.cache_max_entry_bytes,
            cache_mode: draft.cache_mode,
        };
        cache.apply(&mut model.cache);
        match (&model.tls.client_cert_file, &model.tls.client_key_file) {
            (Some(_), None) => faults.add("tls_client_key_file", "is required beside tls_client_cert_file"),
            (None, Some(_)) => faults.add("tls_client_cert_file", "is required beside tls_client_key_file"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if model.aliases.contains(&model.name) {
            faults.add("aliases", "must not contain model_name");
        }
    }
}

impl CacheDraft {
    /// Writes what was given into a cache policy.
    pub(super) fn apply(self, cache: &mut CachePolicy) {
        let usual = CachePolicy::default();
        self.cache_enabled.settle(&mut cache.enabled, || usual.enabled);
        self.cache_ttl_secs.settle(&mut cache.ttl_secs, || usual.ttl_secs);
        self.cache_scope.settle(&mut cache.scope, CacheScope::default);
        self.cache_max_entry_bytes
            .settle(&mut cache.max_entry_bytes, || usual.max_entry_bytes);
        self.cache_mode.settle(&mut cache.mode, CacheMode::default);
    }
}

fn planned(index: usize, draft: EndpointDraft, resolve: impl Fn(Given<Handed>) -> Resolved) -> Option<Planned> {
    let mut planned = Planned {
        at: format!("endpoints[{index}].api_key"),
        url: draft.url.value()?,
        weight: Weight::default(),
        priority: 0,
        max_in_flight: None,
        api_key: resolve(draft.api_key),
    };
    draft.weight.settle(&mut planned.weight, Weight::default);
    draft.priority.settle(&mut planned.priority, || 0);
    draft.max_in_flight.settle_option(&mut planned.max_in_flight);
    Some(planned)
}

/// Gives a model its endpoints and each its credential.
fn place(endpoints: Option<Endpoints>, api_key: Resolved, model: &mut Model, faults: &mut Faults) {
    let Some(Endpoints { single, list }) = endpoints else {
        if let Some(api_key) = api_key {
            for endpoint in &mut model.endpoints {
                endpoint.credential.clone_from(&api_key);
            }
        }
        return;
    };
    let abandoned = |old: &Endpoint| old.credential.is_some() && !list.iter().any(|new| new.url == old.url);
    let moves = model.endpoints.iter().any(abandoned);
    let settle = |planned: Planned| {
        let old = model.endpoints.iter().find(|old| old.url == planned.url);
        let given = planned.api_key.or_else(|| api_key.clone());
        if given.is_none() && old.is_none() && moves {
            let message = "is required when the URL of an endpoint with a credential changes (\"\" for none)";
            faults.add_coded(&planned.at, "api_key_required", message);
        }
        Endpoint {
            url: planned.url,
            weight: planned.weight,
            priority: planned.priority,
            max_in_flight: planned.max_in_flight,
            credential: given.unwrap_or_else(|| old.and_then(|old| old.credential.clone())),
        }
    };
    let placed = list.clone().into_iter().map(settle).collect();
    (model.endpoints, model.single) = (placed, single);
}
