//! Reads a request: which model, how much may come back, how much text went in, and where what matters lies.

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{Reader, Weigh, decode};
use super::{BodyFault, Route, Span, multipart};

/// The longest name of a model, in bytes: it is echoed in errors.
pub(super) const MODEL_NAME_MAX: usize = 512;

/// Fields by which a client would meddle with an engine's scheduler, cache or parallel peers. Dropped from requests.
const SCHEDULER_FIELDS: [&str; 12] = [
    "priority",               // vLLM (lower is sooner), SGLang (higher is sooner)
    "request_id",             // vLLM: names another request's state
    "rid",                    // SGLang: the same
    "kv_transfer_params",     // vLLM: where to fetch and send the KV cache
    "ec_transfer_params",     // vLLM: the same for the encoder's cache
    "cache_salt",             // vLLM, SGLang: whose prefix cache is seen
    "session_params",         // SGLang: continues another request's state
    "data_parallel_rank",     // SGLang: which replica
    "disagg_prefill_dp_rank", // SGLang: the same for prefill
    "disaggregated_params",   // TensorRT-LLM: hand-over between prefill and decode
    "id_slot",                // llama.cpp: which slot
    "slot_id",                // llama.cpp: its older name
];

/// The same, by how they begin: SGLang's disaggregation (`bootstrap_host`, …), vLLM's routing (`routed_dp_rank`, …).
const SCHEDULER_PREFIXES: [&str; 2] = ["bootstrap_", "routed_"];

/// vLLM's bag of further arguments, into which it also puts what came as fields: one in there is the same as one outside.
const ARGUMENT_BAG: &str = "vllm_xargs";

/// The most members of the outermost object. Their keys are kept and compared; no API has a tenth as many.
const MEMBERS_MAX: usize = 1024;

/// A request understood. The places in it are those of the very bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The model, as the client named it.
    pub model: String,
    /// The most tokens that may come back, over all choices; `None` if the client sets no limit. The larger of the limits
    /// where a request has two.
    pub max_tokens: Option<u64>,
    /// How many answers are asked for at once: `n` or `best_of`, times the prompts of a completion. At least 1.
    pub choices: u64,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// Bytes of text that went in; media count by a bounded estimate, tokens as four bytes.
    pub text_bytes: u64,
    /// Where some members lie.
    pub members: Members,
    pub(super) edits: Edits,
}

impl Parsed {
    /// Whether [`rewrite`](super::rewrite) asks for a usage report that the client did not ask for, and must not see.
    #[must_use]
    pub fn injected_usage(&self) -> bool {
        self.edits.injects_usage
    }
}

/// Where the values of some top-level members lie in a JSON body, quotes and brackets included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// `temperature`: 0 makes an answer repeatable.
    pub temperature: Option<Span>,
    /// `seed`: so does this.
    pub seed: Option<Span>,
    /// `user`: OpenAI's end user.
    pub user: Option<Span>,
    /// `prompt_cache_key`: OpenAI's hint which requests share a prefix.
    pub prompt_cache_key: Option<Span>,
    /// `metadata.user_id`: Anthropic's end user, in whose value Claude Code puts the session.
    pub user_id: Option<Span>,
    /// `system` or `instructions`: what precedes the prompt.
    pub system: Option<Span>,
    /// `messages`, `prompt` or `input`: the prompt.
    pub prompt: Option<Span>,
}

/// What [`rewrite`](super::rewrite) changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Edits {
    /// Where the model's name lies: with its quotes in JSON, without in multipart.
    pub(super) model: Span,
    /// Whether the body is JSON.
    pub(super) json: bool,
    /// Where each scheduler field lies, one comma included; ascending, apart.
    pub(super) drop: Vec<Span>,
    /// Where text goes in, instead of what is there, to ask for usage; ascending, apart.
    pub(super) ask_usage: Vec<(Span, &'static str)>,
    /// Whether these ask for what the client did not.
    pub(super) injects_usage: bool,
}

/// Reads a request's body, which is not compressed.
///
/// # Errors
/// [`BodyFault`]: 415 if `content_type` does not fit the route; else 400. Not UTF-8, not JSON, not an object, nested more
/// than 64 levels deep, over 1024 members at the top: `invalid_json`. A top-level key twice, however it is escaped:
/// `duplicate_key`. No model: `missing_model`. `stream` not a boolean, `n` or `best_of` not a count (what cannot be read
/// cannot be metered), a model's name over 512 bytes: `invalid_value`. Multipart that two readers could read in two ways:
/// `invalid_multipart`.
pub fn read(route: Route, content_type: Option<&str>, body: &Bytes) -> Result<Parsed, BodyFault> {
    let multipart = content_type.is_some_and(|kind| {
        kind.trim_ascii_start()
            .get(..10)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
    });
    if route.is_multipart() {
        return multipart::read(content_type.unwrap_or_default(), body);
    }
    if multipart {
        return Err(BodyFault::unsupported_media_type("This route takes JSON, not multipart."));
    }
    Collector::default().collect(route, body)
}

