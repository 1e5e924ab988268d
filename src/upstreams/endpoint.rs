//! An endpoint as configured, taken apart once: where to connect, what to send it to, as whom.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use url::{Host, Url};

use super::speed::Speed;
use super::tls::{Files, Material};
use super::{EndpointId, choice::Load};
use crate::catalog::{Credential, Engine};

/// What an endpoint is made from, the same for models and MCP servers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) url: Url,
    pub(super) weight: u32,
    pub(super) priority: u16,
    pub(super) cap: Option<u32>,
    pub(super) credential: Option<Credential>,
    pub(super) engine: Option<Engine>,
    pub(super) server_name: Option<String>,
    pub(super) files: Files,
    pub(super) http2: bool,
    pub(super) connect_ms: u32,
    /// Whether a trailing `/v1` of the path is the API's and not the server's: so for models, not for MCP servers.
    pub(super) api_base: bool,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At an address.
    Literal(SocketAddr),
    /// At a name's addresses.
    Name(String, u16),
    /// Nowhere one can connect to; the store's egress check should have kept it out.
    Nowhere,
}

/// A configured endpoint. Immutable; a change of configuration makes another that shares the in-flight count.
pub(super) struct Endpoint {
    pub(super) plan: Plan,
    pub(super) place: Place,
    /// `host:port` or `host`, for people, logs and the ledger; no credential is in it.
    pub(super) label: Arc<str>,
    /// The `Host` header.
    pub(super) host: String,
    /// What precedes the route's path: a model's base path without a slash at its end, an MCP server's whole path.
    pub(super) prefix: String,
    /// Requests of all its addresses.
    pub(super) in_flight: Arc<AtomicU32>,
    /// Certificates and keys; `None` while they are not read.
    pub(super) material: Arc<Material>,
    /// Connections of different groups are never shared: name, credential and trust differ.
    pub(super) group: u64,
}

impl Endpoint {
    pub(super) fn new(plan: Plan, in_flight: Arc<AtomicU32>, material: Arc<Material>) -> Self {
        let place = match (plan.url.host(), plan.url.port_or_known_default()) {
            (Some(Host::Ipv4(ip)), Some(port)) => Place::Literal(SocketAddr::new(IpAddr::V4(ip), port)),
            (Some(Host::Ipv6(ip)), Some(port)) => Place::Literal(SocketAddr::new(IpAddr::V6(ip), port)),
            (Some(Host::Domain(name)), Some(port)) => Place::Name(name.to_owned(), port),
            (None, _) | (_, None) => Place::Nowhere,
        };
        let host = match (plan.url.host_str(), plan.url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => String::new(),
        };
        let path = plan.url.path();
        let prefix = if plan.api_base {
            let base = path.trim_end_matches('/');
            base.strip_suffix("/v1").unwrap_or(base)
        } else {
            // The address itself is what is asked for, and a slash at its end is part of it.
            path
        };
        Self {
            prefix: prefix.to_owned(),
            label: host.as_str().into(),
            group: group(&plan, &host),
            host,
            place,
            in_flight,
            material,
            plan,
        }
    }

    /// Connections are shared among equal ones only: other files behind the same names make another group.
    pub(super) fn group_key(&self) -> u64 {
        self.group ^ self.material.read.load().as_ref().map_or(0, |trust| trust.generation)
    }

    /// Whether it may be connected to: not before the certificates it was configured with are read.
    pub(super) fn trusted(&self) -> bool {
        !self.needs_files() || self.material.read.load().is_some()
    }

    pub(super) fn needs_files(&self) -> bool {
        self.https() && !self.plan.files.is_empty()
    }

    pub(super) fn https(&self) -> bool {
        self.plan.url.scheme() == "https"
    }

    /// The name to ask for and to verify.
    pub(super) fn server_name(&self) -> &str {
        let host = self.plan.server_name.as_deref().or_else(|| self.plan.url.host_str());
        host.unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn secret(&self) -> Option<&Arc<str>> {
        self.plan.credential.as_ref()?.secret.as_ref()
    }

    /// A credential was configured and cannot be read: it must not be asked without.
    pub(super) fn lacks_credential(&self) -> bool {
        self.plan.credential.as_ref().is_some_and(|credential| credential.secret.is_none())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("label", &self.label).finish_non_exhaustive()
    }
}

fn group(plan: &Plan, host: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    host.hash(&mut hasher);
    plan.url.scheme().hash(&mut hasher);
    plan.server_name.hash(&mut hasher);
    plan.http2.hash(&mut hasher);
    plan.files.hash(&mut hasher);
    if let Some(credential) = &plan.credential {
        credential.reference.hash(&mut hasher);
        credential.secret.hash(&mut hasher);
    }
    hasher.finish()
}

/// One address of an endpoint, and what requests to it have taught.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) id: EndpointId,
    /// The same for the same address in every process.
    pub(super) seed: u64,
    pub(super) addr: SocketAddr,
    pub(super) load: Arc<Load>,
    /// Failed requests in a row, connects counted twice.
    pub(super) failures: AtomicU32,
    pub(super) failing: Failing,
    /// Good heads received, wrapping: whether it answers requests while it does not answer checks.
    pub(super) heads: AtomicU32,
    pub(super) speed: Speed,
}

impl Backend {
    pub(super) fn new(id: EndpointId, seed: u64, addr: SocketAddr) -> Self {
        Self {
            id,
            seed,
            addr,
            load: Arc::new(Load::default()),
            failures: AtomicU32::new(0),
            failing: Failing::default(),
            heads: AtomicU32::new(0),
            speed: Speed::default(),
        }
    }

    /// An attempt ended well.
    pub(super) fn passed(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        self.failing.pass();
    }
}

/// Which share of the requests fails lately, for servers that fail often but never many times in a row.
#[derive(Debug, Default)]
pub(super) struct Failing(AtomicU32);

impl Failing {
    /// The average's unit: it is kept in parts of this.
    const WHOLE: u32 = 1 << 16;
    /// Averages follow with 1/32 of each sample, so some sixteen failures must come close together.
    const SHARE: u32 = 32;

    pub(super) fn pass(&self) {
        let share = self.0.load(Ordering::Relaxed);
        if share > 0 {
            self.0.store(share - share.div_ceil(Self::SHARE), Ordering::Relaxed);
        }
    }

    /// Counts a failure. Returns whether two in five requests fail.
    pub(super) fn fail(&self) -> bool {
        let share = self.0.load(Ordering::Relaxed);
        let share = share + (Self::WHOLE - share) / Self::SHARE;
        self.0.store(share, Ordering::Relaxed);
        share >= Self::WHOLE / 5 * 2
    }

    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// An address as it stands in a view.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) backend: Arc<Backend>,
}
