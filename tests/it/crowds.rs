//! Clients that hold connections open and do nothing: they cost others nothing, and the operator's door stays open.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, eventually, rounds};

fn chat() -> Value {
    json!({ "model": "llama", "messages": [{ "role": "user", "content": "hello" }] })
}

async fn furnish(gateway: &Gateway, upstream: &Upstream) -> String {
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" }),
        )
        .await;
    gateway.tenant_key(json!({ "name": "good" })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_sockets_take_no_descriptor_from_operators_and_no_place_from_clients() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Gateway::start_with_descriptors(200, &["--header-timeout-ms", "60000"]);
    let key = furnish(&gateway, &upstream).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(gateway.data).await.unwrap());
    }
    for _ in 0..20 {
        // Each operator and client with a connection of its own, as the next would have.
        let url = format!("http://{}/readyz", gateway.management);
        assert_eq!(reqwest::Client::new().get(url).send().await.unwrap().status(), 200);
        let url = format!("http://{}/v1/chat/completions", gateway.data);
        let asked = reqwest::Client::new().post(url).bearer_auth(&key).json(&chat()).send();
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("in time").unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    assert_eq!(gateway.get("health").await["status"], "ok");
}

/// The time below which 99 of 100 requests of a client stay.
async fn p99(gateway: &Gateway, key: &str, count: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let answer = gateway.post("/v1/chat/completions", key, &chat()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    times[count * 99 / 100]
}

/// Sends a beginning, then a byte now and then, until the gateway has enough of it.
async fn drip(gateway: std::net::SocketAddr, beginning: String, number: u64) {
    // Not all in the same moment.
    tokio::time::sleep(Duration::from_millis(number)).await;
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    if stream.write_all(beginning.as_bytes()).await.is_ok() {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_slow_heads_and_bodies_hardly_slow_a_good_client() {
    let upstream = Upstream::start(&["--output-tokens", "3", "--ttft-ms", "20"]).await;
    let gateway = Gateway::start_with(&[], &[]);
    let key = furnish(&gateway, &upstream).await;
    let slow = gateway.tenant_key(json!({ "name": "slow" })).await;
    let count = usize::try_from(rounds("OBLETH_REQUESTS", 100)).unwrap();
    p99(&gateway, &key, 20).await;
    let alone = p99(&gateway, &key, count).await;
    let mut crowd = JoinSet::new();
    for number in 0..2000 {
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n";
        crowd.spawn(drip(
            gateway.data,
            if number % 2 == 0 {
                format!("{head}x-slow: ")
            } else {
                format!("{head}authorization: Bearer {slow}\r\ncontent-length: 100000\r\n\r\n{{")
            },
            number,
        ));
    }
    // All of them at the door.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let crowded = p99(&gateway, &key, count).await;
    println!("p99 alone {alone:?}, among 2000 that are slow {crowded:?}");
    // The figures of a moment on a machine that others use too: what is promised is checked where there is room for it.
    let factor = u32::try_from(rounds("OBLETH_SLOWDOWN", 5)).unwrap();
    assert!(crowded <= alone * factor, "{alone:?} alone, {crowded:?} among the slow");
    // Slow heads end at their deadline, by default 10 s.
    let half = async {
        for _ in 0..1000 {
            crowd.join_next().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), half)
        .await
        .expect("slow heads are cut off");
}

/// A process that does nothing any more, ended when dropped.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_stopped_lose_their_slots_to_those_who_wait() {
    // More than all the sockets on the way can hold, so that the gateway has to wait for the client.
    let upstream = Upstream::start(&["--output-tokens", "400000"]).await;
    let gateway = Gateway::start_with(&["--max-in-flight", "4", "--queue-timeout-ms", "300000"], &[]);
    let key = furnish(&gateway, &upstream).await;
    let body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] }).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\\r\\nhost: a\\r\\nauthorization: Bearer {key}\\r\\ncontent-length: {}\\r\\n\\r\\n{body}",
        body.len()
    );
    let port = gateway.data.port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}' >&3; kill -STOP $$; exec cat <&3");
    let mut stopped = Vec::new();
    for _ in 0..4 {
        let client = Command::new("bash").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
        stopped.push(Stopped(client));
    }
    eventually("they hold all slots", Duration::from_secs(30), || async {
        gateway.stats().await["in_flight"] == 4
    })
    .await;
    // Whoever comes now waits until a write to one of them has taken too long, which is half a minute.
    let mut short = chat();
    short["max_tokens"] = json!(3);
    let answer = gateway.post("/v1/chat/completions", &key, &short).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap();
    gateway.idle().await;
    drop(stopped);
}
