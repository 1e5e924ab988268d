//! What became of each attempt of a request: where it went, how it ended, when and how long.
//!
//! A row has such a log only where there is something to say: there was more than one attempt, or the only one did not go
//! well. In the table it is an array of objects, or NULL.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::row::words;
use crate::catalog::RETRIES_MAX;

/// No log is longer: the first attempt and every repeat that a model may be given. What comes after is in the row's count.
pub const ATTEMPTS_MAX: usize = RETRIES_MAX as usize + 1;

words! {
    /// How an attempt ended.
    AttemptOutcome {
        /// The answer came whole, with a status of success.
        #[default]
        Ok = "ok",
        /// It was answered with another status.
        Status = "status",
        /// Nobody listens.
        ConnectRefused = "connect_refused",
        /// No connection within the connect timeout.
        ConnectTimeout = "connect_timeout",
        /// No route, or the network is down.
        ConnectUnreachable = "connect_unreachable",
        /// The TLS handshake failed.
        ConnectTls = "connect_tls",
        /// There was no connection for another reason.
        ConnectError = "connect_error",
        /// A connection from the pool ended, or was reset, before an answer began: it may have been dead for long.
        DeadConnection = "dead_connection",
        /// A new connection ended, or was reset, before an answer began.
        ClosedEarly = "closed_early",
        /// The connection ended in the middle of the answer.
        Interrupted = "interrupted",
        /// No answer began in time.
        FirstByteTimeout = "first_byte_timeout",
        /// The answer stopped moving.
        IdleTimeout = "idle_timeout",
        /// The answer went on too long.
        TotalTimeout = "total_timeout",
        /// The request could not be written in time.
        WriteTimeout = "write_timeout",
        /// What came is no answer: no HTTP, a status that is none, a coding that cannot be undone.
        Malformed = "malformed",
        /// The stream told of an error after its good status.
        ErrorEvent = "error_event",
        /// The client left, or could not be written to.
        ClientGone = "client_gone",
        /// The gateway gave up for a reason of its own.
        Abandoned = "abandoned",
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Host and port.
    pub endpoint: Arc<str>,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The endpoint's status, where its answer began.
    pub status: Option<u16>,
    /// When it began, in milliseconds after the request's arrival.
    pub start_ms: u32,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
}

/// An attempt in the table.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    endpoint: Cow<'a, str>,
    outcome: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    start_ms: u32,
    duration_ms: u32,
}

/// A log as JSON; `None` for an empty one.
#[must_use]
pub fn attempts_json(log: &[Attempt]) -> Option<String> {
    if log.is_empty() {
        return None;
    }
    let kept: Vec<Kept<'_>> = log.iter().take(ATTEMPTS_MAX).map(Kept::of).collect();
    // Strings and numbers: what serde_json cannot fail on.
    serde_json::to_string(&kept).ok()
}

/// The log that was written as `json`. What is none is an empty one: the row is worth more than its log.
pub(in crate::store) fn read_attempts(json: &str) -> Box<[Attempt]> {
    let kept: Vec<Kept<'_>> = serde_json::from_str(json).unwrap_or_default();
    kept.into_iter().filter_map(Kept::attempt).collect()
}

impl<'a> Kept<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            endpoint: Cow::Borrowed(&attempt.endpoint),
            outcome: Cow::Borrowed(attempt.outcome.as_str()),
            status: attempt.status,
            start_ms: attempt.start_ms,
            duration_ms: attempt.duration_ms,
        }
    }

    fn attempt(self) -> Option<Attempt> {
        Some(Attempt {
            outcome: AttemptOutcome::from_word(&self.outcome)?,
            endpoint: Arc::from(self.endpoint),
            status: self.status,
            start_ms: self.start_ms,
            duration_ms: self.duration_ms,
        })
    }
}
