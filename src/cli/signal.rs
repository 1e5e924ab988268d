//! Waiting to be told to stop.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Returns at SIGINT or SIGTERM.
pub(super) async fn stop() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
