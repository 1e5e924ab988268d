//! Event streams: passed on as they come, metered on the way, ended as the contract says.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, eventually};

struct House {
    gateway: Gateway,
    upstream: Upstream,
    key: String,
}

async fn house(flags: &[&str]) -> House {
    let upstream = Upstream::start(flags).await;
    let gateway = Gateway::start().await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm", "idle_timeout_secs": 1 }),
        )
        .await;
    House { gateway, upstream, key }
}

impl House {
    async fn stream(&self, extra: Value) -> Response {
        let mut body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        // A stream that is broken off costs its connection, which the client's pool may not have noticed yet.
        self.gateway
            .post("/v1/chat/completions", &self.key, &body)
            .header("connection", "close")
            .send()
            .await
            .unwrap()
    }
}

/// The `data:` payloads of a stream.
fn events(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_token_reaches_the_client_when_the_upstream_sends_it() {
    let house = house(&["--ms-per-token", "40", "--output-tokens", "20"]).await;
    let start = Instant::now();
    let mut response = house.stream(json!({})).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["x-obleth-model"], "llama");
    assert!(response.headers().contains_key("x-obleth-queue-ms"));
    assert!(response.headers().contains_key("x-obleth-request-id"));
    response.chunk().await.unwrap();
    let first = start.elapsed();
    let mut pieces = 1;
    while response.chunk().await.unwrap().is_some() {
        pieces += 1;
    }
    let last = start.elapsed();
    assert!(pieces >= 15, "{pieces} pieces: tokens were gathered");
    assert!(
        last - first > Duration::from_millis(500),
        "the first came at {first:?}, the last at {last:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_asked_for_always_and_shown_only_to_who_asked() {
    let house = house(&["--output-tokens", "5"]).await;
    let text = house.stream(json!({})).await.text().await.unwrap();
    let chunks: Vec<Value> = events(&text)
        .iter()
        .filter(|data| **data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(chunks.len() >= 5);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["choices"].as_array().is_some_and(|choices| !choices.is_empty())),
        "{text}"
    );
    assert_eq!(events(&text).last(), Some(&"[DONE]"));

    let text = house
        .stream(json!({ "stream_options": { "include_usage": true } }))
        .await
        .text()
        .await
        .unwrap();
    let usages: Vec<Value> = events(&text)
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter(|chunk| chunk["choices"].as_array().is_some_and(Vec::is_empty))
        .collect();
    assert_eq!(usages.len(), 1, "{text}");
    assert_eq!(usages[0]["usage"]["completion_tokens"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_broken_off_ends_with_an_error_event_and_no_done() {
    let house = house(&["--output-tokens", "50", "--ms-per-token", "1"]).await;
    for (fault, code) in [("cut=3", "upstream_interrupted"), ("stall=3", "upstream_timeout")] {
        let response = house.stream(json!({ "sim_fault": fault })).await;
        assert_eq!(response.status(), 200, "{fault}");
        let text = response.text().await.unwrap();
        let last: Value = serde_json::from_str(events(&text).last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], code, "{fault}: {text}");
        assert!(last["error"]["message"].is_string() && last["error"]["type"].is_string());
        assert!(!text.contains("[DONE]"), "{fault}: {text}");
    }
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anthropic_stream_is_broken_off_in_its_own_dialect() {
    let house = house(&["--output-tokens", "50", "--ms-per-token", "1"]).await;
    let body = json!({ "model": "llama", "max_tokens": 50, "stream": true, "sim_fault": "cut=6", "messages": [{ "role": "user", "content": "hello" }] });
    let text = house
        .gateway
        .post("/v1/messages", &house.key, &body)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let tail: Vec<&str> = text.trim_end().lines().rev().take(2).collect();
    assert_eq!(tail[1], "event: error", "{text}");
    let error: Value = serde_json::from_str(tail[0].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        (error["type"].as_str(), error["error"]["type"].as_str()),
        (Some("error"), Some("api_error")),
        "{error}"
    );
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_mid_stream_is_felt_upstream_within_100_ms() {
    let house = house(&["--output-tokens", "100000", "--ms-per-token", "2"]).await;
    for _ in 0..10 {
        let mut response = house.stream(json!({})).await;
        response.chunk().await.unwrap();
        let aborted = house.upstream.stats().await["aborted"].as_u64().unwrap();
        drop(response);
        let left = Instant::now();
        eventually("the upstream stops", Duration::from_secs(5), || async {
            house.upstream.stats().await["aborted"].as_u64() > Some(aborted)
        })
        .await;
        assert!(left.elapsed() < Duration::from_millis(100), "{:?}", left.elapsed());
    }
    house.gateway.idle().await;
}
