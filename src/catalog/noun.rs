//! The nouns: what a group, tenant, key, model and MCP server are made of. Fields and defaults are the management API's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use url::Url;

use crate::id::{KeyId, McpServerId, ModelId, TenantId};
use crate::pricing::Prices;
use crate::units::{PicoUsd, UnixMs, Weight};

/// How often an attempt may be repeated at most, whatever the operator says.
pub const RETRIES_MAX: u8 = 10;

/// SHA-256 of a key's secret, or HMAC-SHA-256 under the pepper.
pub type Digest = [u8; 32];

/// Who made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManagedBy {
    /// The management API.
    #[default]
    Api,
    /// The configuration file.
    File,
}

/// Who made an object, which of its fields the API has changed since, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Who made it.
    pub managed_by: ManagedBy,
    /// Fields of a file's object that the API changed and the file did not, sorted.
    pub overridden: Vec<String>,
    /// +1 per change, from 1; the `ETag`.
    pub version: u64,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
}

/// A fair-share group: the upper of the two levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, which is its id.
    pub name: Arc<str>,
    /// Its share among groups.
    pub weight: Weight,
    /// Who made it, when.
    pub provenance: Provenance,
}

impl Group {
    /// A group of default weight, version 1.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            weight: Weight::default(),
            provenance: Provenance {
                version: 1,
                ..Provenance::default()
            },
        }
    }
}

/// Whether a tenant may use the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TenantStatus {
    /// Yes.
    #[default]
    Active,
    /// Its keys are answered 403.
    Suspended,
}

/// When a budget starts anew, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BudgetPeriod {
    /// At midnight.
    Day,
    /// On the first of the month.
    #[default]
    Month,
    /// Never.
    Lifetime,
}

/// What may be spent per period; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Money.
    pub cost: Option<PicoUsd>,
    /// Input and output tokens together.
    pub tokens: Option<u64>,
    /// The period of both.
    pub period: BudgetPeriod,
}

/// Who is billed, and the unit of fairness inside a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Unique, 1 to 128 characters.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The group it shares in.
    pub group: Arc<str>,
    /// Its share among its group's tenants.
    pub weight: Weight,
    /// Tokens per minute; 0 is unlimited.
    pub tokens_per_minute: u64,
    /// Requests per minute; 0 is unlimited.
    pub requests_per_minute: u64,
    /// How many of its requests may be upstream at once; more wait. `None` is no cap.
    pub max_in_flight: Option<u32>,
    /// How many of its requests may wait; `None` is the scheduler's dynamic bound.
    pub max_queued: Option<u32>,
    /// Whether it may use the gateway.
    pub status: TenantStatus,
    /// Models it may use, by name; `None` is all.
    pub allowed_models: Option<Vec<String>>,
    /// What it may spend.
    pub budget: Budget,
    /// The operator's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Who made it, when.
    pub provenance: Provenance,
}

/// A secret that was replaced and is still accepted for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Its digest.
    pub digest: Digest,
    /// Until when it is accepted.
    pub until: UnixMs,
}

/// An API key. It can only narrow what its tenant may do.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The first 18 characters of the secret, for people.
    pub prefix: String,
    /// What the secret is looked up by.
    pub digest: Digest,
    /// The secret before the last rotation, while its grace lasts.
    pub retired: Option<Retired>,
    /// Whether it is refused.
    pub disabled: bool,
    /// When it stops working, by the wall clock.
    pub expires_at: Option<UnixMs>,
    /// Models it may use, by name; `None` is all of the tenant's.
    pub allowed_models: Option<Vec<String>>,
    /// Tokens per minute; 0 is unlimited.
    pub tokens_per_minute: u64,
    /// Requests per minute; 0 is unlimited.
    pub requests_per_minute: u64,
    /// How many of its requests may be upstream at once; more wait.
    pub max_in_flight: Option<u32>,
    /// What it may spend.
    pub budget: Budget,
    /// Who made it, when.
    pub provenance: Provenance,
}

impl fmt::Debug for ApiKey {
    /// Without the digests: they are not secrets, but they are nobody's business either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// A credential for an upstream, as the operator gave it and as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `env:NAME` or `file:PATH` where the operator gave a reference; `None` for a stored value.
    pub reference: Option<String>,
    /// The secret itself, resolved. `None` when the reference cannot be resolved now: requests to it are refused.
    pub secret: Option<Arc<str>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("reference", &self.reference)
            .field("secret", &self.secret.as_ref().map(|_| "***"))
            .finish()
    }
}

/// One address of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is, with or without a trailing `/v1`.
    pub url: Url,
    /// Its share among endpoints of the same priority.
    pub weight: Weight,
    /// Lower is tried first; the next tier only when the lower one is down.
    pub priority: u16,
    /// How many requests it takes at once.
    pub max_in_flight: Option<u32>,
    /// What it is shown as authentication.
    pub credential: Option<Credential>,
}

/// The program behind an endpoint: decides health route, metrics, priority field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Engine {
    Vllm,
    Sglang,
    LlamaCpp,
    Ollama,
    Tgi,
    Openai,
    #[default]
    Other,
}

