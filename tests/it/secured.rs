//! TLS at both doors of a real `obleth serve`: which HTTP is spoken, whose certificate is shown, how it is renewed under load,
//! and what becomes of those who do not shake hands. Feature `tls`.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Gateway, Http2, TOKEN, Upstream, eventually, text};

const SECOND: Duration = Duration::from_secs(1);

fn given(name: &str) -> String {
    format!("{}/src/upstreams/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A listener's files, in a place where they can be renewed.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(TempDir::new().unwrap());
        files.renew("server.pem", &fs::read_to_string(given("server.pem")).unwrap());
        files.renew("server.key", &fs::read_to_string(given("server.key")).unwrap());
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Replaces a file at once, as those who renew certificates do.
    fn renew(&self, name: &str, contents: &str) {
        fs::write(self.path("new"), contents).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }
}

/// Both doors behind TLS, or the first only.
fn gateway(files: &Files, both: bool, flags: &[&str]) -> Gateway {
    let (cert, key) = (files.path("server.pem"), files.path("server.key"));
    let mut env = vec![("OBLETH_SERVER_TLS_CERT_FILE", &*cert), ("OBLETH_SERVER_TLS_KEY_FILE", &*key)];
    if both {
        env.extend([("OBLETH_ADMIN_TLS_CERT_FILE", &*cert), ("OBLETH_ADMIN_TLS_KEY_FILE", &*key)]);
    }
    Gateway::start_logged_with(flags, &env)
}

async fn furnish(gateway: &Gateway, upstream: &Upstream) -> String {
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" }),
        )
        .await;
    gateway.tenant_key(json!({ "name": "acme" })).await
}

