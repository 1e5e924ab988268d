//! What is answered where: the routes of vLLM that generate, the small ones beside them, and the simulation's own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Server;
use super::ask::Ask;
use super::body::{Answered, Broken, Cut, Tokens, gzip};
use super::dialect::{Answer, Dialect};
use super::fault::{Ending, Fault};
use super::job::{Job, Order};
use super::small;
use super::tally::Outcome;
use super::wire::{Lever, Manner};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SIM_FAULT: HeaderName = HeaderName::from_static("x-sim-fault");
/// A longer request id is not repeated in every chunk.
const ID_LENGTH_MAX: usize = 128;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The POST routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Generate(Dialect),
    /// One answer at once, whatever the slots.
    Small(small::Kind),
}

impl Route {
    fn find(path: &str) -> Option<(&'static str, Self)> {
        use small::Kind;
        const ROUTES: [(&str, Route); 13] = [
            ("/v1/chat/completions", Route::Generate(Dialect::Chat)),
            ("/v1/completions", Route::Generate(Dialect::Completions)),
            ("/v1/responses", Route::Generate(Dialect::Responses)),
            ("/v1/messages", Route::Generate(Dialect::Messages)),
            ("/v1/messages/count_tokens", Route::Small(Kind::CountTokens)),
            ("/v1/embeddings", Route::Small(Kind::Embeddings)),
            ("/v1/rerank", Route::Small(Kind::Rerank)),
            ("/v1/moderations", Route::Small(Kind::Moderations)),
            ("/v1/images/generations", Route::Small(Kind::Images)),
            ("/v1/images/edits", Route::Small(Kind::Images)),
            ("/v1/audio/speech", Route::Small(Kind::Speech)),
            ("/v1/audio/transcriptions", Route::Small(Kind::Transcription)),
            ("/v1/audio/translations", Route::Small(Kind::Transcription)),
        ];
        ROUTES.into_iter().find(|(known, _)| *known == path)
    }
}