/// Gathers a [`Parsed`] from the members of the outermost object.
#[derive(Default)]
struct Collector<'a> {
    model: Option<(Span, Option<Cow<'a, str>>)>,
    limit: Option<u64>,
    n: u64,
    prompts: u64,
    stream: bool,
    stream_options: Option<Span>,
    members: Members,
    drop: Vec<Span>,
}

impl<'a> Collector<'a> {
    fn collect(mut self, route: Route, body: &'a [u8]) -> Result<Parsed, BodyFault> {
        if let Err(error) = std::str::from_utf8(body) {
            return Err(BodyFault::invalid_json(error.valid_up_to(), "not UTF-8"));
        }
        let mut reader = Reader::new(body, 0);
        if reader.peek().is_some_and(|byte| byte != b'{') {
            // Not JSON at all, or JSON of another kind.
            reader.value(0, Weigh::Nothing)?;
            reader.end()?;
            return Err(BodyFault::not_an_object());
        }
        reader.expect(b'{')?;
        let opened = reader.place();
        let mut keys: Vec<Cow<'a, str>> = Vec::with_capacity(16);
        // Where a dropped member begins: after the value before it, or, while nothing has been kept, after the comma.
        let mut gap = opened;
        let mut kept = false;
        while let Some(key) = reader.key(keys.is_empty())? {
            let name = decode(body, &key).ok_or_else(|| BodyFault::invalid_json(key.start, "a key that is no text"))?;
            let value = reader.value(1, weigh(&name))?;
            let mut end = value.end;
            if keys.len() == MEMBERS_MAX {
                return Err(BodyFault::invalid_json(key.start, "too many members"));
            }
            if is_scheduler_field(&name) || name == ARGUMENT_BAG && holds_scheduler_field(body, &value) {
                if !kept && reader.peek() == Some(b',') {
                    end = reader.place() + 1;
                }
                self.drop.push(gap..end);
            } else {
                kept = true;
                self.take(route, body, &name, &value)?;
            }
            gap = end;
            keys.push(name);
        }
        reader.end()?;
        refuse_duplicates(keys)?;
        self.finish(route, body, opened, reader.weight)
    }

