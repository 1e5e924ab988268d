//! The ready sets: 4-ary heaps whose keys are lower bounds, mended only when they come to the top.
//!
//! A tag only grows (see [`tag`](super::tag)), so a key pushed once may stay where it is: it is compared with the truth when
//! it surfaces, and sinks then. Whoever leaves a ready set is likewise found out at the top. Hence cancel and completion
//! never search a heap. The one decrease, by a change of weight, pushes a second entry; the stamp tells the first is void.

use std::marker::PhantomData;

use super::arena::Ix;

/// Names one push among all pushes into all heaps. Zero is none: "not in the heap".
///
/// The owner holds the stamp of its valid entry; any other entry of that owner is void. Stamps also break ties, the earlier
/// push first. After 2^32 pushes they repeat; an entry would have to stay void and unseen for exactly that long to be mistaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Stamp(u32);

impl Stamp {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// Where stamps come from; one per scheduler.
#[derive(Debug, Default)]
pub(super) struct Stamps(u32);

impl Stamps {
    fn next(&mut self) -> Stamp {
        self.0 = self.0.wrapping_add(1).max(1);
        Stamp(self.0)
    }
}

/// An entry: a lower bound of its owner's key. Entries are ordered by key, then by age.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<I> {
    pub(super) key: u64,
    pub(super) stamp: Stamp,
    pub(super) owner: I,
}

/// An entry as one number, so that a comparison is two instructions and a move is one.
type Packed = u128;

impl<I: Ix> Entry<I> {
    fn pack(self) -> Packed {
        u128::from(self.key) << 64 | u128::from(self.stamp.0) << 32 | u128::from(self.owner.raw())
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes apart what pack put together")]
    fn unpack(packed: Packed) -> Self {
        Self {
            key: (packed >> 64) as u64,
            stamp: Stamp((packed >> 32) as u32),
            owner: I::new(packed as u32),
        }
    }

    /// Whether this one comes before another.
    pub(super) fn precedes(&self, other: &Self) -> bool {
        (self.key, self.stamp) < (other.key, other.stamp)
    }
}

/// A 4-ary min-heap: half the depth of a binary one, and four children share a cache line.
#[derive(Debug)]
pub(super) struct Heap<I> {
    entries: Vec<Packed>,
    /// Entries that [`push_lower`](Self::push_lower) made void since the last purge.
    voided: usize,
    owners: PhantomData<I>,
}

impl<I> Default for Heap<I> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            voided: 0,
            owners: PhantomData,
        }
    }
}

const ARITY: usize = 4;

impl<I: Ix> Heap<I> {
    /// Adds an entry. The owner must keep the stamp.
    pub(super) fn push(&mut self, key: u64, owner: I, stamps: &mut Stamps) -> Stamp {
        let stamp = stamps.next();
        self.entries.push(Entry { key, stamp, owner }.pack());
        self.rise(self.entries.len() - 1);
        stamp
    }

    /// Mends the top until it is true, and shows it. `truth` tells an entry's real key, or `None` if the entry is void.
    ///
    /// Amortised O(log n): each entry sinks or leaves once per charge or departure of its owner.
    pub(super) fn top(&mut self, mut truth: impl FnMut(&Entry<I>) -> Option<u64>) -> Option<Entry<I>> {
        loop {
            let top = Entry::unpack(*self.entries.first()?);
            match truth(&top) {
                None => self.pop(),
                Some(key) if key > top.key => self.sink(Entry { key, ..top }.pack()),
                Some(_) => return Some(top),
            }
        }
    }

    /// Adds an entry for an owner whose key has decreased, which voids the one it has. Void entries are dropped once they
    /// are the greater part, so that weights changed a million times cost no memory; `valid` tells them apart.
    pub(super) fn push_lower(&mut self, key: u64, owner: I, stamps: &mut Stamps, mut valid: impl FnMut(&Entry<I>) -> bool) -> Stamp {
        let stamp = self.push(key, owner, stamps);
        self.voided += 1;
        if self.voided * 2 > self.entries.len() {
            self.entries.retain(|packed| {
                let entry = Entry::unpack(*packed);
                entry.stamp == stamp || (entry.owner != owner && valid(&entry))
            });
            // Ascending order is a heap.
            self.entries.sort_unstable();
            self.voided = 0;
        }
        stamp
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, void ones too, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<I>> {
        self.entries.iter().map(|packed| Entry::unpack(*packed))
    }

    fn pop(&mut self) {
        if let Some(last) = self.entries.pop()
            && !self.entries.is_empty()
        {
            self.sink(last);
        }
    }

    fn rise(&mut self, mut at: usize) {
        let Some(&entry) = self.entries.get(at) else { return };
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.entries[parent] <= entry {
                break;
            }
            self.entries[at] = self.entries[parent];
            at = parent;
        }
        self.entries[at] = entry;
    }

