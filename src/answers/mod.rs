//! The response cache: a hit never queues, a crowd asks once, tenants never meet.
//!
//! [`Answers::ask`] says what is to become of a request: it gets a kept answer ([`Turn::Hit`]), it goes upstream and tells
//! everybody ([`Turn::Lead`]), or it listens to one that did ([`Turn::Follow`]). Look-up, joining and beginning are one step
//! under one lock, so of any number of identical requests exactly one leads. Coalescing has the key of the cache, and so its
//! scope. Hits and followers hold no slot and no quota; what the answer costs is the leader's.
//!
//! Lock order: `inner` before a flight's own lock; neither is held across an await, nor while a body is freed or copied
//! for keeping.
//!
//! Time comes in as an argument and is monotonic.

mod ask;
mod counters;
mod flight;
mod follower;
mod heard;
mod leader;
mod settings;
mod shelf;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng as _;

pub use ask::Ask;
pub use counters::{CacheStatus, Counters};
pub use follower::{Follower, Heard};
pub use heard::{Ended, Failure, Step};
pub use leader::{Audience, Leader};
pub use settings::Settings;
pub use stored::{Head, Saved, Stored};

use crate::cache::{Key, KeyMaker};
use crate::catalog::{Catalog, Model, Table, Tenant};
use crate::id::{ModelId, TenantId};
use counters::Tally;
use flight::{Filling, Flight, Subject};
use shelf::{New, Removed, Shelf};

/// What is to become of a request.
#[derive(Debug)]
pub enum Turn {
    /// It has its answer.
    Hit(Arc<Stored>),
    /// It goes upstream, and others may listen.
    Lead(Leader),
    /// It listens.
    Follow(Follower),
    /// It goes upstream alone; with a leader, its answer is kept.
    Bypass(Option<Leader>),
    /// It wants a kept answer or none, and there is none.
    NotCached,
}

/// Kept answers, and answers on their way.
#[derive(Debug)]
pub struct Answers {
    maker: KeyMaker,
    share: u64,
    filling: Arc<Filling>,
    tally: Tally,
    inner: Mutex<Inner>,
    /// What was applied last. Taken before `inner`.
    applied: Mutex<Applied>,
}

#[derive(Debug)]
struct Inner {
    shelf: Shelf,
    flights: HashMap<Key, Arc<Flight>>,
    /// Models with a cache: version, and how often their answers were purged. An answer is kept only if both are still what
    /// they were when its request began.
    eras: HashMap<ModelId, (u64, u64)>,
}

#[derive(Debug, Default)]
struct Applied {
    models: Table<ModelId, Model>,
    tenants: Table<TenantId, Tenant>,
}

