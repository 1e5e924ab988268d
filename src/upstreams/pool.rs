//! The endpoints of one model or MCP server: what is configured, what is known, and the view that choices are made from.
//!
//! Requests read the view without a lock. `inner` guards everything else; it is taken when the catalog changes, when a
//! request fails, and by the background work. Whoever changes something that matters publishes the next view before
//! letting go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::capacity::Capacity;
use super::choice::{self, Hint, Nobody, Policy, Prefixes, Seat, Tier};
use super::chosen::{Chosen, Outcome};
use super::endpoint::{Backend, Member};
use super::health::{Others, State};
use super::retry_budget::RetryBudget;
use super::signals::Signals;
use super::site::{Entry, Site};
use super::speed::Speed;
use super::{EndpointId, Settings, Unavailable};
use crate::catalog::LoadBalancing;

/// Attempts at a seat whose endpoint others fill up meanwhile.
const RACES_MAX: u64 = 4;

pub(super) struct Pool {
    /// The model's name or the MCP server's, for logs.
    pub(super) name: String,
    /// Requests of all endpoints, the draining ones included.
    pub(super) in_flight: AtomicU32,
    pub(super) settings: Arc<Settings>,
    pub(super) retries: RetryBudget,
    view: ArcSwap<View>,
    inner: Mutex<Inner>,
    /// Rung when a view is published, and when an endpoint that was full has room.
    pub(super) changed: Notify,
    /// Rung when background work is due before its time.
    pub(super) nudge: Arc<Notify>,
}

pub(super) struct Inner {
    pub(super) policy: Arc<Policy>,
    pub(super) sites: Vec<Site>,
    pub(super) capacity: Capacity,
    slot_next: u16,
}

/// What choices are made from. Immutable but for the loads.
struct View {
    policy: Arc<Policy>,
    floors: Vec<Floor>,
    /// Why there is nobody when `floors` is empty.
    unavailable: Unavailable,
}

/// A priority with somebody usable.
struct Floor {
    tier: Tier,
    members: Vec<Arc<Member>>,
}

impl Pool {
    pub(super) fn new(name: String, settings: Arc<Settings>, nudge: Arc<Notify>) -> Self {
        let policy = Arc::new(Policy::LeastRequest);
        let view = View {
            policy: Arc::clone(&policy),
            floors: Vec::new(),
            unavailable: Unavailable::NoEndpoints,
        };
        let inner = Inner {
            policy,
            sites: Vec::new(),
            capacity: Capacity::default(),
            slot_next: 0,
        };
        Self {
            name,
            in_flight: AtomicU32::new(0),
            retries: RetryBudget::new(settings.retries),
            settings,
            view: ArcSwap::from_pointee(view),
            inner: Mutex::new(inner),
            changed: Notify::new(),
            nudge,
        }
    }

    /// Chooses and takes the marks.
    pub(super) fn choose(self: &Arc<Self>, hint: &Hint<'_>, tried: &[EndpointId], entropy: u64) -> Result<Chosen, Unavailable> {
        let view = self.view.load();
        for floor in &view.floors {
            for race in 0..RACES_MAX {
                let in_flight = self.in_flight.load(Ordering::Relaxed);
                match choice::pick(&view.policy, &floor.tier, hint, in_flight, entropy.wrapping_add(race), tried) {
                    Ok(index) => {
                        if let Some(chosen) = floor.members.get(index).and_then(|member| Chosen::take(self, member)) {
                            return Ok(chosen);
                        }
                    }
                    Err(Nobody::Tried) => break,
                    // The next priority is for when this one is down, not for when it is busy.
                    Err(Nobody::Full) => return Err(Unavailable::AtCapacity),
                }
                if race + 1 == RACES_MAX {
                    return Err(Unavailable::AtCapacity);
                }
            }
        }
        Err(if view.floors.is_empty() {
            view.unavailable.clone()
        } else {
            Unavailable::AllTried
        })
    }

    /// Chooses an address and takes the marks.
    pub(super) fn choose_at(self: &Arc<Self>, addr: SocketAddr) -> Result<Chosen, Unavailable> {
        let view = self.view.load();
        let members = view.floors.iter().flat_map(|floor| &floor.members);
        if let Some(member) = members.into_iter().find(|member| member.backend.addr == addr) {
            return Chosen::take(self, member).ok_or(Unavailable::AtCapacity);
        }
        let known = self.look(|inner| inner.entries_mut().any(|entry| entry.backend.addr == addr));
        // One that is known and not in the view is down.
        Err(match &view.unavailable {
            _ if !known => Unavailable::Left,
            why if view.floors.is_empty() => why.clone(),
            _ => Unavailable::AllTried,
        })
    }

