//! A chosen endpoint: an in-flight mark that is given back when it is dropped, and what the request needs to get there.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use pingora::{Error, ErrorType};

use super::EndpointId;
use super::endpoint::{Endpoint, Member};
use super::pool::Pool;

/// Why a connection was not made. Nothing of the request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Nobody listens.
    Refused,
    /// No answer within the connect timeout.
    TimedOut,
    /// No route, or the network is down.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// Anything else.
    Other,
}

impl ConnectFailure {
    /// What an error of Pingora's says about a connect.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectRefused => Self::Refused,
            ErrorType::ConnectTimedout => Self::TimedOut,
            ErrorType::ConnectNoRoute => Self::Unreachable,
            ErrorType::TLSHandshakeFailure | ErrorType::TLSHandshakeTimedout | ErrorType::InvalidCert => Self::Tls,
            _ => Self::Other,
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::TimedOut => "connect timed out",
            Self::Unreachable => "network unreachable",
            Self::Tls => "TLS handshake failed",
            Self::Other => "connect failed",
        }
    }
}

/// What became of an attempt. Several may be told of one: a head, then the end. An attempt counts against its endpoint at
/// most once, and for it only when it ends, so that one which sends good heads and then dies is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was never sent.
    ConnectFailed(ConnectFailure),
    /// The head of an answer came. 500 and above count as failures, and so do redirects, which are not followed; 429 does
    /// not.
    HeadReceived {
        /// Its status.
        status: u16,
        /// Since the request was sent.
        latency: Duration,
    },
    /// The connection broke before the answer's end.
    DiedMidway,
    /// The answer's head or next piece did not come in time.
    TimedOut,
    /// The answer is complete.
    Done {
        /// Since the request was sent.
        latency: Duration,
        /// As reported or counted; `None` where tokens mean nothing.
        output_tokens: Option<u64>,
    },
}

impl Outcome {
    /// What is shown as an endpoint's last error.
    fn words(self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::ConnectFailed(failure) => failure.words().into(),
            Self::HeadReceived {
                status: status @ (300..=399 | 500..),
                ..
            } => format!("answered {status}").into(),
            Self::DiedMidway => "connection broke before the answer's end".into(),
            Self::TimedOut => "answer timed out".into(),
            Self::HeadReceived { .. } | Self::Done { .. } => return None,
        })
    }
}

/// An endpoint's address, chosen for one attempt. Dropping it gives the in-flight mark back.
pub struct Chosen {
    pool: Arc<Pool>,
    member: Arc<Member>,
    verdict: AtomicU8,
}

/// Nothing is known of the attempt.
const OPEN: u8 = 0;
/// A good head came. If nothing else is heard (the client left), the attempt was a good one.
const PROMISING: u8 = 1;
/// It was counted.
const COUNTED: u8 = 2;

impl Chosen {
    /// Takes the marks. `None` when the endpoint's cap was reached meanwhile.
    pub(super) fn take(pool: &Arc<Pool>, member: &Arc<Member>) -> Option<Self> {
        let endpoint = &member.endpoint;
        match endpoint.plan.cap {
            Some(cap) => {
                let room = |in_flight: u32| (in_flight < cap).then_some(in_flight + 1);
                endpoint.in_flight.try_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
            }
            None => {
                endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
            }
        }
        member.backend.load.in_flight.fetch_add(1, Ordering::Relaxed);
        pool.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            pool: Arc::clone(pool),
            member: Arc::clone(member),
            verdict: AtomicU8::new(OPEN),
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.member.endpoint
    }

    /// For the next choice's `tried`.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.member.backend.id
    }

    /// The address to connect to, checked by the egress rules; no other may be used.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.member.backend.addr
    }

    /// Whether to speak TLS.
    #[must_use]
    pub fn https(&self) -> bool {
        self.member.endpoint.https()
    }

    /// Whether to speak HTTP/2.
    #[must_use]
    pub fn http2(&self) -> bool {
        self.member.endpoint.plan.http2
    }

    /// The name to ask for and to verify, where TLS is spoken.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.https().then(|| self.member.endpoint.server_name())
    }

    /// The `Host` header (`:authority`).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.member.endpoint.host
    }

    /// The path to ask for: the endpoint's base path, then the route's own path such as `/v1/chat/completions`. Never made
    /// of anything the client sent.
    #[must_use]
    pub fn path_for<'a>(&self, route_path: &'a str) -> Cow<'a, str> {
        match self.member.endpoint.prefix.as_str() {
            "" => Cow::Borrowed(route_path),
            prefix => Cow::Owned(format!("{prefix}{route_path}")),
        }
    }

    /// The secret to present, without scheme.
    #[must_use]
    pub fn credential(&self) -> Option<&str> {
        self.member.endpoint.secret().map(AsRef::as_ref)
    }

    /// How long connecting may take.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.member.endpoint.plan.connect_ms))
    }

    /// Connections may be shared among equal ones only: name, credential and trusted certificates go into it.
    #[must_use]
    pub fn group_key(&self) -> u64 {
        self.member.endpoint.group_key()
    }

    /// Host and port for people, logs and the ledger.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.member.endpoint.label
    }

    /// The same, to keep.
    #[must_use]
    pub fn kept_label(&self) -> Arc<str> {
        Arc::clone(&self.member.endpoint.label)
    }

    /// Output tokens that an answer of this address has after so long, by what was seen of it lately.
    #[must_use]
    pub fn tokens_in(&self, time: Duration) -> u64 {
        self.member.backend.speed.tokens_in(time)
    }

    /// Tells what became of the attempt.
    pub fn outcome(&self, outcome: Outcome) {
        let verdict = self.verdict.load(Ordering::Relaxed);
        let backend = &self.member.backend;
        match (outcome, outcome.words()) {
            (_, Some(words)) if verdict != COUNTED => {
                self.verdict.store(COUNTED, Ordering::Relaxed);
                self.pool.failed(backend, outcome, &words, Instant::now());
            }
            (Outcome::HeadReceived { status, latency }, None) => {
                backend.heads.fetch_add(1, Ordering::Relaxed);
                if status < 300 {
                    backend.speed.first_byte(latency);
                }
                if verdict == OPEN {
                    self.verdict.store(PROMISING, Ordering::Relaxed);
                }
            }
            (Outcome::Done { latency, output_tokens }, None) => {
                if let Some(tokens @ 1..) = output_tokens {
                    backend.speed.answer(latency, tokens);
                }
                if verdict != COUNTED {
                    self.verdict.store(COUNTED, Ordering::Relaxed);
                    backend.passed();
                }
            }
            _ => {}
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if *self.verdict.get_mut() == PROMISING {
            self.member.backend.passed();
        }
        self.member.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.member.backend.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pool.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pool.gave_back(&self.member);
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen")
            .field("label", &self.label())
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}
