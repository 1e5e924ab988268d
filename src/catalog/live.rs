//! The catalog in force: read without waiting, replaced whole.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Catalog;

type Subscriber = Box<dyn Fn(&Arc<Catalog>) + Send + Sync>;

/// Holds the catalog in force and tells the engines when it changes.
///
/// [`publish`](Self::publish) returns only when every engine has taken the new catalog over, so an operator's `200` means
/// that the next scheduling decision obeys it.
pub struct Live {
    current: ArcSwap<Catalog>,
    subscribers: Vec<Subscriber>,
}

impl Live {
    /// Starts with a catalog that has no subscribers yet.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            current: ArcSwap::new(catalog),
            subscribers: Vec::new(),
        }
    }

    /// Adds an engine that follows the catalog; called at once with the present one. Only while the house is being
    /// built: there is no unsubscribing.
    pub fn subscribe(&mut self, subscriber: impl Fn(&Arc<Catalog>) + Send + Sync + 'static) {
        subscriber(&self.current.load());
        self.subscribers.push(Box::new(subscriber));
    }

    /// The catalog in force. Wait-free.
    #[must_use]
    pub fn load(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// Tells every subscriber, then replaces the catalog. One caller at a time: the store's writer thread.
    ///
    /// The engines hear first: a request that reads the new catalog finds them ready for its tenant. A request that still
    /// holds the old one may name a tenant that an engine has just forgotten; engines refuse such a request.
    pub fn publish(&self, catalog: Arc<Catalog>) {
        for subscriber in &self.subscribers {
            subscriber(&catalog);
        }
        self.current.store(catalog);
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("version", &self.current.load().version())
            .field("subscribers", &self.subscribers.len())
            .finish()
    }
}
