//! By the longest shared prompt prefix, so that an engine finds its key-value cache warm, with bounded loads.
//!
//! A prompt is cut at fixed offsets ([`Blocks`]); each block's hash covers everything before it. A table of bounded size
//! remembers which seat was last sent which block. A request goes to the seat that had its longest prefix, to the least
//! loaded of several; a seat a quarter above its share is passed over. A prompt nobody has had goes to the lesser loaded
//! of two.
//!
//! The table is a guess at what the engines hold, and may be: entries are plain atomics, eight to a set, the oldest of a
//! set makes room. A lost update costs one cache miss upstream, nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{EndpointId, Tier, least_request, mix};

/// The hashes of a prompt's blocks, first block first, without allocation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blocks {
    hashes: [u64; Self::MAX],
    count: usize,
}

impl Blocks {
    /// How many blocks of a prompt are told apart.
    pub const MAX: usize = 32;
    /// The first blocks' length in bytes.
    const FIRST: usize = 512;
    /// So many blocks are of that length; from there each offset is a quarter above the one before.
    const EVEN: usize = 8;
    /// No more of a prompt is read, in bytes: 4096 × 1.25²⁴.
    pub const READ_MAX: usize = 868_000;

    /// Cuts a prompt. `parts` are what the engine sees, in order, best the raw bytes of `system` and of `messages` or
    /// `prompt`; each but the last also ends a block. `seed` keeps prompts apart that must not meet, such as those of
    /// different LoRA adapters. Costs a pass over at most [`READ_MAX`](Self::READ_MAX) bytes.
    #[must_use]
    pub fn of(parts: &[&[u8]], seed: u64) -> Self {
        let mut blocks = Self::default();
        let mut digest = Digest::new(seed);
        let mut consumed = 0;
        for (index, part) in parts.iter().enumerate() {
            let mut rest = *part;
            while let Some((block, after)) = rest.split_at_checked(blocks.length(consumed))
                && blocks.push(&mut digest, block)
            {
                consumed += block.len();
                rest = after;
            }
            if index + 1 < parts.len() && !rest.is_empty() {
                let tail = rest.get(..blocks.length(consumed)).unwrap_or(rest);
                if !blocks.push(&mut digest, tail) {
                    break;
                }
                consumed += tail.len();
            }
        }
        blocks
    }

    /// How long the next block is.
    const fn length(&self, consumed: usize) -> usize {
        let grown = consumed / 4;
        if self.count < Self::EVEN || grown < Self::FIRST {
            Self::FIRST
        } else {
            grown
        }
    }

    fn push(&mut self, digest: &mut Digest, block: &[u8]) -> bool {
        let Some(place) = self.hashes.get_mut(self.count) else {
            return false;
        };
        digest.add(block);
        *place = digest.get();
        self.count += 1;
        true
    }

    /// The hashes.
    #[must_use]
    pub fn as_slice(&self) -> &[u64] {
        self.hashes.get(..self.count).unwrap_or_default()
    }
}

/// A hash that is added to piece by piece, eight bytes a step; pieces do not run into each other. Stable across processes.
/// Not for adversaries: whoever makes prompts collide misplaces them and nothing more.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstreams) struct Digest(u64);

impl Digest {
    pub(in crate::upstreams) const fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x2545_f491_4f6c_dd1d))
    }

    pub(in crate::upstreams) fn add(&mut self, piece: &[u8]) {
        let (words, tail) = piece.as_chunks::<8>();
        let mut hash = self.0;
        for word in words {
            hash = (hash ^ u64::from_le_bytes(*word))
                .wrapping_mul(0x9fb2_1c65_1e98_df25)
                .rotate_left(29);
        }
        for byte in tail {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.0 = mix(hash);
    }

    pub(in crate::upstreams) const fn get(self) -> u64 {
        self.0
    }
}

/// Entries per set: one cache line.
const WAYS: usize = 8;

/// A table without entries was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prefix table needs at least {WAYS} entries")]
pub struct PrefixesError;