    /// Why nobody can be chosen, if so.
    pub(super) fn unavailable(&self) -> Option<Unavailable> {
        let view = self.view.load();
        view.floors.is_empty().then(|| view.unavailable.clone())
    }

    /// Someone left an endpoint that may have been full.
    pub(super) fn gave_back(&self, member: &Member) {
        if member.endpoint.plan.cap.is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Learns from an attempt that failed.
    pub(super) fn failed(&self, backend: &Backend, outcome: Outcome, words: &str, now: Instant) {
        let rules = &self.settings.health;
        let connect = matches!(outcome, Outcome::ConnectFailed(_));
        let count = if connect { 2 } else { 1 };
        let in_a_row = backend.failures.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        let mostly = backend.failing.fail();
        let mut inner = self.inner.lock();
        let others = inner.others();
        let Some(entry) = inner.entry(backend.id) else { return };
        entry.health.note(words.into());
        if connect {
            // The checks will say within moments whether anybody is there.
            entry.check.due(now);
        }
        if (in_a_row >= rules.eject_after || mostly) && entry.health.eject(now, others(&entry.health), rules) {
            backend.failures.store(0, Ordering::Relaxed);
            backend.failing.reset();
            warn!(upstream = %self.name, addr = %backend.addr, error = words, "endpoint ejected");
            self.publish(&mut inner, now);
        }
        drop(inner);
        if connect {
            self.nudge.notify_one();
        }
    }

    /// A check of an address came back; `None` is one that says nothing.
    pub(super) fn checked(&self, backend: &Backend, verdict: Option<Result<(), Arc<str>>>, now: Instant) {
        let rules = &self.settings.health;
        let mut inner = self.inner.lock();
        let others = inner.others();
        let slot = inner.slot();
        let Some(entry) = inner.entry(backend.id) else { return };
        let before = entry.health.state();
        let changed = match &verdict {
            Some(Ok(())) => entry.health.check_passed(now, others(&entry.health), rules),
            Some(Err(error)) => entry.health.check_failed(now, Arc::clone(error), rules),
            None => false,
        };
        let sound = entry.health.usable() && !entry.health.doubtful();
        let probe = &self.settings.probe;
        entry.check.done(now + if sound { probe.interval } else { probe.interval_down });
        if !changed {
            return;
        }
        match verdict {
            Some(Err(error)) => warn!(upstream = %self.name, addr = %backend.addr, %error, "endpoint down"),
            _ if before == State::Down => {
                // What comes back is likely a restarted program: as fast as it is now, and with an empty cache.
                entry.slot = slot;
                backend.speed.reset();
                backend.failing.reset();
                backend.failures.store(0, Ordering::Relaxed);
                info!(upstream = %self.name, addr = %backend.addr, "endpoint up again");
            }
            _ => {}
        }
        self.publish(&mut inner, now);
    }

    /// A scrape of an address came back: `Ok(None)` is an engine without load signals.
    pub(super) fn scraped(&self, backend: &Backend, answer: Result<Option<Signals>, ()>, now: Instant) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.entry(backend.id) {
            entry.scraped(answer, now, &self.settings.scrape);
        }
    }

    /// Changes something and publishes what follows from it.
    pub(super) fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = change(&mut inner);
        self.publish(&mut inner, now);
        result
    }

    /// Looks at what is known.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.lock())
    }

    /// Lets time pass: ejections end, weights grow, scrapes go stale, the slow are told from the fast, capacity is learned.
    pub(super) fn tick(&self, now: Instant) {
        let rules = &self.settings.health;
        let mut inner = self.inner.lock();
        let others = inner.others();
        let mut changed = false;
        for entry in inner.entries_mut() {
            if entry.health.tick(now, others(&entry.health), rules) {
                entry.backend.speed.reset();
                info!(upstream = %self.name, addr = %entry.backend.addr, "ejection over");
                changed = true;
            }
            changed |= entry.health.weight_permille(now, rules) != entry.weight_permille;
            entry.age(now, &self.settings.scrape);
        }
        let speeds: Vec<&Speed> = inner
            .sites
            .iter()
            .flat_map(|site| &site.entries)
            .map(|entry| &entry.backend.speed)
            .collect();
        changed |= Speed::judge(&speeds);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        inner.learn_capacity(now, in_flight, &self.settings);
        if changed {
            self.publish(&mut inner, now);
        }
    }

    fn publish(&self, inner: &mut Inner, now: Instant) {
        self.view.store(Arc::new(inner.view(now, &self.settings)));
        self.changed.notify_waiters();
    }
}

