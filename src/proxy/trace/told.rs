//! A request's spans, made at its end from what was noted and from its ledger row. Names and attributes are those of
//! OpenTelemetry's conventions for HTTP and for generative AI, the latter still in development there; ours begin with `obleth.`.
//!
//! Nothing of a body, no path, no header but the `tracestate` that is for it: only what is registered, counted or timed, and the
//! names of tools that the ledger has too.

use std::borrow::Cow;
use std::time::Instant;

use http::Method;
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::ctx::RequestCtx;
use super::Step;
use super::noted::{Attempt, Noted};
use crate::answers::CacheStatus;
use crate::catalog::{Engine, Model, Protocol, Tenant};
use crate::llm::Route;
use crate::mcp::LEDGER_PREFIX;
use crate::metering::Row;
use crate::telemetry::traces::{Finished, Kind, Span, SpanId, Value};
use crate::telemetry::{dollars, number};

/// Hands the request's spans over, if it is to be recorded. Its row must be complete and not settled.
pub(in crate::proxy) fn tell(gateway: &Gateway, session: &Session, ctx: &mut RequestCtx) {
    let Some(noted) = ctx.trace.0.take().filter(|noted| noted.context.sampled) else {
        return;
    };
    let end = Instant::now();
    let mut spans = Vec::with_capacity(1 + noted.laps.len() + noted.attempts.len());
    spans.push(whole(gateway, session, ctx, &noted, end));
    for step in [Step::Auth, Step::Cache, Step::Queue] {
        spans.extend(lap(gateway, ctx, &noted, step, end));
    }
    let method = method(session).unwrap_or("_OTHER");
    for (index, attempt) in noted.attempts.iter().enumerate() {
        let is_last = index + 1 == noted.attempts.len();
        let mut span = upstream(&noted, attempt, end, ctx, is_last);
        span.text("http.request.method", if ctx.mcp.is_some() { method } else { "POST" });
        if index > 0 {
            span.whole("http.request.resend_count", index as u64);
        }
        spans.push(span);
    }
    gateway.traces.tell(Finished {
        context: noted.context,
        spans,
    });
}

/// The request itself.
fn whole(gateway: &Gateway, session: &Session, ctx: &mut RequestCtx, noted: &Noted, end: Instant) -> Span {
    let mut span = Span {
        id: noted.id,
        parent: noted.context.parent,
        name: Cow::Borrowed("HTTP"),
        kind: Kind::Server,
        from: noted.nanos(noted.born),
        to: noted.nanos(end),
        attributes: Vec::with_capacity(24),
        failed: false,
    };
    name(&mut span, session, ctx);
    if ctx.status > 0 {
        span.whole("http.response.status_code", ctx.status.into());
    }
    span.text("obleth.request_id", ctx.id.to_string());
    if let Some(principal) = &ctx.principal {
        labels(&mut span, gateway, &principal.tenant);
    }
    if let Some(work) = &ctx.work {
        span.text("gen_ai.provider.name", provider(&work.model));
        span.text("gen_ai.request.model", work.model.name.clone());
        span.attributes.push(("gen_ai.request.stream", Value::Flag(work.parsed.stream)));
        if let Some(max_tokens) = work.parsed.max_tokens {
            span.whole("gen_ai.request.max_tokens", max_tokens);
        }
    }
    if ctx.cache != CacheStatus::Off {
        span.text("obleth.cache.result", ctx.cache.as_str());
    }
    let is_work = ctx.work.is_some();
    let fault = ctx.fault.as_ref();
    let mut outcome_failed = false;
    if let Some(row) = ctx.bill.as_mut().and_then(|bill| bill.row()) {
        outcome_failed = row.outcome.is_error();
        used(&mut span, row, is_work);
    }
    let error = fault.map(|fault| Cow::Borrowed(fault.code()));
    let error = error.or_else(|| (ctx.status >= 400).then(|| Cow::Owned(ctx.status.to_string())));
    // The conventions: of a server's answers only those of 500 and more are its failures.
    span.failed = fault.map_or(ctx.status, |fault| fault.status()) >= 500 || (ctx.status < 400 && outcome_failed);
    match error {
        Some(error) => span.text("error.type", error),
        None if span.failed => span.text("error.type", "upstream_error"),
        None => {}
    }
    span
}