/// The language an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// OpenAI's routes.
    #[default]
    Openai,
    /// Anthropic's messages routes.
    Anthropic,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ModelType {
    #[default]
    Chat,
    Completion,
    Embedding,
    Rerank,
    Image,
    AudioSpeech,
    AudioTranscription,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalancing {
    /// The lesser loaded of two, by weighted requests in flight.
    #[default]
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// By session, so that a conversation finds its cache.
    Session,
    /// By the longest shared prompt prefix.
    Prefix,
}

/// How many requests a model takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelCapacity {
    /// No cap of its own.
    #[default]
    Uncapped,
    /// This many.
    Fixed(u32),
    /// Learned from the engine's signals.
    Auto,
}

/// How long each step of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP (and TLS) connect, in milliseconds.
    pub connect_ms: u32,
    /// From the request's last byte to the answer's first.
    pub first_byte_secs: u32,
    /// Between two pieces of an answer.
    pub idle_secs: u32,
    /// The whole answer.
    pub total_secs: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            first_byte_secs: 120,
            idle_secs: 120,
            total_secs: 1_800,
        }
    }
}

/// TLS towards an endpoint, by files so that they can be rotated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<String>,
    /// Name to ask for and verify instead of the URL's host.
    pub server_name: Option<String>,
    /// The gateway's own certificate.
    pub client_cert_file: Option<String>,
    /// Its key.
    pub client_key_file: Option<String>,
}

/// What a model can do; told to clients, not enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts that only the model list shows")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Supports {
    pub function_calling: bool,
    pub system_messages: bool,
    pub response_schema: bool,
    pub tool_choice: bool,
    pub vision: bool,
}

impl Default for Supports {
    fn default() -> Self {
        Self {
            function_calling: false,
            system_messages: true,
            response_schema: false,
            tool_choice: false,
            vision: false,
        }
    }
}

/// Who shares cached answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheScope {
    /// Nobody else.
    #[default]
    Tenant,
    /// The tenant's group.
    Group,
    /// Everybody.
    Global,
}

/// Which requests are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// All cacheable ones.
    #[default]
    All,
    /// Only those whose answer repeats: embeddings, rerank, moderations, `temperature: 0`, a `seed`.
    Deterministic,
}

/// A model's response cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// Whether there is one.
    pub enabled: bool,
    /// How long an answer is kept.
    pub ttl_secs: u32,
    /// Who shares it.
    pub scope: CacheScope,
    /// Larger answers are not kept.
    pub max_entry_bytes: u64,
    /// Which requests.
    pub mode: CacheMode,
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            ttl_secs: 300,
            scope: CacheScope::Tenant,
            max_entry_bytes: 1_048_576,
            mode: CacheMode::All,
        }
    }
}

/// A registered model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the management API")]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// What clients send; unique among names and aliases.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// Free text.
    pub description: String,
    /// What the endpoint calls it.
    pub upstream_model: String,
    /// Where it is served; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Whether it was registered with the short form `api_base`, and is shown so.
    pub single: bool,
    /// What runs there.
    pub engine: Engine,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it is for.
    pub model_type: ModelType,
    /// What it costs.
    pub prices: Prices,
    /// Tokens of context.
    pub context_window: u32,
    /// Percent: multiplies the cost charged to the fair-share clock.
    pub admission_weight: u32,
    /// How many requests it takes at once.
    pub capacity: ModelCapacity,
    /// How an endpoint is chosen.
    pub load_balancing: LoadBalancing,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How often a failed attempt is repeated; at most [`RETRIES_MAX`].
    pub max_retries: u8,
    /// Whether a POST that may have been executed can be sent again.
    pub retry_after_dispatch: bool,
    /// Whether the gateway sets the engine's own priority field.
    pub engine_priority: bool,
    /// Whether to speak HTTP/2 to the endpoints.
    pub http2: bool,
    /// TLS towards the endpoints.
    pub tls: Tls,
    /// What it can do.
    pub supports: Supports,
    /// The operator's labels.
    pub tags: Vec<String>,
    /// Whether it is offered.
    pub enabled: bool,
    /// Its response cache.
    pub cache: CachePolicy,
    /// Who made it, when.
    pub provenance: Provenance,
}

impl Model {
    /// Its name and aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

/// A registered MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    /// Its id.
    pub id: McpServerId,
    /// The path segment: `[a-z0-9-]{1,40}`, unique.
    pub name: String,
    /// Where it is.
    pub upstream_url: Url,
    /// The whole value of the authentication header.
    pub auth_header: Option<Credential>,
    /// Its name.
    pub auth_header_name: String,
    /// Whether it is offered.
    pub enabled: bool,
    /// Tools that may be called; `None` is all.
    pub allowed_tools: Option<Vec<String>>,
    /// Tools that may not.
    pub denied_tools: Vec<String>,
    /// Tenants that may use it; `None` is all.
    pub allowed_tenants: Option<Vec<TenantId>>,
    /// Browser origins that may use it.
    pub allowed_origins: Vec<String>,
    /// How long a stream may be silent.
    pub idle_timeout_secs: u32,
    /// How many calls it takes at once.
    pub max_in_flight: Option<u32>,
    /// Who made it, when.
    pub provenance: Provenance,
}