    /// Puts `entry` in the place of the top, or below.
    fn sink(&mut self, entry: Packed) {
        let mut at = 0;
        loop {
            let first = at * ARITY + 1;
            let Some((nth, least)) = least(self.entries.get(first..).unwrap_or_default()) else {
                break;
            };
            if entry <= least {
                break;
            }
            self.entries[at] = least;
            at = first + nth;
        }
        self.entries[at] = entry;
    }
}

/// The least of up to four siblings at the front, and which it is.
fn least(siblings: &[Packed]) -> Option<(usize, Packed)> {
    let lesser = |one: (usize, Packed), other: (usize, Packed)| if other.1 < one.1 { other } else { one };
    match *siblings {
        [] => None,
        [a] => Some((0, a)),
        [a, b] => Some(lesser((0, a), (1, b))),
        [a, b, c] => Some(lesser(lesser((0, a), (1, b)), (2, c))),
        [a, b, c, d, ..] => Some(lesser(lesser((0, a), (1, b)), lesser((2, c), (3, d)))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::LaneIx;
    use super::*;

    #[test]
    fn lower_bounds_come_out_in_the_order_of_the_truth() {
        let mut stamps = Stamps::default();
        let mut heap = Heap::default();
        let mut truth: Vec<u64> = (0..500_u64).map(|i| i * 7919 % 1009).collect();
        let mut stamped: Vec<Stamp> = (0..500_u32)
            .map(|i| heap.push(truth[i as usize], LaneIx::new(i), &mut stamps))
            .collect();
        for round in 0..5000_u64 {
            let known = |entry: &Entry<LaneIx>| (stamped[entry.owner.at()] == entry.stamp).then(|| truth[entry.owner.at()]);
            let top = heap.top(known).unwrap();
            let least = (0..500).filter(|i| stamped[*i].is_some()).map(|i| truth[i]).min().unwrap();
            assert_eq!(top.key, least, "round {round}");
            let owner = top.owner.at();
            match round % 11 {
                10 => stamped[owner] = Stamp::NONE,
                _ => truth[owner] += 1 + round * 31 % 97,
            }
        }
    }

    #[test]
    fn ties_go_to_the_earlier_push() {
        let mut stamps = Stamps::default();
        let mut heap = Heap::default();
        let mut stamped: Vec<Stamp> = (0..50_u32).map(|i| heap.push(7, LaneIx::new(i), &mut stamps)).collect();
        for i in 0..50_usize {
            let top = heap.top(|entry| (stamped[entry.owner.at()] == entry.stamp).then_some(7)).unwrap();
            assert_eq!(top.owner.at(), i);
            stamped[i] = Stamp::NONE;
        }
    }

    #[test]
    fn keys_lowered_again_and_again_cost_no_memory() {
        let mut stamps = Stamps::default();
        let mut heap = Heap::default();
        let other = heap.push(3, LaneIx::new(1), &mut stamps);
        let mut valid = heap.push(2000, LaneIx::new(0), &mut stamps);
        for key in (5..1000_u64).rev() {
            valid = heap.push_lower(key, LaneIx::new(0), &mut stamps, |entry| {
                entry.stamp == valid || entry.stamp == other
            });
            assert!(heap.entries().count() <= 5);
        }
        let order: Vec<usize> = std::iter::from_fn(|| {
            let top = heap.top(|entry| (entry.stamp == valid || entry.stamp == other).then_some(entry.key))?;
            heap.pop();
            Some(top.owner.at())
        })
        .collect();
        assert_eq!(order, [1, 0]);
    }
}
