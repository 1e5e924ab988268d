//! The kept answers: bounded in bytes, shared fairly among those who fill it.
//!
//! An answer's room is paid for by the tenant whose request brought it, whoever may read it. A tenant holds at most its
//! share; where the whole is full, whoever holds most gives way, so that all who want room converge to the same amount
//! (max-min fairness), and a flood by one tenant pushes out nothing but its own.
//!
//! Within a tenant's part the order is segmented LRU (Karedla, Love, Wherry: *Caching strategies to improve disk system
//! performance*, IEEE Computer 27(3), 1994): what was asked for once stands on probation and goes first, what was asked for
//! again is protected, and at most four fifths of the part is. A scan of things that nobody asks for twice passes through
//! probation and leaves the protected part as it was.
//!
//! Why not a crate: quick_cache and moka bound one cache by weight, and know no shares in it. A cache per tenant would bound
//! each but not their sum, and nobody could say which of ten thousand caches has to give way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::settings::Settings;
use super::stored::Stored;
use crate::cache::Key;
use crate::id::{ModelId, TenantId};

/// How many that have expired are removed at most when one is put in: bounds the time under the lock.
const SWEPT_AT_ONCE: usize = 32;

/// Where the next one is in time of last use: grows with every use.
type Use = u64;

#[derive(Debug)]
pub(super) struct Shelf {
    max_bytes: u64,
    share: u64,
    least: u64,
    slots: Slab<Slot>,
    by_key: HashMap<Key, usize>,
    by_expiry: BTreeSet<(Instant, usize)>,
    owners: HashMap<TenantId, Owner>,
    /// Owners by what they hold: the last gives way.
    by_size: BTreeSet<(u64, TenantId)>,
    /// What is counted against the bound: never less than [`Settings::least`] for each.
    charged: u64,
    /// What is really there.
    bytes: u64,
    uses: Use,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    model: ModelId,
    owner: TenantId,
    stored: Arc<Stored>,
    expires: Instant,
    charge: u64,
    last: Use,
    protected: bool,
}

#[derive(Debug, Default)]
struct Owner {
    probation: BTreeMap<Use, usize>,
    protected: BTreeMap<Use, usize>,
    charged: u64,
    /// How much of it is protected.
    charged_protected: u64,
}

impl Owner {
    /// The one that goes first.
    fn oldest(&self) -> Option<usize> {
        self.probation.values().next().or_else(|| self.protected.values().next()).copied()
    }
}

/// What left the shelf, to be dropped outside of the lock: freeing a large body takes its time.
pub(super) type Removed = Vec<Arc<Stored>>;

/// What is to be put in.
pub(super) struct New {
    pub(super) key: Key,
    pub(super) model: ModelId,
    pub(super) owner: TenantId,
    pub(super) stored: Arc<Stored>,
    pub(super) ttl: Duration,
}

impl Shelf {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            max_bytes: settings.max_bytes,
            share: settings.share(),
            least: settings.least(),
            slots: Slab::new(),
            by_key: HashMap::new(),
            by_expiry: BTreeSet::new(),
            owners: HashMap::new(),
            by_size: BTreeSet::new(),
            charged: 0,
            bytes: 0,
            uses: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Finds an answer that has not expired, and notes that it was wanted.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<Arc<Stored>> {
        let index = *self.by_key.get(key)?;
        let slot = self.slots.get_mut(index)?;
        if slot.expires <= now {
            return None;
        }
        let stored = Arc::clone(&slot.stored);
        self.uses += 1;
        let owner = self.owners.get_mut(&slot.owner)?;
        if slot.protected {
            owner.protected.remove(&slot.last);
        } else {
            owner.probation.remove(&slot.last);
            owner.charged_protected += slot.charge;
            slot.protected = true;
        }
        slot.last = self.uses;
        owner.protected.insert(slot.last, index);
        // Of what was wanted again the longest forgotten goes back on probation, as if it had just come.
        while owner.charged_protected > owner.charged / 5 * 4 && owner.protected.len() > 1 {
            let Some((_, demoted)) = owner.protected.pop_first() else { break };
            let Some(slot) = self.slots.get_mut(demoted) else { break };
            self.uses += 1;
            slot.last = self.uses;
            slot.protected = false;
            owner.charged_protected -= slot.charge;
            owner.probation.insert(slot.last, demoted);
        }
        Some(stored)
    }

