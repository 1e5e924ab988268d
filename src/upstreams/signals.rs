//! What engines tell about their load, read out of their metrics pages: pure.
//!
//! The pages are Prometheus text (exposition format 0.0.4). What an engine does not tell is unknown, never 0; samples of
//! several inner engines (data parallelism) are added up, shares averaged. Names that vLLM bears under Ray (`ray_vllm_…`)
//! and the names of older releases are understood too.

use std::time::Duration;

use crate::catalog::Engine;

/// Load signals of one address. What an engine does not tell is unknown, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Requests that wait inside the engine.
    pub waiting: Option<f64>,
    /// Requests it works on.
    pub running: Option<f64>,
    /// Share of its key-value cache in use, 0 to 1.
    pub kv_use: Option<f64>,
    /// Output tokens since it started.
    pub generated: Option<f64>,
    /// Time spent on output tokens since it started, and on how many.
    pub token_time: Option<TokenTime>,
}

/// A sum of times per output token, and how many were added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenTime {
    /// Seconds.
    pub seconds: f64,
    /// Tokens.
    pub tokens: f64,
}

/// From this share of the key-value cache on, an engine is about to preempt requests and counts as busier than it says.
const KV_TIGHT: f64 = 0.9;

/// Metric names of an engine, without the prefix.
struct Names {
    prefixes: &'static [&'static str],
    waiting: &'static str,
    running: &'static str,
    kv_use: &'static [&'static str],
    generated: &'static str,
    /// Pairs of seconds and tokens; the first that is there counts.
    token_time: &'static [(&'static str, &'static str)],
}

const VLLM: Names = Names {
    prefixes: &["vllm:", "ray_vllm:", "ray_vllm_", "vllm_"],
    waiting: "num_requests_waiting",
    running: "num_requests_running",
    kv_use: &["kv_cache_usage_perc", "gpu_cache_usage_perc"],
    generated: "generation_tokens_total",
    token_time: &[
        ("inter_token_latency_seconds_sum", "inter_token_latency_seconds_count"),
        ("time_per_output_token_seconds_sum", "time_per_output_token_seconds_count"),
    ],
};

const SGLANG: Names = Names {
    prefixes: &["sglang:", "sglang_"],
    waiting: "num_queue_reqs",
    running: "num_running_reqs",
    kv_use: &["token_usage"],
    generated: "generation_tokens_total",
    token_time: &[
        ("inter_token_latency_seconds_sum", "inter_token_latency_seconds_count"),
        ("time_per_output_token_seconds_sum", "time_per_output_token_seconds_count"),
    ],
};

const LLAMA_CPP: Names = Names {
    prefixes: &["llamacpp:"],
    waiting: "requests_deferred",
    running: "requests_processing",
    kv_use: &["kv_cache_usage_ratio"],
    generated: "tokens_predicted_total",
    token_time: &[("tokens_predicted_seconds_total", "tokens_predicted_total")],
};

const TGI: Names = Names {
    prefixes: &["tgi_"],
    waiting: "queue_size",
    running: "batch_current_size",
    kv_use: &[],
    generated: "request_generated_tokens_sum",
    token_time: &[],
};

/// Whether an engine has a metrics page that is worth asking for. Ollama and unknown programs have none.
#[must_use]
pub const fn has_metrics(engine: Engine) -> bool {
    names(engine).is_some()
}

const fn names(engine: Engine) -> Option<&'static Names> {
    match engine {
        Engine::Vllm => Some(&VLLM),
        Engine::Sglang => Some(&SGLANG),
        Engine::LlamaCpp => Some(&LLAMA_CPP),
        Engine::Tgi => Some(&TGI),
        Engine::Ollama | Engine::Openai | Engine::Other => None,
    }
}

/// Reads a metrics page. `None` when it holds nothing that says how loaded the engine is.
#[must_use]
pub fn read(engine: Engine, page: &str) -> Option<Signals> {
    let names = names(engine)?;
    let mut sums = Sums::new(names);
    for (name, value) in page.lines().filter_map(sample) {
        if let Some(name) = names.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            sums.take(names, name, value);
        }
    }
    let signals = sums.signals();
    (signals.waiting.is_some() || signals.running.is_some()).then_some(signals)
}

