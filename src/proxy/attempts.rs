//! How each attempt of a request ended, for its row in the ledger: written where an attempt fails, and at the request's end
//! where the last one has something beside it or was answered badly. A single attempt that goes well writes nothing.

use std::time::Instant;

use pingora::{Error, ErrorSource, ErrorType};

use super::clockwork::Late;
use super::ctx::{RequestCtx, Work};
use super::mcp::Call;
use super::ms;
use super::rescue::Fault;
use crate::metering::{ATTEMPTS_MAX, Attempt, AttemptOutcome};
use crate::upstreams::{Chosen, ConnectFailure};

/// The attempts that have ended, as far as they need telling.
#[derive(Default)]
pub(super) struct Attempts {
    log: Vec<Attempt>,
    /// How many have ended; more than the log has beyond its bound.
    ended: u8,
}

/// What is known of the present attempt, or of the last.
#[derive(Clone, Copy)]
pub(super) struct Present<'a> {
    /// Which it is, from 1; 0 before the first.
    pub(super) number: u8,
    pub(super) chosen: Option<&'a Chosen>,
    pub(super) began: Option<Instant>,
    pub(super) status: Option<u16>,
    /// Whether the answer told of an error after a good status.
    pub(super) error_event: bool,
}

/// The present attempt of a request, whichever kind it is.
pub(super) fn present<'a>(work: Option<&'a Work>, call: Option<&'a Call>) -> Option<Present<'a>> {
    work.map(Work::attempt).or_else(|| call.map(Call::attempt))
}

/// The present attempt got no connection.
pub(super) fn unconnected(ctx: &mut RequestCtx, error: &Error) {
    end(ctx, of_connect(ConnectFailure::of(error)));
}

/// The present attempt failed with a connection; `reused` says that it came from the pool.
pub(super) fn failed(ctx: &mut RequestCtx, error: &Error, reused: bool) {
    let status = present(ctx.work.as_deref(), ctx.mcp.as_deref()).and_then(|attempt| attempt.status);
    end(ctx, of_error(error, ctx.fault.as_ref(), status, reused));
}

fn end(ctx: &mut RequestCtx, outcome: AttemptOutcome) {
    if let Some(attempt) = present(ctx.work.as_deref(), ctx.mcp.as_deref()) {
        ctx.attempts.end(attempt, ctx.born, outcome);
    }
}

impl Attempts {
    fn end(&mut self, attempt: Present<'_>, born: Instant, outcome: AttemptOutcome) {
        self.ended = attempt.number;
        if self.log.len() >= ATTEMPTS_MAX {
            return;
        }
        let began = attempt.began.unwrap_or(born);
        let whole = |from, to| u32::try_from(ms(from, to)).unwrap_or(u32::MAX);
        self.log.push(Attempt {
            endpoint: attempt.chosen.map(Chosen::kept_label).unwrap_or_default(),
            outcome,
            status: attempt.status,
            start_ms: whole(born, began),
            duration_ms: whole(began, Instant::now()),
        });
    }

    /// The log of a request that has ended with `last`; empty where that was the only attempt and went well.
    pub(super) fn finish(&mut self, last: Present<'_>, born: Instant) -> Box<[Attempt]> {
        if last.number > self.ended {
            let outcome = of_answer(&last);
            if last.number > 1 || outcome != AttemptOutcome::Ok {
                self.end(last, born, outcome);
            }
        }
        std::mem::take(&mut self.log).into_boxed_slice()
    }
}

/// How an attempt ended that no error ended.
fn of_answer(attempt: &Present<'_>) -> AttemptOutcome {
    match attempt.status {
        None => AttemptOutcome::Abandoned,
        Some(300..) => AttemptOutcome::Status,
        Some(_) if attempt.error_event => AttemptOutcome::ErrorEvent,
        Some(_) => AttemptOutcome::Ok,
    }
}

fn of_connect(failure: ConnectFailure) -> AttemptOutcome {
    match failure {
        ConnectFailure::Refused => AttemptOutcome::ConnectRefused,
        ConnectFailure::TimedOut => AttemptOutcome::ConnectTimeout,
        ConnectFailure::Unreachable => AttemptOutcome::ConnectUnreachable,
        ConnectFailure::Tls => AttemptOutcome::ConnectTls,
        ConnectFailure::Other => AttemptOutcome::ConnectError,
    }
}