impl Answers {
    /// An empty cache. Its keys are made under a random secret of its own.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Arc::new(Self {
            maker: KeyMaker::new(secret),
            share: settings.share(),
            filling: Arc::new(Filling {
                held: AtomicU64::new(0),
                max: settings.max_filling_bytes,
                follower_max: settings.follower_buffer_bytes,
            }),
            tally: Tally::default(),
            inner: Mutex::new(Inner {
                shelf: Shelf::new(&settings),
                flights: HashMap::new(),
                eras: HashMap::new(),
            }),
            applied: Mutex::default(),
        })
    }

    /// Says what is to become of a request whose model has its cache on.
    #[must_use]
    pub fn ask(self: &Arc<Self>, ask: &Ask<'_>, now: Instant) -> Turn {
        let turn = self.turn(ask, now);
        match &turn {
            Turn::Hit(stored) => {
                self.tally.count(CacheStatus::Hit);
                self.tally.save(&stored.saved);
            }
            Turn::Bypass(_) => self.tally.count(CacheStatus::Bypass),
            Turn::Lead(_) | Turn::NotCached => self.tally.count(CacheStatus::Miss),
            // It may yet have to lead.
            Turn::Follow(_) => {}
        }
        turn
    }

    fn turn(self: &Arc<Self>, ask: &Ask<'_>, now: Instant) -> Turn {
        let directives = ask.directives;
        let Some(key) = ask.key(&self.maker) else {
            return if directives.only_if_cached() {
                Turn::NotCached
            } else {
                Turn::Bypass(None)
            };
        };
        if !directives.may_look() {
            if directives.only_if_cached() {
                return Turn::NotCached;
            }
            let leader = directives.may_store().then(|| {
                let era = self.inner.lock().era(ask.model);
                self.leader(self.flight(ask, key, era, false))
            });
            return Turn::Bypass(leader);
        }
        let mut inner = self.inner.lock();
        if let Some(stored) = inner.shelf.get(&key, now) {
            return Turn::Hit(stored);
        }
        if directives.only_if_cached() {
            return Turn::NotCached;
        }
        let era = inner.era(ask.model);
        if let Some(flight) = inner.flights.get(&key).filter(|flight| flight.subject.era == era)
            && let Some((place, bell)) = flight.join()
        {
            return Turn::Follow(Follower::new(Arc::clone(self), Arc::clone(flight), place, bell));
        }
        let flight = self.flight(ask, key, era, true);
        inner.flights.insert(key, Arc::clone(&flight));
        drop(inner);
        Turn::Lead(self.leader(flight))
    }

    fn flight(&self, ask: &Ask<'_>, key: Key, era: (u64, u64), shared: bool) -> Arc<Flight> {
        let subject = Subject {
            shared,
            key,
            model: ask.model.id,
            era,
            owner: ask.tenant.id,
            max_bytes: ask.model.cache.max_entry_bytes.min(self.share),
            ttl: Duration::from_secs(u64::from(ask.model.cache.ttl_secs)),
        };
        Flight::new(subject, Arc::clone(&self.filling))
    }

    fn leader(self: &Arc<Self>, flight: Arc<Flight>) -> Leader {
        Leader::new(Arc::clone(self), flight, 0)
    }

    /// Counts what became of a follower: it was answered, or it had to lead.
    pub fn followed(&self, status: CacheStatus) {
        self.tally.count(status);
    }

    /// Keeps an answer, unless its model has changed since its request began.
    fn keep(&self, flight: &Flight, stored: Arc<Stored>, now: Instant) {
        let subject = &flight.subject;
        let mut inner = self.inner.lock();
        if inner.eras.get(&subject.model) != Some(&subject.era) {
            return;
        }
        let new = New {
            key: subject.key,
            model: subject.model,
            owner: subject.owner,
            stored,
            ttl: subject.ttl,
        };
        let removed = inner.shelf.put(new, now);
        drop(inner);
        drop(removed);
    }

    /// Empties a model's cache. What is on its way now is not kept, and nobody joins it any more.
    pub fn purge(&self, model: &ModelId) {
        let mut inner = self.inner.lock();
        let removed = inner.purge(model);
        drop(inner);
        drop(removed);
    }

    /// Follows the catalog: a model that changed in any way, lost its cache or is gone loses its answers, and so does a
    /// tenant that is gone.
    pub fn apply(&self, catalog: &Catalog) {
        let mut applied = self.applied.lock();
        let mut removed = Removed::new();
        for change in catalog.models().differences(&applied.models) {
            let Some(model) = change.after.as_ref().or(change.before.as_ref()) else {
                continue;
            };
            let after = change.after.as_ref().filter(|after| after.enabled && after.cache.enabled);
            let mut inner = self.inner.lock();
            let known = inner.eras.get(&model.id).map(|(version, _)| *version);
            if known == after.map(|after| after.provenance.version) {
                continue;
            }
            if known.is_some() {
                removed.append(&mut inner.purge(&model.id));
            }
            match after {
                Some(after) => inner.eras.entry(model.id).or_default().0 = after.provenance.version,
                None => _ = inner.eras.remove(&model.id),
            }
        }
        for change in catalog.tenants().differences(&applied.tenants) {
            if let (Some(gone), None) = (&change.before, &change.after) {
                removed.append(&mut self.inner.lock().shelf.forget_owner(&gone.id));
            }
        }
        applied.models = catalog.models().clone();
        applied.tenants = catalog.tenants().clone();
        drop(applied);
        drop(removed);
    }

    /// The numbers at `now`; what has expired by then is removed first.
    #[must_use]
    pub fn counters(&self, now: Instant) -> Counters {
        let mut removed = Removed::new();
        let mut inner = self.inner.lock();
        inner.shelf.sweep(now, usize::MAX, &mut removed);
        let (entries, bytes) = (inner.shelf.len() as u64, inner.shelf.bytes());
        drop(inner);
        drop(removed);
        self.tally.read(entries, bytes)
    }
}

impl Inner {
    /// What has to be the same when the answer is there. A model that the catalog in force does not know has no era, and its
    /// answers are not kept.
    fn era(&self, model: &Model) -> (u64, u64) {
        let purges = self.eras.get(&model.id).map_or(0, |(_, purges)| *purges);
        (model.provenance.version, purges)
    }

    fn purge(&mut self, model: &ModelId) -> Removed {
        if let Some((_, purges)) = self.eras.get_mut(model) {
            *purges += 1;
        }
        self.shelf.forget_model(model)
    }
}

#[cfg(test)]
mod tests;
