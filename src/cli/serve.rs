//! `obleth serve`: the gateway itself.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use clap::{Args, ValueEnum};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::BadSetUp;
use super::log::{self, Format};
use super::secrets::Secrets;
use crate::server::{Listening, Settings};
use crate::{admission, egress, metering, proxy, server};

/// Of all request bodies together, by default.
const MAX_BUFFERED_BYTES: u64 = 1 << 30;

/// Run the gateway.
///
/// OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set. OBLETH_API_KEY_PEPPER and OBLETH_ENCRYPTION_KEY (64
/// hexadecimal digits), or files of theirs, may be. Prints `obleth listening data=http://… management=http://…` once it
/// serves; SIGTERM and SIGINT drain it, a second one cuts.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Where clients come in; port 0 lets the system choose
    #[arg(long, env = "OBLETH_SERVER_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the management API listens
    #[arg(long, env = "OBLETH_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin_listen: SocketAddr,
    /// The file that everything is kept in
    #[arg(long, env = "OBLETH_STORE_PATH", value_name = "FILE", default_value = "data/obleth.db")]
    store: PathBuf,
    /// Requests upstream at once, until the management API says otherwise; a store that exists has its own
    #[arg(long, env = "OBLETH_CAPACITY_MAX_IN_FLIGHT", value_name = "N", default_value_t = 64)]
    max_in_flight: u32,
    /// Threads of the data plane; 0 is one per core
    #[arg(long, env = "OBLETH_SERVER_THREADS", value_name = "N", default_value_t = 0)]
    threads: usize,
    /// How long running requests may go on after a signal to stop
    #[arg(long, env = "OBLETH_SERVER_DRAIN_TIMEOUT_SECS", value_name = "SECONDS", default_value_t = 300)]
    drain_timeout_secs: u64,
    /// Requests that may wait at once
    #[arg(long, env = "OBLETH_SCHEDULER_MAX_QUEUED", value_name = "N", default_value_t = admission::Settings::default().max_queued)]
    max_queued: u32,
    /// Bytes of request bodies that may wait at once
    #[arg(long, env = "OBLETH_SCHEDULER_MAX_QUEUED_BYTES", value_name = "BYTES", default_value_t = admission::Settings::default().max_queued_bytes)]
    max_queued_bytes: u64,
    /// How long a request may wait
    #[arg(long, env = "OBLETH_SCHEDULER_QUEUE_TIMEOUT_MS", value_name = "MS", default_value_t = millis(admission::Settings::default().queue_timeout))]
    queue_timeout_ms: u64,
    /// The largest request body
    #[arg(long, env = "OBLETH_LIMITS_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = proxy::Bounds::default().max_body_bytes)]
    max_body_bytes: u64,
    /// Bytes of request bodies held at once
    #[arg(long, env = "OBLETH_LIMITS_MAX_BUFFERED_BYTES", value_name = "BYTES", default_value_t = MAX_BUFFERED_BYTES)]
    max_buffered_bytes: u64,
    /// The longest a request body may take to arrive
    #[arg(long, env = "OBLETH_LIMITS_BODY_TIMEOUT_MS", value_name = "MS", default_value_t = millis(proxy::Bounds::default().body_timeout))]
    body_timeout_ms: u64,
    /// What happens to requests when the ledger cannot be written
    #[arg(long, env = "OBLETH_LEDGER_WHEN_FULL", value_name = "WHAT", value_enum, default_value_t = WhenFull::Reject)]
    ledger_when_full: WhenFull,
    /// How many days the ledger keeps a row per request; sums are kept for ever
    #[arg(long, env = "OBLETH_LEDGER_RETENTION_DAYS", value_name = "DAYS", default_value_t = 90)]
    ledger_retention_days: u32,
    /// Where upstreams may be
    #[arg(long, env = "OBLETH_EGRESS_POLICY", value_name = "POLICY", value_enum, default_value_t = Egress::Lan)]
    egress: Egress,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list of `target=level`
    #[arg(long, env = "OBLETH_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// How log lines are written
    #[arg(long, env = "OBLETH_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = Format::Json)]
    log_format: Format,
}

/// As the configuration file spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Egress {
    /// Only addresses of the public internet
    PublicOnly,
    /// Also loopback and private networks
    Lan,
}

/// As the configuration file spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum WhenFull {
    /// Refuse them with 503
    Reject,
    /// Serve them; a crash now would lose their rows
    Serve,
}

impl From<WhenFull> for metering::WhenFull {
    fn from(when: WhenFull) -> Self {
        match when {
            WhenFull::Reject => Self::Reject,
            WhenFull::Serve => Self::Serve,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Serves until a signal ends it.
pub(super) fn run(flags: Flags) -> anyhow::Result<()> {
    let secrets = Secrets::from_environment()?;
    without_huge_pages();
    // A core dump would hold prompts and keys. Where the system refuses, it has no core dumps either.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    log::start(&flags.log_level, flags.log_format)?;
    let settings = settings(flags, secrets);
    if let Some(folder) = settings.store_path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|wrong| BadSetUp(format!("cannot make the store's folder {}: {wrong}", folder.display())))?;
    }
    server::run(&settings, announce).map_err(|wrong| BadSetUp(wrong.to_string()).into())
}

/// The line that those who started the gateway wait for.
fn announce(listening: Listening) {
    let Listening { data, management } = listening;
    let mut stdout = std::io::stdout();
    // Whoever closed our standard output does not want to know.
    let _ = writeln!(stdout, "obleth listening data=http://{data} management=http://{management}").and_then(|()| stdout.flush());
}

fn settings(flags: Flags, secrets: Secrets) -> Settings {
    Settings {
        listen: flags.listen,
        threads: flags.threads,
        drain_timeout: Duration::from_secs(flags.drain_timeout_secs),
        admin_listen: flags.admin_listen,
        admin_token: secrets.admin_token,
        store_path: flags.store,
        max_in_flight: flags.max_in_flight,
        when_ledger_full: flags.ledger_when_full.into(),
        ledger_retention_days: flags.ledger_retention_days,
        scheduler: admission::Settings {
            max_queued: flags.max_queued,
            max_queued_bytes: flags.max_queued_bytes,
            queue_timeout: Duration::from_millis(flags.queue_timeout_ms),
        },
        bounds: proxy::Bounds {
            max_body_bytes: flags.max_body_bytes,
            body_timeout: Duration::from_millis(flags.body_timeout_ms),
            ..proxy::Bounds::default()
        },
        max_buffered_bytes: flags.max_buffered_bytes,
        egress: match flags.egress {
            Egress::PublicOnly => egress::Policy::PublicOnly,
            Egress::Lan => egress::Policy::Lan,
        },
        key_pepper: secrets.key_pepper,
        encryption_key: secrets.encryption_key,
    }
}

/// Where the kernel gives huge pages unasked, an idle stream costs three times its memory. The allocator can refuse them
/// for the whole process, but reads its variable before `main`: so start over with it set, under the same process id.
fn without_huge_pages() {
    const REFUSAL: &str = "MIMALLOC_ALLOW_THP";
    let unasked = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|policy| policy.contains("[always]"));
    if !unasked || env::var_os(REFUSAL).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // It returns only if it failed, and then more memory is the worst of it.
        let _ = Command::new(program).args(env::args_os().skip(1)).env(REFUSAL, "0").exec();
    }
}
