//! `obleth serve`: the gateway itself.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use clap::Args;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::secrets::Secrets;
use super::{BadSetUp, FaultyFile, log};
use crate::config::{self, Context, Process};
use crate::credential::KeyHasher;
use crate::server::{self, Listening, Settings, StartError};

/// Run the gateway.
///
/// A setting is what its flag says, else its variable, else the file, else its default; `server.listen` is OBLETH_SERVER_LISTEN
/// and a line of the file. conf/obleth.yaml lists them all.
///
/// OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set. OBLETH_API_KEY_PEPPER and OBLETH_ENCRYPTION_KEY (64
/// hexadecimal digits), or files of theirs, may be. Prints `obleth listening data=http://… management=http://…` once it
/// serves; SIGHUP reads the file again; SIGTERM and SIGINT drain it, a second one cuts; SIGQUIT hands over to the program
/// that stands under its name by then.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The configuration file; followed while the gateway runs
    #[arg(long, env = "OBLETH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// server.listen: where clients come in; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// admin.listen: where the management API listens
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// store.path: the file that everything is kept in
    #[arg(long, value_name = "FILE")]
    store: Option<String>,
    /// capacity.max_in_flight: requests upstream at once. Without a file, of a new store only
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// server.threads: threads of the data plane; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// server.drain_timeout_secs: how long running requests may go on after a signal to stop
    #[arg(long, value_name = "SECONDS")]
    drain_timeout_secs: Option<u64>,
    /// scheduler.max_queued: requests that may wait at once
    #[arg(long, value_name = "N")]
    max_queued: Option<u32>,
    /// scheduler.max_queued_bytes: bytes of request bodies that may wait at once
    #[arg(long, value_name = "BYTES")]
    max_queued_bytes: Option<u64>,
    /// scheduler.queue_timeout_ms: how long a request may wait
    #[arg(long, value_name = "MS")]
    queue_timeout_ms: Option<u64>,
    /// limits.max_body_bytes: the largest request body
    #[arg(long, value_name = "BYTES")]
    max_body_bytes: Option<u64>,
    /// limits.max_buffered_bytes: bytes of request bodies held at once
    #[arg(long, value_name = "BYTES")]
    max_buffered_bytes: Option<u64>,
    /// limits.body_timeout_ms: the longest a request body may take to arrive
    #[arg(long, value_name = "MS")]
    body_timeout_ms: Option<u64>,
    /// limits.header_timeout_ms: the longest a request's head may take to arrive
    #[arg(long, value_name = "MS")]
    header_timeout_ms: Option<u64>,
    /// limits.max_connections: client connections at once
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// limits.max_connections_per_address: of them from one address; 0 is no bound of its own
    #[arg(long, value_name = "N")]
    max_connections_per_address: Option<u32>,
    /// ledger.when_full: refuse requests when the ledger cannot be written, or serve them and risk their rows
    #[arg(long, value_name = "WHAT", value_parser = ["reject", "serve"])]
    ledger_when_full: Option<String>,
    /// ledger.retention_days: how many days the ledger keeps a row per request; sums are kept for ever
    #[arg(long, value_name = "DAYS")]
    ledger_retention_days: Option<u32>,
    /// egress.policy: where upstreams may be; lan includes loopback and private networks
    #[arg(long, value_name = "POLICY", value_parser = ["public_only", "lan"])]
    egress: Option<String>,
    /// log.level
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
    /// log.format: one JSON object per line, or text for people
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "text"])]
    log_format: Option<String>,
    /// log.requests: which requests have a line of their own
    #[arg(long, value_name = "WHICH", value_parser = ["off", "failed", "all"])]
    log_requests: Option<String>,
    /// metrics.tenant_label: what tenants are called in /metrics
    #[arg(long, value_name = "LABEL", value_parser = ["name", "group", "off"])]
    metrics_tenant_label: Option<String>,
}

