//! TLS of the listeners: their certificates, read again when the files change, without a restart and without dropping anybody.
//!
//! Without the feature `tls` there is none, and files that ask for it are refused.

use crate::config::ListenerTls;

/// What a listener accepts TLS with.
#[cfg(feature = "tls")]
pub(super) type Acceptor = tokio_rustls::TlsAcceptor;
/// None: this build speaks no TLS.
#[cfg(not(feature = "tls"))]
pub(super) type Acceptor = std::sync::Arc<std::convert::Infallible>;

/// A listener's certificate, as it is followed.
#[cfg(feature = "tls")]
pub(super) type Followed = std::sync::Arc<certificate::Certificate>;
/// None: there is nothing to follow.
#[cfg(not(feature = "tls"))]
pub(super) type Followed = std::sync::Arc<std::convert::Infallible>;

/// Prepares a listener to accept TLS, with these protocols by ALPN, best first; `None` if it is to be plain.
///
/// # Errors
/// The files cannot be used; which, and why.
pub(super) fn acceptor(files: &ListenerTls, protocols: &[&str]) -> Result<Option<(Acceptor, Followed)>, String> {
    let (Some(cert), Some(key)) = (&files.cert_file, &files.key_file) else {
        return Ok(None);
    };
    #[cfg(feature = "tls")]
    return certificate::acceptor(cert, key, protocols).map(Some);
    #[cfg(not(feature = "tls"))]
    {
        let _ = (cert, key, protocols);
        Ok(None)
    }
}

/// How a listener's certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether the files held one that could be used when they were last looked at.
    pub(super) last_read_well: bool,
    /// When the one in force ends, in Unix seconds.
    pub(super) ends: i64,
}

/// How it stands.
pub(super) fn standing(followed: &Followed) -> Standing {
    #[cfg(feature = "tls")]
    return followed.standing();
    #[cfg(not(feature = "tls"))]
    match **followed {}
}

/// Reads the certificates again and again, and takes what is new and good.
pub(super) async fn follow(certificates: Vec<Followed>) {
    #[cfg(feature = "tls")]
    certificate::follow(certificates).await;
    #[cfg(not(feature = "tls"))]
    drop(certificates);
}

#[cfg(feature = "tls")]
mod certificate {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use parking_lot::RwLock;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use sha2::{Digest, Sha256};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
    use tokio_rustls::rustls::sign::CertifiedKey;
    use tracing::{error, info, warn};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::Standing;

    /// How often the files are looked at. Certificates are renewed days before they end.
    const LOOK_EVERY: Duration = Duration::from_secs(2);

    /// A file of certificates or keys that is longer, in bytes, is not one.
    const FILE_MAX: u64 = 1 << 20;

    /// A certificate with its key, as handshakes find it.
    #[derive(Debug)]
    pub(in crate::server) struct Certificate {
        cert: PathBuf,
        key: PathBuf,
        in_force: RwLock<InForce>,
        last_read_well: AtomicBool,
    }

    /// What handshakes are made with, and until when that is of use.
    #[derive(Debug, Clone)]
    struct InForce {
        key: Arc<CertifiedKey>,
        /// In Unix seconds.
        ends: i64,
    }

    impl Certificate {
        pub(super) fn standing(&self) -> Standing {
            Standing {
                last_read_well: self.last_read_well.load(Ordering::Relaxed),
                ends: self.in_force.read().ends,
            }
        }
    }

