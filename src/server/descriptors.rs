//! File descriptors: as many as the system gives, and how they are shared out, so that clients cannot take those that the
//! operator's door, the store and the logs need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// What the management API, the store, health checks and the runtimes need.
const RESERVE: usize = 256;

/// Idle connections to endpoints that are kept for reuse, over all endpoints and threads, where there are descriptors.
const KEPT_CONNECTIONS: usize = 1024;

const FEW: &str = "fewer client connections than configured: each needs two file descriptors (ulimit -n, LimitNOFILE=)";

/// How descriptors are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections of clients at once.
    pub(super) clients: usize,
    /// Idle connections to endpoints.
    pub(super) kept: usize,
    /// Connections of operators at once.
    pub(super) operators: usize,
}

impl Shares {
    /// Raises the process's limit as far as it may, and shares it out. Says so if there are too few for what is configured.
    pub(super) fn of(max_connections: u32) -> Self {
        let limit = getrlimit(Resource::Nofile);
        // Refused or not: what there is is shared out.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let shares = Self::among(descriptors, usize::try_from(max_connections).unwrap_or(usize::MAX));
        let Shares { clients: connections, .. } = shares;
        let configured = usize::try_from(max_connections).unwrap_or(usize::MAX);
        if connections < configured / 4 {
            warn!(descriptors, connections, configured, "{FEW}");
        } else if connections < configured {
            info!(descriptors, connections, configured, "{FEW}");
        }
        shares
    }

    /// A client's request needs a connection to an upstream too, so it counts twice.
    fn among(descriptors: usize, max_connections: usize) -> Self {
        let reserve = RESERVE.min(descriptors / 2);
        let rest = descriptors - reserve;
        Self {
            clients: max_connections.min(rest / 2).max(1),
            kept: KEPT_CONNECTIONS.min(rest / 4),
            operators: (reserve / 4).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_what_they_need_upstream_leave_the_reserve() {
        for (descriptors, clients, operators) in [(200, 50, 25), (1024, 384, 64), (20_000, 9872, 64), (1 << 20, 20_000, 64), (2, 1, 1)] {
            let shares = Shares::among(descriptors, 20_000);
            assert_eq!((shares.clients, shares.operators), (clients, operators), "{descriptors}");
            assert!(shares.kept <= descriptors / 4);
        }
    }
}
