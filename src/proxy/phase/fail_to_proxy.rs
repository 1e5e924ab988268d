//! Tells the client how its request ended, if it can still be told.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, Session};

use super::super::clockwork::Late;
use super::super::ctx::RequestCtx;
use super::super::mcp;
use super::super::replay::Home;
use super::super::rescue::Fault;
use super::super::{body, cached, replay};
use super::request_filter::expects_continue;
use super::response_filter::{sign, tell, waited_for};
use crate::llm::Tap;

/// How long the last words to a client may take.
const HANG_UP: Duration = Duration::from_secs(2);

pub(in crate::proxy) async fn run(session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> FailToProxy {
    if let Some(home) = &ctx.home {
        replay::unwrap(session.as_mut(), home);
    }
    let fault = ctx.fault.take().unwrap_or_else(|| diagnose(error, session, ctx));
    cached::failed(ctx, &fault);
    let gone = ctx.home.as_ref().is_some_and(Home::is_gone);
    if fault != Fault::ClientGone && !gone {
        if session.response_written().is_some_and(|head| !head.status.is_informational()) {
            end_stream(session, ctx, &fault).await;
        } else {
            session.set_keepalive(None);
            answer(session, ctx, &fault).await;
        }
    }
    let status = if ctx.status == 0 { fault.status() } else { ctx.status };
    ctx.fault = Some(fault);
    FailToProxy {
        error_code: status,
        // Pingora closes the connection after an error in any case.
        can_reuse_downstream: false,
    }
}

/// What an error of Pingora's means.
pub(super) fn diagnose(error: &Error, session: &Session, ctx: &RequestCtx) -> Fault {
    if Late::of(error).is_some() {
        return Fault::UpstreamTimeout;
    }
    // The head may have gone to others only.
    let shared = ctx.status != 0 && ctx.home.as_ref().is_some_and(Home::is_gone);
    let begun = shared || session.response_written().is_some_and(|head| !head.status.is_informational());
    match error.esource() {
        ErrorSource::Downstream => match error.etype() {
            ErrorType::InvalidHTTPHeader => Fault::BadRequest("The request's header is not HTTP."),
            _ => Fault::ClientGone,
        },
        ErrorSource::Upstream if begun => Fault::UpstreamInterrupted,
        ErrorSource::Upstream => match error.etype() {
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Fault::UpstreamTimeout,
            ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 | ErrorType::H2Downgrade => {
                Fault::UpstreamError("The upstream's answer is not HTTP.")
            }
            _ if ctx.work.as_ref().is_some_and(|work| work.lease.was_dispatched())
                || ctx.mcp.as_ref().is_some_and(|call| call.lease.was_dispatched()) =>
            {
                Fault::UpstreamError("The upstream closed the connection before it answered.")
            }
            _ => Fault::UpstreamUnreachable,
        },
        ErrorSource::Internal | ErrorSource::Unset => Fault::Internal,
    }
}

/// The status is out. An event stream ends with an error event and no `[DONE]`; anything else is cut, since a body that
/// merely stopped would look complete.
async fn end_stream(session: &mut Session, ctx: &RequestCtx, fault: &Fault) {
    let open = ctx
        .work
        .as_ref()
        .is_some_and(|work| work.answer.event_stream && !work.answer.complete);
    // A client that does not read must not hold what the request has taken.
    let ended = async {
        if ctx.mcp.is_some() {
            return mcp::end::end_stream(session, ctx, fault).await;
        }
        if let Some(work) = ctx.work.as_ref().filter(|_| open) {
            let end_of_the_last = work.answer.tap.as_ref().map_or(work.answer.closing, Tap::cut);
            let event = fault.event(ctx.dialect, ctx.shown_id());
            let last = [end_of_the_last, &event].concat();
            if session.as_mut().write_response_body(Bytes::from(last), true).await.is_ok() {
                // Whole as it looks, the connection is closed: at once, before the client takes it for its next request.
                if let ServerSession::H1(connection) = session.as_mut() {
                    connection.shutdown().await;
                }
                return;
            }
        }
        session.as_mut().shutdown().await;
    };
    // Late or not, the connection is closed next.
    let _ = tokio::time::timeout(HANG_UP, ended).await;
}

/// Answers with a fault: status, headers, body in the client's dialect.
pub(in crate::proxy) async fn answer(session: &mut Session, ctx: &mut RequestCtx, fault: &Fault) {
    if *fault == Fault::ClientGone {
        ctx.status = fault.status();
        return;
    }
    if *fault == Fault::ShuttingDown {
        // The next try is better made elsewhere.
        session.set_keepalive(None);
    }
    let body = fault.body(ctx.dialect, ctx.shown_id());
    let head = fault.head(body.len());
    if let Ok(head) = head {
        // A failure to write means that nobody is there to be told.
        let _ = send(session, ctx, head, body).await;
    }
}

/// Answers 200 with a body of the gateway's own.
pub(in crate::proxy) async fn reply(session: &mut Session, ctx: &mut RequestCtx, content_type: &'static str, body: Bytes) -> Result<()> {
    let mut head = ResponseHeader::build_no_case(200, Some(6))?;
    head.insert_header(CONTENT_TYPE, HeaderValue::from_static(content_type))?;
    head.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    send(session, ctx, head, body).await
}

/// Sends an answer of the gateway's own.
pub(in crate::proxy) async fn send(session: &mut Session, ctx: &mut RequestCtx, mut head: ResponseHeader, body: Bytes) -> Result<()> {
    if let Some(work) = &ctx.work {
        tell(&mut head, &work.model.name, work.listened + work.lease.waited())?;
    }
    if let Some(call) = &ctx.mcp {
        waited_for(&mut head, call.lease.waited())?;
    }
    sign(&mut head, ctx)?;
    ctx.status = head.status.as_u16();
    let bodiless = session.req_header().method == Method::HEAD;
    // A client that still sends would not read an answer before a reset; one that waits for a go-ahead will not send.
    let unread = !session.as_mut().is_body_done();
    let waits = unread && expects_continue(session);
    if unread {
        session.set_keepalive(None);
    }
    let session = session.as_mut();
    session.write_response_header(Box::new(head)).await?;
    if bodiless {
        session.finish_body().await?;
    } else {
        session.write_response_body(body, true).await?;
    }
    if unread && !waits {
        body::swallow(session).await;
    }
    Ok(())
}
