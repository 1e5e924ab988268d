//! What bodies say of models.

use crate::admin::credential::WriteOnly;
use crate::admin::draft::draft;
use crate::admin::ranges::{SLOTS_MAX, WAIT_SECS_MAX};
use crate::admin::value::{Address, Flag, Line, Maybe, Money, OneOf, Prose, SetOf, Several, Share, Whole};
use crate::catalog::{self, CacheMode, CacheScope, Engine, LoadBalancing, ModelType, Protocol};

use super::slots::Slots;

/// How many endpoints a model can have.
const ENDPOINTS_MAX: usize = 256;
const CONTEXT_MAX: u64 = 1_000_000_000;
const PERCENT_MAX: u64 = 1_000_000;
const CONNECT_MS_MAX: u64 = 600_000;
const RETRIES_MAX: u64 = catalog::RETRIES_MAX as u64;
const TTL_SECS_MAX: u64 = 366 * 86_400;
const ENTRY_BYTES_MAX: u64 = 1 << 30;

draft! {
    #[derive(Debug, Clone, PartialEq)]
    EndpointDraft, "an endpoint", read_only: ["api_key_set"],
    /// Where it is, with or without `/v1`.
    url: Address;
    /// Its share among endpoints of the same priority.
    weight: Share = 100;
    /// Lower is tried first; the next only when the lower is down.
    priority: Whole<u16, 0, 1000> = 0;
    /// How many requests it takes at once; null is no cap.
    max_in_flight: Maybe<Whole<u32, 1, SLOTS_MAX>> = null;
    /// Its credential: a value, `env:NAME` or `file:/PATH`; `""` for none. Null or left out keeps that of the endpoint with the same URL.
    api_key: WriteOnly = null;
}

draft! {
    #[derive(Clone)]
    ModelDraft, "a model", read_only: ["id", "api_key_set", "health", "managed_by", "overridden", "version", "created_at", "updated_at"],
    /// What clients send. Unique among names and aliases.
    model_name: Line<1, 256>;
    /// Further names.
    aliases: SetOf<Line<1, 256>, 100> = [];
    /// Free text.
    description: Prose<4096> = "";
    /// What the endpoints call it; null is `model_name`.
    upstream_model: Line<1, 256> = null;
    /// The URL of its one endpoint, with or without `/v1`; instead of `endpoints`.
    api_base: Maybe<Address> = null;
    /// Its endpoints; instead of `api_base`.
    endpoints: Maybe<Several<EndpointDraft, ENDPOINTS_MAX>> = null;
    /// The credential of endpoints that have none of their own: a value, `env:NAME` or `file:/PATH`; `""` for none. Null or left out keeps it.
    api_key: WriteOnly = null;
    /// What runs there.
    engine: OneOf<Engine> = "other";
    /// What it speaks.
    protocol: OneOf<Protocol> = "openai";
    /// What it is for.
    model_type: OneOf<ModelType> = "chat";
    /// Dollars per input token.
    input_cost_per_token: Money = 0;
    /// Dollars per output token.
    output_cost_per_token: Money = 0;
    /// Dollars per input token from the upstream's prefix cache; null is the input price.
    cached_input_cost_per_token: Maybe<Money> = null;
    /// Dollars per request answered 2xx.
    cost_per_request: Money = 0;
    /// Tokens of context.
    context_window: Whole<u32, 1, CONTEXT_MAX> = 8192;
    /// Percent: multiplies what the fair-share clock is charged.
    admission_weight: Whole<u32, 1, PERCENT_MAX> = 100;
    /// How many requests it takes at once: a number, `auto` (learned), or null for no cap of its own.
    max_in_flight: Slots = null;
    /// How an endpoint is chosen.
    load_balancing: OneOf<LoadBalancing> = "least_request";
    /// For connecting.
    connect_timeout_ms: Whole<u32, 1, CONNECT_MS_MAX> = 5000;
    /// From the request's last byte to the answer's first.
    first_byte_timeout_secs: Whole<u32, 1, WAIT_SECS_MAX> = 120;
    /// Between two pieces of an answer.
    idle_timeout_secs: Whole<u32, 1, WAIT_SECS_MAX> = 120;
    /// For the whole answer.
    total_timeout_secs: Whole<u32, 1, WAIT_SECS_MAX> = 1800;
    /// How often a failed attempt is repeated.
    max_retries: Whole<u8, 0, RETRIES_MAX> = 1;
    /// Whether a POST that may have been executed can be sent again.
    retry_after_dispatch: Flag = false;
    /// Whether the gateway sets the engine's own priority field.
    engine_priority: Flag = false;
    /// Whether to speak HTTP/2 to the endpoints.
    http2: Flag = false;
    /// File with the certificates to trust instead of the system's.
    tls_ca_file: Maybe<Line<1, 4096>> = null;
    /// Name to ask for and verify instead of the URL's host.
    tls_server_name: Maybe<Line<1, 253>> = null;
    /// File with the gateway's own certificate; together with its key.
    tls_client_cert_file: Maybe<Line<1, 4096>> = null;
    /// File with that certificate's key.
    tls_client_key_file: Maybe<Line<1, 4096>> = null;
    /// Told to clients.
    supports_function_calling: Flag = false;
    /// Told to clients.
    supports_system_messages: Flag = true;
    /// Told to clients.
    supports_response_schema: Flag = false;
    /// Told to clients.
    supports_tool_choice: Flag = false;
    /// Told to clients.
    supports_vision: Flag = false;
    /// The operator's labels.
    tags: SetOf<Line<1, 128>, 100> = [];
    /// Whether it is offered.
    enabled: Flag = true;
    /// Whether answers are cached.
    cache_enabled: Flag = false;
    /// How long an answer is kept.
    cache_ttl_secs: Whole<u32, 1, TTL_SECS_MAX> = 300;
    /// Who shares cached answers.
    cache_scope: OneOf<CacheScope> = "tenant";
    /// Larger answers are not kept.
    cache_max_entry_bytes: Whole<u64, 1, ENTRY_BYTES_MAX> = 1048576;
    /// Which requests are cached: all, or those whose answer repeats.
    cache_mode: OneOf<CacheMode> = "all";
}

draft! {
    #[derive(Clone)]
    CacheDraft, "a response cache", read_only: [],
    /// Whether answers are cached.
    cache_enabled: Flag;
    /// How long an answer is kept; null is 300.
    cache_ttl_secs: Whole<u32, 1, TTL_SECS_MAX> = 300;
    /// Who shares cached answers; null is `tenant`.
    cache_scope: OneOf<CacheScope> = "tenant";
    /// Larger answers are not kept; null is 1 MiB.
    cache_max_entry_bytes: Whole<u64, 1, ENTRY_BYTES_MAX> = 1048576;
    /// Which requests are cached; null is `all`.
    cache_mode: OneOf<CacheMode> = "all";
}
