//! Upstreams that lie: about lengths, heads, codings, tokens and how many answers a question has. Each gets its refusal or
//! its cut, nothing is held, and nobody sees an answer that is not theirs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Gateway;

/// What comes after a request, in pieces, with a pause before each but the first; then the connection is closed.
#[derive(Clone)]
struct Lie {
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    /// The last piece again and again, without an end.
    endless: bool,
    /// It waits for another request instead of closing.
    stays: bool,
}

fn says(text: impl Into<Vec<u8>>) -> Lie {
    Lie {
        pieces: vec![text.into()],
        pause: Duration::ZERO,
        endless: false,
        stays: false,
    }
}

/// An upstream that answers each POST so, and checks properly.
async fn liar(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let lie = Arc::new(lie);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let lie = Arc::clone(&lie);
            // It ends when the gateway has had enough.
            tokio::spawn(async move { drop(converse(stream, &lie).await) });
        }
    });
    addr
}

async fn converse(mut stream: TcpStream, lie: &Lie) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        if !head.starts_with("post") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
            continue;
        }
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await?;
        for (nth, piece) in lie.pieces.iter().enumerate() {
            if nth > 0 {
                tokio::time::sleep(lie.pause).await;
            }
            stream.write_all(piece).await?;
        }
        if lie.endless {
            loop {
                tokio::time::sleep(lie.pause).await;
                stream.write_all(lie.pieces.last().unwrap()).await?;
            }
        }
        if !lie.stays {
            return Ok(());
        }
    }
}

async fn house(lie: Lie) -> (Gateway, String) {
    let upstream = liar(lie).await;
    let gateway = Gateway::start().await;
    let model = json!({
        "model_name": "llama", "engine": "other", "api_base": format!("http://{upstream}"), "max_retries": 0,
        "first_byte_timeout_secs": 2, "idle_timeout_secs": 2, "total_timeout_secs": 4,
    });
    gateway.create("models", model).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    (gateway, key)
}

/// How a request ended: its status and error code, or that its body was cut.
async fn ask(gateway: &Gateway, key: &str) -> String {
    let body = json!({ "model": "llama", "messages": [{ "role": "user", "content": "go" }] });
    let response = gateway.post("/v1/chat/completions", key, &body).send().await.unwrap();
    let status = response.status().as_u16();
    match response.text().await {
        Ok(text) => {
            let code = serde_json::from_str::<Value>(&text)
                .ok()
                .and_then(|body| Some(body["error"]["code"].as_str()?.to_owned()));
            code.map_or_else(|| format!("{status} {text}"), |code| format!("{status} {code}"))
        }
        Err(_) => format!("{status} cut"),
    }
}

const REFUSED: &str = "502 upstream_error";