/// Sums over the samples of a page.
struct Sums {
    waiting: Option<f64>,
    running: Option<f64>,
    /// Per name of the list, with the number of samples.
    kv_use: Vec<(f64, f64)>,
    generated: Option<f64>,
    token_time: Vec<(Option<f64>, Option<f64>)>,
}

impl Sums {
    fn new(names: &Names) -> Self {
        Self {
            waiting: None,
            running: None,
            kv_use: vec![(0.0, 0.0); names.kv_use.len()],
            generated: None,
            token_time: vec![(None, None); names.token_time.len()],
        }
    }

    fn take(&mut self, names: &Names, name: &str, value: f64) {
        let add = |sum: &mut Option<f64>| *sum = Some(sum.unwrap_or(0.0) + value);
        if name == names.waiting {
            add(&mut self.waiting);
        } else if name == names.running {
            add(&mut self.running);
        }
        if name == names.generated {
            add(&mut self.generated);
        }
        for (kv_use, sum) in names.kv_use.iter().zip(&mut self.kv_use) {
            if name == *kv_use {
                *sum = (sum.0 + value, sum.1 + 1.0);
            }
        }
        for ((seconds, tokens), sum) in names.token_time.iter().zip(&mut self.token_time) {
            if name == *seconds {
                add(&mut sum.0);
            } else if name == *tokens {
                add(&mut sum.1);
            }
        }
    }

    fn signals(&self) -> Signals {
        let kv_use = self.kv_use.iter().find(|(_, samples)| *samples > 0.0);
        let token_time = self.token_time.iter().find_map(|(seconds, tokens)| seconds.zip(*tokens));
        Signals {
            waiting: self.waiting,
            running: self.running,
            kv_use: kv_use.map(|(sum, samples)| (sum / samples).clamp(0.0, 1.0)),
            generated: self.generated,
            token_time: token_time.map(|(seconds, tokens)| TokenTime { seconds, tokens }),
        }
    }
}

/// One line's name and value. Labels may hold any character in quotes; a value that is no count is no sample.
fn sample(line: &str) -> Option<(&str, f64)> {
    let line = line.trim_start();
    let end = line.find(|letter: char| letter == '{' || letter.is_ascii_whitespace())?;
    let (name, rest) = line.split_at_checked(end)?;
    if name.starts_with('#') {
        return None;
    }
    let rest = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest,
    };
    let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((name, value))
}

/// What follows the closing brace of a label set.
fn after_labels(labels: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return labels.get(at + 1..),
            _ => {}
        }
    }
    None
}

impl Signals {
    /// How many requests an address is to be taken for beyond `own`, ours there: those of others, the waiting ones once
    /// more, since they will not get on, and a share of the running ones while the key-value cache is nearly full.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u32")]
    pub fn extra(&self, own: u32) -> u32 {
        let running = self.running.unwrap_or(0.0);
        let waiting = self.waiting.unwrap_or(0.0);
        let others = (running + waiting - f64::from(own)).max(0.0);
        let tight = (self.kv_use.unwrap_or(0.0) - KV_TIGHT).max(0.0) / (1.0 - KV_TIGHT) * running;
        (others + waiting + tight).round().clamp(0.0, f64::from(u32::MAX / 4)) as u32
    }

    /// Time and number of the output tokens since an earlier page, `apart` ago. `None` where the engine tells neither, made
    /// none, or was restarted.
    ///
    /// Where it tells no times, so many requests at so many tokens per second do.
    #[must_use]
    pub fn token_time_since(&self, earlier: &Self, apart: Duration) -> Option<TokenTime> {
        let exact = self.token_time.zip(earlier.token_time).map(|(now, then)| TokenTime {
            seconds: now.seconds - then.seconds,
            tokens: now.tokens - then.tokens,
        });
        let made = || {
            let running = f64::midpoint(self.running?, earlier.running?);
            Some(TokenTime {
                seconds: running * apart.as_secs_f64(),
                tokens: self.generated? - earlier.generated?,
            })
        };
        exact.or_else(made).filter(|time| time.tokens > 0.0 && time.seconds > 0.0)
    }
}

#[cfg(test)]
mod tests;