/// What the ledger will say of it.
fn used(span: &mut Span, row: &Row, is_work: bool) {
    span.text("obleth.outcome", row.outcome.as_str());
    if row.attempts > 0 {
        span.whole("obleth.attempts", row.attempts.into());
        span.shared("obleth.endpoint", &row.endpoint);
    }
    if !is_work {
        return;
    }
    let tokens = row.tokens;
    if row.attempts > 0 {
        span.whole("gen_ai.usage.input_tokens", tokens.input);
        span.whole("gen_ai.usage.output_tokens", tokens.output);
        if tokens.cached_input > 0 {
            span.whole("gen_ai.usage.cache_read.input_tokens", tokens.cached_input);
        }
        if tokens.reasoning > 0 {
            span.whole("gen_ai.usage.reasoning.output_tokens", tokens.reasoning);
        }
        span.attributes
            .push(("obleth.cost_usd", Value::Number(dollars(row.charge.total()))));
    }
    if let Some(ttft) = row.timing.ttft_ms.filter(|_| row.stream) {
        span.attributes
            .push(("gen_ai.response.time_to_first_chunk", Value::Number(number(ttft) / 1000.0)));
    }
}

/// What it is called: `chat llama`, `tools/call read_file`, `GET /v1/models`; of what leads nowhere only the method is told.
fn name(span: &mut Span, session: &Session, ctx: &mut RequestCtx) {
    let method = method(session);
    span.text("http.request.method", method.unwrap_or("_OTHER"));
    let path = session.req_header().uri.path();
    // Who is refused for its key has a route in its path only.
    if let Some(route) = ctx.route.or_else(|| Route::of(path)) {
        let operation = operation(route);
        span.name = match &ctx.work {
            Some(work) => Cow::Owned(format!("{operation} {}", work.model.name)),
            None => Cow::Borrowed(operation),
        };
        span.text("gen_ai.operation.name", operation);
        span.text("http.route", route.path());
        return;
    }
    let route = match path {
        "/v1/models" => "/v1/models",
        _ if path.starts_with("/v1/models/") => "/v1/models/{model}",
        _ if path.starts_with("/mcp/") => "/mcp/{server}",
        _ => "",
    };
    let called = ctx.bill.as_mut().and_then(|bill| bill.row()).map(|row| row.model.to_string());
    let called = called.as_deref().and_then(|called| called.strip_prefix(LEDGER_PREFIX));
    let (server, tool) = called.map_or((None, None), |called| match called.split_once('/') {
        Some((server, tool)) => (Some(server.to_owned()), Some(tool.to_owned())),
        None => (Some(called.to_owned()), None),
    });
    if let Some(tool) = &tool {
        span.name = Cow::Owned(format!("tools/call {tool}"));
        span.text("mcp.method.name", "tools/call");
        span.text("gen_ai.operation.name", "execute_tool");
        span.text("gen_ai.tool.name", tool.clone());
    } else if let Some(method) = method {
        span.name = match (&server, route) {
            (Some(server), _) => Cow::Owned(format!("{method} /mcp/{server}")),
            (None, "") => Cow::Borrowed(method),
            (None, route) => Cow::Owned(format!("{method} {route}")),
        };
    }
    if !route.is_empty() {
        span.text("http.route", route);
    }
    if let Some(server) = server {
        span.text("obleth.mcp.server", server);
    }
}

