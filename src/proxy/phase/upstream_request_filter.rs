//! Writes the head that goes upstream, from an allow-list: what is not named here stays with the gateway.

use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, USER_AGENT};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::super::ctx::RequestCtx;
use super::super::mcp;
use super::super::rescue::Fault;
use super::response_filter::REQUEST_ID;
use crate::catalog::Protocol;
use crate::llm::Dialect;

/// What a client's head may contribute. Never its credential, cookies or `x-forwarded-*`.
const PASSED_ON: [HeaderName; 6] = [
    http::header::CONTENT_TYPE,
    http::header::ACCEPT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
];

/// The gateway's name to servers.
pub(in crate::proxy) const OURSELVES: &str = concat!("obleth/", env!("CARGO_PKG_VERSION"));

pub(in crate::proxy) fn run(session: &Session, head: &mut RequestHeader, ctx: &mut RequestCtx) -> Result<(), Fault> {
    if ctx.mcp.is_some() {
        return mcp::upward::write(session, head, ctx);
    }
    write(session, head, ctx).map_err(|_| Fault::Internal)?;
    let (Some(work), Some(bill)) = (&mut ctx.work, &mut ctx.bill) else {
        return Err(Fault::Internal);
    };
    if let (Some(row), Some(chosen)) = (bill.row(), work.lease.chosen()) {
        row.endpoint = chosen.kept_label();
    }
    // The ledger first: what is not written down must not be executed.
    bill.dispatch(work.lease.seen(), &work.model.prices)
        .map_err(|_| Fault::LedgerUnavailable)?;
    work.lease.dispatch();
    Ok(())
}

fn write(session: &Session, head: &mut RequestHeader, ctx: &RequestCtx) -> Result<()> {
    let (Some(work), Some(route)) = (&ctx.work, ctx.route) else {
        return Err(Error::new(ErrorType::InternalError));
    };
    let Some(chosen) = work.lease.chosen() else {
        return Err(Error::new(ErrorType::InternalError));
    };
    let path = chosen.path_for(route.path());
    let mut ours = RequestHeader::build_no_case(http::Method::POST, path.as_bytes(), Some(12))?;
    ours.set_version(head.version);
    ours.insert_header(HOST, chosen.host())?;
    let theirs = session.req_header();
    for name in &PASSED_ON {
        for value in theirs.headers.get_all(name) {
            ours.append_header(name.clone(), value.clone())?;
        }
    }
    ours.insert_header(USER_AGENT, HeaderValue::from_static(OURSELVES))?;
    ours.insert_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))?;
    ours.insert_header(REQUEST_ID, ctx.shown_id.clone())?;
    ours.insert_header(CONTENT_LENGTH, HeaderValue::from(work.body_len))?;
    if let Some(secret) = chosen.credential() {
        if work.model.protocol == Protocol::Anthropic && route.dialect() == Dialect::Anthropic {
            ours.insert_header("x-api-key", secret)?;
        } else {
            ours.insert_header(AUTHORIZATION, format!("Bearer {secret}"))?;
        }
    }
    ctx.trace.outward(&mut ours)?;
    *head = ours;
    Ok(())
}
