//! The one request of a crowd that goes upstream.

use std::sync::Arc;
use std::time::Instant;

use super::Answers;
use super::flight::{Flight, Open};
use super::heard::{Ended, Failure};
use super::stored::{Head, Saved, Stored};
use crate::cache::{events_are_whole, json_is_whole};

/// Leads a flight: tells it what comes from the upstream. Dropped without an end it counts as failed.
#[derive(Debug)]
pub struct Leader {
    answers: Arc<Answers>,
    flight: Arc<Flight>,
    term: u64,
    over: bool,
}

impl Leader {
    pub(super) const fn new(answers: Arc<Answers>, flight: Arc<Flight>, term: u64) -> Self {
        Self {
            answers,
            flight,
            term,
            over: false,
        }
    }

    /// The request has its turn: followers who only shortened their wait in the queue need not look at the clock any more.
    pub fn sent(&self) {
        self.flight.sent(self.term);
    }

    /// The head of the answer, as the client gets it. A failure of the upstream's own (5xx, 429) is kept from the
    /// followers once: one of them tries anew.
    pub fn begin(&self, head: Head) {
        let fails = head.status >= 500 || head.status == 429;
        let open = self.flight.begin(self.term, head, fails);
        self.answers.settle(&self.flight, open);
    }

    /// The next piece of the body, as the client gets it.
    pub fn push(&self, piece: &[u8]) {
        if !piece.is_empty() {
            let open = self.flight.push(self.term, piece);
            self.answers.settle(&self.flight, open);
        }
    }

    /// The answer is complete. It is kept if it is a whole 200, `sound` (no event told of an error), and the model has not
    /// changed meanwhile.
    pub fn end(mut self, saved: Saved, sound: bool, now: Instant) {
        self.over = true;
        let kept = self.flight.kept(self.term).filter(|_| sound);
        if let Some((head, pieces)) = kept {
            let stored = Stored::new(Head::clone(&head), &pieces, saved, now);
            let whole = if head.event_stream {
                events_are_whole(stored.body())
            } else {
                json_is_whole(stored.body())
            };
            if whole {
                // Before the flight ends: whoever comes in between finds the one or the other.
                self.answers.keep(&self.flight, Arc::new(stored), now);
            }
        }
        let open = self.flight.end(self.term, Ended::Complete(saved));
        self.answers.settle(&self.flight, open);
    }

    /// The upstream failed. Before the answer began one follower tries anew, and only one; after that, all fail alike.
    /// `closing` ends the event that was being sent.
    pub fn fail(mut self, failure: Failure, closing: &'static [u8]) {
        self.over = true;
        self.leave_it(Some(failure), closing);
    }

    /// This request goes no further for reasons of its own: its client left, its quota is used up. The next follower leads.
    pub fn step_down(mut self) {
        self.over = true;
        self.leave_it(None, b"");
    }

    fn leave_it(&self, blame: Option<Failure>, closing: &'static [u8]) {
        let open = self.flight.give_up(self.term, blame, closing);
        self.answers.settle(&self.flight, open);
    }

    /// What the client's stand-in asks when the client leaves.
    #[must_use]
    pub fn audience(&self) -> Audience {
        Audience {
            flight: Arc::clone(&self.flight),
            term: self.term,
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.over {
            self.leave_it(Some(Failure::Internal), b"");
        }
    }
}

/// Whether anybody listens to a leader beside its own client.
#[derive(Debug)]
pub struct Audience {
    flight: Arc<Flight>,
    term: u64,
}

impl Audience {
    /// The leader's client has left. Returns whether others listen, so that the work goes on; if not, nobody can join any
    /// more.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.flight.leave(self.term)
    }

    /// Whether others listen now.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.flight.is_listened_to()
    }

    /// Resolves when nobody listens any more. Cancel-safe.
    pub async fn gone(&self) {
        while !self.flight.is_deserted(self.term) {
            self.flight.deserted.notified().await;
        }
    }
}

impl Answers {
    /// Takes a closed flight off the table.
    pub(super) fn settle(&self, flight: &Arc<Flight>, open: Open) {
        if open == Open::No && flight.subject.shared {
            let mut inner = self.inner.lock();
            if inner
                .flights
                .get(&flight.subject.key)
                .is_some_and(|there| Arc::ptr_eq(there, flight))
            {
                inner.flights.remove(&flight.subject.key);
            }
        }
    }
}