    /// Puts an answer in, in the place of an older one if there is one; makes room for it first. One that is larger than a
    /// tenant's whole share is not kept.
    pub(super) fn put(&mut self, new: New, now: Instant) -> Removed {
        let mut removed = Removed::new();
        let charge = new.stored.weight().max(self.least);
        if let Some(index) = self.by_key.get(&new.key) {
            self.remove(*index, &mut removed);
        }
        self.sweep(now, SWEPT_AT_ONCE, &mut removed);
        if charge > self.share || new.ttl.is_zero() {
            return removed;
        }
        while self.held_by(&new.owner) + charge > self.share {
            let Some(oldest) = self.owners.get(&new.owner).and_then(Owner::oldest) else {
                break;
            };
            self.remove(oldest, &mut removed);
        }
        while self.charged + charge > self.max_bytes {
            // Who would hold most with the newcomer in place gives way.
            let largest = self.by_size.last().copied();
            let giving = match largest {
                Some((most, owner)) if most > self.held_by(&new.owner) => owner,
                Some(_) | None => new.owner,
            };
            let Some(oldest) = self.owners.get(&giving).and_then(Owner::oldest) else {
                break;
            };
            self.remove(oldest, &mut removed);
        }
        if self.charged + charge <= self.max_bytes {
            self.insert(new, charge, now);
        } else {
            removed.push(new.stored);
        }
        removed
    }

    fn insert(&mut self, new: New, charge: u64, now: Instant) {
        let New {
            key,
            model,
            owner: owner_id,
            stored,
            ttl,
        } = new;
        self.uses += 1;
        let expires = now + ttl;
        self.bytes += stored.weight();
        let index = self.slots.insert(Slot {
            key,
            model,
            owner: owner_id,
            stored,
            expires,
            charge,
            last: self.uses,
            protected: false,
        });
        self.by_key.insert(key, index);
        self.by_expiry.insert((expires, index));
        let owner = self.owners.entry(owner_id).or_default();
        owner.probation.insert(self.uses, index);
        self.by_size.remove(&(owner.charged, owner_id));
        owner.charged += charge;
        self.by_size.insert((owner.charged, owner_id));
        self.charged += charge;
    }

    fn remove(&mut self, index: usize, removed: &mut Removed) {
        let Some(slot) = self.slots.try_remove(index) else { return };
        self.by_key.remove(&slot.key);
        self.by_expiry.remove(&(slot.expires, index));
        self.charged -= slot.charge;
        self.bytes -= slot.stored.weight();
        if let Some(owner) = self.owners.get_mut(&slot.owner) {
            if slot.protected {
                owner.protected.remove(&slot.last);
                owner.charged_protected -= slot.charge;
            } else {
                owner.probation.remove(&slot.last);
            }
            self.by_size.remove(&(owner.charged, slot.owner));
            owner.charged -= slot.charge;
            if owner.charged == 0 {
                self.owners.remove(&slot.owner);
            } else {
                self.by_size.insert((owner.charged, slot.owner));
            }
        }
        removed.push(slot.stored);
    }

    /// Removes what has expired, the longest expired first, but not more than `most`.
    pub(super) fn sweep(&mut self, now: Instant, most: usize, removed: &mut Removed) {
        for _ in 0..most {
            match self.by_expiry.first() {
                Some((expires, index)) if *expires <= now => {
                    let index = *index;
                    self.remove(index, removed);
                }
                Some(_) | None => break,
            }
        }
    }

    /// Removes every answer of a model.
    pub(super) fn forget_model(&mut self, model: &ModelId) -> Removed {
        self.forget(|slot| slot.model == *model)
    }

    /// Removes every answer that a tenant paid for.
    pub(super) fn forget_owner(&mut self, owner: &TenantId) -> Removed {
        if self.owners.contains_key(owner) {
            self.forget(|slot| slot.owner == *owner)
        } else {
            Removed::new()
        }
    }

    fn forget(&mut self, is_meant: impl Fn(&Slot) -> bool) -> Removed {
        let meant: Vec<usize> = self
            .slots
            .iter()
            .filter(|(_, slot)| is_meant(slot))
            .map(|(index, _)| index)
            .collect();
        let mut removed = Removed::with_capacity(meant.len());
        for index in meant {
            self.remove(index, &mut removed);
        }
        removed
    }

    /// What counts against a tenant's share, in bytes.
    pub(super) fn held_by(&self, owner: &TenantId) -> u64 {
        self.owners.get(owner).map_or(0, |owner| owner.charged)
    }
}
