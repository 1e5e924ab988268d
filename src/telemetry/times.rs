//! How long the requests of a model take: in all, to the first token, between tokens, in the queue.

use super::family;
use super::histogram::Histogram;
use super::page::Page;
use super::requests::{OUTCOMES, Request, number};

const DURATIONS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
const FIRST_TOKENS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// As the GenAI conventions of OpenTelemetry advise, and one below.
const TOKEN_GAPS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const WAITS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// How a wait for a slot ended.
const WAIT_ENDS: [&str; 4] = ["admitted", "rejected", "timeout", "cancelled"];

/// The durations of a model's requests.
#[derive(Debug)]
pub(super) struct Times {
    durations: [Option<Box<Histogram>>; OUTCOMES.len()],
    first_token: Histogram,
    token_gap: Histogram,
    waits: [Option<Box<Histogram>>; WAIT_ENDS.len()],
}

impl Default for Times {
    fn default() -> Self {
        Self {
            durations: Default::default(),
            first_token: Histogram::new(FIRST_TOKENS),
            token_gap: Histogram::new(TOKEN_GAPS),
            waits: Default::default(),
        }
    }
}

impl Times {
    pub(super) fn observe(&mut self, request: &Request<'_>, outcome: Option<usize>) {
        let total = seconds(request.total_ms);
        if let Some(durations) = outcome.and_then(|outcome| self.durations.get_mut(outcome)) {
            durations.get_or_insert_with(|| Box::new(Histogram::new(DURATIONS))).observe(total);
        }
        if let Some(ttft) = request.ttft_ms {
            self.first_token.observe(seconds(ttft));
            let [_, _, output, _] = request.tokens;
            if request.stream && output > 1 && request.outcome == "ok" {
                self.token_gap.observe((total - seconds(ttft)).max(0.0) / number(output - 1));
            }
        }
        if let Some(waits) = wait_end(request).and_then(|end| self.waits.get_mut(end)) {
            waits
                .get_or_insert_with(|| Box::new(Histogram::new(WAITS)))
                .observe(seconds(request.queue_ms));
        }
    }

    pub(super) fn show(&self, page: &mut Page, model: &str) {
        for (outcome, durations) in OUTCOMES.iter().zip(&self.durations) {
            if let Some(durations) = durations {
                page.put_histogram(&family::REQUEST_DURATION, &[model, outcome], durations);
            }
        }
        if self.first_token.count() > 0 {
            page.put_histogram(&family::TIME_TO_FIRST_TOKEN, &[model], &self.first_token);
        }
        if self.token_gap.count() > 0 {
            page.put_histogram(&family::TIME_PER_OUTPUT_TOKEN, &[model], &self.token_gap);
        }
        for (end, waits) in WAIT_ENDS.iter().zip(&self.waits) {
            if let Some(waits) = waits {
                page.put_histogram(&family::QUEUE_WAIT, &[model, end], waits);
            }
        }
    }
}

/// How the wait of a request ended; `None` for one that never came to the queue.
fn wait_end(request: &Request<'_>) -> Option<usize> {
    let end = match (request.attempts, request.error_code) {
        (1.., _) => "admitted",
        (0, Some("queue_full")) => "rejected",
        (0, Some("queue_timeout")) => "timeout",
        (0, _) if request.outcome == "cancelled" => "cancelled",
        (0, _) => return None,
    };
    WAIT_ENDS.iter().position(|word| *word == end)
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1000.0
}
