//! How many requests a model takes at once, learned from its engines: pure, `now` is an argument.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain 1989), once a period. Two things say "enough": requests wait
//! inside the engines, or a quarter more requests no longer bring a worthwhile part of a quarter more tokens per second.
//! Whole-request latency says nothing here, it follows the length of answers; time per output token does.
//!
//! Nothing is concluded from what was not tried: while fewer requests are in flight than the limit allows, it does not
//! grow, and while more are (after a cut), it is not cut again for what the cut has not had time to change. When the signals
//! stop, the last learned limit stands.

use std::time::{Duration, Instant};

/// Bounds and paces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The limit before anything is known, per address.
    pub start: u32,
    /// The least limit, per address.
    pub min: u32,
    /// The greatest limit, per address.
    pub max: u32,
    /// A decision is made this often.
    pub period: Duration,
    /// Waiting requests of one per address and this share of the running ones, in percent, are not a queue: engines need
    /// some to fill the next batch from.
    pub queue_percent: f64,
    /// A cut takes at least this share, in percent …
    pub cut_min: f64,
    /// … and at most this.
    pub cut_max: f64,
    /// Throughput is judged whenever the load has grown by this share, in percent.
    pub rung: f64,
    /// So much of that growth must show in tokens per second, in percent, for it to have been worth it.
    pub worth: f64,
    /// How long a limit stands after growth was not worth it.
    pub rest: Duration,
    /// A change of the time per token by this share, in percent, at the same load means that the engine has changed.
    pub changed: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            start: 8,
            min: 1,
            max: 1024,
            period: Duration::from_secs(1),
            queue_percent: 5.0,
            cut_min: 5.0,
            cut_max: 30.0,
            rung: 25.0,
            worth: 30.0,
            rest: Duration::from_secs(30),
            changed: 40.0,
        }
    }
}

/// What the engines of a model say together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seen {
    /// Usable addresses.
    pub addresses: u32,
    /// Our requests there.
    pub in_flight: u32,
    /// Requests that wait inside the engines.
    pub waiting: Option<f64>,
    /// Requests they work on.
    pub running: Option<f64>,
    /// Mean time per output token lately.
    pub token_time: Option<Duration>,
}

/// The learned limit of a model.
#[derive(Debug, Clone)]
pub struct AutoCapacity {
    limit: f64,
    addresses: u32,
    phase: Phase,
    /// Increases in a row.
    streak: u32,
    /// When the next decision is due.
    next: Option<Instant>,
    /// What growth is measured against.
    rung: Option<Rung>,
    /// Whether the last growth seemed not worth it, once. Measurements on a busy machine are rough: it takes two.
    doubted: bool,
    /// Of the time per token at the present load.
    token_time: Average,
}

/// States: `Climbing ⇄ Resting`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Climbing,
    /// More is not worth it. `token_time` is what it is at this load, once measured.
    Resting {
        until: Instant,
        token_time: Option<f64>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Rung {
    in_flight: f64,
    /// In tokens per second.
    throughput: f64,
}

/// A mean of the samples since the load last changed much.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    sum: f64,
    samples: u32,
}

/// So many samples of the time per token are enough to judge by.
const SAMPLES: u32 = 3;

impl Average {
    fn add(&mut self, sample: f64) {
        self.sum += sample;
        self.samples += 1;
    }

    fn get(self) -> Option<f64> {
        (self.samples >= SAMPLES).then(|| self.sum / f64::from(self.samples))
    }
}

