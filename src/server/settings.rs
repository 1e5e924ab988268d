//! How the gateway is started: the configuration as it was read, in the words of the rooms below, and the secrets.

use std::time::Duration;

use crate::admission;
use crate::config::{self, Fault, File, MAX_IN_FLIGHT_DEFAULT};
use crate::credential::KeyHasher;
use crate::metering;
use crate::proxy::{self, Bounds};
use crate::telemetry;

/// How the gateway is started.
#[derive(Clone)]
pub struct Settings {
    /// The configuration: a file with the variables and flags above it, or those alone.
    pub file: File,
    /// Whether it is a file, to be merged into the store and followed.
    pub follow: bool,
    /// The flags above the file, for when it is read again.
    pub flags: Vec<(&'static str, String)>,
    /// What operators show.
    pub admin_token: String,
    /// How secrets become digests.
    pub hasher: KeyHasher,
    /// What stored credentials of upstreams are sealed with.
    pub encryption_key: Option<[u8; 32]>,
}

impl Settings {
    /// The bootstrap half.
    pub(super) const fn boot(&self) -> &config::Settings {
        self.file.settings()
    }

    /// The capacity that a new store starts with; an old one has its own.
    pub(super) fn max_in_flight(&self) -> u32 {
        self.file.max_in_flight().unwrap_or(MAX_IN_FLIGHT_DEFAULT)
    }

    pub(super) fn scheduler(&self) -> admission::Settings {
        let scheduler = self.boot().scheduler;
        admission::Settings {
            max_queued: scheduler.max_queued,
            max_queued_bytes: scheduler.max_queued_bytes,
            queue_timeout: Duration::from_millis(scheduler.queue_timeout_ms),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        let limits = self.boot().limits;
        Bounds {
            max_body_bytes: limits.max_body_bytes,
            body_timeout: Duration::from_millis(limits.body_timeout_ms),
            ..Bounds::default()
        }
    }

    /// What clients can hold open at the door, where the system gives descriptors for so many.
    pub(super) fn door(&self, connections: usize) -> proxy::door::Bounds {
        let limits = self.boot().limits;
        proxy::door::Bounds {
            connections,
            per_address: usize::try_from(limits.max_connections_per_address).unwrap_or(usize::MAX),
            head: Duration::from_millis(limits.header_timeout_ms),
        }
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.boot().server.drain_timeout_secs.into())
    }

    pub(super) fn metrics(&self) -> telemetry::Settings {
        let metrics = self.boot().metrics;
        telemetry::Settings {
            tenant_label: match metrics.tenant_label {
                config::TenantLabel::Name => telemetry::TenantLabel::Name,
                config::TenantLabel::Group => telemetry::TenantLabel::Group,
                config::TenantLabel::Off => telemetry::TenantLabel::Off,
            },
            tenants_max: usize::try_from(metrics.max_tenants).unwrap_or(usize::MAX),
        }
    }

    pub(super) const fn request_log(&self) -> telemetry::Which {
        match self.boot().log.requests {
            config::RequestLog::Off => telemetry::Which::Off,
            config::RequestLog::Failed => telemetry::Which::Failed,
            config::RequestLog::All => telemetry::Which::All,
        }
    }

    pub(super) const fn when_ledger_full(&self) -> metering::WhenFull {
        match self.boot().ledger.when_full {
            config::WhenFull::Reject => metering::WhenFull::Reject,
            config::WhenFull::Serve => metering::WhenFull::Serve,
        }
    }
}

/// What a configuration asks for that this build cannot do. It is refused: what is written down and not kept is worse than none.
#[must_use]
pub fn unsupported(file: &File) -> Vec<Fault> {
    let differences = config::Settings::default().differences(file.settings());
    let fault = |setting: &str, feature: &str| Fault {
        file: file.path().to_owned(),
        line: 0,
        column: 0,
        path: setting.to_owned(),
        message: format!("needs a build with the feature `{feature}` (cargo build --features {feature})"),
    };
    let needed = differences.into_iter().filter_map(|setting| match setting {
        _ if setting.contains(".tls_") && !cfg!(feature = "tls") => Some(fault(setting, "tls")),
        _ if setting.starts_with("traces.") && !cfg!(feature = "otel") => Some(fault(setting, "otel")),
        _ => None,
    });
    needed.collect()
}
