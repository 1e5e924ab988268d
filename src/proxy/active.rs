//! How many requests run, so that a drain knows when the last one has ended; and that a drain has begun.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the requests in the house: from the first byte to the last, whatever becomes of them.
#[derive(Debug, Default)]
pub struct Active {
    count: AtomicUsize,
    closing: AtomicBool,
    told: Notify,
}

impl Active {
    /// How many run now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells requests whose bodies are still on the way that nobody waits for them any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Resolves once [`close`](Self::close) has been called.
    pub(super) async fn closing(&self) {
        let mut told = pin!(self.told.notified());
        // Listening before looking, so that a call in between is not missed.
        told.as_mut().enable();
        if !self.closing.load(Ordering::Acquire) {
            told.await;
        }
    }

    /// Counts one more until the mark is dropped.
    pub(super) fn mark(self: &Arc<Self>) -> Mark {
        self.count.fetch_add(1, Ordering::Relaxed);
        Mark(Arc::clone(self))
    }
}

/// One running request.
#[derive(Debug)]
pub(super) struct Mark(Arc<Active>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}
