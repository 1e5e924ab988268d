//! The routes that do not generate text token by token: one fixed answer each, right in form and in usage.

use bytes::Bytes;
use serde_json::{Value, json};

use super::ask::Ask;

/// 0.5, -0.25, 1.0: the vector every text is embedded as,
const VECTOR: [f32; 3] = [0.5, -0.25, 1.0];
/// and its little-endian bytes in base64, the form the official clients ask for.
const VECTOR_BASE64: &str = "AAAAPwAAgL4AAIA/";

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    CountTokens,
    Embeddings,
    Rerank,
    Moderations,
    Images,
    Speech,
    Transcription,
}

/// Content type and body.
pub(super) fn answer(kind: Kind, ask: &Ask, body: &Bytes) -> (&'static str, Bytes) {
    let tokens = ask.prompt_tokens();
    let model = ask.model.as_deref().unwrap_or_default();
    let value = match kind {
        Kind::Speech => {
            return (
                "audio/mpeg",
                Bytes::from_static(b"ID3\x04\x00\x00\x00\x00\x00\x00 simulated speech"),
            );
        }
        Kind::CountTokens => json!({ "input_tokens": tokens }),
        Kind::Embeddings => {
            let vector = match ask.encoding_format.as_deref() {
                Some("base64") => json!(VECTOR_BASE64),
                _ => json!(VECTOR),
            };
            let data: Vec<Value> = (0..ask.input.items)
                .map(|index| json!({ "object": "embedding", "index": index, "embedding": vector }))
                .collect();
            json!({ "object": "list", "data": data, "model": model, "usage": { "prompt_tokens": tokens, "total_tokens": tokens } })
        }
        Kind::Rerank => {
            let count = ask.documents.items;
            let results: Vec<Value> = (0..count)
                .map(|index| json!({ "index": index, "relevance_score": 1.0 / (index + 1) as f64 }))
                .collect();
            json!({ "id": "rerank-sim", "model": model, "results": results, "usage": { "total_tokens": tokens } })
        }
        Kind::Moderations => {
            let results: Vec<Value> = (0..ask.input.items)
                .map(|_| json!({ "flagged": false, "categories": {}, "category_scores": {} }))
                .collect();
            json!({ "id": "modr-sim", "model": model, "results": results })
        }
        Kind::Images => json!({
            "created": 0,
            "data": [{ "b64_json": "" }],
            "usage": { "input_tokens": tokens, "output_tokens": 16, "total_tokens": tokens + 16 },
        }),
        // What arrived is told, so that a test can see that a large form came through whole.
        Kind::Transcription => {
            json!({ "text": "the fair share of every tenant", "usage": { "type": "duration", "seconds": 1 }, "sim_body_bytes": body.len() })
        }
    };
    ("application/json", value.to_string().into())
}

/// `/v1/models`.
pub(super) fn models(names: &[String]) -> String {
    let data: Vec<Value> = names.iter().map(|name| entry(name)).collect();
    json!({ "object": "list", "data": data }).to_string()
}

/// `/v1/models/{id}`.
pub(super) fn model(name: &str) -> String {
    entry(name).to_string()
}

fn entry(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "obleth-sim", "root": name, "max_model_len": 131_072 })
}