/// Shakes hands as a client that trusts the tests' authority, asks for a name, and would speak these.
async fn shake(address: SocketAddr, name: &str, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(given("ca.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn http2(gateway: &Gateway) -> Http2 {
    let stream = shake(gateway.data, "vllm.test", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Http2::over(stream).await
}

/// How many certificates the door shows.
async fn chain(address: SocketAddr) -> usize {
    let stream = shake(address, "vllm.test", &[]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap().len()
}

/// Asks by HTTP/1.1 and reads until the other side closes.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = shake(address, "vllm.test", &["http/1.1"]).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It ends with or without a goodbye of TLS.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// How long it takes until the other side closes a plain connection on which this is said.
async fn closed(address: SocketAddr, said: &[u8]) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(said).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(30 * SECOND, stream.read_to_end(&mut answer)).await;
    read.expect("it is closed").ok();
    assert!(!answer.starts_with(b"HTTP/"), "nothing is served in the clear");
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_streamed_over_tls_a_hundred_on_one_connection_of_http_2_and_one_over_http_1() {
    let upstream = Upstream::start(&["--output-tokens", "3", "--slots", "128"]).await;
    let files = Files::new();
    let gateway = gateway(&files, false, &["--max-in-flight", "128"]);
    let key = furnish(&gateway, &upstream).await;
    let connection = http2(&gateway).await;
    let nothing = json!({});
    let ended = futures_util::future::join_all((0..100).map(|_| async {
        let answer = connection.chat(&key, &nothing).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
        text(answer).await.unwrap()
    }));
    for answer in ended.await {
        assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
    }
    let body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] }).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: vllm.test\r\nauthorization: Bearer {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = ask(gateway.data, &(head + &body)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("data: [DONE]"), "{answer}");
    gateway.idle().await;
    eventually("101 requests had an end", 10 * SECOND, || async {
        upstream.stats().await["completed"] == 101
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_behind_tls_too() {
    let files = Files::new();
    let gateway = gateway(&files, true, &[]);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n");
    for (path, said) in [("/livez", "ok"), ("/api/v1/tenants", "[]"), ("/metrics", "# EOF")] {
        let answer = ask(gateway.management, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(said), "{path}: {answer}");
    }
    let figures = ask(gateway.management, &get("/metrics")).await;
    for listener in ["data", "management"] {
        let well = format!("obleth_certificate_last_reload_successful{{listener=\"{listener}\"}} 1.0");
        assert!(figures.contains(&well), "{figures}");
    }
    // In a hundred years, or so.
    assert!(figures.contains("obleth_certificate_expiry_timestamp_seconds{listener=\"data\"} "));
    assert!(closed(gateway.management, get("/livez").as_bytes()).await < 10 * SECOND);
}

/// Clients that come anew for each request, until told to stop: how many were served. Each must be.
async fn load(address: SocketAddr, key: String, stop: Arc<AtomicBool>, served: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let stream = shake(address, "vllm.test", &["h2"]).await.unwrap();
        let connection = Http2::over(stream).await;
        let answer = connection.chat(&key, &json!({ "max_tokens": 2 })).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(text(answer).await.unwrap().ends_with("data: [DONE]\n\n"));
        served.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_load_a_bad_one_is_not_and_connections_live_on() {
    let upstream = Upstream::start(&["--output-tokens", "3000", "--ms-per-token", "20"]).await;
    let files = Files::new();
    let gateway = gateway(&files, false, &[]);
    let key = furnish(&gateway, &upstream).await;
    // Older than all that follows.
    let old = http2(&gateway).await;
    let long = tokio::spawn(text(old.chat(&key, &json!({ "max_tokens": 1000 })).await.unwrap()));
    let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let loads: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(gateway.data, key.clone(), Arc::clone(&stop), Arc::clone(&served))))
        .collect();
    let reads = |well: bool| {
        let sample = format!(
            "obleth_certificate_last_reload_successful{{listener=\"data\"}} {}.0",
            u8::from(well)
        );
        let gateway = &gateway;
        async move { gateway.metrics().await.contains(&sample) }
    };

    assert_eq!(chain(gateway.data).await, 1);
    let alone = fs::read_to_string(given("server.pem")).unwrap();
    let longer = alone.clone() + &fs::read_to_string(given("ca.pem")).unwrap();
    files.renew("server.pem", &longer);
    eventually("the new chain is shown", 30 * SECOND, || async { chain(gateway.data).await == 2 }).await;

    // The certificate of another key, no certificate, half a file, none at all: the one before stays.
    for bad in [
        fs::read_to_string(given("client.pem")).unwrap(),
        "not PEM".to_owned(),
        longer[..longer.len() / 4].to_owned(),
    ] {
        files.renew("server.pem", &bad);
        eventually("it is told", 30 * SECOND, || reads(false)).await;
        assert_eq!(chain(gateway.data).await, 2);
        files.renew("server.pem", &longer);
        eventually("it is well again", 30 * SECOND, || reads(true)).await;
    }
    fs::remove_file(files.path("server.pem")).unwrap();
    eventually("it is told", 30 * SECOND, || reads(false)).await;
    assert_eq!(chain(gateway.data).await, 2);
    let told = |line: &Value| line["message"] == "certificate not read again; the one before stays";
    eventually("the log has it", 30 * SECOND, || async {
        gateway.log().iter().filter(|line| told(line)).count() >= 4
    })
    .await;

    // All the time others were served, and the old connection is.
    let before = served.load(Ordering::Relaxed);
    eventually("the load goes on", 30 * SECOND, || async {
        served.load(Ordering::Relaxed) > before
    })
    .await;
    let beside = old.chat(&key, &json!({ "max_tokens": 2 })).await.unwrap();
    assert!(text(beside).await.unwrap().ends_with("data: [DONE]\n\n"));
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    // The answer that began under the first certificate goes on to its end.
    assert!(long.await.unwrap().unwrap().ends_with("data: [DONE]\n\n"));
    gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_shake_hands_is_let_go_and_takes_nothing_from_who_does() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let files = Files::new();
    let gateway = gateway(&files, false, &["--header-timeout-ms", "500", "--max-connections", "40"]);
    let key = furnish(&gateway, &upstream).await;
    // Plain HTTP of either version is answered with a close, not with silence.
    let plain = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
    assert!(closed(gateway.data, plain).await < 10 * SECOND);
    assert!(closed(gateway.data, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await < 10 * SECOND);
    // Silence, and a handshake that stops in the middle of its first record, end at the deadline.
    closed(gateway.data, b"").await;
    closed(gateway.data, &[0x16, 3, 1, 2, 0, 1, 0, 1]).await;
    // A client that asks for another name, or by address, gets the one certificate there is, and judges by itself.
    for name in ["other.test", "127.0.0.1"] {
        let error = shake(gateway.data, name, &["h2"]).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    // One with which there is no protocol in common is told so in the handshake.
    assert!(shake(gateway.data, "vllm.test", &["spdy/3"]).await.is_err());
    // Without ALPN it is HTTP/1.1.
    let mut stream = shake(gateway.data, "vllm.test", &[]).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // More who are silent than there are places: whoever waits longest goes, and who comes is let in as soon as one has gone.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(gateway.data).await.unwrap());
    }
    eventually("a good client is served", 30 * SECOND, || async {
        let Ok(stream) = shake(gateway.data, "vllm.test", &["h2"]).await else {
            return false;
        };
        let answer = Http2::over(stream).await.chat(&key, &json!({})).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}
