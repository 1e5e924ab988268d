//! What is noted while a request runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http::header::HeaderName;
use memchr::memmem;
use pingora::http::RequestHeader;
use pingora::{Error, Result};

use super::super::Gateway;
use super::super::phase::request_filter::presented;
use super::Step;
use crate::telemetry::traces::{Context, Remote, SpanId};
use crate::upstreams::Chosen;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What is asked too often to be worth a trace.
const HEALTH: &str = "/health";

/// What is noted of a request; nothing where nothing is traced.
pub(in crate::proxy) struct Trace(pub(super) Option<Box<Noted>>);

pub(super) struct Noted {
    pub(super) context: Context,
    /// The request's own span.
    pub(super) id: SpanId,
    pub(super) born: Instant,
    /// One moment by both clocks.
    moment: (Instant, u64),
    /// By [`Step`].
    pub(super) laps: [Option<Lap>; 3],
    /// One for each endpoint that was tried, in order; the model's `max_retries` bounds them.
    pub(super) attempts: Vec<Attempt>,
}

/// How long a step took.
#[derive(Clone, Copy)]
pub(super) struct Lap {
    pub(super) from: Instant,
    pub(super) to: Option<Instant>,
    /// Whether the request ended in it.
    pub(super) broke_off: bool,
}

/// An attempt at an endpoint.
pub(super) struct Attempt {
    pub(super) id: SpanId,
    pub(super) endpoint: Arc<str>,
    pub(super) addr: SocketAddr,
    pub(super) from: Instant,
    pub(super) to: Option<Instant>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<&'static str>,
}

impl Noted {
    /// A moment of the request in nanoseconds of Unix time. By the monotonic clock from one look at the wall clock, so that
    /// spans nest whatever the wall clock does meanwhile.
    pub(super) fn nanos(&self, at: Instant) -> u64 {
        let (moment, wall) = self.moment;
        let since = |from: Instant, to: Instant| u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX);
        wall.saturating_add(since(moment, at)).saturating_sub(since(at, moment))
    }
}

impl Trace {
    /// Nothing yet.
    pub(in crate::proxy) const fn new() -> Self {
        Self(None)
    }

    /// Begins, or goes on with what the client began. Called before anything is judged, so that what is refused is traced too.
    pub(in crate::proxy) fn begin(&mut self, gateway: &Gateway, head: &RequestHeader, born: Instant) {
        if !gateway.traces.is_on() || head.uri.path() == HEALTH {
            return;
        }
        let values = |name| head.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let remote = Remote::read(values(TRACEPARENT), values(TRACESTATE)).map(|remote| {
            // The client's key goes nowhere, whatever it is put into.
            let secret = presented(&head.headers).unwrap_or_default();
            let tells = !secret.is_empty() && memmem::find(remote.state().as_bytes(), secret).is_some();
            if tells { remote.without_state() } else { remote }
        });
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0 = Some(Box::new(Noted {
            context: gateway.traces.context(remote),
            id: SpanId::mint(),
            born,
            moment: (Instant::now(), u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)),
            laps: [None; 3],
            attempts: Vec::new(),
        }));
    }

    /// A step begins.
    pub(in crate::proxy) fn enter(&mut self, step: Step) {
        if let Some(lap) = self.lap(step) {
            *lap = Some(Lap {
                from: Instant::now(),
                to: None,
                broke_off: false,
            });
        }
    }

    /// A step is done.
    pub(in crate::proxy) fn leave(&mut self, step: Step) {
        if let Some(Some(lap)) = self.lap(step) {
            lap.to = Some(Instant::now());
        }
    }

    fn lap(&mut self, step: Step) -> Option<&mut Option<Lap>> {
        self.0.as_mut()?.laps.get_mut(step as usize)
    }

    /// The request ends in the step it is in, if it is in one.
    pub(in crate::proxy) fn broke_off(&mut self) {
        let Some(noted) = &mut self.0 else { return };
        for lap in noted.laps.iter_mut().flatten().filter(|lap| lap.to.is_none()) {
            lap.to = Some(Instant::now());
            lap.broke_off = true;
        }
    }

    /// An endpoint is tried.
    pub(in crate::proxy) fn attempt(&mut self, chosen: &Chosen) {
        if let Some(noted) = &mut self.0 {
            noted.attempts.push(Attempt {
                id: SpanId::mint(),
                endpoint: chosen.kept_label(),
                addr: chosen.addr(),
                from: Instant::now(),
                to: None,
                status: None,
                error: None,
            });
        }
    }

    /// Tells the endpoint of the trace: the attempt's span is its caller. What the client said has been taken up or was not
    /// well-formed; it does not go up itself.
    pub(in crate::proxy) fn outward(&self, head: &mut RequestHeader) -> Result<()> {
        let Some(noted) = &self.0 else { return Ok(()) };
        let Some(attempt) = noted.attempts.last() else { return Ok(()) };
        head.insert_header(TRACEPARENT, noted.context.traceparent(attempt.id))?;
        if noted.context.state.is_empty() {
            head.remove_header(&TRACESTATE);
        } else {
            head.insert_header(TRACESTATE, &*noted.context.state)?;
        }
        Ok(())
    }

    /// The endpoint has answered.
    pub(in crate::proxy) fn answered(&mut self, status: u16) {
        if let Some(attempt) = self.present() {
            attempt.status = Some(status);
        }
    }

    /// The attempt came to nothing.
    pub(in crate::proxy) fn attempt_failed(&mut self, error: &Error) {
        if let Some(attempt) = self.present() {
            attempt.to = Some(Instant::now());
            attempt.error = Some(error.etype().as_str());
        }
    }

    fn present(&mut self) -> Option<&mut Attempt> {
        self.0.as_mut()?.attempts.last_mut()
    }
}
