//! Who, what, had it already, may it spend, when: five steps before anything goes upstream. The first refusal ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fail::fail_point;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use pingora::Result;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;

use super::super::bill::{Bill, Origin};
use super::super::body;
use super::super::budget::Hold;
use super::super::cached;
use super::super::clockwork::Deadlines;
use super::super::ctx::{Answer, RequestCtx, Work};
use super::super::destination::{self, Destination};
use super::super::lease::{Lease, Spent};
use super::super::mcp;
use super::super::placement::{self, Placement};
use super::super::replay::Home;
use super::super::rescue::Fault;
use super::super::trace::Step;
use super::super::{Gateway, refuse, replay, wall_now};
use super::fail_to_proxy;
use crate::admission::{Ask, Refusal};
use crate::catalog::{ApiKey, Catalog, Engine, Model, Principal, Protocol, Tenant, TenantStatus};
use crate::limits::{self, Exceeded, Reservation};
use crate::llm::{self, Dialect, Extras, Route};
use crate::quota::estimate;
use crate::upstreams::engine_priority_value;

/// Header by which a client shortens its wait.
const PATIENCE: &str = "x-obleth-max-queue-ms";

/// Whether the request goes on to an upstream or has its answer.
pub(in crate::proxy) enum Verdict {
    Forward,
    Answered,
}

/// Returns whether the answer has been sent.
pub(in crate::proxy) async fn run(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    match decide(gateway, session, ctx).await {
        Ok(Verdict::Forward) => Ok(false),
        Ok(Verdict::Answered) => Ok(true),
        Err(fault) => {
            ctx.trace.broke_off();
            cached::failed(ctx, &fault);
            if session.response_written().is_some_and(|head| !head.status.is_informational()) {
                // An answer from the cache broke off; only an error makes Pingora close the connection.
                return Err(refuse(ctx, fault));
            }
            fail_to_proxy::answer(session, ctx, &fault).await;
            ctx.fault = Some(fault);
            Ok(true)
        }
    }
}

async fn decide(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) -> Result<Verdict, Fault> {
    let head = session.req_header();
    let destination = destination::find(&head.method, head.uri.path())?;
    if let Destination::Mcp(path) = destination {
        return mcp::arrive::decide(gateway, session, ctx, path).await;
    }
    if destination == Destination::Health {
        return reply(session, ctx, "text/plain", Bytes::from_static(b"ok")).await;
    }
    let catalog = gateway.live.load();
    ctx.trace.enter(Step::Auth);
    let principal = who(gateway, &catalog, &head.headers).map_err(|fault| damp(gateway, session, fault))?;
    ctx.trace.leave(Step::Auth);
    let route = match destination {
        Destination::Work(route) => route,
        Destination::Models => return reply(session, ctx, "application/json", models(&catalog, &principal)).await,
        Destination::Model(name) => {
            let body = model(&catalog, &principal, &name)?;
            return reply(session, ctx, "application/json", body).await;
        }
        Destination::Health | Destination::Mcp(_) => return Err(Fault::Internal),
    };
    let principal = &*ctx.principal.insert(principal);
    ctx.route = Some(route);
    let bill = ctx.bill.insert(Bill::owed(
        &gateway.meter,
        &Origin {
            request_id: ctx.id,
            client_request_id: (ctx.shown_id != ctx.own_id).then(|| ctx.shown_id.to_str().ok()).flatten(),
            session_id: placement::session_id(&session.req_header().headers),
            principal,
            route: route.path(),
            born: ctx.born,
            at: ctx.born_at,
        },
    ));
    let (work, (body, hold)) = what(gateway, &catalog, principal, route, session).await?;
    if let Some(row) = bill.row() {
        row.model = Arc::from(work.model.name.as_str());
        row.stream = work.parsed.stream;
    }
    let has_cache = work.model.cache.enabled;
    ctx.work = Some(work);
    if has_cache {
        ctx.trace.enter(Step::Cache);
        let had = cached::had_it_already(gateway, session, ctx, &body).await?;
        ctx.trace.leave(Step::Cache);
        if had {
            return Ok(Verdict::Answered);
        }
    }
    let (Some(principal), Some(work)) = (&ctx.principal, &mut ctx.work) else {
        return Err(Fault::Internal);
    };
    let mut body = body;
    if !work.model.engine_priority {
        // From here on only what goes upstream is held.
        body = llm::rewrite(&body, &work.parsed, &work.model.upstream_model, &Extras::default());
        work.body_len = body.len();
    }
    let spent = spend(gateway, principal, work).await;
    ctx.rates = gateway.limits.view(principal, gateway.limits.now());
    spent?;
    ctx.trace.enter(Step::Queue);
    when(gateway, session, principal, work).await?;
    ctx.trace.leave(Step::Queue);
    if work.model.engine_priority {
        // The engine's own queue is told of the standing, which is not known before.
        body = llm::rewrite(&body, &work.parsed, &work.model.upstream_model, &prioritised(work, route));
        work.body_len = body.len();
    }
    fail_point!("proxy::request_filter");
    ctx.home = Some(forward(session, work, (body, hold)));
    Ok(Verdict::Forward)
}

