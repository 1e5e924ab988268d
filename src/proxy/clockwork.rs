//! The deadlines of an answer: first byte, silence, total.
//!
//! One timer per request, armed for the earliest deadline and re-armed only when it fires: a stream of ten thousand
//! chunks moves an instant ten thousand times and a timer twice a minute.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long the upstream may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// From the request's last byte to the answer's first.
    pub(super) first_byte: Duration,
    /// Between two pieces of the answer.
    pub(super) idle: Duration,
    /// From the first attempt's start to the answer's end.
    pub(super) total: Duration,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// No answer began.
    FirstByte,
    /// The answer stopped moving.
    Idle,
    /// The answer went on too long.
    Total,
}

impl Late {
    /// The error type under which Pingora carries it; see [`Late::of`].
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "UpstreamFirstByteTimeout",
            Self::Idle => "UpstreamIdleTimeout",
            Self::Total => "UpstreamTotalTimeout",
        }
    }

    /// Recognises an error made from [`Late::name`].
    pub(super) fn of(error: &pingora::Error) -> Option<Self> {
        let pingora::ErrorType::Custom(name) = error.etype() else {
            return None;
        };
        [Self::FirstByte, Self::Idle, Self::Total]
            .into_iter()
            .find(|late| late.name() == *name)
    }
}

/// Where an attempt stands.
enum Stage {
    /// The request is going out: only the total runs, for the upload is as slow as its slower end.
    Sending,
    /// The request is out.
    Waiting { since: Instant },
    /// The answer has begun.
    Answering { moved: Instant },
}

/// Tells when the upstream is late.
pub(super) struct Clockwork {
    deadlines: Deadlines,
    began: Instant,
    stage: Stage,
    /// Made when first waited on; an answer that is there at once never needs it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clockwork {
    pub(super) fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            began: Instant::now(),
            stage: Stage::Sending,
            timer: None,
        }
    }

    /// Any => Sending.
    pub(super) fn attempt_began(&mut self) {
        self.stage = Stage::Sending;
    }

    /// Sending => Waiting.
    pub(super) fn request_sent(&mut self) {
        if matches!(self.stage, Stage::Sending) {
            self.stage = Stage::Waiting { since: Instant::now() };
        }
    }

    /// Sending | Waiting => Answering.
    pub(super) fn answered(&mut self) {
        self.stage = Stage::Answering { moved: Instant::now() };
    }

    /// A piece of the answer has reached the client.
    pub(super) fn moved(&mut self) {
        if let Stage::Answering { moved } = &mut self.stage {
            *moved = Instant::now();
        }
    }

    /// Waits until a deadline has passed. Cancel-safe; meant to be dropped and called again at each step of the answer.
    pub(super) async fn strike(&mut self) -> Late {
        loop {
            let (due, late) = self.next_due();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            // A timer set for an earlier instant is left alone: when it fires, the loop sets it anew. So the clock, which
            // costs more than the rest of this, is not read for each piece of the answer.
            if timer.deadline() > due || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            timer.as_mut().await;
            if timer.deadline() >= due {
                return late;
            }
        }
    }

    fn next_due(&self) -> (Instant, Late) {
        let total = self.began + self.deadlines.total;
        let (due, late) = match self.stage {
            Stage::Sending => return (total, Late::Total),
            Stage::Waiting { since } => (since + self.deadlines.first_byte, Late::FirstByte),
            Stage::Answering { moved } => (moved + self.deadlines.idle, Late::Idle),
        };
        if due <= total { (due, late) } else { (total, Late::Total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines = Deadlines {
        first_byte: Duration::from_secs(10),
        idle: Duration::from_secs(5),
        total: Duration::from_secs(60),
    };

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_is_awaited_from_the_end_of_the_request() {
        let mut clockwork = Clockwork::new(DEADLINES);
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(30)).await;
        clockwork.request_sent();
        assert_eq!(clockwork.strike().await, Late::FirstByte);
        assert_eq!(start.elapsed().as_secs(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn every_piece_of_the_answer_moves_the_idle_deadline_until_the_total_ends_it() {
        let mut clockwork = Clockwork::new(DEADLINES);
        let start = Instant::now();
        clockwork.request_sent();
        clockwork.answered();
        let late = loop {
            tokio::select! {
                late = clockwork.strike() => break late,
                () = tokio::time::sleep(Duration::from_secs(4)) => {}
            }
            clockwork.moved();
        };
        assert_eq!(late, Late::Total);
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_answer_is_late_after_the_idle_deadline() {
        let mut clockwork = Clockwork::new(DEADLINES);
        clockwork.request_sent();
        clockwork.answered();
        tokio::time::advance(Duration::from_secs(3)).await;
        clockwork.moved();
        let start = Instant::now();
        assert_eq!(clockwork.strike().await, Late::Idle);
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
