//! Changes a request's body where it must change, and nowhere else: the bytes between are the client's own.

use bytes::Bytes;

use super::{Parsed, Span};

/// What the gateway tells an engine's scheduler itself, in place of what it took out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// The engine's `priority`. Its direction is the engine's: lower is sooner at vLLM, higher at SGLang.
    pub priority: Option<i64>,
    /// The engine's `cache_salt`: only requests of the same salt see each other's prefix cache. Not empty.
    pub cache_salt: Option<String>,
}

/// Writes the body that goes upstream: `upstream_model` for the model, `stream_options.include_usage` set where a stream
/// would not report usage otherwise, scheduler fields out, the gateway's own in. Without a change it is the same `Bytes`.
///
/// `parsed` must come from this very body. Doing it again to the result, read again, changes nothing more.
#[must_use]
pub fn rewrite(body: &Bytes, parsed: &Parsed, upstream_model: &str, extras: &Extras) -> Bytes {
    let edits = &parsed.edits;
    let mut changes: Vec<(Span, String)> = Vec::new();
    let added = if edits.json { members(extras) } else { String::new() };
    if !added.is_empty()
        && let Some(brace) = body.iter().position(|byte| *byte == b'{')
    {
        changes.push((brace + 1..brace + 1, added));
    }
    changes.extend(edits.drop.iter().map(|span| (span.clone(), String::new())));
    changes.extend(edits.ask_usage.iter().map(|(span, text)| (span.clone(), (*text).to_owned())));
    if parsed.model != upstream_model {
        let name = if edits.json {
            quoted(upstream_model)
        } else {
            upstream_model.to_owned()
        };
        changes.push((edits.model.clone(), name));
    }
    if changes.is_empty() {
        return body.clone();
    }
    // Insertions before what begins at the same place; stable, so that two of them keep their order.
    changes.sort_by_key(|(span, _)| (span.start, span.end));
    splice(body, &changes)
}

fn splice(body: &[u8], changes: &[(Span, String)]) -> Bytes {
    let grown: usize = changes.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + grown);
    let mut from = 0;
    for (span, text) in changes {
        debug_assert!(from <= span.start && span.end <= body.len(), "changes lie apart, in this body");
        out.extend_from_slice(body.get(from..span.start).unwrap_or_default());
        out.extend_from_slice(text.as_bytes());
        from = span.end;
    }
    out.extend_from_slice(body.get(from..).unwrap_or_default());
    out.into()
}

/// The gateway's own members, each with the comma after it: the object holds a model, so more follows.
fn members(extras: &Extras) -> String {
    let mut text = String::new();
    if let Some(priority) = extras.priority {
        text.push_str(&format!("\"priority\":{priority},"));
    }
    if let Some(salt) = &extras.cache_salt {
        text.push_str(&format!("\"cache_salt\":{},", quoted(salt)));
    }
    text
}

/// A string as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
pub(super) mod tests;
