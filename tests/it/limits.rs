//! Quotas and budgets on the wire: who passes, who is told when to come back, and that nothing leaks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream};

async fn house(tenant: Value) -> (Arc<Gateway>, Upstream, String) {
    let upstream = Upstream::start(&["--output-tokens", "5", "--slots", "1000"]).await;
    let gateway = Arc::new(Gateway::start().await);
    let prices =
        json!({ "model_name": "llama", "api_base": upstream.url(), "input_cost_per_token": "0.001", "output_cost_per_token": "0.01" });
    gateway.create("models", prices).await;
    let key = gateway.tenant_key(tenant).await;
    (gateway, upstream, key)
}

fn chat(text: &str) -> Value {
    json!({ "model": "llama", "max_tokens": 5, "messages": [{ "role": "user", "content": text }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_at_once_exactly_those_pass_for_whom_there_is_room() {
    let (gateway, upstream, key) = house(json!({ "name": "acme", "requests_per_minute": 10 })).await;
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        crowd.spawn(gateway.post("/v1/chat/completions", &key, &chat("hi")).send());
    }
    let mut passed = 0;
    while let Some(response) = crowd.join_next().await {
        let response = response.unwrap().unwrap();
        let headers = response.headers().clone();
        assert_eq!(headers["x-ratelimit-limit-requests"], "10");
        if response.status() == 200 {
            passed += 1;
            continue;
        }
        assert_eq!(response.status(), 429);
        let wait_ms: u64 = headers["retry-after-ms"].to_str().unwrap().parse().unwrap();
        let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(
            (1..=6_000).contains(&wait_ms) && wait == wait_ms.div_ceil(1000),
            "{wait} s, {wait_ms} ms"
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (body["error"]["type"].as_str(), body["error"]["code"].as_str()),
            (Some("rate_limit_error"), Some("rate_limit_exceeded"))
        );
    }
    // One flows in every six seconds; the crowd may take that long to pass on a busy machine.
    assert!((10..=11).contains(&passed), "{passed} passed");
    assert_eq!(upstream.stats().await["requests"], passed);
    gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_the_true_time_until_the_request_passes() {
    let (gateway, _upstream, key) = house(json!({ "name": "acme", "requests_per_minute": 60 })).await;
    let send = || gateway.post("/v1/chat/completions", &key, &chat("hi")).send();
    let refused = loop {
        let response = send().await.unwrap();
        if response.status() == 429 {
            break response;
        }
    };
    let wait: u64 = refused.headers()["retry-after-ms"].to_str().unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_millis(wait)).await;
    assert_eq!(send().await.unwrap().status(), 200, "after {wait} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_is_settled_to_what_was_used_and_a_refusal_takes_nothing() {
    let (gateway, _upstream, key) = house(json!({ "name": "acme", "tokens_per_minute": 100_000 })).await;
    let remaining = |response: &reqwest::Response| -> u64 {
        response.headers()["x-ratelimit-remaining-tokens"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let many = json!({ "model": "llama", "max_tokens": 90_000, "messages": [] });
    gateway
        .post("/v1/chat/completions", &key, &many)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    gateway.idle().await;
    let unknown = json!({ "model": "nobody", "messages": [] });
    assert_eq!(
        gateway.post("/v1/chat/completions", &key, &unknown).send().await.unwrap().status(),
        404
    );
    let response = gateway.post("/v1/chat/completions", &key, &chat("hi")).send().await.unwrap();
    assert!(remaining(&response) > 99_000, "{} remain", remaining(&response));
    let large = chat(&"x".repeat(500_000));
    let response = gateway.post("/v1/chat/completions", &key, &large).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["x-should-retry"].to_str().unwrap()),
        (429, "false")
    );
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "request_exceeds_quota");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_budget_refuses_until_its_period_ends() {
    let (gateway, _upstream, key) = house(json!({ "name": "acme", "budget_cost_usd": "0.08", "budget_period": "lifetime" })).await;
    let mut last = None;
    for _ in 0..10 {
        let response = gateway.post("/v1/chat/completions", &key, &chat("hi")).send().await.unwrap();
        if response.status() == 429 {
            last = Some(response);
            break;
        }
        response.bytes().await.unwrap();
        gateway.idle().await;
    }
    // Each costs five output tokens at a cent and a few input tokens at a tenth of that.
    let refused = last.expect("the budget ends it");
    assert_eq!(refused.headers()["x-should-retry"], "false");
    assert!(!refused.headers().contains_key("retry-after"), "a lifetime has no next period");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "insufficient_quota");
}
