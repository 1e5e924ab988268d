//! Who, where from, to which server, asking what, at what cost, when: before anything goes to the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fail::fail_point;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora_proxy::Session;

use super::super::bill::{Bill, Origin};
use super::super::body;
use super::super::budget::Hold;
use super::super::clockwork::Deadlines;
use super::super::ctx::RequestCtx;
use super::super::destination::McpPath;
use super::super::phase::fail_to_proxy;
use super::super::phase::request_filter::{Verdict, damp, left, patience, refusal, reserve, who};
use super::super::rescue::Fault;
use super::super::trace::Step;
use super::super::{Gateway, placement, replay};
use super::call::{Answer, Call, holder, tools};
use super::lease::{CALL_TOKENS, CallLease};
use super::named::Named;
use super::{ROUTE, cors};
use crate::admission::{Ask, slots_of};
use crate::catalog::{McpServer, Principal};
use crate::limits;
use crate::llm::BodyFault;
use crate::mcp::{self, Asked, Opened, Refusal, mirror, origin};
use crate::units::PicoUsd;

pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The most bytes of a body: it is read whole, and holds arguments, not uploads.
const BODY_MAX: u64 = 16 << 20;
/// A stream lives as long as it is not silent; this only keeps sums of times in range.
const NO_END: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

pub(in crate::proxy) async fn decide(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut RequestCtx,
    path: McpPath,
) -> Result<Verdict, Fault> {
    let catalog = gateway.live.load();
    let found = catalog.mcp_server_named(&path.server).filter(|server| server.enabled);
    let origin = come_from(gateway, session, found);
    if let Ok(Some(origin)) = &origin {
        ctx.cors = Some(origin.clone());
    }
    let head = session.req_header();
    if head.method == Method::OPTIONS {
        origin?;
        let head = cors::preflight(&head.headers).map_err(|_| Fault::Internal)?;
        let sent = fail_to_proxy::send(session, ctx, head, Bytes::new()).await;
        return sent.map(|()| Verdict::Answered).map_err(|_| Fault::ClientGone);
    }
    ctx.trace.enter(Step::Auth);
    let principal = who(gateway, &catalog, &head.headers).map_err(|fault| damp(gateway, session, fault))?;
    ctx.trace.leave(Step::Auth);
    let bill = ctx.bill.insert(Bill::owed(
        &gateway.meter,
        &Origin {
            request_id: ctx.id,
            client_request_id: (ctx.shown_id != ctx.own_id).then(|| ctx.shown_id.to_str().ok()).flatten(),
            session_id: placement::session_id(&head.headers),
            principal: &principal,
            route: ROUTE,
            born: ctx.born,
            at: ctx.born_at,
        },
    ));
    let principal = &*ctx.principal.insert(principal);
    origin?;
    let server = found.filter(|server| may_use(principal, server)).ok_or(Fault::McpServerNotFound)?;
    if let Some(row) = bill.row() {
        row.model = Named::server(server);
    }
    let (mut call, asked, (body, hold)) = what(gateway, session, principal, server, path.rest).await?;
    let spent = spend(gateway, principal, &mut call).await;
    if let Some(row) = bill.row()
        && let Some(tool) = asked.as_ref().and_then(Asked::tool)
    {
        row.model = gateway.mcp.named.call(server, tool, spent.is_ok());
    }
    ctx.rates = gateway.limits.view(principal, gateway.limits.now());
    let granted = match spent {
        Ok(()) => {
            let queues = !call.listens && asked.as_ref().is_some_and(Asked::is_work);
            if queues {
                ctx.trace.enter(Step::Queue);
            }
            when(gateway, session, principal, &mut call, asked.as_ref()).await
        }
        Err(fault) => Err(fault),
    };
    if granted.is_ok() {
        ctx.trace.leave(Step::Queue);
    }
    if call.listens && granted.is_ok() {
        // A stream without an end is not waited for when the gateway goes down.
        ctx.uncount();
    }
    let silence = Duration::from_secs(u64::from(call.server.idle_timeout_secs));
    ctx.mcp = Some(Box::new(call));
    granted?;
    fail_point!("proxy::request_filter");
    let deadlines = Deadlines {
        first_byte: silence,
        idle: silence,
        total: NO_END,
    };
    ctx.home = Some(replay::wrap(session.as_mut(), body, hold, deadlines, None));
    Ok(Verdict::Forward)
}

/// Where from: judged for every request, told only to who may know that the server exists.
fn come_from(gateway: &Gateway, session: &Session, server: Option<&Arc<McpServer>>) -> Result<Option<HeaderValue>, Fault> {
    let head = session.req_header();
    let host = head.headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let allowed = server.map_or(&[][..], |server| &server.allowed_origins);
    origin::check(&head.headers, host, allowed, gateway.mcp.loopback)
        .map(|origin| origin.cloned())
        .map_err(|_| Fault::OriginForbidden)
}

fn may_use(principal: &Principal, server: &McpServer) -> bool {
    let allowed = server.allowed_tenants.as_ref();
    allowed.is_none_or(|tenants| tenants.contains(&principal.tenant.id))
}

