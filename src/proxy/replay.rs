//! Body replay: hands a body that `request_filter` has read, and rewritten, to the upstream.
//!
//! Pingora 0.9.1 calls `request_body_filter` only while the downstream body is unread or fits its 64 KiB retry buffer;
//! a larger body that was read before the proxy loop never reaches the upstream, and the request hangs. So the last thing
//! `request_filter` does is to put a [`Replay`] in the place of the client's session: it serves the rewritten bytes from
//! memory, rewinds when an attempt is repeated, and delegates everything else to the session it stands for.
//!
//! It is also the one place that is polled for as long as a request is upstream, so the deadlines of the answer live
//! here ([`Clockwork`]): Pingora knows one timeout per read, not a first byte, a silence and a total.
//!
//! `Custom` sessions are `#[doc(hidden)]` in Pingora; the version is pinned, and `tests/it/replay.rs` holds the matrix of
//! sizes, framings, protocols and retries.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};

use super::budget::Hold;
use super::cached::FINISH_WITHIN;
use super::clockwork::{Clockwork, Deadlines};
use super::listeners::{is_end, nobody_listens, patiently};
use crate::answers::Audience;

/// How much of the body is handed over at a time: one slice, no copy, so that a slow upstream holds back the next.
const SLICE: usize = 256 * 1024;
/// And in how many slices at most. Pingora watches the client, and asks for the deadlines that live here, only while its
/// queue towards the upstream, four deep, has room: an endpoint that does not read must not blind it.
const SLICES_MAX: usize = 3;

type MessageReader = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// Where the client's own session comes back to when its [`Replay`] is dropped, and what is known of the replay from
/// outside: Pingora offers no way to ask a custom session what it is.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Shared>);

#[derive(Default)]
struct Shared {
    session: Mutex<Option<ServerSession>>,
    handed_out: AtomicBool,
    gone: AtomicBool,
}

impl Home {
    /// Whether the last byte of the body was handed over in the present attempt: before that, no upstream can have
    /// executed the request, since it has not seen all of it.
    pub(super) fn body_handed_out(&self) -> bool {
        self.0.handed_out.load(Ordering::Relaxed)
    }

    /// Whether the client has left and the work goes on for others.
    pub(super) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }
}

/// Puts a [`Replay`] of `body` in the place of the client's session.
///
/// With an `audience` the work goes on when the client leaves while others listen: the stand-in then swallows what was
/// meant for the client.
pub(super) fn wrap(session: &mut ServerSession, body: Bytes, hold: Hold, deadlines: Deadlines, audience: Option<Audience>) -> Home {
    let home = Home::default();
    // `()` is Pingora's own null session: of no size, never used, there while the two are exchanged.
    let inner = mem::replace(session, ServerSession::Custom(Box::new(())));
    *session = ServerSession::Custom(Box::new(Replay {
        inner: Some(inner),
        home: home.clone(),
        body_len: body.len(),
        body,
        hold: Some(hold),
        sent: 0,
        clockwork: Clockwork::new(deadlines),
        audience,
        untold: None,
    }));
    home
}

/// Puts the client's session back, if it is away. Without it the connection could not be kept alive. A client that has
/// left is not put back: Pingora would wait until the rest is written to it.
pub(super) fn unwrap(session: &mut ServerSession, home: &Home) {
    if session.is_custom() && !home.is_gone() {
        drop(mem::replace(session, ServerSession::Custom(Box::new(()))));
        if let Some(inner) = home.0.session.lock().take() {
            *session = inner;
        }
    }
}

/// The session Pingora sees while a request is upstream.
struct Replay {
    /// The client's session. `None` only while `drop` runs.
    inner: Option<ServerSession>,
    home: Home,
    body: Bytes,
    body_len: usize,
    /// The body's share of the gateway's buffer budget; given back when the answer's head makes a repeat impossible.
    hold: Option<Hold>,
    sent: usize,
    clockwork: Clockwork,
    /// Who listens beside the client.
    audience: Option<Audience>,
    /// The head that the client was no longer there to be told.
    untold: Option<ResponseHeader>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        *self.home.0.session.lock() = self.inner.take();
    }
}

impl Replay {
    fn session(&self) -> &ServerSession {
        self.inner.as_ref().expect("the session is there until drop")
    }

    fn session_mut(&mut self) -> &mut ServerSession {
        self.inner.as_mut().expect("the session is there until drop")
    }

    /// The next slice of the body, or `None` after the last.
    fn next_slice(&mut self) -> Option<Bytes> {
        let rest = self.body_len.saturating_sub(self.sent);
        if rest == 0 {
            return None;
        }
        let slice = self
            .body
            .slice(self.sent..self.sent + rest.min(SLICE.max(self.body_len.div_ceil(SLICES_MAX))));
        self.sent += slice.len();
        if self.sent == self.body_len {
            self.home.0.handed_out.store(true, Ordering::Relaxed);
            self.clockwork.request_sent();
        }
        Some(slice)
    }

    /// The client has left, or cannot be written to. Returns whether the work goes on for others; then its connection is
    /// closed, and nobody writes to it any more.
    async fn goes_on(&mut self) -> bool {
        if self.home.is_gone() {
            return true;
        }
        if !self.audience.as_ref().is_some_and(Audience::goes_on) {
            return false;
        }
        self.home.0.gone.store(true, Ordering::Relaxed);
        let session = self.session_mut();
        session.set_keepalive(None);
        // Tried once: what is not yet written may never be.
        let _ = tokio::time::timeout(Duration::ZERO, session.shutdown()).await;
        true
    }

