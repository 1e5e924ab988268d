//! The end: what a signal means, and how long the last requests may take.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::proxy::Active;

/// How often the last requests are counted. Also the most by which the process outlives them.
const COUNT_EVERY: Duration = Duration::from_millis(20);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGQUIT.
    Upgrade,
}

/// The signals that the gateway listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    /// Takes them over from the system; from now on they no longer kill.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.quit.recv() => Asked::Upgrade,
        }
    }

    /// Waits for SIGTERM or SIGINT.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until the last request has ended, the time is up, or a second signal hurries. Requests that are still running
/// are cut when the runtime goes down; what they took is given back by `Drop`.
pub(super) async fn last_requests(active: &Active, timeout: Duration, signals: &mut Signals) {
    let began = Instant::now();
    info!(active = active.count(), "draining");
    let ended = async {
        while active.count() > 0 {
            tokio::time::sleep(COUNT_EVERY).await;
        }
    };
    tokio::select! {
        () = ended => info!(drain_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "drained"),
        () = tokio::time::sleep(timeout) => warn!(active = active.count(), "drain timeout, cutting what still runs"),
        () = signals.stop() => warn!(active = active.count(), "second signal, cutting what still runs"),
    }
}