/// Asking what: the body and the headers that repeat it, and the session.
async fn what(
    gateway: &Gateway,
    session: &mut Session,
    principal: &Principal,
    server: &Arc<McpServer>,
    rest: String,
) -> Result<(Call, Option<Asked>, (Bytes, Hold)), Fault> {
    let method = session.req_header().method.clone();
    let (asked, body, hold) = if method == Method::POST {
        let bounds = body::Bounds {
            bytes: gateway.bounds.max_body_bytes.min(BODY_MAX),
            time: gateway.bounds.body_timeout,
        };
        is_utf8(&session.req_header().headers)?;
        let read = tokio::select! {
            biased;
            read = body::read(session.as_mut(), bounds, &gateway.budget) => Some(read),
            () = gateway.active.closing() => None,
        };
        let (body, hold) = read.unwrap_or(Err(Fault::ShuttingDown))?;
        let asked = mcp::read(&body).map_err(|unreadable| Fault::Mcp(Refusal::Unreadable(unreadable)))?;
        (Some(asked), body, hold)
    } else {
        if has_body(session) {
            return Err(Fault::BadRequest("Only a POST has a body here."));
        }
        (None, Bytes::new(), gateway.budget.hold())
    };
    let headers = &session.req_header().headers;
    let version = headers.get(mirror::PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
    let tools = tools(server);
    if let Some(asked) = &asked {
        mirror::check(asked, headers).map_err(|error| Fault::Mcp(Refusal::Rpc(error)))?;
        asked.check(&tools, version).map_err(Fault::Mcp)?;
    }
    let modern = match &asked {
        Some(asked) => asked.is_modern(version),
        None => version.is_some_and(mcp::is_modern),
    };
    let session_id = if modern {
        None
    } else {
        opened(gateway, session, principal, server)?
    };
    // A list may also be in what is sent again to a stream that was resumed.
    let lists = asked.as_ref().map_or(method == Method::GET, Asked::lists_tools);
    let call = Call {
        filters: lists && tools.restrict(),
        listens: asked.as_ref().map_or(method == Method::GET, Asked::listens),
        server: Arc::clone(server),
        method,
        rest,
        body_len: body.len(),
        modern,
        session: session_id,
        lease: CallLease::default(),
        answer: Answer::default(),
    };
    Ok((call, asked, (body, hold)))
}

/// The server must read the body as it is judged here: other encodings (UTF-7) make other JSON of the same bytes.
fn is_utf8(headers: &HeaderMap) -> Result<(), Fault> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let sound = |value: &HeaderValue| {
        let parameters = value.as_bytes().split(|byte| *byte == b';').skip(1);
        parameters.map(<[u8]>::trim_ascii).all(|parameter| {
            let mut parts = parameter.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let value = value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""))
                .unwrap_or(value);
            let is = |known: &[u8]| value.eq_ignore_ascii_case(known);
            !name.to_ascii_lowercase().starts_with(b"charset") || is(b"utf-8") || is(b"us-ascii")
        })
    };
    let first = types.next().is_none_or(sound);
    if first && types.next().is_none() {
        return Ok(());
    }
    Err(Fault::Body(BodyFault::unsupported_media_type(
        "The body must be JSON in UTF-8, with one Content-Type.",
    )))
}

fn has_body(session: &Session) -> bool {
    let headers = &session.req_header().headers;
    let length = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    length || headers.contains_key(TRANSFER_ENCODING)
}

/// The session that a request names: the caller's own at this server, or none that there is.
fn opened(gateway: &Gateway, session: &Session, principal: &Principal, server: &McpServer) -> Result<Option<(HeaderValue, Opened)>, Fault> {
    let mut ids = session.req_header().headers.get_all(SESSION_ID).iter();
    let Some(id) = ids.next() else { return Ok(None) };
    if ids.next().is_some() {
        return Err(Fault::BadRequest("The Mcp-Session-Id header is there twice."));
    }
    let opened = gateway.mcp.sealer.open(&holder(server, principal), id.as_bytes());
    opened.map(|opened| Some((id.clone(), opened))).ok_or(Fault::SessionNotFound)
}

/// At what cost: a request of the key's and the tenant's, and no tokens.
async fn spend(gateway: &Gateway, principal: &Principal, call: &mut Call) -> Result<(), Fault> {
    let ask = limits::Ask {
        input_tokens: 0,
        max_tokens: Some(0),
        learned_output: 0,
        cost_estimate: PicoUsd(0),
    };
    call.lease.reserve(reserve(gateway, principal, &ask).await?);
    Ok(())
}

/// When: what wants an answer waits for a slot of the server's. Answers and notifications of the client's must not, for a call
/// that has a slot may wait for them; a stream that listens counts against a cap of its own.
async fn when(
    gateway: &Gateway,
    session: &mut Session,
    principal: &Principal,
    call: &mut Call,
    asked: Option<&Asked>,
) -> Result<(), Fault> {
    if call.listens {
        let listener = gateway.mcp.listening.begin(principal.tenant.id, call.server.id);
        call.lease.listen(listener.ok_or(Fault::TooManyStreams)?);
        return Ok(());
    }
    if !asked.is_some_and(Asked::is_work) {
        return Ok(());
    }
    let ask = Ask {
        tenant: principal.tenant.id,
        key: principal.key.id,
        model: slots_of(&call.server.id),
        input_tokens: CALL_TOKENS,
        max_tokens: None,
        body_bytes: call.body_len as u64,
        patience: patience(session),
    };
    let began = Instant::now();
    let permit = tokio::select! {
        biased;
        permit = gateway.mcp.slots.admit(ask) => permit.map_err(refusal),
        fault = left(session.as_mut()) => Err(fault),
    };
    match permit {
        Ok(permit) => call.lease.grant(permit),
        Err(fault) => {
            call.lease.gave_up(began.elapsed());
            return Err(fault);
        }
    }
    Ok(())
}
