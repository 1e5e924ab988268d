//! TLS towards upstreams: which files, and what was read from them. Read off the hot path, read again when they change.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// The files named by a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Files {
    pub(super) ca: Option<String>,
    pub(super) client_cert: Option<String>,
    pub(super) client_key: Option<String>,
}

/// What was read from files, replaced whole when one of them changes.
#[derive(Debug, Default)]
pub(super) struct Material {
    pub(super) read: ArcSwapOption<Trust>,
}

/// Certificates to trust and to show.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Differs whenever the files' contents do.
    pub(super) generation: u64,
}

/// TLS towards an endpoint.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The name to ask for (SNI) and to verify the certificate against.
    pub server_name: Arc<str>,
}
