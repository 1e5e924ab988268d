//! What the tests start and talk to. Ports come from the system; children die with the value that holds them.

mod fault_proxy;
mod gateway;
mod http2;
pub(crate) mod mcp_server;
mod process;
mod upstream;

use std::time::{Duration, Instant};

pub(crate) use fault_proxy::{Fault, FaultProxy};
pub(crate) use gateway::Gateway;
#[cfg(feature = "tls")]
pub(crate) use gateway::TOKEN;
pub(crate) use http2::{Http2, text};
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

/// How often a test goes round: `usual`, unless the environment's `name` says otherwise (scripts/soak does).
///
/// # Panics
/// When what the environment says is no number.
pub(crate) fn rounds(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// A seed of the moment, or the environment's `OBLETH_SEED`; printed, so that a failure can be followed.
///
/// # Panics
/// When what the environment says is no number.
pub(crate) fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = std::env::var("OBLETH_SEED").map_or(u64::from(now.subsec_nanos()), |text| text.parse().expect("a number"));
    println!("OBLETH_SEED={seed}");
    seed
}
