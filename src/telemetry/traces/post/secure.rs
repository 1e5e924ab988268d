//! TLS to the collector: who is asked for, and who vouches for it.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Unusable;

pub(super) type Connection = StreamOwned<ClientConnection, TcpStream>;

/// Who is asked for, and who may vouch for it.
#[derive(Clone)]
pub(super) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    pub(super) fn new(host: &str) -> Result<Self, Unusable> {
        let unusable = |why: &dyn std::fmt::Display| Unusable(format!("the traces' endpoint cannot be spoken to by TLS: {why}"));
        let name = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|error| unusable(&error))?;
        let mut roots = RootCertStore::empty();
        let trusted = rustls_native_certs::load_native_certs().map_err(|error| unusable(&error))?;
        // One that this library does not understand is one that nobody here is known by.
        roots.add_parsable_certificates(trusted);
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    /// A connection that will shake hands with the first byte.
    pub(super) fn over(&self, stream: TcpStream) -> io::Result<Box<Connection>> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, ServerConnection};

    use super::super::Collector;
    use super::*;

    #[test]
    fn spans_go_by_tls_to_whom_is_vouched_for_and_to_nobody_else() {
        const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstreams/tls/certificates/");
        let provider = || Arc::new(ring::default_provider());
        let chain = CertificateDer::pem_file_iter(format!("{FOLDER}server.pem")).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                chain.map(Result::unwrap).collect(),
                PrivateKeyDer::from_pem_file(format!("{FOLDER}server.key")).unwrap(),
            )
            .unwrap();
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let mut got = Vec::new();
            for _ in 0..2 {
                let (socket, _) = listener.accept().unwrap();
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&server)).unwrap(), socket);
                let mut body = [0; 1024];
                while !got.ends_with(b"the body") {
                    match stream.read(&mut body) {
                        Ok(count @ 1..) => got.extend_from_slice(&body[..count]),
                        Ok(0) | Err(_) => break,
                    }
                }
                // Nobody may be left to be told.
                let _ = stream.write_all(b"HTTP/1.1 202 Taken\r\n\r\n").and_then(|()| stream.flush());
            }
            got
        });
        let to = |authority: &str| {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(format!("{FOLDER}{authority}")).unwrap())
                .unwrap();
            let config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            Collector {
                host: "127.0.0.1".to_owned(),
                port,
                tls: Some(Client {
                    config: Arc::new(config),
                    name: ServerName::try_from("vllm.test").unwrap(),
                }),
                head: "POST /v1/traces HTTP/1.1\r\n".to_owned(),
            }
        };
        let answer = to("ca.pem").post(b"the body", Duration::from_secs(60)).unwrap();
        assert_eq!(answer.status, 202);
        assert!(to("client-ca.pem").post(b"the body", Duration::from_secs(60)).is_err());
        let got = String::from_utf8(serving.join().unwrap()).unwrap();
        assert_eq!(got.matches("the body").count(), 1, "{got}");
    }
}
