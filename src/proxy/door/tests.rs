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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stops) = watch::channel(false);
    let bounds = Bounds {
        connections,
        per_address,
        head: Duration::from_millis(head_ms),
    };
    tokio::spawn(serve(listener, Arc::new(Echo), bounds, stops));
    House { address, _stop: stop }
}

impl House {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Asks for `/path` and reads the answer to its end; whether it came.
async fn ask(stream: &mut TcpStream, path: &str) -> bool {
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
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