/// Who: the key and its tenant, before the body is read.
pub(in crate::proxy) fn who(gateway: &Gateway, catalog: &Catalog, headers: &HeaderMap) -> Result<Principal, Fault> {
    let secret = presented(headers)?;
    let digest = gateway.hasher.digest(secret).ok_or(Fault::InvalidKey)?;
    let principal = catalog.principal(&digest).ok_or(Fault::InvalidKey)?;
    let now = wall_now();
    let ApiKey {
        disabled,
        expires_at,
        retired,
        ..
    } = &*principal.key;
    if retired.as_ref().is_some_and(|old| old.digest == digest && old.until <= now) {
        return Err(Fault::InvalidKey);
    }
    if *disabled {
        return Err(Fault::KeyDisabled);
    }
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Fault::KeyExpired);
    }
    if principal.tenant.status == TenantStatus::Suspended {
        return Err(Fault::TenantSuspended);
    }
    gateway.limits.touch(&principal.key.id, now);
    Ok(principal)
}

/// A wrong credential counts against the client's address, and too many make patience the answer.
#[cold]
pub(in crate::proxy) fn damp(gateway: &Gateway, session: &Session, fault: Fault) -> Fault {
    if fault != Fault::InvalidKey {
        return fault;
    }
    let peer = session.client_addr().and_then(|address| address.as_inet());
    match gateway.failures.count(peer.map(|address| address.ip())) {
        Ok(()) => fault,
        Err(too_many) => Fault::TooManyFailures {
            retry_after: too_many.retry_after,
        },
    }
}

/// The one credential a request carries: `Authorization: Bearer`, or `x-api-key`, or both if they are the same.
pub(in crate::proxy) fn presented(headers: &HeaderMap) -> Result<&[u8], Fault> {
    let bearer = headers.get_all(AUTHORIZATION).iter().map(|value| {
        let value = value.as_bytes();
        match value.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") => value.get(7..).unwrap_or_default().trim_ascii(),
            Some(_) | None => b"",
        }
    });
    let mut all = bearer.chain(headers.get_all("x-api-key").iter().map(|value| value.as_bytes().trim_ascii()));
    let first = all.next().ok_or(Fault::InvalidKey)?;
    if all.any(|other| other != first) {
        return Err(Fault::ConflictingCredentials);
    }
    Ok(first)
}

