//! TLS towards upstreams: which files, and what was read from them. Read off the hot path, read again when they change.
//!
//! Without the feature `tls` the gateway speaks none, and endpoints that ask for it are not used.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
#[cfg(feature = "tls")]
use std::sync::Arc;

use arc_swap::ArcSwapOption;
#[cfg(feature = "tls")]
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
#[cfg(feature = "tls")]
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
#[cfg(feature = "tls")]
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A file of certificates or keys that is longer, in bytes, is not one.
const FILE_MAX: u64 = 1 << 20;

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
pub(super) struct Trust {
    /// Differs whenever the files' contents do.
    pub(super) generation: u64,
    #[cfg(feature = "tls")]
    ca: Option<Arc<CaType>>,
    #[cfg(feature = "tls")]
    client: Option<Arc<CertKey>>,
}

/// Why files cannot be used. `Display` names the file, never its contents.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    #[error("{path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{0}: longer than a mebibyte")]
    TooLong(String),
    #[cfg(feature = "tls")]
    #[error("{0}: no PEM certificate in it, or a damaged one")]
    NoCertificate(String),
    #[cfg(feature = "tls")]
    #[error("{0}: no PEM private key in it, or one of an unknown kind")]
    NoKey(String),
    #[error("a client certificate and its key go together: one of them is missing")]
    Half,
}

impl Files {
    pub(super) const fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client_cert.is_none() && self.client_key.is_none()
    }
}

/// Reads and checks the files. Blocks.
///
/// # Errors
/// [`TrustError`].
pub(super) fn read(files: &Files) -> Result<Trust, TrustError> {
    let ca = files.ca.as_deref().map(contents).transpose()?;
    let (cert, key) = match (&files.client_cert, &files.client_key) {
        (Some(cert), Some(key)) => (Some(contents(cert)?), Some(contents(key)?)),
        (None, None) => (None, None),
        _ => return Err(TrustError::Half),
    };
    let mut hasher = DefaultHasher::new();
    (&ca, &cert, &key).hash(&mut hasher);
    let generation = hasher.finish();
    #[cfg(feature = "tls")]
    return Trust {
        generation,
        ca: None,
        client: None,
    }
    .with(files, ca.as_deref(), cert.as_deref().zip(key.as_deref()));
    #[cfg(not(feature = "tls"))]
    Ok(Trust { generation })
}

fn contents(path: &str) -> Result<Vec<u8>, TrustError> {
    let unreadable = |source| TrustError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if Path::new(path).metadata().map_err(unreadable)?.len() > FILE_MAX {
        return Err(TrustError::TooLong(path.to_owned()));
    }
    std::fs::read(path).map_err(unreadable)
}

#[cfg(feature = "tls")]
impl Trust {
    fn with(mut self, files: &Files, ca: Option<&[u8]>, client: Option<(&[u8], &[u8])>) -> Result<Self, TrustError> {
        if let Some(ca) = ca {
            let path = files.ca.as_deref().unwrap_or_default();
            self.ca = Some(
                certificates(ca, path)?
                    .into_iter()
                    .map(|der| WrappedX509::new(der, parse_x509))
                    .collect(),
            );
        }
        if let Some((cert, key)) = client {
            let chain = certificates(cert, files.client_cert.as_deref().unwrap_or_default())?;
            let no_key = || TrustError::NoKey(files.client_key.as_deref().unwrap_or_default().to_owned());
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| no_key())?.secret_der().to_vec();
            // Pingora tells a key's kind by its bytes when it connects, and panics where it cannot.
            PrivateKeyDer::try_from(key.clone()).map_err(|_| no_key())?;
            self.client = Some(Arc::new(CertKey::new(chain, key)));
        }
        Ok(self)
    }
}

/// The certificates of a PEM file, at least one. Each is parsed here, for Pingora panics on one that cannot be.
#[cfg(feature = "tls")]
fn certificates(pem: &[u8], path: &str) -> Result<Vec<Vec<u8>>, TrustError> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let bad = || TrustError::NoCertificate(path.to_owned());
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(pem)
        .map(|der| der.map(|der| der.to_vec()).map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    if found.is_empty() || found.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(bad());
    }
    Ok(found)
}

impl Trust {
    /// Gives a peer what was read.
    pub(super) fn equip(&self, peer: &mut HttpPeer) {
        #[cfg(feature = "tls")]
        {
            peer.options.ca.clone_from(&self.ca);
            peer.client_cert_key.clone_from(&self.client);
        }
        #[cfg(not(feature = "tls"))]
        let _ = peer;
    }
}

impl fmt::Debug for Trust {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