impl AutoCapacity {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self {
            limit: f64::from(rules.start),
            addresses: 1,
            phase: Phase::Climbing,
            streak: 0,
            next: None,
            rung: None,
            doubted: false,
            token_time: Average::default(),
        }
    }

    /// The limit, at least 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the rules' bounds, which are u32"
    )]
    pub fn limit(&self) -> u32 {
        self.limit.round().clamp(1.0, f64::from(u32::MAX)) as u32
    }

    /// Lets a moment pass. `seen` is `None` when the engines' signals are missing or stale. Returns the limit.
    pub fn step(&mut self, now: Instant, seen: Option<&Seen>, rules: &Rules) -> u32 {
        if let Some(seen) = seen.filter(|seen| seen.addresses > 0)
            && self.next.is_none_or(|next| now >= next)
        {
            self.next = Some(now + rules.period);
            self.follow_addresses(seen.addresses);
            self.decide(now, seen, rules);
            let addresses = f64::from(seen.addresses);
            self.limit = self
                .limit
                .clamp(f64::from(rules.min.max(1)) * addresses, f64::from(rules.max.max(1)) * addresses);
        }
        self.limit()
    }

    /// An engine that came or went brings or takes its part.
    fn follow_addresses(&mut self, addresses: u32) {
        if self.addresses != addresses {
            self.limit *= f64::from(addresses) / f64::from(self.addresses);
            self.addresses = addresses;
            self.start_over();
        }
    }

    fn decide(&mut self, now: Instant, seen: &Seen, rules: &Rules) {
        let in_flight = f64::from(seen.in_flight);
        if in_flight > self.limit + 1.0 {
            // Still draining to the last limit.
            self.token_time = Average::default();
            return;
        }
        let tolerated = f64::from(seen.addresses) + seen.running.unwrap_or(0.0) * rules.queue_percent / 100.0;
        if let Some(waiting) = seen.waiting.filter(|waiting| *waiting > tolerated) {
            self.cut(in_flight, waiting - tolerated / 2.0, rules);
            return;
        }
        if in_flight < self.limit * 0.9 - 1.0 {
            // Nobody asked for more: nothing was learned about it.
            self.streak = 0;
            return;
        }
        if let Some(token_time) = seen.token_time.filter(|time| !time.is_zero()) {
            self.token_time.add(token_time.as_secs_f64());
        }
        match self.phase {
            Phase::Climbing => self.climb(now, in_flight, seen.token_time.is_some(), rules),
            Phase::Resting { until, token_time } => self.rest(now, until, token_time, rules),
        }
    }

    /// Climbing, Resting => Climbing, by the excess within the bounds of one cut.
    fn cut(&mut self, in_flight: f64, excess: f64, rules: &Rules) {
        let base = self.limit.min(in_flight).max(1.0);
        let share = (excess / base).clamp(rules.cut_min / 100.0, rules.cut_max / 100.0);
        // Where few of the requests are ours, neither is the queue: others' load alone must not end ours at one stroke.
        self.limit = (base * (1.0 - share)).max(self.limit * (1.0 - rules.cut_max / 100.0));
        self.start_over();
    }

    /// Climbing => Climbing | Resting.
    fn climb(&mut self, now: Instant, in_flight: f64, timed: bool, rules: &Rules) {
        let grown = self
            .rung
            .is_none_or(|rung| in_flight >= rung.in_flight * (1.0 + rules.rung / 100.0));
        if timed && grown {
            // Stay until the time per token at this load is known.
            let Some(token_time) = self.token_time.get() else { return };
            let here = Rung {
                in_flight,
                throughput: in_flight / token_time,
            };
            self.token_time = Average::default();
            if let Some(rung) = self.rung {
                let gained = here.throughput / rung.throughput - 1.0;
                let paid = in_flight / rung.in_flight - 1.0;
                let worthwhile = gained >= paid * rules.worth / 100.0;
                if !worthwhile && !self.doubted {
                    self.doubted = true;
                    return;
                }
                self.doubted = false;
                if !worthwhile {
                    self.limit = rung.in_flight;
                    self.streak = 0;
                    self.phase = Phase::Resting {
                        until: now + rules.rest,
                        token_time: None,
                    };
                    return;
                }
            }
            self.rung = Some(here);
        }
        self.grow(rules);
    }

    /// Resting => Resting | Climbing.
    fn rest(&mut self, now: Instant, until: Instant, known: Option<f64>, rules: &Rules) {
        let measured = self.token_time.get();
        if measured.is_some() {
            self.token_time = Average::default();
        }
        match (known, measured) {
            (None, Some(_)) => {
                self.phase = Phase::Resting {
                    until,
                    token_time: measured,
                }
            }
            (Some(before), Some(after)) if after > before * (1.0 + rules.changed / 100.0) => {
                // Slower at the same load: the worthwhile load is likely smaller too. Look for it from below.
                self.limit *= 0.5;
                self.start_over();
            }
            (Some(before), Some(after)) if before > after * (1.0 + rules.changed / 100.0) => self.start_over(),
            // What the rung was measured at is long ago.
            _ if now >= until => self.start_over(),
            _ => {}
        }
    }

    /// One more per address; after each four increases in a row twice as many, but never more than a quarter.
    fn grow(&mut self, rules: &Rules) {
        let step = f64::from(self.addresses) * f64::from(1_u32 << (self.streak / 4).min(16));
        let mut most = self.limit / 4.0;
        if let Some(rung) = self.rung {
            // Not past the next rung unjudged.
            most = most.min((rung.in_flight * (1.0 + rules.rung / 100.0)).ceil() - self.limit);
        }
        self.limit += step.min(most.max(1.0));
        // Another load, another time per token: what was measured below would make growth look worth it.
        self.token_time = Average::default();
        self.streak += 1;
    }

    fn start_over(&mut self) {
        self.phase = Phase::Climbing;
        self.streak = 0;
        self.rung = None;
        self.doubted = false;
        self.token_time = Average::default();
    }
}

#[cfg(test)]
mod tests;