/// What: the body, and the model it asks for.
async fn what(
    gateway: &Gateway,
    catalog: &Catalog,
    principal: &Principal,
    route: Route,
    session: &mut Session,
) -> Result<(Box<Work>, (Bytes, Hold)), Fault> {
    let bounds = body::Bounds {
        bytes: gateway.bounds.max_body_bytes,
        time: gateway.bounds.body_timeout,
    };
    let read = tokio::select! {
        biased;
        read = body::read(session.as_mut(), bounds, &gateway.budget) => Some(read),
        () = gateway.active.closing() => None,
    };
    let (bytes, hold) = read.unwrap_or(Err(Fault::ShuttingDown))?;
    let content_type = session.req_header().headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let parsed = llm::read(route, content_type, &bytes).map_err(Fault::Body)?;
    let model = catalog.model_named(&parsed.model).filter(|model| model.enabled);
    let model = model.ok_or_else(|| Fault::ModelNotFound(parsed.model.clone()))?;
    if !may_use(&principal.tenant, &principal.key, model) {
        return Err(Fault::ModelNotAllowed(parsed.model.clone()));
    }
    if !serves(model, route) {
        return Err(Fault::BadRequest("The model's upstream does not serve this route."));
    }
    let headers = &session.req_header().headers;
    let placement = Placement::of(model, principal.tenant.id, headers, &parsed, &bytes);
    let work = Box::new(Work {
        model: model.clone(),
        parsed,
        placement,
        body_len: bytes.len(),
        lease: Lease::default(),
        answer: Answer::default(),
        leader: None,
        listened: Duration::ZERO,
    });
    Ok((work, (bytes, hold)))
}

fn may_use(tenant: &Tenant, key: &ApiKey, model: &Model) -> bool {
    [&tenant.allowed_models, &key.allowed_models]
        .into_iter()
        .flatten()
        .all(|allowed| allowed.contains(&model.name))
}

/// Whether the upstream of a model speaks a route's dialect. Engines of their own right serve Anthropic's routes beside
/// OpenAI's.
fn serves(model: &Model, route: Route) -> bool {
    match (route.dialect(), model.protocol) {
        (Dialect::Openai, Protocol::Openai) | (Dialect::Anthropic, Protocol::Anthropic) => true,
        (Dialect::Anthropic, Protocol::Openai) => {
            matches!(model.engine, Engine::Vllm | Engine::Sglang | Engine::LlamaCpp | Engine::Ollama)
        }
        (Dialect::Openai, Protocol::Anthropic) => false,
    }
}

/// May it spend: requests, tokens and budget of the key and of its tenant, all or nothing, before it may queue.
async fn spend(gateway: &Gateway, principal: &Principal, work: &mut Work) -> Result<(), Fault> {
    let input = estimate::input_tokens(work.parsed.text_bytes);
    let learned = gateway
        .limits
        .learned_output(&principal.tenant.id, &work.model.id)
        .saturating_mul(work.parsed.choices);
    let prices = work.model.prices;
    let expected = Spent {
        input,
        cached_input: 0,
        output: estimate::output_tokens(work.parsed.max_tokens, learned),
        answered: true,
        complete: true,
    };
    let ask = limits::Ask {
        input_tokens: input,
        max_tokens: work.parsed.max_tokens,
        learned_output: learned,
        cost_estimate: expected.cost(&prices).total(),
    };
    let reservation = reserve(gateway, principal, &ask).await?;
    work.lease.reserve(reservation, input, work.parsed.max_tokens, prices);
    Ok(())
}

/// Takes what is asked of the limits of the key and its tenant.
pub(in crate::proxy) async fn reserve(gateway: &Gateway, principal: &Principal, ask: &limits::Ask) -> Result<Reservation, Fault> {
    let now = gateway.limits.now();
    let reserved = gateway
        .limits
        .obtain(principal, ask, now, gateway.limits.calendar(wall_now(), now))
        .await;
    reserved.map_err(|exceeded| match exceeded {
        Exceeded::Rate { retry_after, scope } => Fault::RateLimited { retry_after, scope },
        Exceeded::TooLarge => Fault::ExceedsQuota,
        Exceeded::Budget { reset_after } => Fault::BudgetUsedUp { reset_after },
        Exceeded::Elsewhere => Fault::ShuttingDown,
        // Deleted between authentication and this step.
        Exceeded::Gone => Fault::InvalidKey,
    })
}