/// Answers one request.
///
/// # Errors
/// [`Cut`] closes the connection: a fault that was asked for, or a client that left within its own body.
pub(super) async fn answer(server: Arc<Server>, lever: Lever, request: Request<Incoming>) -> Result<Response<Answered>, Cut> {
    let found = Route::find(request.uri().path());
    match (request.method(), found) {
        (&Method::POST, Some((path, route))) => post(&server, &lever, path, route, request).await,
        (&Method::GET, None) => Ok(get(&server, request.uri().path())),
        (_, Some(_)) => Ok(error(Dialect::Chat, StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")),
        (_, None) => Ok(error(Dialect::Chat, StatusCode::NOT_FOUND, "Not Found")),
    }
}

fn get(server: &Server, path: &str) -> Response<Answered> {
    match path {
        "/health" | "/ping" => whole(StatusCode::OK, JSON, Bytes::new()),
        "/version" => whole(
            StatusCode::OK,
            JSON,
            concat!(r#"{"version":"obleth-sim-"#, env!("CARGO_PKG_VERSION"), r#""}"#),
        ),
        "/metrics" => {
            let text = server
                .tally
                .metrics(server.models.first().map_or("", String::as_str), server.kv_tokens);
            whole(
                StatusCode::OK,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                text,
            )
        }
        "/v1/models" => whole(StatusCode::OK, JSON, small::models(&server.models)),
        "/sim/stats" => json(&server.tally.stats()),
        "/sim/requests" => json(&server.tally.log()),
        _ => match path.strip_prefix("/v1/models/").filter(|model| server.serves(model)) {
            Some(model) => whole(StatusCode::OK, JSON, small::model(model)),
            None => error(Dialect::Chat, StatusCode::NOT_FOUND, "Not Found"),
        },
    }
}

/// A request that does work.
async fn post(
    server: &Server,
    lever: &Lever,
    path: &'static str,
    route: Route,
    request: Request<Incoming>,
) -> Result<Response<Answered>, Cut> {
    server.tally.arrived();
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let dialect = match route {
        Route::Generate(dialect) => dialect,
        Route::Small(small::Kind::CountTokens) => Dialect::Messages,
        Route::Small(_) => Dialect::Chat,
    };
    let multipart = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"multipart/form-data"));
    let ask: Ask = if multipart {
        Ask::default()
    } else {
        match serde_json::from_slice(&body) {
            Ok(ask) => ask,
            Err(wrong) => return Ok(error(dialect, StatusCode::BAD_REQUEST, &wrong.to_string())),
        }
    };
    let fault = match server.fault(
        head.headers
            .get(SIM_FAULT)
            .and_then(|value| value.to_str().ok())
            .or(ask.sim_fault.as_deref()),
    ) {
        Ok(fault) => fault,
        Err(wrong) => return Ok(error(dialect, StatusCode::BAD_REQUEST, &wrong.to_string())),
    };
    let mut order = order(server, &head.headers, path, route, &ask);
    let cached = server.read_prompt(&body).map(|cached| cached.min(order.prompt_tokens - 1));
    order.cached_tokens = cached.unwrap_or(0);
    let mut job = Job::new(&server.tally, server.pace(&ask), order);
    if !fault.delay.is_zero() {
        tokio::time::sleep(fault.delay).await;
    }
    let id = HeaderValue::from_str(&job.order.id).ok();
    let refusal = refuse(server, &head.headers, dialect, &ask, &fault);
    let mut response = if refusal.is_some() || matches!(fault.ending, Ending::Reset | Ending::Garbage | Ending::Redirect) {
        job.will_end(Outcome::Faulted);
        match refusal {
            Some(refusal) => refusal,
            None => misbehave(lever, fault.ending)?,
        }
    } else {
        match route {
            Route::Generate(dialect) => generate(server, dialect, &ask, &fault, job).await,
            Route::Small(kind) => {
                let (content_type, bytes) = small::answer(kind, &ask, &body);
                job.wait(&server.slots).await;
                job.run().await;
                finish(HeaderValue::from_static(content_type), bytes, &fault, job)
            }
        }
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// What the engine knows of the request before it runs.
fn order(server: &Server, headers: &HeaderMap, path: &'static str, route: Route, ask: &Ask) -> Order {
    let id = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| id.len() <= ID_LENGTH_MAX);
    let many = matches!(route, Route::Generate(Dialect::Chat | Dialect::Completions));
    let choices = if many { ask.choices() } else { 1 };
    let tokens = if matches!(route, Route::Generate(_)) {
        ask.output_tokens(server.output_tokens)
    } else {
        0
    };
    Order {
        id: id.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned),
        path,
        stream: ask.stream == Some(true) && matches!(route, Route::Generate(_)),
        prompt_tokens: ask.prompt_tokens(),
        cached_tokens: 0,
        priority: ask.priority,
        tokens: tokens.saturating_mul(choices),
        choices,
        by_length: ask.cut_short(tokens),
    }
}

/// An error in place of the answer, asked for or earned.
fn refuse(server: &Server, headers: &HeaderMap, dialect: Dialect, ask: &Ask, fault: &Fault) -> Option<Response<Answered>> {
    if let Some(status) = fault.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        let mut response = error(dialect, status, "a simulated fault");
        if let Some(seconds) = fault.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        return Some(response);
    }
    if !server.knows(headers) {
        return Some(error(dialect, StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    let unknown = ask.model.as_deref().filter(|model| !server.serves(model))?;
    Some(error(
        dialect,
        StatusCode::NOT_FOUND,
        &format!("The model `{unknown}` does not exist."),
    ))
}

/// The faults that are no answer of this route.
fn misbehave(lever: &Lever, ending: Ending) -> Result<Response<Answered>, Cut> {
    match ending {
        Ending::Reset => {
            lever.pull(Manner::Reset);
            Err(Cut)
        }
        Ending::Garbage => {
            lever.pull(Manner::Garbage);
            let mut response = whole(StatusCode::OK, JSON, Bytes::new());
            response
                .headers_mut()
                .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            Ok(response)
        }
        Ending::Redirect | Ending::Whole | Ending::Stall(_) | Ending::Cut(_) => {
            let mut response = whole(StatusCode::TEMPORARY_REDIRECT, JSON, Bytes::new());
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/v1/redirected"));
            Ok(response)
        }
    }
}

async fn generate(server: &Server, dialect: Dialect, ask: &Ask, fault: &Fault, mut job: Job) -> Response<Answered> {
    let options = ask.stream_options.unwrap_or_default();
    let include_usage = options.include_usage == Some(true);
    let answer = Answer {
        dialect,
        id: response_id(dialect, &job.order.id),
        model: serde_json::Value::from(ask.model.as_deref().or(server.models.first().map(String::as_str)).unwrap_or("")).to_string(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        choices: job.order.choices,
        tokens: job.order.tokens / job.order.choices,
        prompt_tokens: job.order.prompt_tokens,
        cached_tokens: ask
            .sim_cached_tokens
            .or_else(|| server.prefix_cache.as_ref().map(|_| job.order.cached_tokens)),
        by_length: job.order.by_length,
        include_usage,
        continuous_usage: include_usage
            && options.continuous_usage_stats == Some(true)
            && matches!(dialect, Dialect::Chat | Dialect::Completions),
        fault: fault.usage,
    };
    if !job.order.stream {
        job.wait(&server.slots).await;
        job.run().await;
        return finish(JSON, answer.whole().into(), fault, job);
    }
    let mut response = Response::new(Answered::Stream(Box::new(Tokens::new(
        job,
        answer,
        fault.ending,
        &server.slots,
        fault.gzip,
    ))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if fault.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn response_id(dialect: Dialect, id: &str) -> String {
    let prefix = match dialect {
        Dialect::Chat => "chatcmpl-",
        Dialect::Completions => "cmpl-",
        Dialect::Responses => "resp_",
        Dialect::Messages => "msg_",
    };
    // An id that JSON would have to escape is none of ours; leave those characters out rather than write them raw.
    let plain = id.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    prefix.chars().chain(plain).collect()
}

/// Hands over an answer that is no stream, or the part of it that the fault allows.
fn finish(content_type: HeaderValue, plain: Bytes, fault: &Fault, mut job: Job) -> Response<Answered> {
    let bytes = if fault.gzip { gzip(&plain) } else { plain };
    let length = bytes.len();
    let body = match fault.ending {
        Ending::Stall(_) | Ending::Cut(_) => Answered::Broken(Box::new(Broken::new(&bytes, fault.ending, job))),
        Ending::Whole | Ending::Reset | Ending::Garbage | Ending::Redirect => {
            job.will_end(Outcome::Finished);
            Answered::Whole(Some(bytes))
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    if fault.gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn whole(status: StatusCode, content_type: HeaderValue, bytes: impl Into<Bytes>) -> Response<Answered> {
    let mut response = Response::new(Answered::Whole(Some(bytes.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn json(value: &impl serde::Serialize) -> Response<Answered> {
    match serde_json::to_vec(value) {
        Ok(bytes) => whole(StatusCode::OK, JSON, bytes),
        Err(wrong) => error(Dialect::Chat, StatusCode::INTERNAL_SERVER_ERROR, &wrong.to_string()),
    }
}

/// An error as vLLM words it, or Anthropic.
fn error(dialect: Dialect, status: StatusCode, message: &str) -> Response<Answered> {
    let kind = match (dialect, status.as_u16()) {
        (Dialect::Messages, 400) => "invalid_request_error",
        (Dialect::Messages, 401) => "authentication_error",
        (Dialect::Messages, 404) => "not_found_error",
        (Dialect::Messages, 429) => "rate_limit_error",
        (Dialect::Messages, 503 | 529) => "overloaded_error",
        (Dialect::Messages, _) => "api_error",
        (_, 400..=403) => "BadRequestError",
        (_, 404) => "NotFoundError",
        (_, _) => "InternalServerError",
    };
    let body = if dialect == Dialect::Messages {
        serde_json::json!({ "type": "error", "error": { "type": kind, "message": message } })
    } else {
        serde_json::json!({ "error": { "message": message, "type": kind, "param": null, "code": status.as_u16() } })
    };
    whole(status, JSON, body.to_string())
}
