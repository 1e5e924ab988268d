//! The request log: a line for each request, written by a thread of its own. Who hands a line over never waits: when the
//! log is not read fast enough, lines are left out and counted.
//!
//! What a line may hold is this list of fields: ids, names, counts and times. No path, no header, no body, no address.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tracing::info;

/// How many lines may wait to be written: some 2 MiB.
const WAITING_MAX: usize = 4_096;

/// Which requests have a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// None.
    #[default]
    Off,
    /// Those that were not answered with success.
    Failed,
    /// All.
    All,
}

/// One request that has ended. Empty and zero where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the fields of the line, named as in the ledger")]
pub struct Line {
    pub request_id: String,
    pub client_request_id: String,
    pub ts_ms: i64,
    pub tenant: String,
    pub key_prefix: String,
    pub model: String,
    pub route: String,
    pub endpoint: String,
    pub outcome: &'static str,
    pub status: u16,
    pub error_code: String,
    pub attempts: u32,
    pub attempt_log: String,
    pub stream: bool,
    pub cache: &'static str,
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub cost_usd: f64,
    pub queue_ms: u64,
    pub ttft_ms: Option<u64>,
    pub total_ms: u64,
}

/// Hands lines to the thread that writes them. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct RequestLog(Option<Arc<Handle>>);

#[derive(Debug)]
struct Handle {
    which: Which,
    lines: SyncSender<Line>,
    dropped: AtomicU64,
}

impl RequestLog {
    /// Where lines go in `tracing`'s terms; the roof lets it through at `info` whatever the log's level is.
    pub const TARGET: &str = "obleth::request";

    /// Starts the thread, if there is anything to write.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(which: Which) -> io::Result<Self> {
        if which == Which::Off {
            return Ok(Self(None));
        }
        let (lines, waiting) = sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("request-log".to_owned())
            .spawn(move || write(&waiting))?;
        Ok(Self(Some(Arc::new(Handle {
            which,
            lines,
            dropped: AtomicU64::new(0),
        }))))
    }

    /// Writes the line that `line` makes, if requests that ended so have one.
    pub fn tell(&self, succeeded: bool, line: impl FnOnce() -> Line) {
        let Some(handle) = &self.0 else { return };
        if succeeded && handle.which == Which::Failed {
            return;
        }
        if let Err(TrySendError::Full(_)) = handle.lines.try_send(line()) {
            handle.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were left out.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |handle| handle.dropped.load(Ordering::Relaxed))
    }
}

fn write(waiting: &Receiver<Line>) {
    while let Ok(line) = waiting.recv() {
        info!(
            target: RequestLog::TARGET,
            request_id = line.request_id,
            client_request_id = line.client_request_id,
            ts_ms = line.ts_ms,
            tenant = line.tenant,
            key_prefix = line.key_prefix,
            model = line.model,
            route = line.route,
            endpoint = line.endpoint,
            outcome = line.outcome,
            status = line.status,
            error_code = line.error_code,
            attempts = line.attempts,
            attempt_log = line.attempt_log,
            stream = line.stream,
            cache = line.cache,
            input_tokens = line.input_tokens,
            cached_input_tokens = line.cached_input_tokens,
            output_tokens = line.output_tokens,
            cost_usd = line.cost_usd,
            queue_ms = line.queue_ms,
            ttft_ms = line.ttft_ms,
            total_ms = line.total_ms,
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_log_that_is_not_read() {
        let (lines, waiting) = sync_channel(2);
        let log = RequestLog(Some(Arc::new(Handle {
            which: Which::Failed,
            lines,
            dropped: AtomicU64::new(0),
        })));
        for status in 0..5 {
            log.tell(true, || Line { status, ..Line::default() });
            log.tell(false, || Line { status, ..Line::default() });
        }
        assert_eq!(log.dropped(), 3);
        drop(log);
        let written: Vec<u16> = waiting.iter().map(|line| line.status).collect();
        assert_eq!(written, [0, 1], "successes have no line here, and what was full is left out");
    }

    #[test]
    fn a_log_that_is_off_makes_no_lines() {
        let log = RequestLog::start(Which::Off).unwrap();
        log.tell(false, || panic!("nobody asked"));
        assert_eq!(log.dropped(), 0);
    }
}
