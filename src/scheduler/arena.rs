//! Dense storage with typed indices and generations.

use std::fmt;
use std::ops::{Index, IndexMut};

/// A typed index into an [`Arena`]. Indices come only from the arena that made them, which is why the scheduler may index
/// on the request path.
pub(super) trait Ix: Copy + Eq {
    /// No index: the end of a list.
    const NONE: Self;
    fn new(at: u32) -> Self;
    fn raw(self) -> u32;
    fn at(self) -> usize {
        self.raw() as usize
    }
    fn is_some(self) -> bool {
        self != Self::NONE
    }
}

macro_rules! indices {
    ($($(#[$doc:meta])* $vis:vis $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        $vis struct $name(u32);

        impl Ix for $name {
            const NONE: Self = Self(u32::MAX);
            fn new(at: u32) -> Self {
                Self(at)
            }
            fn raw(self) -> u32 {
                self.0
            }
        }
    )*};
}

indices! {
    /// Where a group is kept.
    pub GroupIx;
    /// Where a tenant is kept.
    pub TenantIx;
    /// Where a key is kept.
    pub KeyIx;
    /// Where a model is kept.
    pub ModelIx;
    /// Where a request is kept.
    pub TicketIx;
    pub(super) PoolIx;
    pub(super) BranchIx;
    pub(super) LaneIx;
    pub(super) QueueIx;
}

/// Names one life of one object: after the object is gone the handle finds nothing, even when its place is used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle<K> {
    ix: K,
    generation: u32,
}

impl Handle<TicketIx> {
    /// The handle as a number, for whom it is to be named to.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.ix.raw())
    }
}

impl<K: fmt::Debug> fmt::Debug for Handle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.ix, self.generation)
    }
}

#[derive(Debug)]
struct Cell<T> {
    /// Odd while the cell is in use.
    generation: u32,
    item: T,
}

/// Objects of one kind. Adding and removing are O(1) and allocate only to grow.
#[derive(Debug)]
pub(super) struct Arena<K, T> {
    cells: Vec<Cell<T>>,
    free: Vec<K>,
    /// The generation a new cell begins with: above all that [`shrink`](Self::shrink) has forgotten.
    birth: u32,
}

impl<K, T> Default for Arena<K, T> {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            free: Vec::new(),
            birth: 1,
        }
    }
}

impl<K: Ix, T> Arena<K, T> {
    pub(super) fn insert(&mut self, item: T) -> K {
        if let Some(ix) = self.free.pop() {
            let cell = &mut self.cells[ix.at()];
            cell.generation = cell.generation.wrapping_add(1);
            cell.item = item;
            return ix;
        }
        let at = u32::try_from(self.cells.len()).unwrap_or(u32::MAX);
        debug_assert!(at < u32::MAX, "bounded long before by the queue and the catalog");
        self.cells.push(Cell {
            generation: self.birth,
            item,
        });
        K::new(at)
    }

    /// Voids every handle to `ix` and keeps the place for the next. What it held is dropped then.
    pub(super) fn remove(&mut self, ix: K) {
        let cell = &mut self.cells[ix.at()];
        debug_assert!(cell.generation % 2 == 1, "removed twice");
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(ix);
    }

    pub(super) fn handle(&self, ix: K) -> Handle<K> {
        Handle {
            ix,
            generation: self.cells[ix.at()].generation,
        }
    }

    /// Where the object is, while it lives.
    pub(super) fn find(&self, handle: Handle<K>) -> Option<K> {
        let cell = self.cells.get(handle.ix.at())?;
        (cell.generation == handle.generation).then_some(handle.ix)
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        (0..)
            .zip(&self.cells)
            .filter(|(_, cell)| cell.generation % 2 == 1)
            .map(|(at, cell)| (K::new(at), &cell.item))
    }

    pub(super) fn indices(&self) -> Vec<K> {
        self.iter().map(|(ix, _)| ix).collect()
    }

    /// Gives the memory of a flood back once nothing is kept and more than `keep` cells are held.
    pub(super) fn shrink(&mut self, keep: usize) {
        if self.len() > 0 || self.cells.len() <= keep {
            return;
        }
        let last = self.cells.iter().map(|cell| cell.generation).max().unwrap_or(0);
        debug_assert!(last % 2 == 0, "all cells are free");
        self.birth = last.wrapping_add(1);
        self.cells = Vec::new();
        self.free = Vec::new();
    }
}

impl<K: Ix, T> Index<K> for Arena<K, T> {
    type Output = T;

    fn index(&self, ix: K) -> &T {
        &self.cells[ix.at()].item
    }
}

impl<K: Ix, T> IndexMut<K> for Arena<K, T> {
    fn index_mut(&mut self, ix: K) -> &mut T {
        &mut self.cells[ix.at()].item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_outlived_by_its_place_finds_nothing() {
        let mut arena: Arena<TicketIx, &str> = Arena::default();
        let first = arena.insert("first");
        let old = arena.handle(first);
        arena.remove(first);
        let second = arena.insert("second");
        assert_eq!(first, second, "the place is used again");
        assert_eq!(arena.find(old), None);
        assert_eq!(arena.find(arena.handle(second)), Some(second));
    }

    #[test]
    fn shrinking_forgets_memory_but_not_generations() {
        let mut arena: Arena<TicketIx, u8> = Arena::default();
        let all: Vec<_> = (0..100).map(|i| arena.insert(i)).collect();
        let old = arena.handle(all[0]);
        for ix in all {
            arena.remove(ix);
        }
        arena.shrink(10);
        assert_eq!(arena.len(), 0);
        let ix = arena.insert(1);
        assert_eq!(arena.find(old), None);
        assert!(arena.find(arena.handle(ix)).is_some());
    }
}
