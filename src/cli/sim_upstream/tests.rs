//! The simulation as its clients see it, over real sockets on loopback.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Sim {
    server: Arc<Server>,
    address: SocketAddr,
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

async fn sim(flags: &[&str]) -> Sim {
    let line: Line = clap::Parser::parse_from([&["sim"], flags].concat());
    let server = Arc::new(Server::new(&line.flags).unwrap());
    let listener = TcpListener::bind(line.flags.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Arc::clone(&server);
    tokio::spawn(async move { accept(&listener, &serving).await });
    Sim { server, address }
}

impl Sim {
    async fn post(&self, path: &str, body: Value) -> reqwest::Result<reqwest::Response> {
        reqwest::Client::new()
            .post(format!("http://{}{path}", self.address))
            .json(&body)
            .send()
            .await
    }

    async fn chat(&self, body: Value) -> reqwest::Result<reqwest::Response> {
        self.post("/v1/chat/completions", body).await
    }

    fn stat(&self, figure: &str) -> u64 {
        serde_json::to_value(self.server.tally.stats()).unwrap()[figure].as_u64().unwrap()
    }

    /// Waits, for two seconds at most, until a figure has reached `value`.
    async fn reaches(&self, figure: &str, value: u64) {
        let start = Instant::now();
        while self.stat(figure) != value {
            assert!(start.elapsed().as_secs() < 2, "{figure} is {}, not {value}", self.stat(figure));
            tokio::task::yield_now().await;
        }
    }
}

fn stream(more: &Value) -> Value {
    let mut body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The data of each event.
fn data(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

#[tokio::test]
async fn a_stream_has_one_chunk_per_token_and_usage_when_asked() {
    let sim = sim(&["--ms-per-token", "1"]).await;
    let response = sim
        .chat(stream(&json!({ "max_tokens": 5, "stream_options": { "include_usage": true } })))
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    let (last, chunks) = data(&text).split_last().map(|(last, chunks)| (*last, chunks.to_vec())).unwrap();
    assert_eq!(last, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    assert_eq!(
        chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["delta"]["content"]
                .as_str()
                .is_some_and(|text| !text.is_empty()))
            .count(),
        5
    );
    assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], 5);
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "length");
    sim.reaches("completed", 1).await;
    assert_eq!(sim.stat("tokens"), 5);
}

#[tokio::test]
async fn every_dialect_streams_json_with_its_token_texts() {
    let sim = sim(&[]).await;
    for (path, pointer) in [
        ("/v1/chat/completions", "/choices/0/delta/content"),
        ("/v1/completions", "/choices/0/text"),
        ("/v1/responses", "/delta"),
        ("/v1/messages", "/delta/text"),
    ] {
        let text = sim
            .post(path, stream(&json!({ "sim_output_tokens": 20 })))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let events: Vec<Value> = data(&text)
            .into_iter()
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect(data))
            .collect();
        let said: String = events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect();
        assert_eq!(said, dialect::text(20), "{path}");
        let numbers: Vec<_> = events.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{path}: {numbers:?}");
    }
}

#[tokio::test]
async fn choices_take_turns_and_usage_counts_them_all() {
    let sim = sim(&[]).await;
    let asked = json!({ "n": 2, "max_tokens": 3, "stream_options": { "include_usage": true, "continuous_usage_stats": true } });
    let text = sim.chat(stream(&asked)).await.unwrap().text().await.unwrap();
    let events: Vec<Value> = data(&text).into_iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
    let last = &events[events.len() - 1];
    assert_eq!(
        (last["usage"]["completion_tokens"].as_u64(), last["usage"]["prompt_tokens"].as_u64()),
        (Some(6), Some(2))
    );
    let second: Vec<_> = events
        .iter()
        .filter(|event| event["choices"][0]["index"] == 1)
        .filter_map(|event| event["usage"]["completion_tokens"].as_u64())
        .collect();
    assert_eq!(second, [1, 2, 3], "a chunk counts its own choice");
}

#[tokio::test]
async fn slots_bound_what_runs_and_the_rest_waits_its_turn() {
    let sim = sim(&["--slots", "2", "--ms-per-token", "2", "--output-tokens", "10"]).await;
    let asked = (0..7).map(|_| async { sim.chat(stream(&json!({}))).await.unwrap().text().await.unwrap() });
    futures_util::future::join_all(asked).await;
    assert_eq!((sim.stat("max_running"), sim.stat("completed"), sim.stat("tokens")), (2, 7, 70));
    assert_eq!((sim.stat("running"), sim.stat("waiting")), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_generating_and_frees_the_slot() {
    let sim = sim(&["--slots", "1", "--ms-per-token", "5", "--output-tokens", "100000"]).await;
    let mut streaming = sim.chat(stream(&json!({}))).await.unwrap();
    streaming.chunk().await.unwrap();
    let mut waiting = Box::pin(sim.chat(json!({ "model": "llama" })));
    tokio::select! {
        _ = &mut waiting => panic!("there is no slot for it"),
        () = sim.reaches("waiting", 1) => {}
    }
    drop(waiting);
    sim.reaches("waiting", 0).await;
    drop(streaming);
    let left = Instant::now();
    sim.reaches("aborted", 2).await;
    assert!(left.elapsed() < Duration::from_millis(100), "{:?}", left.elapsed());
    assert_eq!(sim.stat("running"), 0);
    let entry = &sim.server.tally.log()[1];
    assert!(entry.tokens >= 1 && entry.tokens < 100, "{entry:?}");
}

#[tokio::test]
async fn faults_of_streams_happen_after_the_chunk_they_name() {
    let sim = sim(&["--output-tokens", "9"]).await;
    let mut response = sim.chat(stream(&json!({ "sim_fault": "cut=4" }))).await.unwrap();
    let mut text = String::new();
    let error = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text += std::str::from_utf8(&chunk).unwrap(),
            Ok(None) => panic!("the end of the body must not come"),
            Err(error) => break error,
        }
    };
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    assert_eq!(data(&text).len(), 1 + 4, "the role and four tokens");

    let mut response = sim.chat(stream(&json!({ "sim_fault": "stall=2" }))).await.unwrap();
    let mut text = String::new();
    while data(&text).len() < 3 {
        text += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(50), response.chunk()).await.is_err(),
        "nothing more comes"
    );
    sim.reaches("running", 1).await;
    drop(response);
    sim.reaches("aborted", 1).await;
    assert_eq!(sim.stat("faulted"), 1);
}