/// Which seat was last sent which block. An entry is a tag (32 bits), a slot (16) and a stamp (16); 0 is empty.
#[derive(Debug)]
pub struct Prefixes {
    sets: Box<[[AtomicU64; WAYS]]>,
    clock: AtomicU64,
}

impl Prefixes {
    /// A table of about `entries` entries of 8 bytes.
    ///
    /// # Errors
    /// [`PrefixesError`] for fewer than eight.
    pub fn new(entries: usize) -> Result<Self, PrefixesError> {
        let sets = entries / WAYS;
        if sets == 0 {
            return Err(PrefixesError);
        }
        Ok(Self {
            sets: (0..sets.next_power_of_two()).map(|_| <[AtomicU64; WAYS]>::default()).collect(),
            clock: AtomicU64::new(0),
        })
    }

    pub(super) fn pick(&self, tier: &Tier, prefix: &[u64], in_flight: u32, entropy: u64, tried: &[EndpointId]) -> Option<usize> {
        let prefix = prefix.get(..Blocks::MAX).unwrap_or(prefix);
        let warm = prefix.iter().rev().find_map(|hash| self.warmest(tier, *hash, in_flight, tried));
        let index = match warm {
            Some(index) => index,
            None => least_request::pick(tier, entropy, tried)?,
        };
        if let Some(seat) = tier.seats().get(index) {
            self.remember(prefix, seat.slot);
        }
        Some(index)
    }

    /// The least loaded open seat within its bound that had the block.
    fn warmest(&self, tier: &Tier, hash: u64, in_flight: u32, tried: &[EndpointId]) -> Option<usize> {
        let (set, tag) = self.place(hash)?;
        let mut best: Option<(usize, u64)> = None;
        for entry in set {
            let entry = entry.load(Ordering::Relaxed);
            if entry >> 32 != tag {
                continue;
            }
            let Some(index) = tier.slot(slot_of(entry)) else { continue };
            let Some(seat) = tier.seats().get(index) else { continue };
            let load = seat.load.get();
            if best.is_none_or(|(_, least)| load < least) && tier.open(index, tried) && tier.bounded(seat, in_flight) {
                best = Some((index, load));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Notes that a slot is being sent these blocks.
    fn remember(&self, prefix: &[u64], slot: u16) {
        let stamp = (self.clock.fetch_add(1, Ordering::Relaxed) / self.generation()) & 0xffff;
        for hash in prefix {
            let Some((set, tag)) = self.place(*hash) else { return };
            let known = (tag << 16) | u64::from(slot);
            let mut victim: Option<(&AtomicU64, u64)> = None;
            for place in set {
                let entry = place.load(Ordering::Relaxed);
                if entry >> 16 == known {
                    victim = Some((place, u64::MAX));
                    break;
                }
                let age = if entry == 0 { 0x1_0000 } else { stamp.wrapping_sub(entry) & 0xffff };
                if victim.is_none_or(|(_, oldest)| age > oldest) {
                    victim = Some((place, age));
                }
            }
            if let Some((place, _)) = victim {
                place.store((known << 16) | stamp, Ordering::Relaxed);
            }
        }
    }

    /// How many requests share a stamp, so that stamps do not wrap within a table's lifetime of entries.
    fn generation(&self) -> u64 {
        u64::try_from(self.sets.len() * WAYS / 4096).unwrap_or(1).max(1)
    }

    fn place(&self, hash: u64) -> Option<(&[AtomicU64; WAYS], u64)> {
        let mask = self.sets.len() - 1;
        let set = self.sets.get(usize::try_from(hash).unwrap_or(usize::MAX) & mask)?;
        // 0 is the empty entry's tag.
        Some((set, (hash >> 32) | 1))
    }
}

const fn slot_of(entry: u64) -> u16 {
    let bytes = entry.to_le_bytes();
    u16::from_le_bytes([bytes[2], bytes[3]])
}
