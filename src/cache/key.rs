//! The key of an answer: a keyed hash over everything that may change it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::canonical::{self, Sink};
use crate::id::{ModelId, TenantId};

/// Names an answer. 256 bits of HMAC-SHA-256: nobody who does not know the process's own key can make two requests meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Who shares an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The tenant alone.
    Tenant(TenantId),
    /// All tenants of a group.
    Group(&'a str),
    /// Everybody who may use the model.
    Global,
}

/// Makes keys under a secret of the process's own.
#[derive(Clone)]
pub struct KeyMaker(Hmac<Sha256>);

impl KeyMaker {
    /// A maker under a random secret; its keys mean nothing to another process, nor after a restart.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Hmac::new_from_slice(&secret).expect("HMAC takes keys of any length"))
    }

    /// The key of a JSON request: its scope, the model at its version (a re-pointed or re-priced model has other answers),
    /// the route (with whatever of the head changes what the route means), and every value of the body but the model's
    /// name, of which there may be several.
    ///
    /// `None` when the body is no JSON object: such a request is not cached.
    #[must_use]
    pub fn key(&self, scope: Scope<'_>, model: ModelId, model_version: u64, route: &str, body: &[u8]) -> Option<Key> {
        let mut mac = Feed(self.0.clone());
        match scope {
            Scope::Tenant(tenant) => {
                mac.put(b"t");
                mac.put(tenant.as_bytes());
            }
            Scope::Group(name) => {
                mac.put(b"g");
                mac.put(&(name.len() as u64).to_le_bytes());
                mac.put(name.as_bytes());
            }
            Scope::Global => mac.put(b"*"),
        }
        mac.put(model.as_bytes());
        mac.put(&model_version.to_le_bytes());
        mac.put(&(route.len() as u64).to_le_bytes());
        mac.put(route.as_bytes());
        canonical::object(body, &["model"], &mut mac).then(|| Key(mac.0.finalize().into_bytes().into()))
    }
}

impl std::fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyMaker")
    }
}

struct Feed(Hmac<Sha256>);

impl Sink for Feed {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests;
