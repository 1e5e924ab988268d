//! The response cache on the wire: a hit never queues, a crowd asks once, tenants never meet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, eventually};

struct House {
    gateway: Arc<Gateway>,
    upstream: Upstream,
    key: String,
    model: String,
}

async fn house(flags: &[&str], cache: Value) -> House {
    let upstream = Upstream::start(flags).await;
    let gateway = Gateway::start().await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let mut model = json!({
        "model_name": "llama", "api_base": upstream.url(), "engine": "vllm", "cache_enabled": true,
        "input_cost_per_token": "0.001", "output_cost_per_token": "0.002",
    });
    model.as_object_mut().unwrap().extend(cache.as_object().unwrap().clone());
    let model = gateway.create("models", model).await["id"].as_str().unwrap().to_owned();
    House {
        gateway: Arc::new(gateway),
        upstream,
        key,
        model,
    }
}

fn chat(stream: bool, extra: &Value) -> Value {
    let mut body = json!({ "model": "llama", "stream": stream, "messages": [{ "role": "user", "content": "hello" }] });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn cache_of(response: &Response) -> &str {
    response.headers().get("x-obleth-cache").map_or("", |value| value.to_str().unwrap())
}

impl House {
    fn ask(&self, stream: bool, extra: &Value) -> RequestBuilder {
        let request = self.gateway.post("/v1/chat/completions", &self.key, &chat(stream, extra));
        // One that ends in an error event is closed after it, and must not be taken for the next request.
        if extra.get("sim_fault").is_some() {
            request.header("connection", "close")
        } else {
            request
        }
    }

    /// What the cache had to do with a request, its status and its body.
    async fn answer(&self, stream: bool, extra: &Value) -> (String, u16, String) {
        told(self.ask(stream, extra).send().await.unwrap()).await
    }

    /// How many requests reached the upstream.
    async fn asked(&self) -> u64 {
        self.upstream.stats().await["requests"].as_u64().unwrap()
    }

    async fn until_asked(&self, requests: u64) {
        eventually("the upstream is asked", Duration::from_secs(5), || async {
            self.asked().await == requests
        })
        .await;
    }

    /// Sends the same request `count` times and gives those already sent time to be read.
    async fn crowd(&self, count: usize, stream: bool, extra: &Value) -> JoinSet<(String, u16, String)> {
        let mut crowd = JoinSet::new();
        for _ in 0..count {
            let request = self.ask(stream, extra);
            crowd.spawn(async move { told(request.send().await.unwrap()).await });
        }
        // Nothing outside shows that a request listens; one that comes late is served all the same.
        tokio::time::sleep(Duration::from_millis(150)).await;
        crowd
    }
}

async fn told(response: Response) -> (String, u16, String) {
    let cache = cache_of(&response).to_owned();
    let status = response.status().as_u16();
    (cache, status, response.text().await.unwrap_or_else(|error| format!("cut: {error}")))
}

/// A request on a connection of its own that is read by hand.
async fn raw(address: SocketAddr, key: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_gets_the_first_ones_bytes_and_the_upstream_is_not_asked() {
    let house = house(&["--output-tokens", "20"], json!({})).await;
    for (count, stream) in [(1, true), (2, false)] {
        let first = house.answer(stream, &json!({})).await;
        assert_eq!((first.0.as_str(), first.1), ("miss", 200));
        // Another spelling of the same values.
        let respelt = format!(
            "{{ \"messages\": [ {{ \"content\":\"h\\u0065llo\", \"role\":\"user\" }} ], \"stream\":{stream}, \"model\":\"llama\" }}"
        );
        let again = house
            .gateway
            .post("/v1/chat/completions", &house.key, &json!({}))
            .body(respelt)
            .send()
            .await
            .unwrap();
        assert!(again.headers().contains_key("age"));
        assert_eq!(again.headers()["x-obleth-model"], "llama");
        assert_eq!(again.headers()["x-obleth-queue-ms"], "0");
        let kind = if stream { "text/event-stream" } else { "application/json" };
        assert_eq!(again.headers()["content-type"], kind);
        let again = told(again).await;
        assert_eq!((again.0.as_str(), again.1), ("hit", 200));
        assert_eq!(again.2, first.2);
        assert_eq!(house.asked().await, count);
    }
    // Every value counts.
    for extra in [
        json!({ "temperature": 0.1 }),
        json!({ "user": "a" }),
        json!({ "stream_options": { "include_usage": true } }),
    ] {
        assert_eq!(house.answer(true, &extra).await.0, "miss", "{extra}");
        assert_eq!(house.answer(true, &extra).await.0, "hit", "{extra}");
    }
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_comes_in_the_pieces_in_which_the_answer_came() {
    let house = house(&["--output-tokens", "8", "--ms-per-token", "20"], json!({})).await;
    let (_, _, first) = house.answer(true, &json!({})).await;
    let body = chat(true, &json!({}));
    let mut connection = raw(house.gateway.data, &house.key, &body).await;
    let mut wire = Vec::new();
    let mut piece = [0; 4096];
    while !wire.ends_with(b"0\r\n\r\n") {
        let length = connection.read(&mut piece).await.unwrap();
        assert_ne!(length, 0);
        wire.extend_from_slice(&piece[..length]);
    }
    let wire = String::from_utf8(wire).unwrap();
    let (head, mut rest) = wire.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("x-obleth-cache: hit"), "{head}");
    let mut pieces = Vec::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        pieces.push(&after[..length]);
        rest = &after[length + 2..];
    }
    assert_eq!(pieces.concat(), first);
    assert!(pieces.len() >= 9, "{pieces:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_meet_only_where_the_operator_says_so() {
    let house = house(&["--output-tokens", "3"], json!({})).await;
    let other = house.gateway.tenant_key(json!({ "name": "other" })).await;
    let ask = |key: String| {
        let request = house.gateway.post("/v1/chat/completions", &key, &chat(false, &json!({})));
        async move { told(request.send().await.unwrap()).await.0 }
    };
    assert_eq!(ask(house.key.clone()).await, "miss");
    assert_eq!(ask(other.clone()).await, "miss");
    assert_eq!(house.asked().await, 2);
    assert_eq!(ask(other.clone()).await, "hit");

    let path = format!("models/{}/cache", house.model);
    for scope in ["group", "global"] {
        house
            .gateway
            .put(&path, json!({ "cache_enabled": true, "cache_scope": scope }))
            .await;
        assert_eq!(ask(house.key.clone()).await, "miss", "a new scope begins empty");
        assert_eq!(ask(other.clone()).await, "hit", "{scope}");
    }
    house.gateway.create("fairshare/groups", json!({ "name": "elsewhere" })).await;
    let far = house
        .gateway
        .tenant_key(json!({ "name": "far", "fairshare_group": "elsewhere" }))
        .await;
    assert_eq!(ask(far.clone()).await, "hit");
    house
        .gateway
        .put(&path, json!({ "cache_enabled": true, "cache_scope": "group" }))
        .await;
    assert_eq!(ask(house.key.clone()).await, "miss");
    assert_eq!(ask(far).await, "miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_answered_while_nothing_is_admitted_and_cost_no_request_of_the_minute() {
    let house = house(&["--output-tokens", "3"], json!({})).await;
    let limited = house
        .gateway
        .tenant_key(json!({ "name": "limited", "requests_per_minute": 1 }))
        .await;
    let ask = || {
        let request = house.gateway.post("/v1/chat/completions", &limited, &chat(true, &json!({})));
        async move { told(request.send().await.unwrap()).await }
    };
    assert_eq!(ask().await.0, "miss");
    house.gateway.put("capacity", json!({ "max_in_flight": 0 })).await;
    for _ in 0..5 {
        let (cache, status, _) = ask().await;
        assert_eq!((cache.as_str(), status), ("hit", 200));
    }
    assert_eq!(house.asked().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_500_asks_once() {
    let house = house(&["--output-tokens", "30", "--ttft-ms", "1500", "--ms-per-token", "5"], json!({})).await;
    for (calls, stream) in [(1, true), (2, false)] {
        let mut crowd = house.crowd(500, stream, &json!({})).await;
        let (mut bodies, mut coalesced) = (Vec::new(), 0);
        while let Some(answer) = crowd.join_next().await {
            let (cache, status, body) = answer.unwrap();
            assert_eq!(status, 200, "{body}");
            coalesced += u32::from(cache == "coalesced");
            bodies.push(body);
        }
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 1);
        assert!(!stream || bodies[0].ends_with("data: [DONE]\n\n"));
        assert_eq!(house.asked().await, calls);
        assert!(coalesced > 400, "{coalesced}");
    }
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_served_whenever_their_leader_leaves() {
    let house = house(&["--output-tokens", "40", "--ttft-ms", "600", "--ms-per-token", "10"], json!({})).await;
    for (stage, extra) in ["queued", "before the head", "mid-stream"].into_iter().zip(0..) {
        for stream in [true, false] {
            let extra = json!({ "seed": extra });
            let before = house.asked().await;
            if stage == "queued" {
                house.gateway.put("capacity", json!({ "max_in_flight": 0 })).await;
            }
            let leader = raw(house.gateway.data, &house.key, &chat(stream, &extra)).await;
            if stage == "queued" {
                eventually("the leader queues", Duration::from_secs(5), || async {
                    house.gateway.stats().await["queued"] == 1
                })
                .await;
            } else {
                house.until_asked(before + 1).await;
            }
            let mut crowd = house.crowd(5, stream, &extra).await;
            if stage == "mid-stream" {
                // The head of a stream shows that it runs; an answer in one piece has no middle to wait for.
                tokio::time::sleep(Duration::from_millis(600)).await;
            }
            drop(leader);
            if stage == "queued" {
                tokio::time::sleep(Duration::from_millis(100)).await;
                house.gateway.put("capacity", json!({ "max_in_flight": 64 })).await;
            }
            let mut whole = Vec::new();
            while let Some(answer) = crowd.join_next().await {
                let (_, status, body) = answer.unwrap();
                assert_eq!(status, 200, "{stage}: {body}");
                whole.push(body);
            }
            whole.dedup();
            assert_eq!(whole.len(), 1, "{stage}: {whole:?}");
            assert!(
                !stream || whole[0].ends_with("[DONE]\n\n") && !whole[0].contains("error"),
                "{stage}: {}",
                whole[0]
            );
            assert_eq!(house.asked().await, before + 1, "{stage}: the upstream was asked once");
            assert_eq!(house.answer(stream, &extra).await.0, "hit", "{stage}");
        }
    }
    assert_eq!(house.upstream.stats().await["aborted"], 0);
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_stops_within_100_ms_when_nobody_listens() {
    let house = house(&["--output-tokens", "100000", "--ms-per-token", "2"], json!({})).await;
    let mut took = Vec::new();
    for seed in 0..5 {
        let extra = json!({ "seed": seed });
        let mut leader = house.ask(true, &extra).send().await.unwrap();
        assert_eq!(cache_of(&leader), "miss");
        let mut follower = house.ask(true, &extra).send().await.unwrap();
        assert_eq!(cache_of(&follower), "coalesced");
        leader.chunk().await.unwrap();
        drop(leader);
        // The flight outlives its leader.
        for _ in 0..50 {
            follower.chunk().await.unwrap().unwrap();
        }
        assert_eq!(house.upstream.stats().await["aborted"], seed);
        drop(follower);
        let left = Instant::now();
        eventually("the upstream stops", Duration::from_secs(5), || async {
            house.upstream.stats().await["aborted"] == seed + 1
        })
        .await;
        took.push(left.elapsed());
    }
    took.sort();
    // The middle one: the test's own look at the upstream takes its time on a busy machine.
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_handed_over_once_and_then_shared() {
    let house = house(&["--output-tokens", "3"], json!({})).await;
    // The first attempt fails, the second does not.
    let once = json!({ "sim_fault": "delay=800,status=500,times=1" });
    let mut crowd = house.crowd(6, false, &once).await;
    let mut statuses = Vec::new();
    while let Some(answer) = crowd.join_next().await {
        statuses.push(answer.unwrap().1);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 500]);
    assert_eq!(house.asked().await, 2);
    // All attempts fail: two are made, not six.
    let always = json!({ "sim_fault": "delay=800,status=500" });
    let mut crowd = house.crowd(6, false, &always).await;
    while let Some(answer) = crowd.join_next().await {
        assert_eq!(answer.unwrap().1, 500);
    }
    assert_eq!(house.asked().await, 4);
    assert_eq!(house.answer(false, &always).await.0, "miss", "errors are not kept");
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_breaks_off_for_all_and_is_not_kept() {
    let house = house(
        &["--output-tokens", "50", "--ms-per-token", "20"],
        json!({ "max_retries": 0, "idle_timeout_secs": 1 }),
    )
    .await;
    for (fault, code) in [("cut=20", "upstream_interrupted"), ("stall=20", "upstream_timeout")] {
        let extra = json!({ "sim_fault": fault });
        let mut crowd = house.crowd(4, true, &extra).await;
        while let Some(answer) = crowd.join_next().await {
            let (_, status, body) = answer.unwrap();
            assert_eq!(status, 200);
            assert!(body.contains(code) && !body.contains("[DONE]"), "{body}");
        }
        assert_eq!(house.answer(true, &extra).await.0, "miss", "{fault}");
    }
    let extra = json!({ "sim_fault": "reset" });
    let before = house.asked().await;
    let (cache, status, _) = house.answer(false, &extra).await;
    assert_eq!((cache.as_str(), status), ("miss", 502));
    assert_eq!(house.answer(false, &extra).await.0, "miss");
    assert_eq!(house.asked().await, before + 2);
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_does_not_read_holds_nobody_up() {
    let house = house(&["--output-tokens", "32000", "--ms-per-token", "0"], json!({})).await;
    for slow_leads in [false, true] {
        let extra = json!({ "sim_fault": "delay=500", "seed": u8::from(slow_leads) });
        let body = chat(true, &extra);
        let slow;
        let mut crowd;
        if slow_leads {
            slow = raw(house.gateway.data, &house.key, &body).await;
            house.until_asked(2).await;
            crowd = house.crowd(3, true, &extra).await;
        } else {
            crowd = house.crowd(3, true, &extra).await;
            slow = raw(house.gateway.data, &house.key, &body).await;
        }
        let start = Instant::now();
        while let Some(answer) = crowd.join_next().await {
            let (_, _, text) = answer.unwrap();
            assert!(text.len() > 5 << 20 && text.ends_with("[DONE]\n\n"), "{} bytes", text.len());
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        drop(slow);
    }
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_what_it_wants_of_the_cache() {
    let house = house(&["--output-tokens", "3"], json!({})).await;
    let ask = |directive: &'static str| {
        let request = house.ask(false, &json!({})).header("cache-control", directive);
        async move { told(request.send().await.unwrap()).await }
    };
    let (cache, status, body) = ask("only-if-cached").await;
    assert_eq!((cache.as_str(), status), ("miss", 504));
    assert!(
        body.contains("\"not_cached\"") && body.contains("service_unavailable_error"),
        "{body}"
    );
    assert_eq!(house.asked().await, 0);
    assert_eq!(ask("no-store").await.0, "bypass");
    assert_eq!(ask("only-if-cached").await.1, 504, "nothing was kept");
    assert_eq!(ask("no-cache").await.0, "bypass");
    assert_eq!(ask("only-if-cached").await.0, "hit", "the answer was kept");
    assert_eq!(ask("no-cache").await.0, "bypass");
    assert_eq!(ask("max-age=60").await.0, "hit");
    assert_eq!(house.asked().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_repeats_is_kept_in_the_deterministic_mode_and_nothing_where_the_cache_is_off() {
    let house = house(&["--output-tokens", "3"], json!({ "cache_mode": "deterministic" })).await;
    for (extra, second) in [
        (json!({}), "bypass"),
        (json!({ "temperature": 1 }), "bypass"),
        (json!({ "seed": null }), "bypass"),
        (json!({ "temperature": 0.0 }), "hit"),
        (json!({ "seed": 7 }), "hit"),
    ] {
        house.answer(false, &extra).await;
        assert_eq!(house.answer(false, &extra).await.0, second, "{extra}");
    }
    let embeddings = json!({ "model": "llama", "input": "hello" });
    for cache in ["miss", "hit"] {
        let answer = house.gateway.post("/v1/embeddings", &house.key, &embeddings).send().await.unwrap();
        assert_eq!(cache_of(&answer), cache);
        answer.bytes().await.unwrap();
    }
    house
        .gateway
        .put(&format!("models/{}/cache", house.model), json!({ "cache_enabled": false }))
        .await;
    let answer = house.ask(false, &json!({ "seed": 7 })).send().await.unwrap();
    assert!(!answer.headers().contains_key("x-obleth-cache"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_changes_begins_with_an_empty_cache() {
    let house = house(&["--output-tokens", "3"], json!({ "cache_max_entry_bytes": 100_000 })).await;
    for change in [
        json!({ "input_cost_per_token": "0.5" }),
        json!({ "engine": "sglang" }),
        json!({ "upstream_model": "llama", "max_retries": 3 }),
    ] {
        house.answer(false, &json!({})).await;
        assert_eq!(house.answer(false, &json!({})).await.0, "hit");
        let model = house
            .gateway
            .manage(Method::PUT, &format!("models/{}", house.model), Some(change.clone()))
            .await;
        let answer = house.answer(false, &json!({})).await;
        assert_eq!(answer.0, "miss", "{change}: {answer:?} {model}");
    }
}