/// What an error of Pingora's, or `fault` of ours that is behind it, says of the attempt.
fn of_error(error: &Error, fault: Option<&Fault>, status: Option<u16>, reused: bool) -> AttemptOutcome {
    match (Late::of(error), fault) {
        (Some(Late::FirstByte), _) => return AttemptOutcome::FirstByteTimeout,
        (Some(Late::Idle), _) => return AttemptOutcome::IdleTimeout,
        (Some(Late::Total), _) => return AttemptOutcome::TotalTimeout,
        (None, Some(Fault::UpstreamError(_))) if status.is_some_and(|status| status >= 300) => return AttemptOutcome::Status,
        (None, Some(Fault::UpstreamError(_) | Fault::UpstreamInterrupted)) => return AttemptOutcome::Malformed,
        (None, Some(Fault::ClientGone)) => return AttemptOutcome::ClientGone,
        (None, Some(_)) => return AttemptOutcome::Abandoned,
        (None, None) => {}
    }
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) => AttemptOutcome::ClientGone,
        (ErrorSource::Internal | ErrorSource::Unset, _) => AttemptOutcome::Abandoned,
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => AttemptOutcome::WriteTimeout,
        (ErrorSource::Upstream, ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 | ErrorType::H2Downgrade) => AttemptOutcome::Malformed,
        (ErrorSource::Upstream, _) if status.is_some() => AttemptOutcome::Interrupted,
        (ErrorSource::Upstream, _) if reused => AttemptOutcome::DeadConnection,
        (ErrorSource::Upstream, _) => AttemptOutcome::ClosedEarly,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn attempt(number: u8, status: Option<u16>) -> Present<'static> {
        Present {
            number,
            chosen: None,
            began: None,
            status,
            error_event: false,
        }
    }

    fn outcomes(log: &[Attempt]) -> Vec<&'static str> {
        log.iter().map(|attempt| attempt.outcome.as_str()).collect()
    }

    #[test]
    fn a_single_attempt_that_went_well_is_not_worth_a_log() {
        let born = Instant::now();
        assert!(Attempts::default().finish(attempt(1, Some(200)), born).is_empty());
        assert!(Attempts::default().finish(attempt(0, None), born).is_empty(), "none was made");
        assert_eq!(outcomes(&Attempts::default().finish(attempt(1, Some(503)), born)), ["status"]);
        let failed = Present {
            error_event: true,
            ..attempt(1, Some(200))
        };
        assert_eq!(outcomes(&Attempts::default().finish(failed, born)), ["error_event"]);
    }

    #[test]
    fn every_attempt_is_there_once_with_its_times() {
        let began = Instant::now();
        let born = began.checked_sub(Duration::from_millis(250)).unwrap();
        let mut attempts = Attempts::default();
        let first = Present {
            began: Some(began),
            ..attempt(1, None)
        };
        attempts.end(first, born, AttemptOutcome::ConnectRefused);
        let log = attempts.finish(attempt(2, Some(200)), born);
        assert_eq!(outcomes(&log), ["connect_refused", "ok"]);
        assert_eq!((log[0].start_ms, log[0].status, log[1].status), (250, None, Some(200)));
        assert!(log[1].duration_ms >= 250);
        // The last one failed: there is nothing to add.
        let mut attempts = Attempts::default();
        attempts.end(attempt(1, None), born, AttemptOutcome::ClosedEarly);
        assert_eq!(outcomes(&attempts.finish(attempt(1, None), born)), ["closed_early"]);
    }

    #[test]
    fn the_log_is_bounded_whatever_is_tried() {
        let born = Instant::now();
        let mut attempts = Attempts::default();
        for number in 1..200 {
            attempts.end(attempt(number, None), born, AttemptOutcome::ConnectTimeout);
        }
        assert_eq!(attempts.finish(attempt(200, Some(200)), born).len(), ATTEMPTS_MAX);
    }

    #[test]
    fn errors_are_told_apart() {
        use AttemptOutcome as As;
        let upstream = |etype| Error::new_up(etype);
        let of = |error: &Error, fault: Option<&Fault>, status, reused| of_error(error, fault, status, reused).as_str();
        for (late, word) in [
            (Late::FirstByte, As::FirstByteTimeout),
            (Late::Idle, As::IdleTimeout),
            (Late::Total, As::TotalTimeout),
        ] {
            let error = Error::new_down(ErrorType::Custom(late.name()));
            assert_eq!(of(&error, None, None, false), word.as_str());
        }
        let closed = upstream(ErrorType::ConnectionClosed);
        assert_eq!(of(&closed, None, None, false), "closed_early");
        assert_eq!(of(&closed, None, None, true), "dead_connection");
        assert_eq!(of(&closed, None, Some(200), true), "interrupted");
        assert_eq!(of(&upstream(ErrorType::WriteTimedout), None, None, true), "write_timeout");
        assert_eq!(of(&upstream(ErrorType::InvalidHTTPHeader), None, None, false), "malformed");
        assert_eq!(of(&Error::new_down(ErrorType::WriteError), None, Some(200), false), "client_gone");
        let ours = Error::new_in(ErrorType::HTTPStatus(502));
        assert_eq!(of(&ours, Some(&Fault::UpstreamError("a redirect")), Some(302), false), "status");
        assert_eq!(of(&ours, Some(&Fault::UpstreamError("a coding")), Some(200), false), "malformed");
        assert_eq!(of(&ours, Some(&Fault::LedgerUnavailable), None, false), "abandoned");
    }
}
