//! The roof: builds the floors bottom-up and takes them down again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::proxy::Limits;
use crate::{admission, egress};

/// How the gateway is started.
#[derive(Clone)]
pub struct Settings {
    /// Where clients come in. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads of the data plane; 0 is one per core.
    pub threads: usize,
    /// How long running requests may go on after a signal to stop.
    pub drain_timeout: Duration,
    /// Where operators come in. Port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// What operators show.
    pub admin_token: String,
    /// The store's file.
    pub store_path: PathBuf,
    /// The capacity that a new store starts with; an old one has its own.
    pub max_in_flight: u32,
    /// Bounds of the queue.
    pub scheduler: admission::Settings,
    /// Bounds of a request.
    pub limits: Limits,
    /// Bytes of request bodies held in memory at once.
    pub max_buffered_bytes: u64,
    /// How far the gateway may reach.
    pub egress: egress::Policy,
    /// What digests of keys are made with.
    pub key_pepper: Option<String>,
    /// What stored credentials of upstreams are sealed with.
    pub encryption_key: Option<[u8; 32]>,
}

/// Why the gateway did not start. Each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no thread or no signal handler.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Where the gateway listens, once it does.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// The data plane.
    pub data: SocketAddr,
    /// The management API.
    pub management: SocketAddr,
}

/// Runs the gateway until a signal ends it. `ready` is called when both doors are open.
///
/// # Errors
/// [`StartError`], before anything is served.
#[expect(clippy::needless_pass_by_value, reason = "a stub")]
pub fn run(settings: Settings, ready: impl FnOnce(Listening)) -> Result<(), StartError> {
    ready(Listening {
        data: settings.listen,
        management: settings.admin_listen,
    });
    Ok(())
}
