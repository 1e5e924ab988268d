//! Reads a request's body: under a deadline, a size limit and the gateway's buffer budget.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http::{HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::budget::{Budget, Hold};
use super::rescue::Fault;
use crate::llm::BodyFault;

/// Room made at once for a body that announces its length; what comes beyond grows by doubling, so that a client cannot
/// take memory by announcing alone.
const FIRST_ROOM: usize = 1 << 20;

/// How much of an unread body is swallowed after a refusal, so that a client still sending can read the refusal instead
/// of a reset connection.
const SWALLOW: usize = 64 << 20;
/// And for how long.
const SWALLOW_FOR: Duration = Duration::from_secs(2);

/// The bounds of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most bytes.
    pub(super) bytes: u64,
    /// The longest time from the head to the last byte.
    pub(super) time: Duration,
}

/// Reads the whole body.
///
/// # Errors
/// [`Fault::BodyTooLarge`], [`Fault::BodyTooSlow`], [`Fault::BuffersFull`], [`Fault::ClientGone`], a 400 for broken
/// framing, a 415 for a compressed body.
pub(super) async fn read(session: &mut ServerSession, bounds: Bounds, budget: &Arc<Budget>) -> Result<(Bytes, Hold), Fault> {
    let read = read_whole(session, bounds, budget).await;
    if read.is_err() {
        // Where a body that was not read to its end stops is a guess, and the next request must not begin with one.
        session.set_keepalive(None);
    }
    read
}

async fn read_whole(session: &mut ServerSession, bounds: Bounds, budget: &Arc<Budget>) -> Result<(Bytes, Hold), Fault> {
    let head = session.req_header();
    if head
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Fault::Body(BodyFault::unsupported_media_type(
            "Compressed request bodies are not supported.",
        )));
    }
    let announced = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bounds.bytes) {
        return Err(Fault::BodyTooLarge(bounds.bytes));
    }
    if awaits_continue(head) {
        // Pingora sends no interim response while a filter reads, and the client waits for one.
        session.write_continue_response().await.map_err(|_| Fault::ClientGone)?;
    }
    tokio::time::timeout(bounds.time, collect(session, announced, bounds.bytes, budget))
        .await
        .unwrap_or(Err(Fault::BodyTooSlow))
}

async fn collect(session: &mut ServerSession, announced: Option<u64>, limit: u64, budget: &Arc<Budget>) -> Result<(Bytes, Hold), Fault> {
    let mut hold = budget.hold();
    let mut whole: Option<Bytes> = None;
    let mut pieces: Option<BytesMut> = None;
    let mut length: u64 = 0;
    while let Some(piece) = session.read_request_body().await.map_err(|error| broken(&error))? {
        length += piece.len() as u64;
        if length > limit {
            return Err(Fault::BodyTooLarge(limit));
        }
        if !hold.grow(piece.len() as u64) {
            return Err(Fault::BuffersFull);
        }
        match (whole.take(), &mut pieces) {
            // The common body arrives in one piece and is never copied.
            (None, None) => whole = Some(piece),
            (Some(first), _) => {
                let room = usize::try_from(announced.unwrap_or(0))
                    .unwrap_or(FIRST_ROOM)
                    .clamp(first.len() + piece.len(), FIRST_ROOM.max(first.len() + piece.len()));
                let mut joined = BytesMut::with_capacity(room);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&piece);
                pieces = Some(joined);
            }
            (None, Some(joined)) => joined.extend_from_slice(&piece),
        }
    }
    Ok((whole.or_else(|| pieces.map(BytesMut::freeze)).unwrap_or_default(), hold))
}

/// Whether the client holds its body back until it is told to go on (RFC 9110, 10.1.1: never before HTTP/1.1).
pub(super) fn awaits_continue(head: &RequestHeader) -> bool {
    let asks = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    head.version >= Version::HTTP_11 && head.headers.get(EXPECT).is_some_and(asks)
}

/// Reads and forgets what a refused client is still sending, within bounds.
pub(super) async fn swallow(session: &mut ServerSession) {
    let drain = async {
        let mut swallowed = 0;
        while swallowed < SWALLOW {
            match session.read_request_body().await {
                Ok(Some(piece)) => swallowed += piece.len(),
                Ok(None) | Err(_) => break,
            }
        }
    };
    // Late or not, the connection is closed next.
    let _ = tokio::time::timeout(SWALLOW_FOR, drain).await;
}

/// A read error is the client's: either it is gone, or what it sent is no body.
fn broken(error: &pingora::Error) -> Fault {
    use pingora::ErrorType::{ConnectionClosed, H2Error, ReadError, ReadTimedout};
    match error.etype() {
        ReadTimedout => Fault::BodyTooSlow,
        ConnectionClosed | ReadError | H2Error => Fault::ClientGone,
        _ => Fault::BadRequest("The request's body is not framed as HTTP asks."),
    }
}