/// When: a slot by fair share, unless the client leaves or its patience ends.
async fn when(gateway: &Gateway, session: &mut Session, principal: &Principal, work: &mut Work) -> Result<(), Fault> {
    // What it has waited for the answer to another counts.
    let patience = patience(session).map(|patience| patience.saturating_sub(work.listened));
    let ask = Ask {
        tenant: principal.tenant.id,
        key: principal.key.id,
        model: work.model.id,
        input_tokens: estimate::input_tokens(work.parsed.text_bytes),
        max_tokens: work.parsed.max_tokens,
        body_bytes: work.body_len as u64,
        patience,
    };
    let began = Instant::now();
    let permit = tokio::select! {
        biased;
        permit = gateway.admission.admit(ask) => permit.map_err(refusal),
        fault = left(session.as_mut()) => Err(fault),
    };
    match permit {
        Ok(permit) => work.lease.grant(permit),
        Err(fault) => {
            work.lease.gave_up(began.elapsed());
            return Err(fault);
        }
    }
    Ok(())
}

/// How long the client is willing to queue, if it said so.
pub(in crate::proxy) fn patience(session: &Session) -> Option<Duration> {
    let value = session.req_header().headers.get(PATIENCE)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// Resolves when the client leaves, or sends what it should not: Pingora does not watch it while a filter waits.
pub(in crate::proxy) async fn left(session: &mut ServerSession) -> Fault {
    match session.read_body_or_idle(true).await {
        Err(error) if *error.etype() == pingora::ErrorType::ConnectError => Fault::BadRequest("Pipelined requests are not supported."),
        Ok(_) | Err(_) => Fault::ClientGone,
    }
}

pub(in crate::proxy) fn refusal(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::QueueFull { retry_after } => Fault::QueueFull { retry_after },
        Refusal::TimedOut { retry_after, .. } => Fault::QueueTimeout { retry_after },
        Refusal::ShuttingDown => Fault::ShuttingDown,
        // Deleted between authentication and admission.
        Refusal::UnknownTenant => Fault::InvalidKey,
    }
}

/// What the engine is told of the tenant's standing, where it has a field for it.
fn prioritised(work: &Work, route: Route) -> Extras {
    let value = |standing| engine_priority_value(work.model.engine, route, standing);
    Extras {
        priority: work.lease.standing().and_then(value),
        ..Extras::default()
    }
}

/// The last thing before the upstream: from here on the replay stands for the client's session.
fn forward(session: &mut Session, work: &Work, (bytes, hold): (Bytes, Hold)) -> Home {
    let timeouts = work.model.timeouts;
    let deadlines = Deadlines {
        first_byte: Duration::from_secs(u64::from(timeouts.first_byte_secs)),
        idle: Duration::from_secs(u64::from(timeouts.idle_secs)),
        total: Duration::from_secs(u64::from(timeouts.total_secs)),
    };
    let audience = work.leader.as_ref().map(|leader| {
        leader.sent();
        leader.audience()
    });
    replay::wrap(session.as_mut(), bytes, hold, deadlines, audience)
}

/// Answers without an upstream.
async fn reply(session: &mut Session, ctx: &mut RequestCtx, content_type: &'static str, body: Bytes) -> Result<Verdict, Fault> {
    fail_to_proxy::reply(session, ctx, content_type, body)
        .await
        .map_err(|_| Fault::ClientGone)?;
    Ok(Verdict::Answered)
}

fn models(catalog: &Catalog, principal: &Principal) -> Bytes {
    let mut models: Vec<_> = catalog
        .models()
        .values()
        .filter(|model| model.enabled && may_use(&principal.tenant, &principal.key, model))
        .collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    llm::models_body(models.iter().map(|model| listed(model)))
}

fn model(catalog: &Catalog, principal: &Principal, name: &str) -> Result<Bytes, Fault> {
    let model = catalog
        .model_named(name)
        .filter(|model| model.enabled && may_use(&principal.tenant, &principal.key, model));
    let model = model.ok_or_else(|| Fault::ModelNotFound(name.to_owned()))?;
    Ok(llm::model_body(&listed(model)))
}

fn listed(model: &Model) -> llm::ListedModel<'_> {
    llm::ListedModel {
        id: &model.name,
        created: model.provenance.created_at.0 / 1000,
        context_window: model.context_window,
    }
}

/// Whether the client waits for a go-ahead that it never got, so that nothing of its body is on the way.
pub(in crate::proxy) fn expects_continue(session: &Session) -> bool {
    body::awaits_continue(session.req_header()) && session.response_written().is_none()
}
