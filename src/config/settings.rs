//! The bootstrap half of the file: what is read once, at start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use url::Url;

use super::field::{Field, field};
use super::kind::Kind;
use crate::catalog::Word;
use crate::egress::Policy;

/// What to do with billable requests while the ledger cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Refuse them: nothing is served that is not billed.
    #[default]
    Reject,
    /// Serve them and count the loss.
    Serve,
}

/// The least important log lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Which requests have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestLog {
    /// None.
    #[default]
    Off,
    /// Those that were not answered with success.
    Failed,
    /// All.
    All,
}

/// What tenants are called in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TenantLabel {
    /// By their name.
    #[default]
    Name,
    /// By their fair-share group.
    Group,
    /// Not at all.
    Off,
}

/// Certificate and key of a listener; both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerTls {
    /// PEM file with the certificate chain.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}

/// The data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Worker threads; 0 is one per core.
    pub threads: usize,
    /// How long running requests may take to finish after SIGTERM.
    pub drain_timeout_secs: u32,
    /// TLS for clients.
    pub tls: ListenerTls,
}

/// The management API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where operators connect.
    pub listen: SocketAddr,
    /// TLS for operators.
    pub tls: ListenerTls,
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its database file.
    pub path: PathBuf,
}

/// The queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler {
    /// Requests that may wait.
    pub max_queued: u32,
    /// Bytes of body that may wait.
    pub max_queued_bytes: u64,
    /// How long a request may wait, in milliseconds.
    pub queue_timeout_ms: u64,
}

/// Bounds on what clients can hold open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body.
    pub max_body_bytes: u64,
    /// All request bodies held at once.
    pub max_buffered_bytes: u64,
    /// How long a request's head may take, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long its body may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// Client connections at once, and requests beside others on one of HTTP/2.
    pub max_connections: u32,
    /// Of them from one address (of IPv6, from one /64); 0 is no bound of its own.
    pub max_connections_per_address: u32,
    /// Streams that a tenant may hold open to one MCP server.
    pub max_listening_streams: u32,
}

/// The ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// What happens to billable requests while it cannot be written.
    pub when_full: WhenFull,
    /// How long rows are kept, in days.
    pub retention_days: u32,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Log {
    /// How much is written.
    pub level: LogLevel,
    /// How it is written.
    pub format: LogFormat,
    /// Which requests have a line, whatever the level.
    pub requests: RequestLog,
}

/// `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// What tenants are called.
    pub tenant_label: TenantLabel,
    /// Tenants (or groups) that have series of their own.
    pub max_tenants: u32,
    /// Whether who comes from another machine may read without the admin token.
    pub open: bool,
}

/// A part of a whole, from 0 to 1 in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    /// All of it.
    pub const ALL: Self = Self(Self::MILLION);
    const MILLION: u32 = 1_000_000;

    /// In millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Reads a decimal like `0.25`, of at most six decimals.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ones, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !matches!(ones, "0" | "1") || decimals.len() > 6 || !digits(decimals) {
            return None;
        }
        let millionths: u32 = format!("{ones}{decimals:0<6}").parse().ok()?;
        (millionths <= Self::MILLION).then_some(Self(millionths))
    }

    /// The shortest that [`parse`](Self::parse) reads as the same.
    pub(super) fn format(self) -> String {
        let text = format!("{}.{:06}", self.0 / Self::MILLION, self.0 % Self::MILLION);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// OpenTelemetry traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// The collector's base address.
    pub endpoint: Option<Url>,
    /// Where its headers stand: `env:NAME` or `file:PATH`, never they themselves.
    pub headers: Option<String>,
    /// How many of the traces that begin here are recorded.
    pub sample_ratio: Ratio,
    /// Requests whose spans may wait to be sent.
    pub max_queued: u32,
    /// How long the collector may take for a batch, in milliseconds.
    pub timeout_ms: u64,
}

/// All bootstrap settings, with the defaults of the management API's part C.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The data plane.
    pub server: Server,
    /// The management API.
    pub admin: Admin,
    /// The embedded store.
    pub store: Store,
    /// The queue.
    pub scheduler: Scheduler,
    /// Bounds on what clients can hold open.
    pub limits: Limits,
    /// The ledger.
    pub ledger: Ledger,
    /// Where upstreams may be.
    pub egress: Policy,
    /// The log.
    pub log: Log,
    /// `/metrics`.
    pub metrics: Metrics,
    /// OpenTelemetry traces.
    pub traces: Traces,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: Server {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
                threads: 0,
                drain_timeout_secs: 300,
                tls: ListenerTls::default(),
            },
            admin: Admin {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
                tls: ListenerTls::default(),
            },
            store: Store {
                path: PathBuf::from("data/obleth.db"),
            },
            scheduler: Scheduler {
                max_queued: 10_000,
                max_queued_bytes: GIB,
                queue_timeout_ms: 60_000,
            },
            limits: Limits {
                max_body_bytes: 64 * MIB,
                max_buffered_bytes: GIB,
                header_timeout_ms: 10_000,
                body_timeout_ms: 60_000,
                max_connections: 20_000,
                max_connections_per_address: 0,
                max_listening_streams: 64,
            },
            ledger: Ledger {
                when_full: WhenFull::Reject,
                retention_days: 90,
            },
            egress: Policy::Lan,
            log: Log::default(),
            metrics: Metrics {
                tenant_label: TenantLabel::Name,
                max_tenants: 1_000,
                open: false,
            },
            traces: Traces {
                endpoint: None,
                headers: None,
                sample_ratio: Ratio::ALL,
                max_queued: 4_096,
                timeout_ms: 10_000,
            },
        }
    }
}

