//! What the tests start and talk to. Ports come from the system; children die with the value that holds them.

mod fault_proxy;
mod gateway;
mod process;
mod upstream;

use std::time::{Duration, Instant};

pub(crate) use fault_proxy::{Fault, FaultProxy};
pub(crate) use gateway::Gateway;
pub(crate) use upstream::Upstream;

/// Waits until `ready` says so.
///
/// # Panics
/// When it does not within `limit`: with what was waited for.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, limit: Duration, mut ready: impl FnMut() -> F) {
    let start = Instant::now();
    while !ready().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
