//! The queue of finished requests, and the thread that sends them. Who hands a request over never waits: when the collector
//! does not keep up, requests are left out and counted.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::Counters;
use super::context::{Context, Remote, TraceId};
use super::otlp;
use super::post::{Answer, Collector, Unusable, pairs};
use super::span::Finished;
use crate::catalog::Tenant;
use crate::telemetry::{Seldom, TenantLabel};

/// As many requests go in one body: some 600 spans, a few hundred kilobytes.
const BATCH: usize = 128;
/// How long a request waits for others to go with.
const LINGER: Duration = Duration::from_secs(1);
/// How often a body is sent that the collector cannot take now.
const ATTEMPTS: u32 = 3;
/// The first pause between two of them; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a collector is granted.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often the log tells of spans that are lost.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// What makes the spans.
const SCOPE: (&str, &str) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
/// One, in millionths.
const WHOLE: u128 = 1_000_000;

/// What is traced, and where it goes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where spans go.
    pub collector: Collector,
    /// Of the traces that begin here, how many of a million are recorded.
    pub sample_millionths: u32,
    /// How many requests may wait to be sent.
    pub queued_max: usize,
    /// How long a body may take to be sent and answered.
    pub timeout: Duration,
    /// What tenants are called.
    pub tenant_label: TenantLabel,
    /// Further facts about this process, as `OTEL_RESOURCE_ATTRIBUTES` has them.
    pub resource: String,
}

/// Hands requests to the thread that sends them. Cheap to clone; nothing where nothing is traced.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Handle>>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// Of 2^63 traces, so many are recorded.
    chosen_below: u128,
    tenant_label: TenantLabel,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is a batch, and when it is to end.
    wake: Condvar,
    /// Told when the thread has ended.
    ended: Condvar,
    queued_max: usize,
    exported: AtomicU64,
    queue_full: AtomicU64,
    not_taken: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Finished>,
    /// When all must be sent, once it is to end.
    ends_by: Option<Instant>,
    has_ended: bool,
}

impl Traces {
    /// Starts the thread.
    ///
    /// # Errors
    /// The resource's attributes cannot be read, or the system gives no thread.
    pub fn start(settings: Settings) -> Result<Self, Unusable> {
        let resource = resource(&settings.resource)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
            queued_max: settings.queued_max,
            exported: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            not_taken: AtomicU64::new(0),
        });
        let sender = Sender {
            shared: Arc::clone(&shared),
            collector: settings.collector,
            timeout: settings.timeout,
            resource,
            seldom: Seldom::new(TELL_EVERY),
        };
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || sender.run())
            .map_err(|error| Unusable(format!("the traces get no thread: {error}")))?;
        Ok(Self(Some(Arc::new(Handle {
            shared,
            chosen_below: (u128::from(settings.sample_millionths) << 63) / WHOLE,
            tenant_label: settings.tenant_label,
        }))))
    }

    /// Whether anything is traced.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The trace of a request whose client says this of it.
    #[must_use]
    pub fn context(&self, remote: Option<Remote>) -> Context {
        let below = self.0.as_ref().map_or(0, |handle| handle.chosen_below);
        Context::of(remote, |trace| is_chosen(trace, below))
    }

    /// A tenant's name and group, as far as they may be told.
    #[must_use]
    pub fn tenant_labels<'t>(&self, tenant: &'t Tenant) -> (Option<&'t str>, Option<&'t Arc<str>>) {
        match self.0.as_ref().map(|handle| handle.tenant_label) {
            Some(TenantLabel::Name) => (Some(&tenant.name), Some(&tenant.group)),
            Some(TenantLabel::Group) => (None, Some(&tenant.group)),
            Some(TenantLabel::Off) | None => (None, None),
        }
    }

    /// Takes the spans of a request. Does not wait.
    pub fn tell(&self, finished: Finished) {
        let Some(Handle { shared, .. }) = self.0.as_deref() else {
            return;
        };
        let mut state = shared.state.lock();
        if state.waiting.len() >= shared.queued_max || state.ends_by.is_some() {
            drop(state);
            shared.queue_full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push_back(finished);
        let is_batch = state.waiting.len() == BATCH;
        drop(state);
        if is_batch {
            shared.wake.notify_one();
        }
    }

    /// What became of requests so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.as_ref().map_or(Counters::default(), |handle| {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let shared = &handle.shared;
            Counters {
                exported: count(&shared.exported),
                queue_full: count(&shared.queue_full),
                not_taken: count(&shared.not_taken),
            }
        })
    }

    /// Sends what waits, and ends. Returns whether that was done within the time.
    #[must_use]
    pub fn flush(&self, within: Duration) -> bool {
        let Some(Handle { shared, .. }) = self.0.as_deref() else {
            return true;
        };
        let by = Instant::now() + within;
        shared.end(by);
        let mut state = shared.state.lock();
        while !state.has_ended {
            if shared.ended.wait_until(&mut state, by).timed_out() {
                return state.has_ended;
            }
        }
        true
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(Instant::now());
    }
}

