//! A model's row. Its endpoints are one JSON list: nothing asks for them one by one.

use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use crate::catalog::{CachePolicy, Endpoint, Model, ModelCapacity, Prices, Provenance, Supports, Timeouts, Tls};
use crate::id::ModelId;
use crate::store::columns::{Decoder, Encoder, Stored, Unreadable, Unstorable};
use crate::store::vault::{Place, Safe};
use crate::units::Weight;

/// The word for a learned capacity; NULL is none, digits are a number.
const AUTO: &str = "auto";

/// An endpoint as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredEndpoint {
    url: String,
    weight: u32,
    priority: u16,
    max_in_flight: Option<u32>,
    credential: Option<Safe>,
}

impl Stored for Model {
    const TABLE: &'static str = "models";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "name",
        "aliases",
        "description",
        "upstream_model",
        "endpoints",
        "single",
        "engine",
        "protocol",
        "model_type",
        "input_pico",
        "output_pico",
        "cached_input_pico",
        "request_pico",
        "context_window",
        "admission_weight",
        "max_in_flight",
        "load_balancing",
        "connect_timeout_ms",
        "first_byte_timeout_secs",
        "idle_timeout_secs",
        "total_timeout_secs",
        "max_retries",
        "retry_after_dispatch",
        "engine_priority",
        "http2",
        "tls_ca_file",
        "tls_server_name",
        "tls_client_cert_file",
        "tls_client_key_file",
        "supports_function_calling",
        "supports_system_messages",
        "supports_response_schema",
        "supports_tool_choice",
        "supports_vision",
        "tags",
        "enabled",
        "cache_enabled",
        "cache_ttl_secs",
        "cache_scope",
        "cache_max_entry_bytes",
        "cache_mode",
        "managed_by",
        "overridden",
        "version",
        "created_at",
        "updated_at",
    ];

    fn primary_key(&self) -> Value {
        Value::Blob(self.id.as_bytes().to_vec())
    }

    fn encode(&self, out: &mut Encoder<'_>) -> Result<(), Unstorable> {
        out.put(self.primary_key());
        out.put_text(&self.name);
        out.put_json(&self.aliases);
        out.put_text(&self.description);
        out.put_text(&self.upstream_model);
        put_endpoints(out, self)?;
        out.put(self.single);
        out.put_word(self.engine);
        out.put_word(self.protocol);
        out.put_word(self.model_type);
        put_prices(out, &self.prices);
        out.put(self.context_window);
        out.put(self.admission_weight);
        out.put(match self.capacity {
            ModelCapacity::Uncapped => None,
            ModelCapacity::Fixed(slots) => Some(slots.to_string()),
            ModelCapacity::Auto => Some(AUTO.to_owned()),
        });
        out.put_word(self.load_balancing);
        put_timeouts(out, &self.timeouts);
        out.put(self.max_retries);
        out.put(self.retry_after_dispatch);
        out.put(self.engine_priority);
        out.put(self.http2);
        put_tls(out, &self.tls);
        put_supports(out, &self.supports);
        out.put_json(&self.tags);
        out.put(self.enabled);
        out.put(self.cache.enabled);
        out.put(self.cache.ttl_secs);
        out.put_word(self.cache.scope);
        out.put_count("cache_max_entry_bytes", self.cache.max_entry_bytes)?;
        out.put_word(self.cache.mode);
        out.put_provenance(&self.provenance)
    }

    fn decode(row: &mut Decoder<'_>) -> Result<Self, Unreadable> {
        let id = ModelId::from_bytes(row.bytes()?);
        let name = row.string()?;
        Ok(Self {
            id,
            aliases: row.list()?,
            description: row.string()?,
            upstream_model: row.string()?,
            endpoints: endpoints(row, id, &name)?,
            name,
            single: row.flag()?,
            engine: row.word()?,
            protocol: row.word()?,
            model_type: row.word()?,
            prices: prices(row)?,
            context_window: row.number()?,
            admission_weight: row.number()?,
            capacity: capacity(row)?,
            load_balancing: row.word()?,
            timeouts: timeouts(row)?,
            max_retries: row.number()?,
            retry_after_dispatch: row.flag()?,
            engine_priority: row.flag()?,
            http2: row.flag()?,
            tls: tls(row)?,
            supports: supports(row)?,
            tags: row.list()?,
            enabled: row.flag()?,
            cache: CachePolicy {
                enabled: row.flag()?,
                ttl_secs: row.number()?,
                scope: row.word()?,
                max_entry_bytes: row.number()?,
                mode: row.word()?,
            },
            provenance: row.provenance()?,
        })
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}

