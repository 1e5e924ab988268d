//! Who is who: the catalog's identifiers, resolved to the scheduler's handles without its lock.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::id::{KeyId, ModelId, TenantId};
use crate::scheduler::{Handle, KeyIx, ModelIx, TenantIx};

/// A map by identifier.
pub(super) type ById<K, V> = HashMap<K, V, BuildHasherDefault<LastBytes>>;

/// A key's owner and its own place.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyEntry {
    pub(super) tenant_id: TenantId,
    pub(super) tenant: Handle<TenantIx>,
    pub(super) key: Handle<KeyIx>,
}

/// One immutable picture, replaced when the catalog changes. A handle in an old picture is harmless: the scheduler knows
/// it by its generation.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) tenants: Arc<ById<TenantId, Handle<TenantIx>>>,
    pub(super) keys: Arc<ById<KeyId, KeyEntry>>,
    pub(super) models: Arc<ById<ModelId, Handle<ModelIx>>>,
}

/// Hashes an identifier by its last eight bytes: a counter, then 32 random bits, in a UUIDv7 that the gateway minted. Nobody
/// outside can choose them, so there is nothing to protect from flooding, and a lookup costs a tenth of `SipHash`'s.
#[derive(Debug, Default)]
pub(super) struct LastBytes(u64);

impl Hasher for LastBytes {
    fn finish(&self) -> u64 {
        // The map takes its bucket from the low bits, which are random, and its tag from the top bits, which the counter
        // holds still: a multiplication (by 2^64 over the golden ratio) brings the random ones up.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 = u64::from_be_bytes(*last);
        }
    }

    /// The length prefix of a byte slice says nothing.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn minted_identifiers_spread() {
        let hasher = BuildHasherDefault::<LastBytes>::default();
        let mut tags = std::collections::HashSet::new();
        let mut lows = std::collections::HashSet::new();
        for _ in 0..1000 {
            let hash = hasher.hash_one(TenantId::mint());
            tags.insert(hash >> 57);
            lows.insert(hash & 0x3ff);
        }
        assert!(tags.len() > 100, "{} of 128 tags", tags.len());
        assert!(lows.len() > 500, "{} of 1024 buckets", lows.len());
    }
}
