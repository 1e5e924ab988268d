//! What the system says of this process, under the names that Prometheus' own clients use. What it does not say is left out.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::{Page, family, number};

/// Writes it. `began` is when the process started.
pub(super) fn show(page: &mut Page, began: SystemTime) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    page.put(&family::PROCESS_CPU, seconds);
    if let Some(kibibytes) = resident_kibibytes() {
        page.put(&family::PROCESS_MEMORY, number(kibibytes) * 1024.0);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory itself is one while it is read.
        page.put(&family::PROCESS_FDS, number(open.count().saturating_sub(1) as u64));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.put(&family::PROCESS_FDS_MAX, number(most));
    }
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.put(&family::PROCESS_START, began.as_secs_f64());
}

fn resident_kibibytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