    /// What a failed write means: the end, or, with others listening, nothing.
    async fn after<T>(&mut self, written: Result<T>, otherwise: T) -> Result<T> {
        match written {
            Err(_) if self.goes_on().await => Ok(otherwise),
            written => written,
        }
    }

    /// The answer has begun: nothing will be sent again, so the body need not be kept.
    fn answer_began(&mut self) {
        self.clockwork.answered();
        if self.hold.is_some() {
            self.body = Bytes::new();
            self.sent = self.body_len;
            self.hold = None;
        }
    }
}

impl Replay {
    /// Takes what was meant for the client. Returns whether the answer is over.
    fn swallow(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut over = false;
        for task in tasks {
            over |= is_end(&task);
            match task {
                HttpTask::Header(header, _) if !header.status.is_informational() => self.untold = Some(*header),
                HttpTask::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Ok(over)
    }
}

#[async_trait]
impl CustomSession for Replay {
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(self.next_slice())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected {
            return Ok(self.next_slice());
        }
        loop {
            let gone = self.home.is_gone();
            let Self {
                inner,
                clockwork,
                audience,
                ..
            } = self;
            let session = inner.as_mut().expect("the session is there until drop");
            let left = tokio::select! {
                biased;
                left = session.read_body_or_idle(true), if !gone => left,
                () = nobody_listens(audience.as_ref()), if gone => return Error::e_explain(ErrorType::ConnectionClosed, "nobody listens any more"),
                late = clockwork.strike() => return Error::e_explain(ErrorType::Custom(late.name()), "the upstream is too slow"),
            };
            if !self.goes_on().await {
                return left;
            }
        }
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.sent = self.body_len;
        Ok(())
    }

    fn is_body_done(&mut self) -> bool {
        self.sent >= self.body_len
    }

    fn is_body_empty(&mut self) -> bool {
        self.body_len == 0
    }

    /// Pingora calls this at the start of every attempt: the body starts over.
    fn enable_retry_buffering(&mut self) {
        self.sent = 0;
        self.home.0.handed_out.store(self.body_len == 0, Ordering::Relaxed);
        self.clockwork.attempt_began();
        if self.body_len == 0 {
            self.clockwork.request_sent();
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn write_response_header(&mut self, response: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.answer_began();
        if self.home.is_gone() {
            self.untold = Some(*response);
            return Ok(());
        }
        if self.audience.is_none() {
            return self.session_mut().write_response_header(response).await;
        }
        let written = self.session_mut().write_response_header_ref(&response).await;
        self.after(written, ()).await
    }

    async fn write_response_header_ref(&mut self, response: &ResponseHeader, _end: bool) -> Result<()> {
        self.answer_began();
        if self.home.is_gone() {
            self.untold = Some(response.clone());
            return Ok(());
        }
        let written = self.session_mut().write_response_header_ref(response).await;
        self.after(written, ()).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if !self.home.is_gone() {
            let Self { inner, audience, .. } = self;
            let session = inner.as_mut().expect("the session is there until drop");
            let written = patiently(audience.as_ref(), session.write_response_body(data, end)).await;
            self.after(written, ()).await?;
        }
        self.clockwork.moved();
        Ok(())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.home.is_gone() {
            return Ok(());
        }
        let written = self.session_mut().write_response_trailers(trailers).await;
        self.after(written, ()).await
    }

    async fn response_duplex_vec(&mut self, mut tasks: Vec<HttpTask>) -> Result<bool> {
        // Interim answers are between us and the upstream; a client before HTTP/1.1 would not even understand them.
        tasks.retain(|task| !matches!(task, HttpTask::Header(header, false) if header.status.is_informational()));
        if tasks.is_empty() {
            return Ok(false);
        }
        if tasks
            .iter()
            .any(|task| matches!(task, HttpTask::Header(header, _) if !header.status.is_informational()))
        {
            self.answer_began();
        }
        let done = if self.home.is_gone() {
            self.swallow(tasks)
        } else if let Some(audience) = &self.audience {
            let ends = tasks.iter().any(is_end);
            let broken = tasks.iter().any(|task| matches!(task, HttpTask::Failed(_)));
            let session = self.inner.as_mut().expect("the session is there until drop");
            let written = patiently(Some(audience), session.response_duplex_vec(tasks)).await;
            if broken { written } else { self.after(written, ends).await }
        } else {
            self.session_mut().response_duplex_vec(tasks).await
        };
        // Stamped after the write: the time a slow client takes is not held against the upstream.
        self.clockwork.moved();
        done
    }

    async fn finish(&mut self) -> Result<()> {
        if self.home.is_gone() {
            return Ok(());
        }
        let session = self.session_mut();
        let limit = session.get_write_timeout().unwrap_or(FINISH_WITHIN);
        let finished = match tokio::time::timeout(limit, session.finish_body()).await {
            Ok(finished) => finished,
            Err(_) => Error::e_explain(ErrorType::WriteTimedout, "the client does not take the end of its answer"),
        };
        self.after(finished, ()).await
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.session_mut().shutdown().await;
    }

    fn req_header(&self) -> &RequestHeader {
        self.session().req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.session_mut().req_header_mut()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.session_mut().set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.session().get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.session_mut().set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.session().get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.session_mut().set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.session().get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.session().request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.untold.as_ref().or_else(|| self.session().response_written())
    }

    fn body_bytes_sent(&self) -> usize {
        self.session().body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.session().body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.session().digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.session_mut().digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.session().client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.session().server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.session().to_h1_raw()
    }

    fn take_custom_message_reader(&mut self) -> Option<MessageReader> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: MessageReader) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
