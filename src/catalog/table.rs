//! A copy-on-write map: cloning a catalog shares its tables, changing one copies only that one.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Objects of one noun by id. Unordered: lists sort by what the reader wants.
#[derive(Debug, Clone)]
pub struct Table<K, V>(Arc<HashMap<K, Arc<V>>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Arc::default())
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
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether two tables are the same one: what a subscriber asks before it looks for differences.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn put(&mut self, id: K, value: V) {
        Arc::make_mut(&mut self.0).insert(id, Arc::new(value));
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, id: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        if !self.0.contains_key(id) {
            return None;
        }
        Arc::make_mut(&mut self.0).remove(id)
    }
}
