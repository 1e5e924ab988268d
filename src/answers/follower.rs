//! A request that waits for the answer to another, identical one. It holds no slot and no quota.

use std::sync::Arc;

use tokio::sync::Notify;

use super::Answers;
use super::flight::{Flight, Look};
use super::heard::Step;
use super::leader::Leader;
use super::stored::Saved;

/// Listens to a flight. Dropping it gives its place back.
#[derive(Debug)]
pub struct Follower {
    answers: Arc<Answers>,
    flight: Arc<Flight>,
    id: u64,
    bell: Arc<Notify>,
}

/// What a follower hears.
#[derive(Debug)]
pub enum Heard {
    /// More of the answer.
    Step(Step),
    /// Nobody is ahead any more: this request leads now. Only ever before the answer began.
    Lead(Leader),
}

impl Follower {
    pub(super) const fn new(answers: Arc<Answers>, flight: Arc<Flight>, id: u64, bell: Arc<Notify>) -> Self {
        Self { answers, flight, id, bell }
    }

    /// Waits for what comes next. Cancel-safe: what was not returned is there the next time.
    pub async fn next(&mut self) -> Heard {
        loop {
            match self.flight.look(self.id) {
                Look::Step(step) => return Heard::Step(step),
                Look::Leads(term) => {
                    return Heard::Lead(Leader::new(Arc::clone(&self.answers), Arc::clone(&self.flight), term));
                }
                Look::Nothing => self.bell.notified().await,
            }
        }
    }

    /// Whether the leader still waits for its turn in the queue.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.flight.is_queued()
    }

    /// Counts what was saved, when a complete answer was passed on.
    pub fn saved(&self, saved: &Saved) {
        self.answers.tally.save(saved);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let open = self.flight.part(self.id);
        self.answers.settle(&self.flight, open);
    }
}