#[tokio::test(flavor = "multi_thread")]
async fn each_lie_gets_its_refusal_or_its_cut_in_time_and_holds_nothing() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let lies: Vec<(&str, Lie, &'static [&'static str])> = vec![
        (
            "shorter than said",
            says(format!("{head}content-length: 100\r\n\r\n{{}}")),
            &["200 cut"],
        ),
        (
            "a chunk that breaks off",
            says(format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{}}")),
            &["200 cut"],
        ),
        (
            "no chunk size",
            says(format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n")),
            &["200 cut", REFUSED],
        ),
        (
            "a chunk size that overflows",
            says(format!("{head}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{{}}")),
            &["200 cut", REFUSED],
        ),
        (
            "two lengths",
            says(format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")),
            &[REFUSED],
        ),
        (
            "a negative length",
            says(format!("{head}content-length: -1\r\n\r\n{{}}")),
            &[REFUSED, "200 {}"],
        ),
        (
            "a megabyte of header",
            says(format!("{head}x: {}\r\ncontent-length: 2\r\n\r\n{{}}", "x".repeat(1 << 20))),
            &[REFUSED],
        ),
        (
            "too many headers",
            says(format!("{head}{}content-length: 2\r\n\r\n{{}}", "x: y\r\n".repeat(100_000))),
            &[REFUSED],
        ),
        ("no HTTP", says("SSH-2.0-OpenSSH_9.2\r\n"), &[REFUSED]),
        ("HTTP/0.9", says("{\"choices\":[]}"), &[REFUSED]),
        (
            "a status of five digits",
            says("HTTP/1.1 99999 What\r\ncontent-length: 2\r\n\r\n{}"),
            &[REFUSED],
        ),
        (
            "a null in a header",
            says(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
            &[REFUSED],
        ),
        (
            "another protocol",
            says("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            &[REFUSED],
        ),
        ("nothing", says(""), &[REFUSED]),
        (
            "a head without end",
            Lie {
                pieces: vec![b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".to_vec()],
                pause: Duration::from_millis(20),
                endless: true,
                stays: false,
            },
            &["504 upstream_timeout", REFUSED],
        ),
        (
            "interim answers without end",
            Lie {
                pieces: vec![b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()],
                pause: Duration::from_millis(1),
                endless: true,
                stays: false,
            },
            &["504 upstream_timeout", REFUSED],
        ),
        (
            "a body without end",
            Lie {
                pieces: vec![format!("{head}\r\n").into_bytes(), vec![b'x'; 1 << 10]],
                pause: Duration::from_millis(10),
                endless: true,
                stays: false,
            },
            &["200 cut"],
        ),
    ];
    let mut running = tokio::task::JoinSet::new();
    for (name, lie, expected) in lies {
        running.spawn(async move {
            let (gateway, key) = house(lie).await;
            let start = Instant::now();
            let end = ask(&gateway, &key).await;
            assert!(
                expected.contains(&end.as_str()),
                "{name}: {} is none of {expected:?}",
                &end[..end.len().min(200)]
            );
            assert!(start.elapsed() < Duration::from_secs(8), "{name}: {:?}", start.elapsed());
            gateway.idle().await;
        });
    }
    running.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_nobody_asked_for_reaches_nobody() {
    let own = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown";
    let stolen = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
    let glued = Lie {
        stays: true,
        ..says(format!("{own}{stolen}"))
    };
    let late = Lie {
        pieces: vec![own.into(), stolen.into()],
        pause: Duration::from_millis(30),
        endless: false,
        stays: true,
    };
    let longer = Lie {
        stays: true,
        ..says(format!("{own}{stolen}").replace("\r\n\r\nown", "\r\n\r\nownHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nstolen2"))
    };
    for (name, lie) in [("glued", glued), ("late", late), ("longer than said", longer)] {
        let (gateway, key) = house(lie).await;
        let other = gateway.tenant_key(json!({ "name": "other" })).await;
        for turn in 0..6 {
            let key = if turn % 2 == 0 { &key } else { &other };
            let end = ask(&gateway, key).await;
            assert!(
                ["200 own", "502 upstream_error"].contains(&end.as_str()),
                "{name}, turn {turn}: {end}"
            );
            // Longer than the pause: what comes after the next request has gone up is its answer for all that anybody can tell.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_cannot_be_are_not_believed() {
    for usage in [
        r#"{"prompt_tokens":-5,"completion_tokens":-7}"#,
        r#"{"prompt_tokens":1e400,"completion_tokens":1e400}"#,
        r#"{"prompt_tokens":"many","completion_tokens":[1]}"#,
        r#"{"prompt_tokens":18446744073709551615,"completion_tokens":99999999999999999999999}"#,
        "null",
        "7",
    ] {
        let body = format!(r#"{{"choices":[{{"message":{{"content":"four words of text"}}}}],"usage":{usage}}}"#);
        let (gateway, key) = house(says(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))).await;
        assert_eq!(ask(&gateway, &key).await, format!("200 {body}"));
        gateway.idle().await;
        crate::support::eventually("a row", Duration::from_secs(5), || async {
            !gateway.list("usage/requests").await.is_empty()
        })
        .await;
        let row = &gateway.list("usage/requests").await[0];
        for tokens in ["input_tokens", "output_tokens"] {
            let count = row[tokens].as_u64().unwrap_or_else(|| panic!("{usage}: {row}"));
            assert!(count <= 1_000_000_000, "{usage}: {row}");
        }
    }
}