/// Requests upstream at once in a new store, and again when the capacity leaves the file.
pub const MAX_IN_FLIGHT_DEFAULT: u32 = 64;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

impl Settings {
    /// The settings in which `new` differs, like `server.listen`: a reload cannot apply them.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<&'static str> {
        let differs = |field: &&Field<Self>| (field.get)(self) != (field.get)(new);
        FIELDS.iter().filter(differs).map(|field| field.name).collect()
    }
}

/// A day: longer waits are mistakes.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A minute: by then a collector has had its chance.
const MINUTE_MS: u64 = 60 * 1000;

/// Every bootstrap setting by its path, section by section.
pub(super) static FIELDS: &[Field<Settings>] = &[
    field!("server.listen": Kind::Listen => server.listen),
    field!("server.threads": Kind::Whole(0, 1024) => server.threads),
    field!("server.drain_timeout_secs": Kind::Whole(0, 86_400) => server.drain_timeout_secs),
    field!("server.tls_cert_file": Kind::Path => server.tls.cert_file),
    field!("server.tls_key_file": Kind::Path => server.tls.key_file),
    field!("admin.listen": Kind::Listen => admin.listen),
    field!("admin.tls_cert_file": Kind::Path => admin.tls.cert_file),
    field!("admin.tls_key_file": Kind::Path => admin.tls.key_file),
    field!("store.path": Kind::Path => store.path),
    field!("scheduler.max_queued": Kind::Whole(0, 10_000_000) => scheduler.max_queued),
    field!("scheduler.max_queued_bytes": Kind::Whole(0, TIB) => scheduler.max_queued_bytes),
    field!("scheduler.queue_timeout_ms": Kind::Whole(1, DAY_MS) => scheduler.queue_timeout_ms),
    field!("limits.max_body_bytes": Kind::Whole(1024, 4 * GIB) => limits.max_body_bytes),
    field!("limits.max_buffered_bytes": Kind::Whole(1024, TIB) => limits.max_buffered_bytes),
    field!("limits.header_timeout_ms": Kind::Whole(1, DAY_MS) => limits.header_timeout_ms),
    field!("limits.body_timeout_ms": Kind::Whole(1, DAY_MS) => limits.body_timeout_ms),
    field!("limits.max_connections": Kind::Whole(1, 1_000_000) => limits.max_connections),
    field!("limits.max_connections_per_address": Kind::Whole(0, 1_000_000) => limits.max_connections_per_address),
    field!("limits.max_listening_streams": Kind::Whole(0, 100_000) => limits.max_listening_streams),
    field!("ledger.when_full": Kind::Word(WhenFull::NAMES) => ledger.when_full),
    field!("ledger.retention_days": Kind::Whole(1, 36_500) => ledger.retention_days),
    field!("egress.policy": Kind::Word(Policy::NAMES) => egress),
    field!("log.level": Kind::Word(LogLevel::NAMES) => log.level),
    field!("log.format": Kind::Word(LogFormat::NAMES) => log.format),
    field!("log.requests": Kind::Word(RequestLog::NAMES) => log.requests),
    field!("metrics.tenant_label": Kind::Word(TenantLabel::NAMES) => metrics.tenant_label),
    field!("metrics.max_tenants": Kind::Whole(1, 100_000) => metrics.max_tenants),
    field!("metrics.open": Kind::Flag => metrics.open),
    field!("traces.endpoint": Kind::Url => traces.endpoint),
    field!("traces.headers": Kind::Reference => traces.headers),
    field!("traces.sample_ratio": Kind::Ratio => traces.sample_ratio),
    field!("traces.max_queued": Kind::Whole(1, 1_000_000) => traces.max_queued),
    field!("traces.timeout_ms": Kind::Whole(1, MINUTE_MS) => traces.timeout_ms),
];

/// The sections, in the order they are written.
pub(super) const SECTIONS: &[&str] = &[
    "server",
    "admin",
    "store",
    "scheduler",
    "limits",
    "ledger",
    "egress",
    "log",
    "metrics",
    "traces",
];
