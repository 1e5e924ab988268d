//! What an engine's batch has room for: so many requests, and so many tokens in its key-value cache. First come, first served.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room there is.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    requests: Arc<Semaphore>,
    /// Tokens, and how many there are in all; `None` is no bound.
    tokens: Option<(Arc<Semaphore>, u32)>,
}

/// What a request holds of it, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _request: Option<OwnedSemaphorePermit>,
    _tokens: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(super) fn new(requests: u32, tokens: Option<u32>) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests as usize)),
            tokens: tokens.map(|tokens| (Arc::new(Semaphore::new(tokens as usize)), tokens)),
        }
    }

    /// Waits for room for a request that grows to `size` tokens; one that is larger than all takes all.
    pub(super) async fn take(self, size: u64) -> Slot {
        // The semaphores are never closed; without a permit nothing would be simulated wrongly but the bound.
        let request = self.requests.acquire_owned().await.ok();
        let tokens = match self.tokens {
            Some((tokens, all)) => {
                let size = u32::try_from(size).unwrap_or(u32::MAX).min(all);
                tokens.acquire_many_owned(size).await.ok()
            }
            None => None,
        };
        Slot {
            _request: request,
            _tokens: tokens,
        }
    }

    /// How many more requests may run, tokens apart.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.requests.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_waits_for_its_tokens_and_one_larger_than_all_runs_alone() {
        let slots = Slots::new(10, Some(100));
        let first = slots.clone().take(60).await;
        let mut second = Box::pin(slots.clone().take(1_000));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        let second = second.await;
        assert!(futures_util::poll!(Box::pin(slots.clone().take(1))).is_pending());
        drop(second);
        slots.take(1).await;
    }
}