/// A step of the gateway's.
fn lap(gateway: &Gateway, ctx: &RequestCtx, noted: &Noted, step: Step, end: Instant) -> Option<Span> {
    let lap = (*noted.laps.get(step as usize)?)?;
    let mut span = Span {
        id: SpanId::mint(),
        parent: Some(noted.id),
        name: Cow::Borrowed(match step {
            Step::Auth => "auth",
            Step::Cache => "cache",
            Step::Queue => "queue",
        }),
        kind: Kind::Internal,
        from: noted.nanos(lap.from),
        to: noted.nanos(lap.to.unwrap_or(end)),
        attributes: Vec::new(),
        failed: false,
    };
    match step {
        Step::Auth => {}
        Step::Cache => span.text("obleth.cache.result", ctx.cache.as_str()),
        Step::Queue => {
            if let Some(principal) = &ctx.principal {
                labels(&mut span, gateway, &principal.tenant);
            }
        }
    }
    if let Some(fault) = ctx.fault.as_ref().filter(|_| lap.broke_off) {
        span.text("error.type", fault.code());
        span.failed = true;
    }
    Some(span)
}

/// An attempt at an endpoint.
fn upstream(noted: &Noted, attempt: &Attempt, end: Instant, ctx: &RequestCtx, is_last: bool) -> Span {
    let mut span = Span {
        id: attempt.id,
        parent: Some(noted.id),
        name: Cow::Borrowed("upstream"),
        kind: Kind::Client,
        from: noted.nanos(attempt.from),
        to: noted.nanos(attempt.to.unwrap_or(end)),
        attributes: Vec::with_capacity(8),
        failed: false,
    };
    let (host, port) = attempt.endpoint.rsplit_once(':').unwrap_or((&attempt.endpoint, ""));
    span.text("server.address", host.trim_matches(['[', ']']).to_owned());
    span.whole("server.port", port.parse().unwrap_or_else(|_| attempt.addr.port().into()));
    span.text("network.peer.address", attempt.addr.ip().to_string());
    span.whole("network.peer.port", attempt.addr.port().into());
    if let Some(status) = attempt.status {
        span.whole("http.response.status_code", status.into());
    }
    let fault = ctx.fault.as_ref().filter(|_| is_last);
    let status = attempt.status.filter(|status| *status >= 400);
    let error = attempt.error.or_else(|| fault.map(|fault| fault.code())).map(Cow::Borrowed);
    // To a client, what was refused to it has failed.
    span.failed = attempt.error.is_some() || status.is_some() || fault.is_some_and(|fault| fault.status() >= 500);
    if let Some(error) = error.or_else(|| status.map(|status| Cow::Owned(status.to_string()))) {
        span.text("error.type", error);
    }
    span
}

/// Whose it is, as far as that may be told.
fn labels(span: &mut Span, gateway: &Gateway, tenant: &Tenant) {
    let (name, group) = gateway.traces.tenant_labels(tenant);
    if let Some(name) = name {
        span.text("obleth.tenant", name.to_owned());
    }
    if let Some(group) = group {
        span.shared("obleth.fairshare_group", group);
    }
}

/// The request's method, if it is one that HTTP knows.
fn method(session: &Session) -> Option<&'static str> {
    let known = [
        (Method::POST, "POST"),
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
    ];
    let method = &session.req_header().method;
    known.into_iter().find(|(known, _)| known == method).map(|(_, name)| name)
}

/// `gen_ai.operation.name`: the conventions' word where they have one.
const fn operation(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions | Route::Responses | Route::Messages => "chat",
        Route::Completions => "text_completion",
        Route::Embeddings => "embeddings",
        Route::Rerank => "rerank",
        Route::Moderations => "moderation",
        Route::ImagesGenerations | Route::ImagesEdits => "image",
        Route::AudioSpeech => "speech",
        Route::AudioTranscriptions => "transcription",
        Route::AudioTranslations => "translation",
        Route::CountTokens => "count_tokens",
    }
}

/// `gen_ai.provider.name`: the engine where it is known, else whose language is spoken.
const fn provider(model: &Model) -> &'static str {
    match (model.engine, model.protocol) {
        (Engine::Vllm, _) => "vllm",
        (Engine::Sglang, _) => "sglang",
        (Engine::LlamaCpp, _) => "llama_cpp",
        (Engine::Ollama, _) => "ollama",
        (Engine::Tgi, _) => "tgi",
        (Engine::Openai | Engine::Other, Protocol::Openai) => "openai",
        (Engine::Openai | Engine::Other, Protocol::Anthropic) => "anthropic",
    }
}
