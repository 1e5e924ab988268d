//! Bounds of the room: each has a name, none is infinite.

/// How much is kept, and how far a listener may fall behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of kept answers, over all tenants.
    pub max_bytes: u64,
    /// Kept answers. An answer counts as at least `max_bytes / max_entries` bytes, so that the bound in bytes is this one too.
    pub max_entries: u64,
    /// The most that answers paid for by one tenant may take of `max_bytes`, in percent.
    pub tenant_share_percent: u8,
    /// Bytes of answers that are on their way and may be kept when they are whole. An answer for which there is no room is
    /// passed on and not kept.
    pub max_filling_bytes: u64,
    /// How far, in bytes, a listener may fall behind an answer that is not going to be kept. One that is going to be kept
    /// is in memory anyway.
    pub follower_buffer_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_entries: 1 << 18,
            tenant_share_percent: 25,
            max_filling_bytes: 64 << 20,
            follower_buffer_bytes: 4 << 20,
        }
    }
}

impl Settings {
    /// What one tenant may take, in bytes.
    pub(super) fn share(&self) -> u64 {
        self.max_bytes / 100 * u64::from(self.tenant_share_percent.min(100))
    }

    /// What the smallest answer counts as, in bytes.
    pub(super) fn least(&self) -> u64 {
        self.max_bytes.checked_div(self.max_entries).unwrap_or(u64::MAX)
    }
}
