//! One request inside the simulated engine: it waits for a slot, generates at the server's pace, and is counted as it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::slots::{Slot, Slots};
use super::tally::{Entry, Outcome, Tally};

/// How fast the engine is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// From the slot to the first token, whatever the input.
    pub(super) ttft: Duration,
    /// From token to token of one choice.
    pub(super) per_token: Duration,
    /// A token takes at least this long times the requests that run: what an engine takes that is bound by computing.
    pub(super) per_running: Duration,
    /// Input tokens per second on top of `ttft`; `None` is at once.
    pub(super) prefill: Option<f64>,
}

impl Pace {
    /// From the slot to the first token.
    pub(super) fn first(&self, prompt_tokens: u64) -> Duration {
        let prefill = self.prefill.map_or(0.0, |rate| prompt_tokens as f64 / rate);
        self.ttft + Duration::try_from_secs_f64(prefill).unwrap_or(Duration::MAX)
    }
}

/// What is known of a request from its beginning.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) path: &'static str,
    pub(super) stream: bool,
    pub(super) prompt_tokens: u64,
    /// How many of them the prefix cache held.
    pub(super) cached_tokens: u64,
    /// As the request asked for it.
    pub(super) priority: Option<i64>,
    /// Output tokens of all choices.
    pub(super) tokens: u64,
    pub(super) choices: u64,
    /// Whether `max_tokens` ends it.
    pub(super) by_length: bool,
}

/// A request from arrival to end. Dropped unfinished, it was aborted: that is how a client's leaving is noticed.
///
/// Waiting => Running (`start`) | ended; Running => ended. Dropping ends it and gives the slot back.
#[derive(Debug)]
pub(super) struct Job {
    tally: Arc<Tally>,
    pub(super) order: Order,
    pub(super) pace: Pace,
    slot: Option<Slot>,
    /// When the slot was had.
    since: Option<Instant>,
    /// When the last token was due, where that depends on what else runs.
    last_due: Option<Instant>,
    sent: u64,
    outcome: Outcome,
}

impl Job {
    /// Arrives and waits.
    pub(super) fn new(tally: &Arc<Tally>, pace: Pace, order: Order) -> Self {
        tally.queued();
        Self {
            tally: Arc::clone(tally),
            order,
            pace,
            slot: None,
            since: None,
            last_due: None,
            sent: 0,
            outcome: Outcome::Aborted,
        }
    }

    /// Waits for its slot.
    pub(super) async fn wait(&mut self, slots: &Slots) {
        let slot = slots.clone().take(self.size()).await;
        self.start(slot);
    }

    /// The tokens it will hold in the key-value cache in the end.
    pub(super) fn size(&self) -> u64 {
        self.order.prompt_tokens + self.order.tokens
    }

    /// Has its slot.
    pub(super) fn start(&mut self, slot: Slot) {
        debug_assert!(self.since.is_none(), "a job starts once");
        self.slot = Some(slot);
        self.since = Some(Instant::now());
        self.tally.left_queue();
        self.tally.started(self.order.prompt_tokens, self.order.cached_tokens);
    }

    /// When the `index`-th token is due, to be asked for one after the other; by the schedule, not by when the last one went
    /// out, so that lateness does not add up.
    pub(super) fn due(&mut self, index: u64) -> Instant {
        let since = self.since.unwrap_or_else(Instant::now);
        let choices = self.order.choices.max(1);
        let first = since + self.pace.first(self.order.prompt_tokens - self.order.cached_tokens);
        if self.pace.per_running.is_zero() {
            let step = u32::try_from(index / choices).unwrap_or(u32::MAX);
            return first + self.pace.per_token.saturating_mul(step);
        }
        let due = match self.last_due {
            None => first,
            Some(last) if !index.is_multiple_of(choices) => last,
            Some(last) => {
                let running = u32::try_from(self.tally.running()).unwrap_or(u32::MAX);
                last + self.pace.per_token.max(self.pace.per_running.saturating_mul(running))
            }
        };
        self.last_due = Some(due);
        due
    }

    /// Whether all tokens come at once, so that no clock need be asked.
    pub(super) fn immediate(&self) -> bool {
        let Pace {
            ttft,
            per_token,
            per_running,
            prefill,
        } = self.pace;
        ttft.is_zero() && per_token.is_zero() && per_running.is_zero() && prefill.is_none()
    }

