//! The door by itself, before an application that answers every head.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;

/// Reads heads and answers each with the path it asks for.
struct Echo;

#[async_trait]
impl HttpServerApp for Echo {
    async fn process_new_http(self: &Arc<Self>, mut session: ServerSession, _shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        let arrival = session.take_connection_user_context();
        if !session.read_request().await.ok()? {
            return None;
        }
        if let Some(Ok(arrival)) = arrival.map(|arrival| arrival.downcast::<Arrival>()) {
            arrival.head_is_whole();
        }
        let path = session.req_header().uri.path().to_owned();
        let mut head = pingora::http::ResponseHeader::build(200, None).unwrap();
        head.insert_header("content-length", path.len()).unwrap();
        session.write_response_header(Box::new(head)).await.unwrap();
        session.write_response_body(path.into(), true).await.unwrap();
        let settings = pingora::apps::HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        static H2C: std::sync::LazyLock<HttpServerOptions> = std::sync::LazyLock::new(|| {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            options
        });
        Some(&H2C)
    }
}

struct House {
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

async fn house(connections: usize, per_address: usize, head_ms: u64) -> House {
    secured_house(connections, per_address, head_ms, None).await
}

async fn secured_house(connections: usize, per_address: usize, head_ms: u64, tls: Option<Acceptor>) -> House {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stops) = watch::channel(false);
    let closing = Closing {
        ends: stops.clone(),
        stops,
    };
    let bounds = Bounds {
        connections,
        per_address,
        head: Duration::from_millis(head_ms),
    };
    tokio::spawn(serve(listener, Arc::new(Echo), bounds, tls, closing));
    House { address, _stop: stop }
}

impl House {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Asks for `/path` and waits for the answer; whether it came.
async fn ask(stream: &mut TcpStream, path: &str) -> bool {
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(head.as_bytes()).await.is_ok() && answered(stream, path).await
}

/// Reads the answer to its end; whether it came.
async fn answered(stream: &mut TcpStream, path: &str) -> bool {
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(path.as_bytes()) {
        match stream.read(&mut piece).await {
            Ok(count @ 1..) => answer.extend_from_slice(&piece[..count]),
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

/// How long it takes until the other side closes.
async fn closed(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut piece = [0; 64];
    while let Ok(1..) = stream.read(&mut piece).await {}
    start.elapsed()
}

#[tokio::test]
async fn a_silent_connection_and_a_slow_head_end_at_the_deadline() {
    let house = house(10, 0, 300).await;
    let mut silent = house.connect().await;
    let mut drips = house.connect().await;
    let mut http2 = house.connect().await;
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let start = Instant::now();
    while drips.write_all(b"G").await.is_ok() && start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dripped = start.elapsed();
    assert!(
        (Duration::from_millis(250)..Duration::from_secs(3)).contains(&dripped),
        "{dripped:?}"
    );
    assert!(closed(&mut silent).await < Duration::from_secs(2));
    assert!(closed(&mut http2).await < Duration::from_secs(2));
}

#[tokio::test]
async fn the_deadline_of_a_further_head_begins_with_its_first_byte() {
    let house = house(10, 0, 300).await;
    let mut stream = house.connect().await;
    assert!(ask(&mut stream, "/first").await);
    // Idle longer than a head may take.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(ask(&mut stream, "/second").await);
    stream.write_all(b"GET /third").await.unwrap();
    let waited = closed(&mut stream).await;
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn each_head_that_comes_in_pieces_has_a_deadline_of_its_own() {
    let house = house(10, 0, 400).await;
    let mut stream = house.connect().await;
    assert!(ask(&mut stream, "/first").await);
    for _ in 0..3 {
        stream.write_all(b"GET /pieces HTTP/1.1\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        stream.write_all(b"Host: here\r\n\r\n").await.unwrap();
        assert!(answered(&mut stream, "/pieces").await);
    }
}

#[tokio::test]
async fn a_short_request_does_not_wait_for_a_preface_s_length() {
    let house = house(10, 0, 10_000).await;
    let mut stream = house.connect().await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answer))
        .await
        .expect("it is answered")
        .unwrap();
    assert!(answer.starts_with(b"HTTP/1."));
}

#[tokio::test]
async fn a_full_house_lets_in_who_comes_and_lets_go_who_waits() {
    let house = house(4, 0, 60_000).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(house.connect().await);
    }
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut good = house.connect().await;
        assert!(tokio::time::timeout(Duration::from_secs(5), ask(&mut good, "/good")).await.unwrap());
        idle.push(good);
    }
    for stream in &mut silent {
        assert!(closed(stream).await < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn an_address_has_its_share() {
    let house = house(10, 2, 60_000).await;
    let (mut first, mut second) = (house.connect().await, house.connect().await);
    assert!(ask(&mut first, "/a").await && ask(&mut second, "/b").await);
    assert!(!ask(&mut house.connect().await, "/c").await);
    assert!(ask(&mut first, "/d").await);
    drop(second);
    let start = Instant::now();
    while !ask(&mut house.connect().await, "/e").await {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[cfg(feature = "tls")]
mod tls {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstreams/tls/certificates/");

    fn acceptor() -> TlsAcceptor {
        let chain = CertificateDer::pem_file_iter(format!("{FOLDER}server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{FOLDER}server.key")).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    async fn connect(house: &House, protocol: &str) -> client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(format!("{FOLDER}ca.pem")).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("vllm.test").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, house.connect().await)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn http_1_and_2_are_spoken_over_tls_as_alpn_agrees() {
        let house = secured_house(10, 0, 10_000, Some(acceptor())).await;
        let mut first = connect(&house, "http/1.1").await;
        first
            .write_all(b"GET /one HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        // It ends with or without a goodbye of TLS.
        let _ = first.read_to_end(&mut answer).await;
        assert!(String::from_utf8(answer).unwrap().ends_with("/one"));

        let second = connect(&house, "h2").await;
        let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(second))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("https://vllm.test/two").body(Empty::<Bytes>::new()).unwrap();
        let answer = send.send_request(request).await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "/two");
    }

    #[tokio::test]
    async fn a_handshake_that_does_not_come_ends_at_the_deadline_and_plain_http_is_not_served() {
        let house = secured_house(10, 0, 300, Some(acceptor())).await;
        let mut silent = house.connect().await;
        assert!(closed(&mut silent).await < Duration::from_secs(3));
        assert!(!ask(&mut house.connect().await, "/plain").await);
    }
}
