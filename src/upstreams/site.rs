//! What is known of a configured endpoint: the addresses behind it, and each one's health, load and pending work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::choice::{EndpointId, Seat, session_hash};
use super::endpoint::{Backend, Endpoint, Place};
use super::health::Health;
use super::pool::Inner;
use super::signals::{Signals, TokenTime};
use super::{Scrape, Settings};
use crate::egress;

/// Recurring work: when it is next due, and whether it is being done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    next: Instant,
    running: bool,
}

/// Work that has not come back after this long died, and is begun anew. Each kind has a shorter deadline of its own.
const LOST: Duration = Duration::from_secs(60);

impl Work {
    pub(super) const fn at(next: Instant) -> Self {
        Self { next, running: false }
    }

    /// Asks for it to be done as soon as possible, unless it is being done.
    pub(super) fn due(&mut self, now: Instant) {
        if !self.running {
            self.next = self.next.min(now);
        }
    }

    /// Whether it is to be started now; then it is marked as running.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        let lost = self.running && now >= self.next + LOST;
        let start = now >= self.next && (!self.running || lost);
        if start {
            *self = Self { next: now, running: true };
        }
        start
    }

    pub(super) fn done(&mut self, next: Instant) {
        *self = Self::at(next);
    }
}

/// What is known of a name.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) ask: Work,
    pub(super) answered: Option<Instant>,
    pub(super) last_error: Option<Arc<str>>,
}

impl Names {
    pub(super) const fn never_asked(&self) -> bool {
        self.answered.is_none() && self.last_error.is_none()
    }
}

/// A configured endpoint and its addresses.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) endpoint: Arc<Endpoint>,
    /// Why it cannot be used whatever its addresses say.
    pub(super) barred: Option<Arc<str>>,
    pub(super) names: Names,
    /// Reading of its certificates, where it has any.
    pub(super) trust: Work,
    /// Why they could not be read, the last time.
    pub(super) trust_error: Option<Arc<str>>,
    pub(super) entries: Vec<Entry>,
}

/// One address.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) backend: Arc<Backend>,
    pub(super) health: Health,
    pub(super) slot: u16,
    /// What the view in force was made with.
    pub(super) weight_permille: u64,
    pub(super) check: Work,
    pub(super) scrape: Work,
    pub(super) signals: Option<(Instant, Signals)>,
    /// Between the last two scrapes.
    pub(super) token_time: Option<TokenTime>,
}

