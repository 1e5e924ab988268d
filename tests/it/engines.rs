//! What engines are told that clients must not tell them: whose request may go before whose.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, eventually};

async fn running(upstream: &Upstream, count: u64) {
    eventually("it runs", Duration::from_secs(10), || async {
        upstream.stats().await["running"] == count
    })
    .await;
}

/// The `priority` of each request as the engine saw it, by the client's id.
async fn priorities(engine: &str, engine_priority: bool) -> BTreeMap<String, Value> {
    let upstream = Upstream::start(&["--ms-per-token", "100", "--output-tokens", "100000"]).await;
    let gateway = Gateway::start().await;
    gateway.put("capacity", json!({ "max_in_flight": 6 })).await;
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "engine": engine, "engine_priority": engine_priority }),
        )
        .await;
    let [acme, zeta] = [
        gateway.tenant_key(json!({ "name": "acme" })).await,
        gateway.tenant_key(json!({ "name": "zeta" })).await,
    ];
    // Each is entitled to three of six slots; zeta leaves two of its own unused.
    let order = [
        ("z1", &zeta),
        ("a1", &acme),
        ("a2", &acme),
        ("a3", &acme),
        ("a4", &acme),
        ("a5", &acme),
    ];
    let mut streams = Vec::new();
    for (count, (id, key)) in (1..).zip(order) {
        let body = json!({
            "model": "llama", "stream": true, "priority": -100, "messages": [{ "role": "user", "content": "go" }],
        });
        let request = gateway.post("/v1/chat/completions", key, &body).header("x-request-id", id);
        streams.push(request.send().await.unwrap());
        running(&upstream, count).await;
    }
    drop(streams);
    running(&upstream, 0).await;
    let log = upstream.requests().await;
    let entry = |entry: &Value| (entry["id"].as_str().unwrap().to_owned(), entry["priority"].clone());
    log.as_array().unwrap().iter().map(entry).collect()
}

fn expected(owner: &Value, borrower: &Value) -> BTreeMap<String, Value> {
    let owners = ["z1", "a1", "a2", "a3"].map(|id| (id.to_owned(), owner.clone()));
    let borrowers = ["a4", "a5"].map(|id| (id.to_owned(), borrower.clone()));
    owners.into_iter().chain(borrowers).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_go_before_borrowers_in_the_engines_direction_and_clients_have_no_say() {
    assert_eq!(priorities("vllm", true).await, expected(&json!(0), &json!(1)), "lower is sooner");
    assert_eq!(priorities("sglang", true).await, expected(&json!(1), &json!(0)), "higher is sooner");
    assert_eq!(
        priorities("llama_cpp", true).await,
        expected(&Value::Null, &Value::Null),
        "it knows none"
    );
    assert_eq!(
        priorities("vllm", false).await,
        expected(&Value::Null, &Value::Null),
        "not asked for"
    );
}