impl Shared {
    fn end(&self, by: Instant) {
        self.state.lock().ends_by.get_or_insert(by);
        self.wake.notify_one();
    }
}

/// As OpenTelemetry's `TraceIdRatioBased`: by the trace's last 63 bits, so that all who see the trace choose alike.
fn is_chosen(trace: TraceId, below: u128) -> bool {
    let [.., a, b, c, d, e, f, g, h] = *trace.bytes();
    u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1) < below
}

/// What is said of this process, beside the operator's own.
fn resource(further: &str) -> Result<Vec<(String, String)>, Unusable> {
    let instance = uuid::Uuid::now_v7().to_string();
    let ours = [
        ("service.name", env!("CARGO_PKG_NAME")),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &instance),
    ];
    let mut all = pairs(further)
        .ok_or_else(|| Unusable("OTEL_RESOURCE_ATTRIBUTES must be pairs name=value, split by commas, percent-encoded".to_owned()))?;
    for (name, value) in ours {
        // The operator's word counts.
        if !all.iter().any(|(given, _)| given == name) {
            all.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(all)
}

/// The thread's own.
struct Sender {
    shared: Arc<Shared>,
    collector: Collector,
    timeout: Duration,
    resource: Vec<(String, String)>,
    seldom: Seldom,
}

impl Sender {
    fn run(self) {
        while let Some(batch) = self.next() {
            let body = otlp::request(&self.resource, SCOPE, &batch);
            let count = batch.len() as u64;
            let counter = match self.deliver(&body) {
                Ok(()) => &self.shared.exported,
                Err(why) => {
                    if let Some(left_out) = self.seldom.turn() {
                        warn!(requests = count, left_out, %why, "the collector does not take traces");
                    }
                    &self.shared.not_taken
                }
            };
            counter.fetch_add(count, Ordering::Relaxed);
        }
        self.shared.state.lock().has_ended = true;
        self.shared.ended.notify_all();
    }

    /// The next requests to send; `None` when it is time to end.
    fn next(&self) -> Option<Vec<Finished>> {
        let mut state = self.shared.state.lock();
        while state.ends_by.is_none() && state.waiting.len() < BATCH {
            let late = self.shared.wake.wait_for(&mut state, LINGER).timed_out();
            if late && !state.waiting.is_empty() {
                break;
            }
        }
        let count = state.waiting.len().min(BATCH);
        (count > 0).then(|| state.waiting.drain(..count).collect())
    }

    fn deliver(&self, body: &[u8]) -> Result<(), String> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let answered = self.time_left().and_then(|limit| self.collector.post(body, limit));
            let (why, asked) = match judge(answered) {
                Verdict::Taken => return Ok(()),
                Verdict::Refused(why) => return Err(why),
                Verdict::Later(why, asked) => (why, asked),
            };
            if attempt == ATTEMPTS || !self.rest(asked.unwrap_or(pause).min(PAUSE_MAX)) {
                return Err(why);
            }
            attempt += 1;
            pause *= 2;
        }
    }

    /// How long an attempt may take.
    fn time_left(&self) -> io::Result<Duration> {
        let ends_by = self.shared.state.lock().ends_by;
        let left = ends_by.map_or(self.timeout, |by| by.saturating_duration_since(Instant::now()).min(self.timeout));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }

    /// Waits; `false` when it is time to end instead.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.shared.state.lock();
        while state.ends_by.is_none() {
            if self.shared.wake.wait_until(&mut state, until).timed_out() {
                return true;
            }
        }
        false
    }
}

/// What to make of an attempt.
enum Verdict {
    Taken,
    Refused(String),
    Later(String, Option<Duration>),
}

/// As OTLP has it: a connection that fails and four statuses are worth another attempt.
fn judge(answered: io::Result<Answer>) -> Verdict {
    match answered {
        Ok(answer) if (200..300).contains(&answer.status) => Verdict::Taken,
        Ok(answer) if matches!(answer.status, 429 | 502 | 503 | 504) => {
            Verdict::Later(format!("status {}", answer.status), answer.retry_after)
        }
        Ok(answer) => Verdict::Refused(format!("status {}", answer.status)),
        Err(error) => Verdict::Later(error.to_string(), None),
    }
}

#[cfg(test)]
mod tests;