impl Site {
    pub(super) fn new(endpoint: Endpoint, now: Instant) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            barred: None,
            names: Names {
                ask: Work::at(now),
                answered: None,
                last_error: None,
            },
            trust: Work::at(now),
            trust_error: None,
            entries: Vec::new(),
        }
    }

    /// Whether it may be choosable in a moment: a first lookup or reading is still under way.
    pub(super) fn pending(&self) -> bool {
        let unread = !self.endpoint.trusted() && self.trust_error.is_none();
        let unasked = self.entries.is_empty() && self.names.never_asked();
        self.barred.is_none() && (unread || unasked)
    }

    /// Takes the addresses over that the egress rules allow: known ones stay as they are, missing ones drain.
    ///
    /// # Errors
    /// The refusal's words when not one is allowed; then all stay as they are.
    pub(super) fn set_addresses(
        &mut self,
        addresses: &[SocketAddr],
        now: Instant,
        settings: &Settings,
        mut slot: impl FnMut() -> u16,
    ) -> Result<(), Arc<str>> {
        let mut refused = None;
        let mut wanted: Vec<SocketAddr> = Vec::new();
        for addr in addresses {
            match egress::check_addr(settings.egress, *addr, &settings.own_listeners) {
                Ok(()) if wanted.contains(addr) || wanted.len() >= settings.dns.addresses_max => {}
                Ok(()) => wanted.push(*addr),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match (wanted.is_empty(), refused) {
            (true, Some(refusal)) => return Err(format!("address refused: {refusal}").into()),
            (true, None) => return Err("the name has no address".into()),
            (false, _) => {}
        }
        let mut before = std::mem::take(&mut self.entries);
        for addr in &wanted {
            let known = before.iter().position(|entry| entry.backend.addr == *addr);
            self.entries.push(match known {
                Some(known) => before.swap_remove(known),
                None => Entry::new(&self.endpoint.label, *addr, slot(), now),
            });
        }
        Ok(())
    }

    /// A lookup came back. A name that no longer answers keeps its addresses for `stale_max`.
    pub(super) fn resolved(
        &mut self,
        answer: Result<Vec<SocketAddr>, Arc<str>>,
        now: Instant,
        settings: &Settings,
        slot: impl FnMut() -> u16,
    ) {
        let taken = answer.and_then(|addresses| self.set_addresses(&addresses, now, settings, slot));
        match taken {
            Ok(()) => {
                self.names.answered = Some(now);
                self.names.last_error = None;
                self.names.ask.done(now + settings.dns.refresh);
            }
            Err(error) => {
                let stale = self
                    .names
                    .answered
                    .is_none_or(|answered| now.saturating_duration_since(answered) >= settings.dns.stale_max);
                if stale {
                    self.entries.clear();
                }
                self.names.last_error = Some(error);
                self.names.ask.done(now + settings.dns.retry);
            }
        }
    }
}

impl Inner {
    /// The site of an endpoint, if it is still configured.
    pub(super) fn site(&mut self, endpoint: &Arc<Endpoint>) -> Option<&mut Site> {
        self.sites.iter_mut().find(|site| Arc::ptr_eq(&site.endpoint, endpoint))
    }

    /// A lookup for an endpoint came back.
    pub(super) fn resolved(
        &mut self,
        endpoint: &Arc<Endpoint>,
        answer: Result<Vec<SocketAddr>, Arc<str>>,
        now: Instant,
        settings: &Settings,
    ) {
        let slots: Vec<u16> = match &answer {
            Ok(addresses) => addresses.iter().take(settings.dns.addresses_max).map(|_| self.slot()).collect(),
            Err(_) => Vec::new(),
        };
        let mut slots = slots.into_iter();
        if let Some(site) = self.site(endpoint) {
            site.resolved(answer, now, settings, || slots.next().unwrap_or(0));
        }
    }
}

impl Entry {
    pub(super) fn new(label: &str, addr: SocketAddr, slot: u16, now: Instant) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        // The seed is the same in every gateway, so that they agree where a session belongs.
        let seed = session_hash(format!("{label}|{addr}").as_bytes());
        let backend = Backend::new(EndpointId(IDS.fetch_add(1, Ordering::Relaxed)), seed, addr);
        Self {
            backend: Arc::new(backend),
            health: Health::default(),
            slot,
            weight_permille: 1000,
            check: Work::at(now),
            scrape: Work::at(now),
            signals: None,
            token_time: None,
        }
    }

    /// Its place in the choice; the endpoint's weight is shared among its addresses.
    pub(super) fn seat(&self, endpoint: &Endpoint, addresses: u64) -> Seat {
        Seat {
            id: self.backend.id,
            seed: self.backend.seed,
            load: Arc::clone(&self.backend.load),
            cap: endpoint.plan.cap.map(|cap| (Arc::clone(&endpoint.in_flight), cap)),
            weight: (u64::from(endpoint.plan.weight) * self.weight_permille / addresses).max(1),
            penalty: self.backend.speed.penalty(),
            slot: self.slot,
        }
    }

    /// What a scrape said counts as long as it is fresh; then our own counts have to do.
    pub(super) fn age(&mut self, now: Instant, scrape: &Scrape) {
        let stale = |(at, _): &(Instant, Signals)| now.saturating_duration_since(*at) > scrape.stale_after;
        if self.signals.as_ref().is_some_and(stale) {
            self.forget_signals();
        }
    }

    fn forget_signals(&mut self) {
        self.signals = None;
        self.token_time = None;
        self.backend.load.extra.store(0, Ordering::Relaxed);
    }

    /// A scrape came back. One that failed leaves what is known to grow old.
    pub(super) fn scraped(&mut self, answer: Result<Option<Signals>, ()>, now: Instant, scrape: &Scrape) {
        match answer {
            Ok(Some(signals)) => {
                let since = |(at, earlier): &(Instant, Signals)| signals.token_time_since(earlier, now.saturating_duration_since(*at));
                self.token_time = self.signals.as_ref().and_then(since);
                let load = &self.backend.load;
                load.extra
                    .store(signals.extra(load.in_flight.load(Ordering::Relaxed)), Ordering::Relaxed);
                self.signals = Some((now, signals));
                self.scrape.done(now + scrape.interval);
            }
            Ok(None) => {
                self.forget_signals();
                self.scrape.done(now + scrape.interval_absent);
            }
            Err(()) => self.scrape.done(now + scrape.interval),
        }
    }

    /// How long a signal counts; shown beside it.
    pub(super) fn signal_age(&self, now: Instant) -> Option<Duration> {
        self.signals.as_ref().map(|(at, _)| now.saturating_duration_since(*at))
    }
}

impl Site {
    /// Its only address, where that is typed and not looked up.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        match &self.endpoint.place {
            Place::Literal(addr) => Some(*addr),
            Place::Name(..) | Place::Nowhere => None,
        }
    }
}
