//! HTTP/2 from clients, here without TLS (by prior knowledge): many requests on one connection, and what a client may not do
//! with them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Gateway, Http2, Upstream, eventually, text};

const SECOND: Duration = Duration::from_secs(1);

/// An answer that goes on for minutes.
const LONG: &[&str] = &["--ms-per-token", "100", "--output-tokens", "3000", "--slots", "128"];

async fn furnish(gateway: &Gateway, upstream: &Upstream) -> String {
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" }),
        )
        .await;
    gateway.tenant_key(json!({ "name": "acme" })).await
}

async fn connect(gateway: &Gateway) -> Http2 {
    Http2::over(TcpStream::connect(gateway.data).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_streams_run_beside_each_other_on_one_connection_and_end_with_it() {
    let upstream = Upstream::start(LONG).await;
    let gateway = Gateway::start_with(&["--max-in-flight", "128"], &[]);
    let key = furnish(&gateway, &upstream).await;
    let connection = connect(&gateway).await;
    let mut answers = JoinSet::new();
    let connection = std::sync::Arc::new(connection);
    for _ in 0..100 {
        let (connection, key) = (std::sync::Arc::clone(&connection), key.clone());
        answers.spawn(async move { connection.chat(&key, &json!({})).await.unwrap() });
    }
    let running = answers.join_all().await;
    for answer in &running {
        assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
    }
    assert_eq!(gateway.stats().await["in_flight"], 100);
    // The client is gone with all it asked for.
    drop((running, connection));
    gateway.idle().await;
    eventually("the upstream has nothing to do", 10 * SECOND, || async {
        upstream.stats().await["running"] == 0
    })
    .await;

    let connection = connect(&gateway).await;
    let short = json!({ "max_tokens": 3 });
    let ended = futures_util::future::join_all((0..100).map(|_| async { text(connection.chat(&key, &short).await?).await })).await;
    for answer in ended {
        assert!(answer.unwrap().ends_with("data: [DONE]\n\n"));
    }
    gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_takes_a_place_as_a_connection_would() {
    let upstream = Upstream::start(LONG).await;
    let gateway = Gateway::start_with(&["--max-connections", "4"], &[]);
    let key = furnish(&gateway, &upstream).await;
    let connection = connect(&gateway).await;
    let mut running = Vec::new();
    for _ in 0..4 {
        let answer = connection.chat(&key, &json!({})).await.unwrap();
        assert_eq!(answer.status(), 200);
        running.push(answer);
    }
    for _ in 0..2 {
        let refused = connection.chat(&key, &json!({})).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        let body: Value = serde_json::from_str(&text(refused).await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], "queue_full");
    }
    let other = gateway.post("/v1/chat/completions", &key, &json!({})).send().await;
    assert!(other.is_err(), "there is no place for a further connection either");
    // Who is refused takes nothing away from those who run.
    assert_eq!(gateway.stats().await["in_flight"], 4);
    drop(running);
    gateway.idle().await;
    eventually("there are places again", 10 * SECOND, || async {
        let answer = connection.chat(&key, &json!({ "max_tokens": 1 })).await.unwrap();
        answer.status() == 200 && text(answer).await.unwrap().ends_with("data: [DONE]\n\n")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_lose_their_slots_to_those_who_wait() {
    // More than the client's windows take.
    let upstream = Upstream::start(&["--output-tokens", "400000"]).await;
    let gateway = Gateway::start_with(&["--max-in-flight", "4", "--queue-timeout-ms", "300000"], &[]);
    let key = furnish(&gateway, &upstream).await;
    let connection = connect(&gateway).await;
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(connection.chat(&key, &json!({})).await.unwrap());
    }
    // Whoever comes now, on the same connection too, waits until a write has taken too long, which is half a minute.
    let answer = connection.chat(&key, &json!({ "max_tokens": 1 })).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    gateway.idle().await;
    drop(unread);
}

// Frames by hand (RFC 9113, §4.1): what no library sends.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block of literals (RFC 7541, §6.2.2) for a chat.
fn chat_head(key: &str) -> Vec<u8> {
    // POST and http of the static table, then :path (4), :authority (1) and authorization (23) with values of their own.
    let mut block = vec![0x83, 0x86];
    let bearer = format!("Bearer {key}");
    for (name, value) in [(&[4][..], "/v1/chat/completions"), (&[1], "gateway.test"), (&[15, 8], &bearer)] {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    block
}

async fn by_hand(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.data).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Sends streams, each reset at once (CVE-2023-44487), some with a whole request before: how many before the gateway had enough.
async fn reset_rapidly(gateway: &Gateway, key: &str, count: u32) -> u32 {
    let (mut read, mut write) = by_hand(gateway).await.into_split();
    // What comes back is read, so that the gateway can say its goodbye.
    let answers = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let head = chat_head(key);
    let body = br#"{"model":"llama","stream":true,"messages":[{"role":"user","content":"go"}]}"#;
    let mut sent = 0;
    for number in 0..count {
        let stream = 2 * number + 1;
        let mut frames = frame(HEADERS, END_HEADERS, stream, &head);
        if number % 2 == 0 {
            frames.extend(frame(DATA, END_STREAM, stream, body));
        }
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        if write.write_all(&frames).await.is_err() {
            break;
        }
        sent += 1;
    }
    drop(write);
    let _ = answers.await;
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_soon_as_they_begin_leave_nothing_behind_and_slow_nobody_down_for_good() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Gateway::start().await;
    let key = furnish(&gateway, &upstream).await;
    let good = async {
        for _ in 0..30 {
            let body = json!({ "model": "llama", "messages": [{ "role": "user", "content": "hello" }] });
            let answer = gateway.post("/v1/chat/completions", &key, &body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        }
    };
    let attack = async {
        let mut sent = 0;
        while sent < 4000 {
            sent += reset_rapidly(&gateway, &key, 1000).await;
        }
    };
    tokio::join!(good, attack);
    gateway.idle().await;
    eventually("nothing is held", 10 * SECOND, || async {
        let figures = gateway.metrics().await;
        let zero = |name: &str| figures.contains(&format!("\n{name} 0.0\n"));
        zero("obleth_active_requests") && zero("obleth_buffered_bytes") && zero("obleth_slots_in_use")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_off() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Gateway::start_with(&["--header-timeout-ms", "60000"], &[]);
    let key = furnish(&gateway, &upstream).await;
    let mut stream = by_hand(&gateway).await;
    stream.write_all(&frame(HEADERS, 0, 1, &chat_head(&key))).await.unwrap();
    // Literal fields without end: "x: aa…".
    let mut field = vec![0, 1, b'x', 100];
    field.extend([b'a'; 100]);
    let piece = frame(CONTINUATION, 0, 1, &field.repeat(150));
    let mut sent = 0;
    let flood = async {
        let mut answer = [0; 4096];
        loop {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
            sent += piece.len();
            // Whether it has said goodbye.
            if let Ok(0) = stream.try_read(&mut answer) {
                return;
            }
        }
    };
    tokio::time::timeout(30 * SECOND, flood).await.expect("it is cut off");
    // What the gateway kept is less than what fits into sockets; it was not reading for long.
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    let after = connect(&gateway).await.chat(&key, &json!({})).await.unwrap();
    assert_eq!(after.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_is_asked_ends_at_the_deadline_whatever_it_says() {
    let gateway = Gateway::start_with(&["--header-timeout-ms", "300"], &[]);
    let mut stream = by_hand(&gateway).await;
    let ping = frame(6, 0, 0, &[0; 8]);
    let closed = async {
        let mut answer = [0; 4096];
        loop {
            if stream.write_all(&ping).await.is_err() {
                return;
            }
            let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut answer)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(30 * SECOND, closed).await.expect("it is closed");
}