/// Where an endpoint's credential is sealed for.
fn place<'a>(id: &'a ModelId, index: usize, owner: &'a str) -> Place<'a> {
    Place {
        noun: "model",
        id: id.as_bytes(),
        field: "endpoints.credential",
        index,
        owner,
    }
}

fn put_endpoints(out: &mut Encoder<'_>, model: &Model) -> Result<(), Unstorable> {
    let mut stored = Vec::with_capacity(model.endpoints.len());
    for (index, endpoint) in model.endpoints.iter().enumerate() {
        let credential = endpoint.credential.as_ref();
        stored.push(StoredEndpoint {
            url: endpoint.url.as_str().to_owned(),
            weight: endpoint.weight.get(),
            priority: endpoint.priority,
            max_in_flight: endpoint.max_in_flight,
            credential: credential
                .map(|credential| out.vault.lock(credential, place(&model.id, index, &model.name)))
                .transpose()?,
        });
    }
    out.put_json(&stored);
    Ok(())
}

fn endpoints(row: &mut Decoder<'_>, id: ModelId, name: &str) -> Result<Vec<Endpoint>, Unreadable> {
    let stored: Vec<StoredEndpoint> = row.json()?;
    let open = |(index, endpoint): (usize, StoredEndpoint)| {
        Ok(Endpoint {
            url: endpoint.url.parse().map_err(|_| row.bad())?,
            weight: Weight::new(endpoint.weight.into()).map_err(|_| row.bad())?,
            priority: endpoint.priority,
            max_in_flight: endpoint.max_in_flight,
            credential: endpoint
                .credential
                .map(|safe| row.vault.open(&safe, place(&id, index, name)))
                .transpose()
                .map_err(Unreadable::Sealed)?,
        })
    };
    stored.into_iter().enumerate().map(open).collect()
}

fn put_prices(out: &mut Encoder<'_>, prices: &Prices) {
    out.put_money(Some(prices.input));
    out.put_money(Some(prices.output));
    out.put_money(prices.cached_input);
    out.put_money(Some(prices.request));
}

fn prices(row: &mut Decoder<'_>) -> Result<Prices, Unreadable> {
    Ok(Prices {
        input: row.money()?,
        output: row.money()?,
        cached_input: row.optional(Decoder::money)?,
        request: row.money()?,
    })
}

fn capacity(row: &mut Decoder<'_>) -> Result<ModelCapacity, Unreadable> {
    match row.optional(Decoder::text)? {
        None => Ok(ModelCapacity::Uncapped),
        Some(AUTO) => Ok(ModelCapacity::Auto),
        Some(digits) => digits.parse().map(ModelCapacity::Fixed).map_err(|_| row.bad()),
    }
}

fn put_timeouts(out: &mut Encoder<'_>, timeouts: &Timeouts) {
    out.put(timeouts.connect_ms);
    out.put(timeouts.first_byte_secs);
    out.put(timeouts.idle_secs);
    out.put(timeouts.total_secs);
}

fn timeouts(row: &mut Decoder<'_>) -> Result<Timeouts, Unreadable> {
    Ok(Timeouts {
        connect_ms: row.number()?,
        first_byte_secs: row.number()?,
        idle_secs: row.number()?,
        total_secs: row.number()?,
    })
}

fn put_tls(out: &mut Encoder<'_>, tls: &Tls) {
    out.put(tls.ca_file.clone());
    out.put(tls.server_name.clone());
    out.put(tls.client_cert_file.clone());
    out.put(tls.client_key_file.clone());
}

fn tls(row: &mut Decoder<'_>) -> Result<Tls, Unreadable> {
    Ok(Tls {
        ca_file: row.optional(Decoder::string)?,
        server_name: row.optional(Decoder::string)?,
        client_cert_file: row.optional(Decoder::string)?,
        client_key_file: row.optional(Decoder::string)?,
    })
}

fn put_supports(out: &mut Encoder<'_>, supports: &Supports) {
    out.put(supports.function_calling);
    out.put(supports.system_messages);
    out.put(supports.response_schema);
    out.put(supports.tool_choice);
    out.put(supports.vision);
}

fn supports(row: &mut Decoder<'_>) -> Result<Supports, Unreadable> {
    Ok(Supports {
        function_calling: row.flag()?,
        system_messages: row.flag()?,
        response_schema: row.flag()?,
        tool_choice: row.flag()?,
        vision: row.flag()?,
    })
}
