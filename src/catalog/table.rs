//! A copy-on-write map: cloning a catalog shares its tables, changing one copies only the shard that the change falls in.
//!
//! Why shards: the change of one key among 50 000 would otherwise copy the whole map, and its successor free it, on the
//! store's writer thread between two answers. With [`SHARDS`] shards it copies a few hundred entries.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// How many parts a map has. A power of two, so that picking one is a shift.
const SHARDS: usize = 256;
const _: () = assert!(SHARDS.is_power_of_two());

/// The map under [`Table`] and the catalog's indices.
#[derive(Debug, Clone)]
pub(super) struct Sharded<K, V> {
    shards: Arc<[Arc<HashMap<K, V>>]>,
    len: usize,
}

impl<K, V> Default for Sharded<K, V> {
    /// All shards are one empty map until something is put in.
    fn default() -> Self {
        let empty = Arc::<HashMap<K, V>>::default();
        Self {
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
            len: 0,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[shard_of(key)].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let shard = shard_of(&key);
        let before = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]).insert(key, value);
        self.len += usize::from(before.is_none());
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = shard_of(key);
        if !self.shards[shard].contains_key(key) {
            return None;
        }
        let removed = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

/// Picks a shard. Ids and digests are random, and names are given by operators: a hash that an attacker could steer does no
/// harm here, and this one costs the request path four multiplications. The maps inside keep the standard library's.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let hash = BuildHasherDefault::<Multiply>::default().hash_one(key);
    // The high bits: a product's low bits know nothing of what is above them.
    usize::try_from(hash >> (u64::BITS - SHARDS.ilog2())).unwrap_or(0)
}

/// Eight bytes at a time: rotate, mix in, multiply by 2⁶⁴ over the golden ratio (Knuth, TAOCP 3, §6.4).
#[derive(Default)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Objects of one noun by id. Unordered: lists sort by what the reader wants.
#[derive(Debug, Clone)]
pub struct Table<K, V>(Sharded<K, Arc<V>>);

/// One difference between two tables.
#[derive(Debug, Clone)]
pub struct Difference<V> {
    /// The object as it was; `None` when it is new.
    pub before: Option<Arc<V>>,
    /// The object as it is; `None` when it is gone.
    pub after: Option<Arc<V>>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Sharded::default())
    }
}

impl<K: Hash + Eq + Clone, V> Table<K, V> {
    /// Finds an object.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, id: &Q) -> Option<&Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.0.get(id)
    }

    /// All objects, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.0.iter().map(|(_, value)| value)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Whether two tables are the same one: what a subscriber asks before it looks for differences.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.shards, &other.0.shards)
    }

    /// What was put or removed between `before` and this table, in no order. An object that was put anew counts even if it
    /// is equal. Costs what the changed shards hold, not what the table holds.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<Difference<V>> {
        let mut found = Vec::new();
        if self.same(before) {
            return found;
        }
        for (old, new) in before.0.shards.iter().zip(self.0.shards.iter()) {
            if Arc::ptr_eq(old, new) {
                continue;
            }
            for (id, after) in new.iter() {
                let before = old.get(id);
                if !before.is_some_and(|before| Arc::ptr_eq(before, after)) {
                    found.push(Difference {
                        before: before.cloned(),
                        after: Some(Arc::clone(after)),
                    });
                }
            }
            let gone = old.iter().filter(|(id, _)| !new.contains_key(*id));
            found.extend(gone.map(|(_, before)| Difference {
                before: Some(Arc::clone(before)),
                after: None,
            }));
        }
        found
    }

    pub(super) fn put(&mut self, id: K, value: V) {
        self.0.insert(id, Arc::new(value));
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, id: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.0.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KeyId;

    #[test]
    fn ids_and_names_spread_over_the_shards() {
        let ids = (0..25_600).map(|_| shard_of(&KeyId::mint()));
        let names = (0..25_600).map(|number| shard_of(format!("tenant {number}").as_str()));
        for shards in [ids.collect::<Vec<_>>(), names.collect()] {
            let mut held = [0; SHARDS];
            for shard in shards {
                held[shard] += 1;
            }
            let fullest = held.iter().max().unwrap();
            assert!(*fullest < 200, "100 expected, {fullest} in the fullest");
        }
    }

    #[test]
    fn differences_are_what_was_put_or_removed_since() {
        let mut before = Table::default();
        for number in 0..1_000 {
            before.put(number, number);
        }
        let mut after = before.clone();
        assert!(after.same(&before) && after.differences(&before).is_empty());
        after.put(1_000, 0);
        after.put(7, 7);
        after.remove(&8);
        after.put(9, 10);
        after.remove(&9);
        after.put(1_001, 1);
        after.remove(&1_001);
        let pairs = after.differences(&before).into_iter();
        let mut pairs: Vec<_> = pairs.map(|d| (d.before.as_deref().copied(), d.after.as_deref().copied())).collect();
        pairs.sort_unstable();
        assert_eq!(pairs, [(None, Some(0)), (Some(7), Some(7)), (Some(8), None), (Some(9), None)]);
        assert_eq!((before.len(), after.len()), (1_000, 999));
        assert_eq!(after.values().count(), 999);
    }
}