impl Flags {
    /// The flags that were given, as settings.
    fn given(&self) -> Vec<(&'static str, String)> {
        fn text<T: ToString>(value: Option<&T>) -> Option<String> {
            value.map(T::to_string)
        }
        let all = [
            ("server.listen", text(self.listen.as_ref())),
            ("server.threads", text(self.threads.as_ref())),
            ("server.drain_timeout_secs", text(self.drain_timeout_secs.as_ref())),
            ("admin.listen", text(self.admin_listen.as_ref())),
            ("store.path", self.store.clone()),
            ("scheduler.max_queued", text(self.max_queued.as_ref())),
            ("scheduler.max_queued_bytes", text(self.max_queued_bytes.as_ref())),
            ("scheduler.queue_timeout_ms", text(self.queue_timeout_ms.as_ref())),
            ("limits.max_body_bytes", text(self.max_body_bytes.as_ref())),
            ("limits.max_buffered_bytes", text(self.max_buffered_bytes.as_ref())),
            ("limits.body_timeout_ms", text(self.body_timeout_ms.as_ref())),
            ("limits.header_timeout_ms", text(self.header_timeout_ms.as_ref())),
            ("limits.max_connections", text(self.max_connections.as_ref())),
            (
                "limits.max_connections_per_address",
                text(self.max_connections_per_address.as_ref()),
            ),
            ("ledger.when_full", self.ledger_when_full.clone()),
            ("ledger.retention_days", text(self.ledger_retention_days.as_ref())),
            ("egress.policy", self.egress.clone()),
            ("log.level", self.log_level.clone()),
            ("log.format", self.log_format.clone()),
            ("log.requests", self.log_requests.clone()),
            ("metrics.tenant_label", self.metrics_tenant_label.clone()),
            ("capacity.max_in_flight", text(self.max_in_flight.as_ref())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Serves until a signal ends it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let secrets = Secrets::from_environment()?;
    without_huge_pages();
    // A core dump would hold prompts and keys. Where the system refuses, it has no core dumps either.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let settings = settings(flags, secrets)?;
    let configured = settings.file.settings();
    let _last_lines = log::start(configured.log).map_err(|wrong| BadSetUp(format!("cannot start the log: {wrong}")))?;
    if let Some(folder) = configured.store.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|wrong| BadSetUp(format!("cannot make the store's folder {}: {wrong}", folder.display())))?;
    }
    match server::run(&settings, announce) {
        Err(StartError::Configuration(faults)) => Err(FaultyFile(faults).into()),
        // It has served, and may again when it is started anew.
        Err(orphaned @ StartError::Orphaned(_)) => Err(orphaned.into()),
        done => done.map_err(|wrong| BadSetUp(wrong.to_string()).into()),
    }
}

/// Reads the file, if there is one, and what stands above it.
fn settings(flags: &Flags, secrets: Secrets) -> Result<Settings, FaultyFile> {
    let given = flags.given();
    let hasher = KeyHasher::new(secrets.key_pepper.as_deref().map(str::as_bytes));
    let context = Context {
        environment: &Process,
        hasher: &hasher,
        flags: &given,
    };
    let file = match &flags.config {
        Some(path) => config::load(path, &context),
        None => config::without_file(&context),
    };
    Ok(Settings {
        file: file.map_err(FaultyFile)?,
        follow: flags.config.is_some(),
        flags: given,
        admin_token: secrets.admin_token,
        hasher,
        encryption_key: secrets.encryption_key,
    })
}

/// The line that those who started the gateway wait for.
fn announce(listening: Listening) {
    let Listening {
        data,
        management,
        data_scheme,
        management_scheme,
    } = listening;
    let mut stdout = std::io::stdout();
    // Whoever closed our standard output does not want to know.
    let _ = writeln!(
        stdout,
        "obleth listening data={data_scheme}://{data} management={management_scheme}://{management}"
    )
    .and_then(|()| stdout.flush());
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
        let mut command = Command::new(program);
        if let Some(name) = env::args_os().next() {
            // An upgrade goes by the name that the program was started by: it may lead elsewhere by then.
            command.arg0(name);
        }
        // It returns only if it failed, and then more memory is the worst of it.
        let _ = command.args(env::args_os().skip(1)).env(REFUSAL, "0").exec();
    }
}
