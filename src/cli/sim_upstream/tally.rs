//! What the simulated server counts: vLLM's metrics, the figures of `/sim/stats`, and the log of `/sim/requests`.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// The answer was handed over whole.
    Finished,
    /// The client left first.
    Aborted,
    /// A fault that was asked for ended it.
    Faulted,
}

/// One request, for matching id by id with what a gateway says of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    /// The `x-request-id` it came with, else the server's own.
    pub(super) id: String,
    pub(super) path: &'static str,
    pub(super) stream: bool,
    pub(super) prompt_tokens: u64,
    /// Those of them that the prefix cache held.
    pub(super) cached_tokens: u64,
    /// The `priority` of its body.
    pub(super) priority: Option<i64>,
    /// Output tokens generated until it ended.
    pub(super) tokens: u64,
    pub(super) outcome: Outcome,
}

/// The counters. Relaxed: each is read alone.
#[derive(Debug)]
pub(super) struct Tally {
    requests: AtomicU64,
    completed: AtomicU64,
    aborted: AtomicU64,
    faulted: AtomicU64,
    running: AtomicU64,
    waiting: AtomicU64,
    max_running: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    tokens: AtomicU64,
    finished_by_length: AtomicU64,
    /// Tokens in the simulated KV cache: the input of what runs, and its output so far.
    held: AtomicU64,
    log: Mutex<VecDeque<Entry>>,
    log_length: usize,
}

/// `/sim/stats`.
#[derive(Debug, Serialize)]
pub(super) struct Stats {
    requests: u64,
    completed: u64,
    aborted: u64,
    faulted: u64,
    running: u64,
    waiting: u64,
    max_running: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    tokens: u64,
}

impl Tally {
    /// Counters at zero and a log of at most `log_length` entries, the newest.
    pub(super) fn new(log_length: usize) -> Self {
        Self {
            requests: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            running: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            max_running: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            finished_by_length: AtomicU64::new(0),
            held: AtomicU64::new(0),
            log: Mutex::new(VecDeque::new()),
            log_length,
        }
    }

    pub(super) fn arrived(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn queued(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left_queue(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn started(&self, prompt_tokens: u64, cached_tokens: u64) {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_running.fetch_max(running, Ordering::Relaxed);
        self.prompt_tokens.fetch_add(prompt_tokens, Ordering::Relaxed);
        self.cached_tokens.fetch_add(cached_tokens, Ordering::Relaxed);
        self.held.fetch_add(prompt_tokens, Ordering::Relaxed);
    }

    pub(super) fn generated(&self, tokens: u64) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.held.fetch_add(tokens, Ordering::Relaxed);
    }

    /// The counterpart of [`Self::started`], with everything [`Self::generated`] since.
    pub(super) fn stopped(&self, prompt_tokens: u64, tokens: u64) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.held.fetch_sub(prompt_tokens + tokens, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, entry: Entry, by_length: bool) {
        let counter = match entry.outcome {
            Outcome::Finished => &self.completed,
            Outcome::Aborted => &self.aborted,
            Outcome::Faulted => &self.faulted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if by_length && entry.outcome == Outcome::Finished {
            self.finished_by_length.fetch_add(1, Ordering::Relaxed);
        }
        if self.log_length > 0 {
            let mut log = self.log.lock();
            if log.len() == self.log_length {
                log.pop_front();
            }
            log.push_back(entry);
        }
    }

    pub(super) fn log(&self) -> Vec<Entry> {
        self.log.lock().iter().cloned().collect()
    }

    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            requests: read(&self.requests),
            completed: read(&self.completed),
            aborted: read(&self.aborted),
            faulted: read(&self.faulted),
            running: read(&self.running),
            waiting: read(&self.waiting),
            max_running: read(&self.max_running),
            prompt_tokens: read(&self.prompt_tokens),
            cached_tokens: read(&self.cached_tokens),
            tokens: read(&self.tokens),
        }
    }

    /// Prometheus text under vLLM's names. `kv_tokens` is the size of the KV cache.
    pub(super) fn metrics(&self, model: &str, kv_tokens: u64) -> String {
        let stats = self.stats();
        let by_length = self.finished_by_length.load(Ordering::Relaxed);
        let usage = (self.held.load(Ordering::Relaxed) as f64 / kv_tokens.max(1) as f64).min(1.0);
        let labels = format!(r#"model_name="{}",engine="0""#, model.replace('\\', r"\\").replace('"', r#"\""#));
        let mut text = String::with_capacity(2048);
        let mut family = |name: &str, kind: &str, samples: &[(&str, f64)]| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "# TYPE vllm:{name} {kind}");
            for (extra, value) in samples {
                let _ = writeln!(text, "vllm:{name}{{{labels}{extra}}} {value}");
            }
        };
        family("num_requests_running", "gauge", &[("", stats.running as f64)]);
        family("num_requests_waiting", "gauge", &[("", stats.waiting as f64)]);
        family("kv_cache_usage_perc", "gauge", &[("", usage)]);
        family("num_preemptions_total", "counter", &[("", 0.0)]);
        family("prompt_tokens_total", "counter", &[("", stats.prompt_tokens as f64)]);
        family("prefix_cache_queries_total", "counter", &[("", stats.prompt_tokens as f64)]);
        family("prefix_cache_hits_total", "counter", &[("", stats.cached_tokens as f64)]);
        family("generation_tokens_total", "counter", &[("", stats.tokens as f64)]);
        let finished = [
            (r#",finished_reason="stop""#, stats.completed.saturating_sub(by_length) as f64),
            (r#",finished_reason="length""#, by_length as f64),
            (r#",finished_reason="abort""#, stats.aborted as f64),
        ];
        family("request_success_total", "counter", &finished);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_bear_the_names_an_engine_gives_them() {
        let tally = Tally::new(1);
        tally.arrived();
        tally.started(30, 0);
        tally.generated(20);
        let text = tally.metrics("lla\"ma", 100);
        for line in [
            r#"vllm:num_requests_running{model_name="lla\"ma",engine="0"} 1"#,
            r#"vllm:kv_cache_usage_perc{model_name="lla\"ma",engine="0"} 0.5"#,
            r#"vllm:generation_tokens_total{model_name="lla\"ma",engine="0"} 20"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        tally.stopped(30, 20);
        assert!(
            tally
                .metrics("m", 100)
                .contains("kv_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0\n")
        );
    }

    #[test]
    fn the_log_keeps_the_newest() {
        let tally = Tally::new(2);
        for id in ["a", "b", "c"] {
            let id = id.to_owned();
            tally.ended(
                Entry {
                    id,
                    path: "/v1/chat/completions",
                    stream: true,
                    prompt_tokens: 1,
                    cached_tokens: 0,
                    priority: None,
                    tokens: 1,
                    outcome: Outcome::Finished,
                },
                false,
            );
        }
        assert_eq!(tally.log().iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }
}