    /// Generates the whole answer.
    pub(super) async fn run(&mut self) {
        if !self.pace.per_running.is_zero() {
            for index in 0..self.order.tokens {
                tokio::time::sleep_until(self.due(index)).await;
                self.sent(1);
            }
            return;
        }
        if !self.immediate() {
            tokio::time::sleep_until(self.due(self.order.tokens.saturating_sub(1))).await;
        }
        self.sent(self.order.tokens);
    }

    /// `tokens` more were generated.
    pub(super) fn sent(&mut self, tokens: u64) {
        self.sent += tokens;
        self.tally.generated(tokens);
    }

    /// Output tokens so far.
    pub(super) fn tokens(&self) -> u64 {
        self.sent
    }

    /// It will not have been aborted.
    pub(super) fn will_end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// A whole answer that is cut off halfway generated only a part of its tokens, by the clock.
    fn generated_unseen(&self, since: Instant) -> u64 {
        if self.order.stream || self.sent > 0 || self.pace.per_token.is_zero() {
            return 0;
        }
        let read = self.order.prompt_tokens - self.order.cached_tokens;
        let generating = since.elapsed().saturating_sub(self.pace.first(read));
        let steps = generating.as_nanos() / self.pace.per_token.as_nanos();
        u64::try_from(steps)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.order.choices)
            .min(self.order.tokens)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        match self.since {
            Some(since) => {
                let unseen = self.generated_unseen(since);
                self.sent(unseen);
                self.tally.stopped(self.order.prompt_tokens, self.sent);
            }
            None => self.tally.left_queue(),
        }
        let entry = Entry {
            id: std::mem::take(&mut self.order.id),
            path: self.order.path,
            stream: self.order.stream,
            prompt_tokens: self.order.prompt_tokens,
            cached_tokens: self.order.cached_tokens,
            priority: self.order.priority,
            tokens: self.sent,
            outcome: self.outcome,
        };
        self.tally.ended(entry, self.order.by_length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        ttft: Duration::from_millis(100),
        per_token: Duration::from_millis(10),
        per_running: Duration::ZERO,
        prefill: Some(1000.0),
    };

    fn job(tally: &Arc<Tally>) -> Job {
        let order = Order {
            id: "x".into(),
            path: "/v1/chat/completions",
            stream: false,
            prompt_tokens: 50,
            cached_tokens: 0,
            priority: None,
            tokens: 20,
            choices: 2,
            by_length: false,
        };
        Job::new(tally, PACE, order)
    }

    fn read(tally: &Tally, figure: &str) -> u64 {
        serde_json::to_value(tally.stats()).unwrap()[figure].as_u64().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_prefill_and_one_step_per_token_of_a_choice() {
        let tally = Arc::new(Tally::new(1));
        let slots = Slots::new(1, None);
        let mut one = job(&tally);
        one.wait(&slots).await;
        let start = Instant::now();
        one.run().await;
        assert_eq!(start.elapsed().as_millis(), 100 + 50 + 9 * 10);
        one.will_end(Outcome::Finished);
        drop(one);
        assert_eq!(
            (read(&tally, "completed"), read(&tally, "tokens"), read(&tally, "running")),
            (1, 20, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_beside_it_slows_a_job_that_is_bound_by_computing() {
        let tally = Arc::new(Tally::new(1));
        let slots = Slots::new(8, None);
        let start = Instant::now();
        let mut jobs: Vec<Job> = (0..4).map(|_| job(&tally)).collect();
        for one in &mut jobs {
            one.pace.per_running = Duration::from_millis(5);
            one.wait(&slots).await;
        }
        jobs[0].run().await;
        assert_eq!(start.elapsed().as_millis(), 100 + 50 + 9 * 20, "four of five milliseconds each");
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_job_counts_what_it_generated_and_frees_its_slot() {
        let tally = Arc::new(Tally::new(1));
        let slots = Slots::new(1, None);
        let mut one = job(&tally);
        one.wait(&slots).await;
        tokio::time::advance(Duration::from_millis(185)).await;
        drop(one);
        assert_eq!((read(&tally, "aborted"), read(&tally, "tokens"), slots.free()), (1, 6, 1));
        drop(job(&tally));
        assert_eq!(
            (read(&tally, "aborted"), read(&tally, "waiting"), read(&tally, "running")),
            (2, 0, 0)
        );
    }
}
