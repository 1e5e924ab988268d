//! Many endpoints, none of them trusted to stay up: killed, stalled, cut, slowed and re-addressed under load.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Fault, FaultProxy, Gateway, Upstream, eventually};

fn chat() -> Value {
    json!({ "model": "llama", "messages": [{ "role": "user", "content": "go" }] })
}

fn address(upstream: &Upstream) -> SocketAddr {
    upstream.url().trim_start_matches("http://").parse().unwrap()
}

/// What clients saw: how often each status with its error code.
type Seen = BTreeMap<String, u32>;

/// Sends `count` requests, `at_once` at a time; each with an id of its own.
async fn storm(gateway: &Arc<Gateway>, key: &str, count: usize, at_once: usize) -> Seen {
    let mut seen = Seen::new();
    let mut running = JoinSet::new();
    for number in 0..count {
        if running.len() >= at_once {
            *seen.entry(running.join_next().await.unwrap().unwrap()).or_default() += 1;
        }
        let request = gateway
            .post("/v1/chat/completions", key, &chat())
            .header("x-request-id", format!("r{number}"));
        running.spawn(async move {
            let Ok(response) = request.send().await else {
                return "no answer".to_owned();
            };
            let status = response.status().as_u16();
            match response.json::<Value>().await {
                Ok(body) if body["error"].is_object() => format!("{status} {}", body["error"]["code"].as_str().unwrap_or_default()),
                Ok(_) => format!("{status}"),
                Err(_) => format!("{status} cut"),
            }
        });
    }
    while let Some(end) = running.join_next().await {
        *seen.entry(end.unwrap()).or_default() += 1;
    }
    seen
}

