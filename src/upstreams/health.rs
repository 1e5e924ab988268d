//! When an endpoint is out and when it comes back: pure, `now` is an argument.
//!
//! Two judges. *Active* checks decide between up and down, with thresholds both ways. *Passive* ones eject an address whose
//! requests keep failing, for a time that doubles with each ejection, and never more than a share of a model's addresses.
//! An address that flaps must prove itself longer before it returns, and whoever returns starts slowly: its weight grows
//! from a tenth to the whole. When nobody else is left, proof and slow start are waived; a doubtful answer beats none.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Thresholds and times of the rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// So many failed checks in a row take an address down.
    pub fall: u32,
    /// So many good ones in a row bring it back.
    pub rise: u32,
    /// Each recent flap asks for one good check more, up to this many.
    pub rise_max: u32,
    /// A flap is forgotten after this long without another.
    pub flap_memory: Duration,
    /// So many failed requests in a row eject an address; a failed connect counts twice.
    pub eject_after: u32,
    /// The first ejection lasts this long.
    pub eject_base: Duration,
    /// No ejection lasts longer.
    pub eject_max: Duration,
    /// At most this share of a model's addresses is out by ejection, in percent, rounded down.
    pub eject_share_percent: u32,
    /// How long the weight of a returning address grows.
    pub slow_start: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            fall: 3,
            rise: 2,
            rise_max: 8,
            flap_memory: Duration::from_secs(300),
            eject_after: 5,
            eject_base: Duration::from_secs(5),
            eject_max: Duration::from_secs(300),
            eject_share_percent: 50,
            slow_start: Duration::from_secs(30),
        }
    }
}

/// Whether an address is offered requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Not checked yet: offered, as the operator has just registered it.
    #[default]
    Unknown,
    /// Offered.
    Up,
    /// Not offered: checks fail.
    Down,
    /// Not offered until then: requests kept failing.
    Ejected {
        /// When it is offered again.
        until: Instant,
    },
}

/// What is known of one address's health.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: State,
    good_checks: u32,
    bad_checks: u32,
    ejections: u32,
    flaps: u32,
    /// When it last went out or came back.
    trouble: Option<Instant>,
    returned: Option<Instant>,
    last_error: Option<Arc<str>>,
}

/// The model's other addresses, as far as the rules ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Others {
    /// How many addresses the model has, this one included.
    pub all: usize,
    /// How many of the others are out, by checks or by ejection.
    pub out: usize,
}

impl Others {
    const fn none_usable(self) -> bool {
        self.out + 1 >= self.all
    }
}

impl Health {
    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether it is offered requests.
    #[must_use]
    pub const fn usable(&self) -> bool {
        matches!(self.state, State::Unknown | State::Up)
    }

    /// Whether its last check failed, though it may not be out for it yet.
    #[must_use]
    pub const fn doubtful(&self) -> bool {
        self.bad_checks > 0
    }

    /// Why it last failed, in words without secrets.
    #[must_use]
    pub const fn last_error(&self) -> Option<&Arc<str>> {
        self.last_error.as_ref()
    }

    /// Notes why it failed.
    pub fn note(&mut self, error: Arc<str>) {
        self.last_error = Some(error);
    }

    /// A check succeeded. Returns whether the state changed.
    ///
    /// Unknown → Up at once. Down → Up after `rise` good checks plus one per flap, at once when no other is usable.
    pub fn check_passed(&mut self, now: Instant, others: Others, rules: &Rules) -> bool {
        self.bad_checks = 0;
        self.forget(now, rules);
        match self.state {
            State::Unknown => {
                self.state = State::Up;
                self.last_error = None;
                true
            }
            State::Down => {
                self.good_checks += 1;
                let asked = rules.rise.saturating_add(self.flaps.saturating_sub(1)).min(rules.rise_max);
                if self.good_checks < asked && !others.none_usable() {
                    return false;
                }
                self.come_back(now, others);
                true
            }
            // An ejection sits out its time: a server that fails its requests may well answer its health route.
            State::Up | State::Ejected { .. } => false,
        }
    }

    /// A check failed. Returns whether the state changed.
    ///
    /// Unknown → Down at once; Up, Ejected → Down after `fall` bad checks in a row.
    pub fn check_failed(&mut self, now: Instant, error: Arc<str>, rules: &Rules) -> bool {
        self.good_checks = 0;
        self.bad_checks = self.bad_checks.saturating_add(1);
        self.last_error = Some(error);
        match self.state {
            State::Unknown | State::Up | State::Ejected { .. } => {
                if self.state != State::Unknown && self.bad_checks < rules.fall {
                    return false;
                }
                self.state = State::Down;
                self.go_out(now, rules);
                true
            }
            State::Down => false,
        }
    }

    /// Its requests keep failing. Returns whether it was ejected.
    ///
    /// Unknown, Up → Ejected, unless that took the share of addresses that are out above the greatest allowed.
    pub fn eject(&mut self, now: Instant, others: Others, rules: &Rules) -> bool {
        let allowed = u64::try_from(others.all)
            .unwrap_or(u64::MAX)
            .saturating_mul(u64::from(rules.eject_share_percent))
            / 100;
        if !self.usable() || u64::try_from(others.out).unwrap_or(u64::MAX) >= allowed {
            return false;
        }
        self.forget(now, rules);
        let doublings = self.ejections.min(16);
        let time = rules.eject_base.saturating_mul(1 << doublings).min(rules.eject_max);
        self.ejections += 1;
        self.state = State::Ejected { until: now + time };
        self.go_out(now, rules);
        true
    }

    /// Lets time pass. Returns whether the state changed: Ejected → Up when its time is over.
    pub fn tick(&mut self, now: Instant, others: Others, rules: &Rules) -> bool {
        self.forget(now, rules);
        match self.state {
            State::Ejected { until } if now >= until => {
                self.come_back(now, others);
                true
            }
            State::Ejected { .. } | State::Unknown | State::Up | State::Down => false,
        }
    }

    /// Its weight in thousandths of what was configured: less than 1000 while it starts slowly.
    #[must_use]
    pub fn weight_permille(&self, now: Instant, rules: &Rules) -> u64 {
        let Some(returned) = self.returned else { return 1000 };
        let since = now.saturating_duration_since(returned).as_millis();
        let whole = rules.slow_start.as_millis();
        if since >= whole {
            return 1000;
        }
        u64::try_from(since * 1000 / whole).unwrap_or(1000).max(100)
    }

    fn come_back(&mut self, now: Instant, others: Others) {
        self.state = State::Up;
        self.good_checks = 0;
        self.bad_checks = 0;
        self.trouble = Some(now);
        self.returned = (!others.none_usable()).then_some(now);
    }

    fn go_out(&mut self, now: Instant, rules: &Rules) {
        self.good_checks = 0;
        self.flaps = (self.flaps + 1).min(rules.rise_max);
        self.trouble = Some(now);
        self.returned = None;
    }

    /// A while without trouble wipes the slate.
    fn forget(&mut self, now: Instant, rules: &Rules) {
        let long_ago = |trouble: Instant| now.saturating_duration_since(trouble) >= rules.flap_memory;
        if self.usable() && self.trouble.is_some_and(long_ago) {
            self.flaps = 0;
            self.ejections = 0;
            self.trouble = None;
        }
    }
}

#[cfg(test)]
mod tests;
