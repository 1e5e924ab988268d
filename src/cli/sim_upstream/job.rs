//! One request inside the simulated engine: it waits for a slot, generates at the server's pace, and is counted as it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::tally::{Entry, Outcome, Tally};

/// How fast the engine is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// From the slot to the first token, whatever the input.
    pub(super) ttft: Duration,
    /// From token to token of one choice.
    pub(super) per_token: Duration,
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
    slot: Option<OwnedSemaphorePermit>,
    /// When the slot was had.
    since: Option<Instant>,
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
            sent: 0,
            outcome: Outcome::Aborted,
        }
    }

    /// Waits for one of `slots`, first come, first served.
    pub(super) async fn wait(&mut self, slots: &Arc<Semaphore>) {
        // The semaphore is never closed; without a permit nothing would be simulated wrongly but the bound.
        let slot = Arc::clone(slots).acquire_owned().await.ok();
        self.start(slot);
    }

    /// Has its slot.
    pub(super) fn start(&mut self, slot: Option<OwnedSemaphorePermit>) {
        debug_assert!(self.since.is_none(), "a job starts once");
        self.slot = slot;
        self.since = Some(Instant::now());
        self.tally.left_queue();
        self.tally.started(self.order.prompt_tokens);
    }

    /// When the `index`-th token is due; by the schedule, not by the last one, so that lateness does not add up.
    pub(super) fn due(&self, index: u64) -> Instant {
        let since = self.since.unwrap_or_else(Instant::now);
        let step = u32::try_from(index / self.order.choices.max(1)).unwrap_or(u32::MAX);
        since + self.pace.first(self.order.prompt_tokens) + self.pace.per_token.saturating_mul(step)
    }

    /// Whether all tokens come at once, so that no clock need be asked.
    pub(super) fn immediate(&self) -> bool {
        self.pace.ttft.is_zero() && self.pace.per_token.is_zero() && self.pace.prefill.is_none()
    }

    /// Generates the whole answer.
    pub(super) async fn run(&mut self) {
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
        let generating = since.elapsed().saturating_sub(self.pace.first(self.order.prompt_tokens));
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
        prefill: Some(1000.0),
    };

    fn job(tally: &Arc<Tally>) -> Job {
        let order = Order {
            id: "x".into(),
            path: "/v1/chat/completions",
            stream: false,
            prompt_tokens: 50,
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
        let slots = Arc::new(Semaphore::new(1));
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
    async fn an_aborted_job_counts_what_it_generated_and_frees_its_slot() {
        let tally = Arc::new(Tally::new(1));
        let slots = Arc::new(Semaphore::new(1));
        let mut one = job(&tally);
        one.wait(&slots).await;
        tokio::time::advance(Duration::from_millis(185)).await;
        drop(one);
        assert_eq!(
            (read(&tally, "aborted"), read(&tally, "tokens"), slots.available_permits()),
            (1, 6, 1)
        );
        drop(job(&tally));
        assert_eq!(
            (read(&tally, "aborted"), read(&tally, "waiting"), read(&tally, "running")),
            (2, 0, 0)
        );
    }
}
