//! How many requests a model's endpoints take at once, all things considered: what is told to the scheduler, so that
//! requests wait there, by fair share, and not at an endpoint.

use std::time::{Duration, Instant};

use super::Settings;
use super::auto_capacity::{AutoCapacity, Seen};
use super::pool::Inner;
use super::site::{Entry, Site};
use crate::catalog::ModelCapacity;

/// A model's capacity as configured, and what was learned of it.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    configured: ModelCapacity,
    learned: Option<AutoCapacity>,
    /// When the oldest of the scrapes that were last judged was made: none is judged twice.
    judged: Option<Instant>,
}

impl Capacity {
    /// Follows the configuration. What was learned is forgotten when nobody asks for it.
    pub(super) fn configure(&mut self, configured: ModelCapacity, settings: &Settings) {
        self.configured = configured;
        match configured {
            ModelCapacity::Auto if self.learned.is_none() => self.learned = Some(AutoCapacity::new(&settings.auto_capacity)),
            ModelCapacity::Auto => {}
            ModelCapacity::Uncapped | ModelCapacity::Fixed(_) => self.learned = None,
        }
    }
}

impl Inner {
    /// The tightest of what is configured, what was learned and the endpoints' own caps; `None` when nothing binds, or nobody
    /// is usable and requests are refused at once.
    pub(super) fn cap(&self) -> Option<u32> {
        let own = match self.capacity.configured {
            ModelCapacity::Uncapped => None,
            ModelCapacity::Fixed(cap) => Some(cap),
            ModelCapacity::Auto => self.capacity.learned.as_ref().map(AutoCapacity::limit),
        };
        match (own, self.endpoints_cap()) {
            (Some(own), Some(endpoints)) => Some(own.min(endpoints)),
            (own, endpoints) => own.or(endpoints),
        }
    }

    /// The sum of the caps of the lowest priority that has somebody usable; `None` when one there has no cap.
    fn endpoints_cap(&self) -> Option<u32> {
        let priority = self.usable_sites().map(|site| site.endpoint.plan.priority).min()?;
        self.usable_sites()
            .filter(|site| site.endpoint.plan.priority == priority)
            .try_fold(0_u32, |sum, site| site.endpoint.plan.cap.map(|cap| sum.saturating_add(cap)))
    }

    fn usable_sites(&self) -> impl Iterator<Item = &Site> {
        self.sites
            .iter()
            .filter(|site| site.barred.is_none() && site.endpoint.trusted() && site.entries.iter().any(|entry| entry.health.usable()))
    }

    /// Lets the learned limit follow what the engines say.
    pub(super) fn learn_capacity(&mut self, now: Instant, in_flight: u32, settings: &Settings) {
        if self.capacity.learned.is_none() {
            return;
        }
        let (seen, made) = match self.seen(in_flight) {
            Some((seen, made)) => (Some(seen), made),
            None => (None, None),
        };
        if made.is_some() && made <= self.capacity.judged {
            return;
        }
        if let Some(learned) = &mut self.capacity.learned {
            learned.step(now, seen.as_ref(), &settings.auto_capacity);
            self.capacity.judged = made;
        }
    }

    /// What the usable engines of the lowest priority say together; `None` when one of them has fallen silent, or none says
    /// anything. With it, when the oldest scrape in it was made.
    fn seen(&self, in_flight: u32) -> Option<(Seen, Option<Instant>)> {
        let priority = self.usable_sites().map(|site| site.endpoint.plan.priority).min()?;
        let sites = self.usable_sites().filter(|site| site.endpoint.plan.priority == priority);
        let entries: Vec<&Entry> = sites.flat_map(|site| &site.entries).filter(|entry| entry.health.usable()).collect();
        let addresses = u32::try_from(entries.len()).ok()?;
        let add = |of: fn(&Entry) -> Option<f64>| entries.iter().map(|entry| of(entry)).sum::<Option<f64>>();
        let waiting = add(|entry| entry.signals.as_ref()?.1.waiting);
        let running = add(|entry| entry.signals.as_ref()?.1.running);
        let scraped = entries.iter().any(|entry| entry.signals.is_some());
        if scraped && waiting.is_none() && running.is_none() {
            return None;
        }
        let token_time = mean_token_time(&entries);
        let made = entries.iter().filter_map(|entry| entry.signals.as_ref()).map(|(at, _)| *at).min();
        let seen = Seen {
            addresses,
            in_flight,
            waiting,
            running,
            token_time,
        };
        (scraped || token_time.is_some()).then_some((seen, made))
    }
}

/// As the engines tell it; where none does, as the answers show it.
fn mean_token_time(entries: &[&Entry]) -> Option<Duration> {
    let told = entries.iter().filter_map(|entry| entry.token_time);
    let (seconds, tokens) = told.fold((0.0, 0.0), |sum, time| (sum.0 + time.seconds, sum.1 + time.tokens));
    if tokens > 0.0 {
        return Duration::try_from_secs_f64(seconds / tokens).ok();
    }
    let shown: Vec<u64> = entries.iter().filter_map(|entry| entry.backend.speed.token_time_ns()).collect();
    let count = u64::try_from(shown.len()).ok().filter(|count| *count > 0)?;
    Some(Duration::from_nanos(shown.iter().sum::<u64>() / count))
}