impl Inner {
    /// Follows the model's policy; what a policy remembers survives as long as the policy stays.
    pub(super) fn set_policy(&mut self, wanted: LoadBalancing, prefix_entries: usize) {
        let same = matches!(
            (wanted, &*self.policy),
            (LoadBalancing::LeastRequest, Policy::LeastRequest)
                | (LoadBalancing::RoundRobin, Policy::RoundRobin(_))
                | (LoadBalancing::Session, Policy::Session)
                | (LoadBalancing::Prefix, Policy::Prefix(_))
        );
        if same {
            return;
        }
        self.policy = Arc::new(match wanted {
            LoadBalancing::LeastRequest => Policy::LeastRequest,
            LoadBalancing::RoundRobin => Policy::RoundRobin(AtomicU64::new(0)),
            LoadBalancing::Session => Policy::Session,
            LoadBalancing::Prefix => Prefixes::new(prefix_entries).map_or(Policy::LeastRequest, Policy::Prefix),
        });
    }

    /// A slot no address of this model uses: what a prefix table says of its former holder is forgotten sooner or later.
    pub(super) fn slot(&mut self) -> u16 {
        let slots = u16::try_from(Tier::MAX).unwrap_or(u16::MAX);
        for _ in 0..slots {
            self.slot_next = (self.slot_next + 1) % slots;
            if !self
                .sites
                .iter()
                .flat_map(|site| &site.entries)
                .any(|entry| entry.slot == self.slot_next)
            {
                break;
            }
        }
        self.slot_next
    }

    pub(super) fn entry(&mut self, id: EndpointId) -> Option<&mut Entry> {
        self.entries_mut().find(|entry| entry.backend.id == id)
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.sites.iter_mut().flat_map(|site| &mut site.entries)
    }

    /// How the others of an entry stand, as a function of its own health.
    pub(super) fn others(&self) -> impl Fn(&super::health::Health) -> Others + use<> {
        let entries = || self.sites.iter().flat_map(|site| &site.entries);
        let all = entries().count();
        let out = entries().filter(|entry| !entry.health.usable()).count();
        move |own| Others {
            all,
            out: out.saturating_sub(usize::from(!own.usable())),
        }
    }

    fn view(&mut self, now: Instant, settings: &Settings) -> View {
        let mut floors = self.floors(now, settings, |state| matches!(state, State::Unknown | State::Up));
        if floors.is_empty() {
            // A server that fails its requests is still better than none; one that fails its checks is none.
            floors = self.floors(now, settings, |state| matches!(state, State::Ejected { .. }));
        }
        View {
            policy: Arc::clone(&self.policy),
            floors,
            unavailable: self.why_nobody(),
        }
    }

    fn floors(&mut self, now: Instant, settings: &Settings, usable: impl Fn(State) -> bool) -> Vec<Floor> {
        let mut by_priority: Vec<(u16, Vec<Seat>, Vec<Arc<Member>>)> = Vec::new();
        for site in &mut self.sites {
            if site.barred.is_some() || !site.endpoint.trusted() {
                continue;
            }
            let share = u64::try_from(site.entries.len()).unwrap_or(1).max(1);
            for entry in site.entries.iter_mut().filter(|entry| usable(entry.health.state())) {
                entry.weight_permille = entry.health.weight_permille(now, &settings.health);
                let seat = entry.seat(&site.endpoint, share);
                let member = Arc::new(Member {
                    endpoint: Arc::clone(&site.endpoint),
                    backend: Arc::clone(&entry.backend),
                });
                let priority = site.endpoint.plan.priority;
                match by_priority.iter_mut().find(|(at, ..)| *at == priority) {
                    Some((_, seats, members)) => {
                        seats.push(seat);
                        members.push(member);
                    }
                    None => by_priority.push((priority, vec![seat], vec![member])),
                }
            }
        }
        by_priority.sort_by_key(|(priority, ..)| *priority);
        let floor = |(_, seats, members)| Floor {
            tier: Tier::new(seats),
            members,
        };
        by_priority.into_iter().map(floor).collect()
    }

    fn why_nobody(&self) -> Unavailable {
        if self.sites.is_empty() {
            return Unavailable::NoEndpoints;
        }
        if self.sites.iter().any(Site::pending) {
            return Unavailable::Unresolved { last_error: None };
        }
        let named = self
            .sites
            .iter()
            .find_map(|site| site.entries.iter().find_map(|entry| entry.health.last_error().cloned()));
        if let Some(error) = named {
            return Unavailable::AllDown { last_error: error };
        }
        let reasons = |site: &Site| site.barred.clone().or_else(|| site.trust_error.clone());
        if let Some(reason) = self.sites.iter().find_map(reasons) {
            return Unavailable::AllDown { last_error: reason };
        }
        Unavailable::Unresolved {
            last_error: self.sites.iter().find_map(|site| site.names.last_error.clone()),
        }
    }
}