#[tokio::test]
async fn faults_below_http_are_seen_on_the_socket() {
    let sim = sim(&[]).await;
    let body = |fault: &str| json!({ "model": "llama", "sim_fault": fault }).to_string();
    let raw = async |body: String| {
        let mut socket = TcpStream::connect(sim.address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        socket
            .read_to_end(&mut answer)
            .await
            .map(|_| String::from_utf8_lossy(&answer).into_owned())
    };
    assert_eq!(raw(body("reset")).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let garbage = raw(body("garbage")).await.unwrap();
    assert!(garbage.contains("this is not HTTP") && !garbage.contains("200"), "{garbage:?}");
    let half = raw(body("cut=1")).await.unwrap();
    assert!(half.starts_with("HTTP/1.1 200 OK") && !half.ends_with('}'), "{half:?}");
    sim.reaches("faulted", 3).await;
}

#[tokio::test]
async fn errors_are_answers_and_times_ends_them() {
    let sim = sim(&["--api-key", "k", "--fault", "status=503,retry-after=7,times=1"]).await;
    let first = sim.chat(json!({ "model": "llama" })).await.unwrap();
    assert_eq!(
        (first.status().as_u16(), first.headers()["retry-after"].to_str().unwrap()),
        (503, "7")
    );
    assert_eq!(first.json::<Value>().await.unwrap()["error"]["code"], 503);
    assert_eq!(sim.chat(json!({ "model": "llama" })).await.unwrap().status(), 401);
    let keyed = |body: Value| {
        reqwest::Client::new()
            .post(format!("http://{}/v1/messages", sim.address))
            .bearer_auth("k")
            .json(&body)
            .send()
    };
    assert_eq!(keyed(json!({ "model": "llama" })).await.unwrap().status(), 200);
    let unknown = keyed(json!({ "model": "nobody" })).await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.unwrap()["error"]["type"], "not_found_error");
    assert_eq!(
        keyed(json!({ "model": "llama", "sim_fault": "explode" })).await.unwrap().status(),
        400
    );
}

#[tokio::test]
async fn a_compressed_answer_says_so_and_can_be_read() {
    use std::io::Read;
    let sim = sim(&[]).await;
    for streamed in [true, false] {
        let response = sim.chat(stream(&json!({ "stream": streamed, "sim_fault": "gzip" }))).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let bytes = response.bytes().await.unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert!(
            if streamed {
                text.ends_with("data: [DONE]\n\n")
            } else {
                text.ends_with('}')
            },
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_small_routes_answer_in_form() {
    let sim = sim(&[]).await;
    for (path, body, pointer, expected) in [
        (
            "/v1/embeddings",
            json!({ "model": "llama", "input": ["a", "b"] }),
            "/data/1/index",
            json!(1),
        ),
        (
            "/v1/embeddings",
            json!({ "model": "llama", "input": "a", "encoding_format": "base64" }),
            "/data/0/embedding",
            json!("AAAAPwAAgL4AAIA/"),
        ),
        (
            "/v1/rerank",
            json!({ "model": "llama", "query": "q", "documents": ["a", "b"] }),
            "/results/1/index",
            json!(1),
        ),
        (
            "/v1/messages/count_tokens",
            json!({ "model": "llama", "messages": [{ "role": "user", "content": "12345678" }] }),
            "/input_tokens",
            json!(2),
        ),
        ("/v1/moderations", json!({ "input": "a" }), "/results/0/flagged", json!(false)),
    ] {
        let answer: Value = sim.post(path, body).await.unwrap().json().await.unwrap();
        assert_eq!(answer.pointer(pointer), Some(&expected), "{path}: {answer}");
    }
    assert_eq!(sim.stat("requests"), 5);
    let get = async |path: &str| reqwest::get(format!("http://{}{path}", sim.address)).await.unwrap();
    assert_eq!(get("/v1/models/llama").await.json::<Value>().await.unwrap()["id"], "llama");
    assert_eq!(get("/v1/models/nobody").await.status(), 404);
    assert!(get("/metrics").await.text().await.unwrap().contains("vllm:num_requests_waiting{"));
    assert_eq!(
        get("/sim/stats").await.json::<Value>().await.unwrap()["requests"],
        5,
        "looking is not counted"
    );
    assert_eq!(
        get("/sim/requests").await.json::<Value>().await.unwrap().as_array().unwrap().len(),
        5
    );
}
