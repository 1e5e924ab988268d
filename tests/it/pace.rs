//! How long operators wait while clients keep the gateway busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, rounds};

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_changed_soon_while_the_proxy_carries_load() {
    // The promise is 20 ms (scripts/soak); here only what would be a fault on any machine fails.
    let bound = Duration::from_millis(rounds("OBLETH_WEIGHT_P99_MS", 2_000));
    let upstream = Upstream::start(&["--ms-per-token", "5", "--output-tokens", "40"]).await;
    let gateway = Arc::new(Gateway::start().await);
    gateway.put("capacity", json!({ "max_in_flight": 16 })).await;
    let model = json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" });
    gateway.create("models", model).await;
    let tenant = gateway.tenant(json!({ "name": "acme" })).await;
    let key = gateway.key(&tenant, json!({ "name": "k" })).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut streams = JoinSet::new();
    for _ in 0..32 {
        let (gateway, key, stop) = (Arc::clone(&gateway), key.clone(), Arc::clone(&stop));
        streams.spawn(async move {
            let body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "go" }] });
            let mut answers = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let answer = gateway.post("/v1/chat/completions", &key, &body).send().await.unwrap();
                assert!(answer.text().await.unwrap().contains("[DONE]"));
                answers += 1;
            }
            answers
        });
    }
    let mut times = Vec::new();
    for weight in 1..=rounds("OBLETH_CHANGES", 100) {
        let start = Instant::now();
        gateway
            .patch(&format!("tenants/{tenant}/weight"), json!({ "weight": weight }))
            .await;
        times.push(start.elapsed());
        let live = gateway.get("fairshare/live").await;
        assert_eq!(live["tenants"][0]["weight"], weight, "answered, and not yet live: {live}");
    }
    stop.store(true, Ordering::Relaxed);
    let answers: u64 = streams.join_all().await.into_iter().sum();
    times.sort_unstable();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!(
        "{} weight changes among {answers} streams: median {median:?}, p99 {p99:?}",
        times.len()
    );
    assert!(p99 <= bound, "p99 {p99:?}, at most {bound:?} promised");
}
