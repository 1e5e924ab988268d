//! The replay matrix: bodies of every size, framing and protocol reach the upstream whole, rewritten, and again when the
//! first endpoint is not there. Pingora promises none of this; this test is why its version may be changed at all.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Gateway;

const KB: usize = 1024;
const MB: usize = 1024 * KB;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    ContentLength,
    Chunked,
    Expect,
    H2WithLength,
    H2WithoutLength,
}

const FRAMINGS: [Framing; 5] = [
    Framing::ContentLength,
    Framing::Chunked,
    Framing::Expect,
    Framing::H2WithLength,
    Framing::H2WithoutLength,
];

/// An upstream that answers with the length and digest of what it was sent.
async fn witness() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service_fn(testify)).await;
            });
        }
    });
    address
}

async fn testify(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = format!("{:?}", request.version());
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let statement = json!({ "version": version, "length": body.len(), "sha256": hex(&body) });
    Ok(Response::new(Full::new(Bytes::from(statement.to_string()))))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A chat request of exactly `size` bytes.
fn chat(model: &str, size: usize) -> Vec<u8> {
    let frame = json!({ "model": model, "messages": [{ "role": "user", "content": "" }], "temperature": 0.10 }).to_string();
    let at = frame.find(r#""content":"""#).unwrap() + r#""content":""#.len();
    let mut body = frame.clone().into_bytes();
    let filler: Vec<u8> = (0..size - frame.len()).map(|i| b'a' + u8::try_from(i % 23).unwrap()).collect();
    body.splice(at..at, filler);
    assert_eq!(body.len(), size);
    body
}

/// What the upstream must have seen.
fn expected(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    let needle = format!(r#""model":"{from}""#);
    let at = memchr::memmem::find(body, needle.as_bytes()).unwrap();
    let mut out = body.to_vec();
    out.splice(at..at + needle.len(), format!(r#""model":"{to}""#).into_bytes());
    out
}

async fn send(gateway: SocketAddr, key: &str, framing: Framing, body: Vec<u8>) -> (u16, Vec<u8>) {
    let sent = async {
        match framing {
            Framing::ContentLength | Framing::Chunked | Framing::Expect => send_h1(gateway, key, framing, &body).await,
            Framing::H2WithLength | Framing::H2WithoutLength => send_h2(gateway, key, framing, body).await,
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sent)
        .await
        .unwrap_or_else(|_| panic!("{framing:?} hangs"))
}

async fn send_h1(gateway: SocketAddr, key: &str, framing: Framing, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let framed = match framing {
        Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Framing::Expect => format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len()),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\nconnection: close\r\n{framed}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    if framing == Framing::Expect {
        let mut go_ahead = [0; 25];
        reader.read_exact(&mut go_ahead).await.unwrap();
        assert_eq!(&go_ahead, b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let body = body.to_vec();
    let upload = tokio::spawn(async move {
        if framing == Framing::Chunked {
            for piece in body.chunks(50_000) {
                writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                writer.write_all(piece).await?;
                writer.write_all(b"\r\n").await?;
            }
            writer.write_all(b"0\r\n\r\n").await?;
        } else {
            writer.write_all(&body).await?;
        }
        std::io::Result::Ok(writer)
    });
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await.unwrap();
    let _writer = upload.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer);
    let (head, rest) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        rest.lines().skip(1).step_by(2).collect::<String>()
    } else {
        rest.to_owned()
    };
    (status, rest.into_bytes())
}

async fn send_h2(gateway: SocketAddr, key: &str, framing: Framing, body: Vec<u8>) -> (u16, Vec<u8>) {
    let stream = TcpStream::connect(gateway).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{gateway}/v1/chat/completions"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json");
    if framing == Framing::H2WithLength {
        request = request.header("content-length", body.len());
    }
    let body = Bytes::from(body);
    let pieces: Vec<_> = (0..body.len())
        .step_by(50_000)
        .map(|at| body.slice(at..body.len().min(at + 50_000)))
        .collect();
    let stream = futures_util::stream::iter(pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let response = sender.send_request(request.body(StreamBody::new(stream)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// Registers a model whose first endpoint may be one that nobody listens on.
async fn model(gateway: &Gateway, name: &str, upstream_model: &str, good: SocketAddr, http2: bool, retry: bool) {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut endpoints = vec![json!({ "url": format!("http://{good}"), "priority": 1 })];
    if retry {
        endpoints.insert(0, json!({ "url": format!("http://{dead}"), "priority": 0 }));
    }
    gateway
        .create(
            "models",
            json!({ "model_name": name, "upstream_model": upstream_model, "endpoints": endpoints, "http2": http2 }),
        )
        .await;
}

async fn run(sizes: &[usize], rewrites: &[(&str, &str)], retries: &[bool]) {
    let gateway = Gateway::start().await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let upstream = witness().await;
    for &(kind, upstream_model) in rewrites {
        for http2 in [false, true] {
            for &retry in retries {
                // A dead first endpoint is ejected after a few failures; each cell has a model of its own to fail first.
                for framing in FRAMINGS {
                    for &size in sizes {
                        let name = format!("{kind}-{http2}-{retry}-{framing:?}-{size}");
                        model(&gateway, &name, upstream_model, upstream, http2, retry).await;
                        let body = chat(&name, size);
                        let seen = expected(&body, &name, upstream_model);
                        let (status, answer) = send(gateway.data, &key, framing, body).await;
                        assert_eq!(status, 200, "{name}: {}", String::from_utf8_lossy(&answer));
                        let statement: Value = serde_json::from_slice(&answer).unwrap();
                        assert_eq!(statement["version"], if http2 { "HTTP/2.0" } else { "HTTP/1.1" }, "{name}");
                        assert_eq!(statement["length"], seen.len(), "{name}");
                        assert_eq!(statement["sha256"], hex(&seen), "{name}");
                    }
                }
            }
        }
    }
    let stats = gateway.stats().await;
    assert_eq!((stats["in_flight"].as_u64(), stats["queued"].as_u64()), (Some(0), Some(0)));
}

const LONGER: (&str, &str) = (
    "longer",
    "organisation/a-name-that-is-a-good-deal-longer-than-what-the-client-had-sent-to-us",
);
const SHORTER: (&str, &str) = ("shorter", "m");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_around_the_retry_buffer_arrive_whole_in_every_framing() {
    run(&[KB, 64 * KB, 65 * KB], &[LONGER, SHORTER], &[false, true]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_megabytes_arrive_whole_in_every_framing() {
    run(&[5 * MB], &[LONGER, SHORTER], &[false, true]).await;
    run(&[50 * MB], &[LONGER], &[true]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_body_is_a_clear_error_in_every_framing() {
    let gateway = Gateway::start().await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    for framing in FRAMINGS {
        let (status, answer) = send(gateway.data, &key, framing, Vec::new()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (400, Some("invalid_json")),
            "{framing:?}: {answer}"
        );
    }
}