    fn take(&mut self, route: Route, body: &'a [u8], name: &str, value: &Span) -> Result<(), BodyFault> {
        let raw = body.get(value.clone()).unwrap_or_default();
        match name {
            "model" => self.model = Some((value.clone(), decode(body, value))),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => self.limit = self.limit.max(integer(raw)),
            "n" | "best_of" if raw == b"null" => {}
            "n" | "best_of" => {
                let count = integer(raw).ok_or_else(|| BodyFault::invalid_value(name, "a positive integer"))?;
                self.n = self.n.max(count);
            }
            "stream" => {
                self.stream = match raw {
                    b"true" => true,
                    b"false" | b"null" => false,
                    _ => return Err(BodyFault::invalid_value(name, "true or false")),
                }
            }
            "stream_options" => self.stream_options = Some(value.clone()),
            "temperature" => self.members.temperature = Some(value.clone()),
            "seed" => self.members.seed = Some(value.clone()),
            "user" => self.members.user = Some(value.clone()),
            "prompt_cache_key" => self.members.prompt_cache_key = Some(value.clone()),
            "metadata" => self.members.user_id = member(body, value, "user_id").pop(),
            "system" | "instructions" => self.members.system = Some(value.clone()),
            "messages" | "prompt" | "input" => {
                if route == Route::Completions {
                    self.prompts = prompts(body, value);
                }
                self.members.prompt = Some(value.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, route: Route, body: &[u8], opened: usize, text_bytes: u64) -> Result<Parsed, BodyFault> {
        let (place, name) = self.model.ok_or_else(BodyFault::missing_model)?;
        let model = checked_model(&name.ok_or_else(BodyFault::missing_model)?)?;
        let choices = self.n.max(1).saturating_mul(self.prompts.max(1));
        let mut edits = Edits {
            model: place,
            json: true,
            drop: self.drop,
            ..Edits::default()
        };
        if self.stream && route.usage_on_request() {
            ask_usage(body, opened, self.stream_options.as_ref(), &mut edits);
        }
        Ok(Parsed {
            model,
            max_tokens: self.limit.map(|limit| limit.saturating_mul(choices)),
            choices,
            stream: self.stream,
            text_bytes,
            members: self.members,
            edits,
        })
    }
}

/// Checks a model's name.
pub(super) fn checked_model(name: &str) -> Result<String, BodyFault> {
    if name.is_empty() {
        return Err(BodyFault::missing_model());
    }
    if name.len() > MODEL_NAME_MAX {
        return Err(BodyFault::invalid_value("model", &format!("at most {MODEL_NAME_MAX} bytes long")));
    }
    Ok(name.to_owned())
}

/// How the value of a top-level member counts as text.
fn weigh(name: &str) -> Weigh {
    match name {
        "messages" | "system" | "instructions" | "suffix" | "query" | "documents" => Weigh::Text,
        "prompt" | "input" => Weigh::Tokens,
        "tools" | "functions" | "response_format" | "text" => Weigh::Schema,
        _ => Weigh::Nothing,
    }
}

fn is_scheduler_field(name: &str) -> bool {
    SCHEDULER_FIELDS.contains(&name) || SCHEDULER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A key twice is read in two ways by two parsers: the gateway would check one and the engine use the other.
fn refuse_duplicates(mut keys: Vec<Cow<'_, str>>) -> Result<(), BodyFault> {
    keys.sort_unstable();
    match keys.array_windows().find(|[one, next]| one == next) {
        Some([twice, _]) => Err(BodyFault::duplicate_key(twice)),
        None => Ok(()),
    }
}

/// A whole number that is written as one; what else stands there is for the engine to judge.
fn integer(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// How many prompts a completion has: a list of texts or of token lists has its length, a list of tokens is one.
fn prompts(body: &[u8], value: &Span) -> u64 {
    let mut reader = Reader::new(body, value.start);
    let mut count = 0;
    if reader.expect(b'[').is_err() || !matches!(reader.peek(), Some(b'"' | b'[')) {
        return 1;
    }
    while reader.value(1, Weigh::Nothing).is_ok() {
        count += 1;
        if reader.expect(b',').is_err() {
            break;
        }
    }
    count
}

/// Where the values of a member lie in an object that has been checked. A nested key twice is the engine's to judge.
fn member(body: &[u8], object: &Span, name: &str) -> Vec<Span> {
    let mut found = Vec::new();
    each_member(body, object, |key, value| {
        if key == name {
            found.push(value);
        }
    });
    found
}

fn holds_scheduler_field(body: &[u8], object: &Span) -> bool {
    let mut holds = false;
    each_member(body, object, |key, _| holds |= is_scheduler_field(key));
    holds
}

/// Calls with each key and value of what has been checked, if that is an object.
fn each_member(body: &[u8], object: &Span, mut call: impl FnMut(&str, Span)) {
    let mut reader = Reader::new(body, object.start);
    if reader.expect(b'{').is_err() {
        return;
    }
    let mut first = true;
    while let Ok(Some(key)) = reader.key(first) {
        first = false;
        let Ok(value) = reader.value(1, Weigh::Nothing) else { return };
        if let Some(key) = decode(body, &key) {
            call(&key, value);
        }
    }
}

/// Notes how to set `stream_options.include_usage`. Options that are neither an object nor null are left to the engine,
/// which will refuse them.
fn ask_usage(body: &[u8], opened: usize, options: Option<&Span>, edits: &mut Edits) {
    let Some(options) = options else {
        // The object holds the model at least, so a comma follows.
        edits
            .ask_usage
            .push((opened..opened, r#""stream_options":{"include_usage":true},"#));
        edits.injects_usage = true;
        return;
    };
    let raw = body.get(options.clone()).unwrap_or_default();
    if raw == b"null" {
        edits.ask_usage.push((options.clone(), r#"{"include_usage":true}"#));
        edits.injects_usage = true;
    } else if raw.starts_with(b"{") {
        let present = member(body, options, "include_usage");
        // The last of them is what engines take.
        edits.injects_usage = present.last().is_none_or(|last| body.get(last.clone()) != Some(b"true"));
        if present.is_empty() {
            let inside = options.start + 1;
            let empty = Reader::new(body, inside).peek() == Some(b'}');
            edits.ask_usage.push((
                inside..inside,
                if empty {
                    r#""include_usage":true"#
                } else {
                    r#""include_usage":true,"#
                },
            ));
        } else if edits.injects_usage {
            edits.ask_usage.extend(present.into_iter().map(|value| (value, "true")));
        }
    }
}

#[cfg(test)]
mod tests;
