//! What the read files do: certificates that are none, and handshakes with a server whose authority is ours or is not.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::http_app::ServeHttp;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::http::ServerSession;
use pingora::services::Service as _;
use pingora::services::listening::Service;

use super::*;
use crate::upstreams::tests::{catalog, endpoint, model};
use crate::upstreams::{HealthState, Hint, Settings, Upstreams};

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstreams/tls/certificates/ca.pem");
const CERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstreams/tls/certificates/server.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstreams/tls/certificates/server.key");

#[test]
fn what_is_no_certificate_or_key_is_refused_before_anything_can_panic_over_it() {
    let junk = "-----BEGIN CERTIFICATE-----\nMAECAwQ=\n-----END CERTIFICATE-----\n";
    for contents in ["", "not PEM", junk] {
        let ca = file(contents);
        let files = Files {
            ca: path(&ca),
            ..Files::default()
        };
        assert!(matches!(read(&files), Err(TrustError::NoCertificate(_))), "{contents}");
    }
    let pair = |key| Files {
        client_cert: Some(CERT.to_owned()),
        client_key: key,
        ..Files::default()
    };
    for contents in [
        "",
        "not PEM",
        junk,
        "-----BEGIN PRIVATE KEY-----\nMAECAwQ=\n-----END PRIVATE KEY-----\n",
    ] {
        let key = file(contents);
        assert!(matches!(read(&pair(path(&key))), Err(TrustError::NoKey(_))), "{contents}");
    }
    let read = read(&pair(Some(KEY.to_owned()))).unwrap();
    assert!(read.client.is_some() && read.ca.is_none());
}

struct Healthy;

#[async_trait]
impl ServeHttp for Healthy {
    async fn response(&self, _: &mut ServerSession) -> http::Response<Vec<u8>> {
        http::Response::builder().header("content-length", 0).body(Vec::new()).unwrap()
    }
}

/// A TLS server for as long as the test's runtime lives.
fn serve() -> SocketAddr {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut service = Service::new("tls".to_owned(), pingora::apps::http_app::HttpServer::new_app(Healthy));
    service.add_tls_with_settings(&addr.to_string(), None, TlsSettings::intermediate(CERT, KEY).unwrap());
    tokio::spawn(async move {
        let (_stay, shutdown) = tokio::sync::watch::channel(false);
        service.start_service(None, shutdown, 1).await;
    });
    addr
}

async fn verdict(addr: SocketAddr, ca: Option<&str>, server_name: Option<&str>) -> (HealthState, Option<Arc<str>>) {
    let mut model = model(vec![endpoint(&format!("https://{addr}"))]);
    model.tls.ca_file = ca.map(str::to_owned);
    model.tls.server_name = server_name.map(str::to_owned);
    let upstreams = Upstreams::new(Settings::default());
    upstreams.apply(&catalog([model.clone()]));
    upstreams.start().unwrap();
    let start = Instant::now();
    loop {
        let health = upstreams.health(&model.id).remove(0);
        if health.state != HealthState::Unknown {
            assert_eq!(
                upstreams.choose(&model.id, &Hint::default(), &[]).is_ok(),
                health.state == HealthState::Healthy
            );
            return (health.state, health.last_error);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no verdict");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_under_its_own_name_and_authority_and_not_otherwise() {
    let addr = serve();
    assert_eq!(verdict(addr, Some(CA), Some("vllm.test")).await, (HealthState::Healthy, None));
    let refused = (HealthState::Unhealthy, Some("TLS handshake failed".into()));
    assert_eq!(
        verdict(addr, None, Some("vllm.test")).await,
        refused,
        "the system does not know the authority"
    );
    assert_eq!(verdict(addr, Some(CA), Some("other.test")).await, refused, "another name");
    assert_eq!(verdict(addr, Some(CA), None).await, refused, "the address is no name of its");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_files_cannot_be_read_is_down_and_says_so() {
    let (state, error) = verdict(serve(), Some("/nowhere/ca.pem"), Some("vllm.test")).await;
    assert_eq!(state, HealthState::Unhealthy);
    assert!(error.unwrap().starts_with("/nowhere/ca.pem: "));
}
