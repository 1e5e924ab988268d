//! How many requests run, so that a drain knows when the last one has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the requests in the house: from the first byte to the last, whatever becomes of them.
#[derive(Debug, Default)]
pub struct Active(AtomicUsize);

impl Active {
    /// How many run now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more until the mark is dropped.
    pub(super) fn mark(self: &Arc<Self>) -> Mark {
        self.0.fetch_add(1, Ordering::Relaxed);
        Mark(Arc::clone(self))
    }
}

/// One running request.
#[derive(Debug)]
pub(super) struct Mark(Arc<Active>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
