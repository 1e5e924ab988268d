//! The router on a socket: what hyper bounds.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::harness::{House, TOKEN};
use crate::admin::{Bounds, Door, serve};

struct Served {
    addr: SocketAddr,
    stop: watch::Sender<Door>,
    task: JoinHandle<()>,
}

async fn start(router: Router, bounds: Bounds) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(Door::Open);
    let task = tokio::spawn(serve(listener, router, bounds, None, stopped));
    Served { addr, stop, task }
}

/// Sends bytes and reads to the end of the connection.
async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn requests_are_answered_over_a_socket_until_it_stops() {
    let house = House::new();
    let served = start(house.router.clone(), Bounds::default()).await;
    let answer = talk(served.addr, request("/api/v1/health").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"status\":\"ok\"}"),
        "{answer}"
    );
    served.stop.send(Door::Closed).unwrap();
    served.task.await.unwrap();
    assert!(TcpStream::connect(served.addr).await.is_err());
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_slow_are_cut_off() {
    let house = House::new();
    let bounds = Bounds {
        head: Duration::from_millis(100),
        ..Bounds::default()
    };
    let served = start(house.router.clone(), bounds).await;
    let large = format!(
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    assert!(talk(served.addr, large.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x-many: 1\r\n".repeat(150));
    assert!(talk(served.addr, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    // Never finished: the connection ends without an answer to what was never asked.
    let slow = talk(served.addr, b"GET /livez HTTP/1.1\r\nhost: local").await;
    assert!(!slow.contains(" 200"), "{slow}");
    let idle = talk(served.addr, b"").await;
    assert_eq!(idle, "");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_so_that_the_client_sees_it() {
    let house = House::new();
    let served = start(house.router.clone(), Bounds::default()).await;
    let body = "x".repeat(2 * 1024 * 1024);
    let head = format!(
        "POST /api/v1/tenants HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = talk(served.addr, format!("{head}{body}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    // Announced and not yet sent.
    let expecting = head.replace("connection: close", "expect: 100-continue");
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    stream.write_all(expecting.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn connections_over_the_bound_wait_for_a_place() {
    let house = House::new();
    let bounds = Bounds {
        connections: 1,
        ..Bounds::default()
    };
    let served = start(house.router.clone(), bounds).await;
    let mut first = TcpStream::connect(served.addr).await.unwrap();
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).await.unwrap();
    let asked = request("/livez");
    let mut second = std::pin::pin!(talk(served.addr, asked.as_bytes()));
    // The first one keeps its place; polled for long enough to have been answered if there were two.
    for _ in 0..1000 {
        tokio::select! {
            biased;
            answer = &mut second => panic!("{answer}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(first);
    assert!(second.await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_shutdown_lets_the_running_request_finish() {
    let (begun, mut has_begun) = mpsc::channel::<()>(1);
    let (release, released) = watch::channel(false);
    let handler = move || {
        let (begun, mut released) = (begun.clone(), released.clone());
        async move {
            begun.send(()).await.unwrap();
            released.wait_for(|go| *go).await.unwrap();
            "finished"
        }
    };
    let served = start(Router::new().route("/slow", get(handler)), Bounds::default()).await;
    let addr = served.addr;
    let answer = tokio::spawn(async move { talk(addr, b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await });
    has_begun.recv().await.unwrap();
    served.stop.send(Door::Closed).unwrap();
    release.send(true).unwrap();
    // Without `connection: close` in the request: it is the shutdown that ends the connection.
    assert!(answer.await.unwrap().ends_with("finished"));
    served.task.await.unwrap();
}
