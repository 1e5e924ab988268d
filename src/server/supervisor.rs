//! What the supervisor that started the process is told (systemd's `sd_notify`): that it serves, reloads, stops, and lives.
//! Where nobody listens, nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tracing::warn;

use super::Listening;

/// It serves.
pub(super) fn ready(listening: Listening) {
    let Listening { data, management, .. } = listening;
    say(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving on {data}, management on {management}")),
    ]);
}

/// It reads its file again. Until [`reloaded`], `systemctl reload` waits; systemd tells this message from an older one by its
/// time.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the supervisor is not told of the reload"),
    }
}

/// It has, well or not: what was in force before still is if not.
pub(super) fn reloaded(applied: bool) {
    let status = if applied {
        "serving; the configuration file was applied"
    } else {
        "serving; the configuration file was refused: obleth status"
    };
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Another process is the gateway now: what it says counts.
pub(super) fn succeeded_by(pid: u32) {
    say(&[
        NotifyState::MainPid(pid),
        NotifyState::Status("upgraded; the requests of before are finished"),
    ]);
}

/// It takes nothing new, and lets finish what runs within that time.
pub(super) fn stopping(within: Duration) {
    let extension = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    say(&[
        NotifyState::Stopping,
        NotifyState::Status("draining"),
        // Some more for the flush.
        NotifyState::ExtendTimeoutUsec(extension.saturating_add(5_000_000)),
    ]);
}

/// Says that it lives, as often as the supervisor wants it, as long as both runtimes do: a deadlock in either ends in a restart.
pub(super) async fn lives(management: Handle) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut beats = tokio::time::interval(within / 3);
    loop {
        beats.tick().await;
        // This task shows that the data plane's runtime runs; an answer from the other shows that it does too.
        let answer = tokio::time::timeout(within / 3, management.spawn(async {})).await;
        if answer.is_ok() {
            say(&[NotifyState::Watchdog]);
        }
    }
}

fn say(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        warn!(%error, "the supervisor cannot be told");
    }
}