async fn executions(upstreams: &[Upstream]) -> HashMap<String, u32> {
    let mut all = HashMap::new();
    for upstream in upstreams {
        for entry in upstream.requests().await.as_array().unwrap() {
            *all.entry(entry["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    all
}

async fn house(flags: &[&str], endpoints: &[(String, u32)], more: Value) -> (Arc<Gateway>, String) {
    let gateway = Gateway::start_with(flags, &[]);
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(url, weight)| json!({ "url": url, "weight": weight }))
        .collect();
    let mut model = json!({ "model_name": "llama", "engine": "vllm", "endpoints": endpoints });
    model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.create("models", model).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    (Arc::new(gateway), key)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_could_lawfully_hide_no_client_sees_and_nothing_runs_twice() {
    const REQUESTS: usize = 4_000;
    let flags = [
        "--ttft-ms",
        "3",
        "--ms-per-token",
        "1",
        "--output-tokens",
        "4",
        "--log-length",
        "100000",
    ];
    let mut upstreams = Vec::new();
    let mut proxies = Vec::new();
    for _ in 0..5 {
        let upstream = Upstream::start(&flags).await;
        proxies.push(FaultProxy::start(address(&upstream)).await);
        upstreams.push(upstream);
    }
    let endpoints: Vec<(String, u32)> = proxies.iter().map(|proxy| (proxy.url(), 100)).collect();
    // Short enough that a stall is over within the test.
    let patience = json!({ "max_retries": 4, "first_byte_timeout_secs": 1, "idle_timeout_secs": 1, "connect_timeout_ms": 500 });
    let (gateway, key) = house(&[], &endpoints, patience).await;
    let proxies = Arc::new(proxies);
    let targets: Vec<SocketAddr> = upstreams.iter().map(address).collect();
    let trouble = tokio::spawn({
        let proxies = Arc::clone(&proxies);
        async move {
            let faults = [
                Fault::Refuse,
                Fault::ResetAfter(0),
                Fault::Blackhole,
                Fault::CutAfter(40),
                Fault::Delay(Duration::from_millis(30)),
            ];
            // One or two at a time, for two thirds of a second; the others are whole.
            for round in 0_usize.. {
                let sick = [round % 5, (round * 2 + 1) % 5];
                for (nth, proxy) in sick.into_iter().enumerate() {
                    proxies[proxy].set(faults[(round + nth * 3) % faults.len()]);
                }
                // Re-addressed: the same endpoint is another process from here on.
                proxies[round % 5].retarget(targets[(round + 1) % 5]);
                tokio::time::sleep(Duration::from_millis(650)).await;
                for proxy in sick {
                    proxies[proxy].set(Fault::None);
                }
                tokio::time::sleep(Duration::from_millis(350)).await;
            }
        }
    });
    let start = Instant::now();
    let seen = storm(&gateway, &key, REQUESTS, 40).await;
    trouble.abort();
    for proxy in proxies.iter() {
        proxy.set(Fault::None);
    }
    let what = format!("{seen:?} in {:?}", start.elapsed());
    assert!(start.elapsed() > Duration::from_secs(3), "too short for trouble: {what}");
    for hidden in ["502 upstream_unreachable", "503 no_healthy_upstream", "no answer"] {
        assert_eq!(seen.get(hidden), None, "{what}");
    }
    let whole = seen.get("200").copied().unwrap_or_default();
    assert!(whole as usize > REQUESTS * 9 / 10, "{what}");
    let executed = executions(&upstreams).await;
    let twice: Vec<_> = executed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "executed more than once: {twice:?}; {what}");
    assert!(executed.len() >= whole as usize, "{what}");
    gateway.idle().await;
    let model = gateway.get("models").await;
    for endpoint in model[0]["health"].as_array().unwrap() {
        assert_eq!(endpoint["in_flight"], 0, "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_spread_by_weight() {
    let mut upstreams = Vec::new();
    for _ in 0..3 {
        upstreams.push(Upstream::start(&["--ms-per-token", "1", "--output-tokens", "10"]).await);
    }
    let weights = [100, 200, 300];
    let endpoints: Vec<(String, u32)> = upstreams.iter().map(Upstream::url).zip(weights).collect();
    let (gateway, key) = house(&[], &endpoints, json!({})).await;
    let seen = storm(&gateway, &key, 3_000, 30).await;
    assert_eq!(seen.get("200"), Some(&3_000), "{seen:?}");
    for (upstream, weight) in upstreams.iter().zip(weights) {
        let got = upstream.stats().await["completed"].as_f64().unwrap();
        let share = got / 3_000.0 / (f64::from(weight) / 600.0);
        assert!((0.95..=1.05).contains(&share), "weight {weight} got {share} of its share");
    }
}

/// The latencies of `count` requests, 24 at a time, ascending.
async fn latencies(gateway: &Arc<Gateway>, key: &str, count: usize) -> Vec<Duration> {
    let mut all = Vec::with_capacity(count);
    let mut running = JoinSet::new();
    while all.len() < count {
        if running.len() + all.len() < count && running.len() < 24 {
            let request = gateway.post("/v1/chat/completions", key, &chat());
            running.spawn(async move {
                let start = Instant::now();
                assert_eq!(request.send().await.unwrap().status(), 200);
                start.elapsed()
            });
        } else {
            all.push(running.join_next().await.unwrap().unwrap());
        }
    }
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_five_times_slower_does_not_show_in_the_99th_percentile() {
    let mut upstreams = Vec::new();
    for per_token in ["10", "10", "10", "50"] {
        upstreams.push(Upstream::start(&["--ms-per-token", per_token, "--output-tokens", "10", "--ttft-ms", per_token]).await);
    }
    let endpoints: Vec<(String, u32)> = upstreams.iter().map(|upstream| (upstream.url(), 100)).collect();
    let (without, its_key) = house(&[], &endpoints[..3], json!({})).await;
    let (with, key) = house(&[], &endpoints, json!({})).await;
    // What it learns by.
    latencies(&with, &key, 600).await;
    // A busy machine can only make it look worse than it is: one run of three must show it.
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let fine = latencies(&without, &its_key, 1_000).await[990];
        let all = latencies(&with, &key, 1_000).await[990];
        ratios.push(all.as_secs_f64() / fine.as_secs_f64());
        if ratios.last().is_some_and(|ratio| *ratio < 1.5) {
            return;
        }
    }
    panic!("p99 with the slow one over p99 without it: {ratios:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_endpoints_down_is_said_at_once_and_why() {
    let upstream = Upstream::start(&[]).await;
    let proxy = FaultProxy::start(address(&upstream)).await;
    let (gateway, key) = house(&[], &[(proxy.url(), 100)], json!({})).await;
    proxy.set(Fault::Refuse);
    let mut message = String::new();
    eventually("down", Duration::from_secs(10), || async {
        gateway.get("models").await[0]["health"][0]["state"] != "healthy"
    })
    .await;
    for _ in 0..20 {
        let start = Instant::now();
        let response = gateway.post("/v1/chat/completions", &key, &chat()).send().await.unwrap();
        let (status, body) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
        assert!(start.elapsed() < Duration::from_secs(1), "not at once: {:?}", start.elapsed());
        assert!([502, 503].contains(&status), "{status} {body}");
        message = body["error"]["code"].as_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(message, "no_healthy_upstream");
    let (before, connections) = (proxy.bytes(), proxy.connections());
    proxy.set(Fault::None);
    eventually("up again", Duration::from_secs(10), || async {
        let response = gateway.post("/v1/chat/completions", &key, &chat()).send().await.unwrap();
        response.status().is_success()
    })
    .await;
    assert!(proxy.bytes() > before && proxy.connections() > connections);
    assert!(proxy.request_ids().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_fail_has_its_answer_and_slowness_is_no_failure() {
    let upstream = Upstream::start(&[]).await;
    let cases = [
        (Fault::Drip(64, Duration::from_millis(2)), "200"),
        (Fault::Delay(Duration::from_millis(100)), "200"),
        (Fault::Refuse, "502 upstream_unreachable"),
        (Fault::ResetAfter(0), "502 upstream_error"),
        (Fault::CutAfter(0), "502 upstream_error"),
        (Fault::Blackhole, "504 upstream_timeout"),
    ];
    for (fault, expected) in cases {
        let proxy = FaultProxy::start(address(&upstream)).await;
        let terms = json!({ "max_retries": 0, "first_byte_timeout_secs": 1, "connect_timeout_ms": 500 });
        let (gateway, key) = house(&[], &[(proxy.url(), 100)], terms).await;
        eventually("checked", Duration::from_secs(10), || async { proxy.connections() > 0 }).await;
        proxy.set(fault);
        let seen = storm(&gateway, &key, 1, 1).await;
        assert_eq!(seen, Seen::from([(expected.to_owned(), 1)]), "{fault:?}");
        gateway.idle().await;
    }
}
