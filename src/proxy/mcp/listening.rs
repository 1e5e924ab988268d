//! Streams that listen: open for hours, mostly silent. They hold no slot, so they have a cap of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::id::{McpServerId, TenantId};

/// Counts the open streams of each tenant at each server. Bounded by what is open.
#[derive(Debug)]
pub(super) struct Listening {
    max: u32,
    open: Mutex<HashMap<(TenantId, McpServerId), u32>>,
}

impl Listening {
    pub(super) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self {
            max,
            open: Mutex::default(),
        })
    }

    /// Counts one more until the listener is dropped. `None` at the cap.
    pub(super) fn begin(self: &Arc<Self>, tenant: TenantId, server: McpServerId) -> Option<Listener> {
        let who = (tenant, server);
        let mut open = self.open.lock();
        let count = open.get(&who).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        open.insert(who, count + 1);
        Some(Listener {
            listening: Arc::clone(self),
            who,
        })
    }
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Listener {
    listening: Arc<Listening>,
    who: (TenantId, McpServerId),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.listening.open.lock().entry(self.who) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_so_many_streams_at_a_server_and_gets_them_back() {
        let listening = Listening::new(2);
        let (tenant, server) = (TenantId::mint(), McpServerId::mint());
        let (one, two) = (listening.begin(tenant, server), listening.begin(tenant, server));
        assert!(one.is_some() && two.is_some() && listening.begin(tenant, server).is_none());
        assert!(listening.begin(TenantId::mint(), server).is_some(), "another tenant");
        assert!(listening.begin(tenant, McpServerId::mint()).is_some(), "another server");
        drop(one);
        let three = listening.begin(tenant, server);
        assert!(three.is_some());
        drop((two, three));
        assert!(listening.open.lock().is_empty(), "nothing is kept of who is gone");
    }
}
