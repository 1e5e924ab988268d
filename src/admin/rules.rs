//! What the process allows in configuration: where upstreams may be, and whether their credentials can be stored.

use std::net::SocketAddr;
use std::sync::Arc;

use url::Url;

use super::fault::Faults;
use crate::egress;

/// Rules that come from the process, not from the catalog.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) policy: egress::Policy,
    pub(super) own: Arc<[SocketAddr]>,
    /// Whether there is a key to seal credentials with.
    pub(super) seals: bool,
}

impl Rules {
    /// Checks an upstream's address as far as it can be judged without a resolver.
    pub(super) fn check_url(&self, url: &Url, at: &str, faults: &mut Faults) {
        if let Err(refusal) = egress::check_url(self.policy, url, &self.own) {
            faults.add(at, refusal.to_string());
        }
    }
}