    impl ResolvesServerCert for Certificate {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.in_force.read().key))
        }
    }

    /// What the files hold, and what tells it from other contents.
    struct Read {
        found: InForce,
        digest: [u8; 32],
    }

    pub(super) fn acceptor(cert: &Path, key: &Path, protocols: &[&str]) -> Result<(TlsAcceptor, Arc<Certificate>), String> {
        let found = read(cert, key)?.found;
        if found.ends < now() {
            // Clients refuse it; whoever does not look at dates is served until it is renewed.
            warn!(file = %cert.display(), "the certificate has expired");
        }
        let certificate = Arc::new(Certificate {
            in_force: RwLock::new(found),
            cert: cert.to_owned(),
            key: key.to_owned(),
            last_read_well: AtomicBool::new(true),
        });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok((TlsAcceptor::from(Arc::new(config)), certificate))
    }

    /// Reads and checks both files. Blocks.
    fn read(cert: &Path, key: &Path) -> Result<Read, String> {
        let (chain, secret) = (contents(cert)?, contents(key)?);
        let digest = Sha256::new()
            .chain_update(&chain)
            .chain_update([0])
            .chain_update(&secret)
            .finalize()
            .into();
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let certificates = certificates
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| format!("{}: no PEM certificate in it, or a damaged one", cert.display()))?;
        let secret = PrivateKeyDer::from_pem_slice(&secret)
            .map_err(|_| format!("{}: no PEM private key in it, or one of an unknown kind", key.display()))?;
        let ends = X509Certificate::from_der(&certificates[0])
            .map(|(_, first)| first.validity().not_after.timestamp())
            .map_err(|_| format!("{}: its first certificate is damaged", cert.display()))?;
        let key = CertifiedKey::from_der(certificates, secret, &ring::default_provider())
            .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?;
        Ok(Read {
            found: InForce { key: Arc::new(key), ends },
            digest,
        })
    }

    fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    fn contents(path: &Path) -> Result<Vec<u8>, String> {
        let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
        if fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
            return Err(format!("{}: longer than a mebibyte", path.display()));
        }
        fs::read(path).map_err(unreadable)
    }

    pub(super) async fn follow(certificates: Vec<Arc<Certificate>>) {
        let mut followed: Vec<Follower> = certificates.into_iter().map(Follower::new).collect();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while !followed.is_empty() {
            looks.tick().await;
            let look = move || {
                followed.iter_mut().for_each(Follower::look);
                followed
            };
            let Ok(back) = tokio::task::spawn_blocking(look).await else {
                return;
            };
            followed = back;
        }
    }

    /// One certificate's files, and what was last found in them.
    struct Follower {
        certificate: Arc<Certificate>,
        last: Option<Result<[u8; 32], String>>,
    }

    impl Follower {
        fn new(certificate: Arc<Certificate>) -> Self {
            Self { certificate, last: None }
        }

        /// Takes what is new and good; says once what is bad. Certificate and key are two files: between their renewals they do
        /// not match, which is a fault until the next look.
        fn look(&mut self) {
            let Certificate {
                cert,
                key,
                in_force,
                last_read_well,
            } = &*self.certificate;
            let found = read(cert, key);
            let seen = found.as_ref().map(|found| found.digest).map_err(Clone::clone);
            if self.last.as_ref() == Some(&seen) {
                return;
            }
            let found = match found {
                // What is served from the start on may have expired already; nothing that works is given up for that.
                Ok(Read { found, .. }) if self.last.is_some() && found.ends < now() => Err(format!("{}: it has expired", cert.display())),
                Ok(Read { found, .. }) => Ok(found),
                Err(error) => Err(error),
            };
            last_read_well.store(found.is_ok(), Ordering::Relaxed);
            match found {
                Ok(found) => {
                    *in_force.write() = found;
                    if self.last.is_some() {
                        info!(file = %cert.display(), "certificate read again");
                    }
                }
                Err(error) => error!(%error, "certificate not read again; the one before stays"),
            }
            self.last = Some(seen);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstreams/tls/certificates/");

        #[test]
        fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
            let scratch = tempfile::tempdir().unwrap();
            let [cert, key] = ["server.pem", "server.key"].map(|name| {
                fs::copy(format!("{FOLDER}{name}"), scratch.path().join(name)).unwrap();
                scratch.path().join(name)
            });
            let (_, certificate) = acceptor(&cert, &key, &["http/1.1"]).unwrap();
            let chain = || certificate.in_force.read().key.cert.len();
            let mut follower = Follower::new(Arc::clone(&certificate));
            follower.look();
            assert_eq!(chain(), 1);

            let alone = fs::read_to_string(&cert).unwrap();
            let longer = alone.clone() + &fs::read_to_string(format!("{FOLDER}ca.pem")).unwrap();
            fs::write(&cert, &longer).unwrap();
            follower.look();
            assert_eq!(chain(), 2, "the chain got longer");
            for broken in ["", "not PEM", &longer[..longer.len() / 4]] {
                fs::write(&cert, broken).unwrap();
                follower.look();
                assert_eq!(chain(), 2, "{broken:?}");
                assert!(!certificate.standing().last_read_well);
            }
            fs::write(&cert, alone).unwrap();
            follower.look();
            assert_eq!(chain(), 1);
            assert!(certificate.standing().last_read_well && certificate.standing().ends > now());
        }

        #[test]
        fn what_cannot_be_used_is_named() {
            let ca = PathBuf::from(format!("{FOLDER}ca.pem"));
            let key = PathBuf::from(format!("{FOLDER}server.key"));
            let wrong = |cert: &Path, key: &Path| acceptor(cert, key, &[]).err().unwrap();
            assert!(wrong(&ca, &key).contains("ca.pem"), "the key of another certificate");
            assert!(wrong(&key, &key).contains("no PEM certificate"));
            assert!(wrong(&ca, &ca).contains("no PEM private key"));
            assert!(wrong(Path::new("/nonexistent"), &key).contains("/nonexistent"));
        }
    }
}
