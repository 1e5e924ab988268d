//! Rows, sums, bills and clients agree: after requests that end in every way, and through a network that breaks at random.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{Fault, FaultProxy, Gateway, Upstream, eventually, rounds, seed};

/// In thousandths of a USD, which are whole numbers of input tokens and tens of output tokens: sums of floats stay exact.
const INPUT_COST: &str = "0.001";
const OUTPUT_COST: &str = "0.01";

fn chat(stream: bool, extra: &Value) -> Value {
    let mut body = json!({ "model": "llama", "stream": stream, "messages": [{ "role": "user", "content": "please go on" }] });
    if stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The usage that an answer tells: input and output tokens.
fn usage(text: &str) -> Option<(u64, u64)> {
    let told = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap_or(line)).ok())
        .filter_map(|event| event.get("usage").filter(|usage| usage.is_object()).cloned())
        .next_back()?;
    Some((told["prompt_tokens"].as_u64()?, told["completion_tokens"].as_u64()?))
}

/// A request on a connection of its own: after a stream that broke off the gateway closes the connection, which a client
/// that is quick to use it again would take for the end of its next request.
fn post(gateway: &Gateway, key: &str, id: &str, body: &Value) -> RequestBuilder {
    let request = gateway.post("/v1/chat/completions", key, body);
    request.header("x-request-id", id).header("connection", "close")
}

/// A way for a request to end, what its row is to say, and how many there are of it.
struct Way {
    name: &'static str,
    body: Value,
    outcome: &'static str,
    status: u16,
    leaves: bool,
    count: usize,
}

fn ways() -> Vec<Way> {
    let way = |name, body, outcome, status, count| Way {
        name,
        body,
        outcome,
        status,
        leaves: false,
        count,
    };
    let failing = |fault: &str| json!({ "sim_fault": fault });
    vec![
        way("whole", chat(false, &json!({})), "ok", 200, 60),
        way("stream", chat(true, &json!({})), "ok", 200, 60),
        way("unknown", json!({ "model": "nobody", "messages": [] }), "rejected", 404, 30),
        way("bad", json!({ "messages": [] }), "rejected", 400, 30),
        way("failing", chat(false, &failing("status=500")), "error", 500, 30),
        way("refused", chat(true, &failing("status=400")), "error", 400, 30),
        way("cut", chat(true, &failing("cut=3")), "interrupted", 200, 30),
        way("stalled", chat(true, &failing("stall=2")), "timeout", 200, 6),
        Way {
            leaves: true,
            ..way(
                "left",
                chat(true, &json!({ "sim_ms_per_token": 20, "sim_output_tokens": 1000 })),
                "cancelled",
                499,
                30,
            )
        },
    ]
}

/// What a client knows of its request.
struct Sent {
    tenant: usize,
    way: usize,
    /// The gateway's id of it.
    request_id: String,
    usage: Option<(u64, u64)>,
}

/// Sends a request, reads the answer as its way has it, and says what there was to see.
async fn send(gateway: &Gateway, key: &str, id: &str, way: &Way) -> (String, Option<(u64, u64)>) {
    let mut response = post(gateway, key, id, &way.body).send().await.unwrap();
    let request_id = response.headers()["x-obleth-request-id"].to_str().unwrap().to_owned();
    if way.leaves {
        response.chunk().await.unwrap();
        return (request_id, None);
    }
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(status, way.status, "{}: {text}", way.name);
    (request_id, usage(&text))
}

/// Requests, input tokens, output tokens, thousandths of a USD.
type Sum = [u64; 4];

fn thousandths(usd: &Value) -> u64 {
    format!("{:.0}", usd.as_f64().unwrap() * 1000.0).parse().unwrap()
}

fn sum_of(row: &Value, cost: u64) -> Sum {
    let number = |name: &str| row[name].as_u64().unwrap();
    [number("requests"), number("input_tokens"), number("output_tokens"), cost]
}

fn add(to: &mut Sum, other: Sum) {
    for (sum, more) in to.iter_mut().zip(other) {
        *sum += more;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_sums_and_costs_are_what_the_clients_saw_whatever_way_a_request_ended() {
    let upstream = Upstream::start(&["--output-tokens", "8", "--slots", "1000", "--log-length", "10000"]).await;
    let gateway = Arc::new(Gateway::start().await);
    let model = json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm", "idle_timeout_secs": 1, "max_retries": 0,
        "input_cost_per_token": INPUT_COST, "output_cost_per_token": OUTPUT_COST });
    gateway.create("models", model).await;
    let mut tenants = Vec::new();
    for name in ["a", "b", "c"] {
        let tenant = gateway.tenant(json!({ "name": name })).await;
        let key = gateway.key(&tenant, json!({ "name": "k" })).await;
        tenants.push((tenant, key));
    }
    let (tenants, ways, room) = (Arc::new(tenants), Arc::new(ways()), Arc::new(Semaphore::new(24)));
    let mut crowd = JoinSet::new();
    for (number, way) in ways
        .iter()
        .enumerate()
        .flat_map(|(way, Way { count, .. })| vec![way; *count])
        .enumerate()
    {
        let (gateway, tenants, ways, room) = (Arc::clone(&gateway), Arc::clone(&tenants), Arc::clone(&ways), Arc::clone(&room));
        crowd.spawn(async move {
            let _room = room.acquire().await.unwrap();
            let (tenant, id) = (number % tenants.len(), format!("{}-{number}", ways[way].name));
            let (request_id, usage) = send(&gateway, &tenants[tenant].1, &id, &ways[way]).await;
            (
                id,
                Sent {
                    tenant,
                    way,
                    request_id,
                    usage,
                },
            )
        });
    }
    // These do not authenticate: no rows.
    let stranger = format!("sk_{}", "0".repeat(64));
    for _ in 0..10 {
        let response = gateway.post("/v1/chat/completions", &stranger, &ways[0].body).send().await.unwrap();
        assert_eq!(response.status(), 401);
    }
    let sent: HashMap<String, Sent> = crowd.join_all().await.into_iter().collect();
    gateway.idle().await;
    let ended = Instant::now();
    eventually("a row for each request", Duration::from_secs(2), || async {
        gateway.list("usage/requests?limit=1000").await.len() >= sent.len()
    })
    .await;
    println!("all rows were there after {:?}", ended.elapsed());
    let rows = gateway.list("usage/requests?limit=100").await;
    let sums = check_rows(&rows, &sent, &tenants, &ways);
    check_sums(&gateway, &sums, &tenants).await;
    for entry in upstream.requests().await.as_array().unwrap() {
        assert!(sent.contains_key(entry["id"].as_str().unwrap()), "{entry}");
    }
}

/// Matches rows and requests id by id; the sums by tenant.
fn check_rows(rows: &[Value], sent: &HashMap<String, Sent>, tenants: &[(String, String)], ways: &[Way]) -> Vec<Sum> {
    assert_eq!(rows.len(), sent.len(), "rows and requests");
    let mut seen = HashMap::new();
    let mut sums = vec![[0; 4]; tenants.len()];
    for row in rows {
        let id = row["client_request_id"].as_str().unwrap();
        assert!(seen.insert(id, ()).is_none(), "two rows of {id}");
        let sent = &sent[id];
        let way = &ways[sent.way];
        assert_eq!(row["request_id"], *sent.request_id, "{row}");
        assert_eq!(row["tenant_id"], *tenants[sent.tenant].0, "{row}");
        assert_eq!(
            (row["outcome"].as_str().unwrap(), row["status"].as_u64().unwrap()),
            (way.outcome, u64::from(way.status)),
            "{row}"
        );
        let tokens = (row["input_tokens"].as_u64().unwrap(), row["output_tokens"].as_u64().unwrap());
        match way.outcome {
            "ok" => {
                assert_eq!(Some(tokens), sent.usage, "{row}");
                assert_eq!(row["usage_source"], "reported", "{row}");
            }
            "rejected" | "error" => assert_eq!(tokens, (0, 0), "{row}"),
            // What was delivered counts, and the client had at least a token of it.
            _ => assert!(tokens.1 >= 1, "{row}"),
        }
        let cost = thousandths(&row["cost_usd"]);
        assert_eq!(cost, tokens.0 + 10 * tokens.1, "{row}");
        add(&mut sums[sent.tenant], [1, tokens.0, tokens.1, cost]);
    }
    sums
}

/// The sums of the ledger are those of its rows.
async fn check_sums(gateway: &Gateway, sums: &[Sum], tenants: &[(String, String)]) {
    let mut all = [0; 4];
    for ((tenant, _), sum) in tenants.iter().zip(sums) {
        add(&mut all, *sum);
        let used = gateway.get(&format!("usage?tenant_id={tenant}")).await;
        assert_eq!(sum_of(&used[0], thousandths(&used[0]["cost_usd"])), *sum, "{used}");
    }
    for by in ["tenant", "model", "key"] {
        let (mut used, mut cost) = ([0; 4], [0; 4]);
        for row in gateway.list(&format!("usage?group_by={by}")).await {
            add(&mut used, sum_of(&row, thousandths(&row["cost_usd"])));
        }
        for row in gateway.list(&format!("costs?group_by={by}")).await {
            let parts = ["input_cost", "output_cost", "request_cost"].map(|part| thousandths(&row[part]));
            assert_eq!(parts[0], row["input_tokens"].as_u64().unwrap(), "{row}");
            assert_eq!(parts[1], 10 * row["output_tokens"].as_u64().unwrap(), "{row}");
            assert_eq!(parts.iter().sum::<u64>(), thousandths(&row["total_cost"]), "{row}");
            add(&mut cost, sum_of(&row, parts.iter().sum()));
        }
        assert_eq!((used, cost), (all, all), "usage and costs by {by}, and the rows");
    }
    let mut series = 0;
    for bucket in gateway.list("usage/series").await {
        series += bucket["requests"].as_u64().unwrap();
    }
    assert_eq!(series, all[0], "requests in the series");
}

/// Changes what goes wrong on the way, at random, until told to stop.
async fn break_at_random(relay: &FaultProxy, stop: &AtomicBool, mut random: SmallRng) {
    while !stop.load(Ordering::Relaxed) {
        let bytes = random.random_range(0..3000);
        relay.set(match random.random_range(0..40) {
            0..12 => Fault::CutAfter(bytes),
            12..24 => Fault::ResetAfter(bytes),
            24..28 => Fault::Blackhole,
            28..32 => Fault::Drip(7, Duration::from_millis(1)),
            32..39 => Fault::None,
            // Rare: an endpoint that nobody listens on is left alone for a while, and then there is nothing to break.
            _ => Fault::Refuse,
        });
        tokio::time::sleep(Duration::from_millis(random.random_range(5..60))).await;
    }
    relay.set(Fault::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_network_that_breaks_at_random_each_request_has_one_row_and_nothing_is_held() {
    let seed = seed();
    let requests = usize::try_from(rounds("OBLETH_REQUESTS", 300)).unwrap();
    let wanted = rounds("OBLETH_FAULTS", 60);
    let upstream = Upstream::start(&["--ms-per-token", "1", "--output-tokens", "12", "--log-length", "1000000"]).await;
    let relay = Arc::new(FaultProxy::start(upstream.url().trim_start_matches("http://").parse().unwrap()).await);
    let gateway = Arc::new(Gateway::start().await);
    gateway.put("capacity", json!({ "max_in_flight": 8 })).await;
    let model = json!({ "model_name": "llama", "api_base": relay.url(), "engine": "vllm", "first_byte_timeout_secs": 1,
        "idle_timeout_secs": 1, "retry_after_dispatch": true });
    gateway.create("models", model).await;
    let key = gateway
        .tenant_key(
            json!({ "name": "acme", "tokens_per_minute": 100_000_000, "budget_tokens": 1_000_000_000, "budget_period": "lifetime" }),
        )
        .await;
    let stop = Arc::new(AtomicBool::new(false));
    let breaking = tokio::spawn({
        let (relay, stop, random) = (Arc::clone(&relay), Arc::clone(&stop), SmallRng::seed_from_u64(seed));
        async move { break_at_random(&relay, &stop, random).await }
    });
    let (mut ended, mut left) = (Vec::new(), 0);
    // While an endpoint is thought to be down there is nothing to break: until enough was, or it never will be.
    while ended.len() < requests || ((relay.struck() < wanted || left < wanted) && ended.len() < 20 * requests) {
        ended.extend(crowd(&gateway, &key, ended.len()..ended.len() + requests.min(500), seed).await);
        left = ended.iter().filter(|ended| !ended.stayed).count() as u64;
    }
    let struck = relay.struck();
    println!("{struck} faults on the way upstream, {left} clients left");
    assert!(struck >= wanted && left >= wanted, "at least {wanted} of each");
    stop.store(true, Ordering::Relaxed);
    breaking.await.unwrap();
    gateway.idle().await;
    let sent = ended.into_iter().map(|ended| (ended.id, ended.came)).collect();
    check_broken(&gateway, &upstream, &sent).await;
    check_nothing_is_held(&gateway, &key).await;
}

/// How a request ended for its client.
struct Ended {
    id: String,
    /// Whether an answer came, at least its head.
    came: bool,
    /// Whether the client stayed to the end.
    stayed: bool,
}

/// Requests with these numbers, some at once, of which one of three leaves at a random time.
async fn crowd(gateway: &Arc<Gateway>, key: &str, numbers: std::ops::Range<usize>, seed: u64) -> Vec<Ended> {
    let room = Arc::new(Semaphore::new(24));
    let mut crowd = JoinSet::new();
    for number in numbers {
        let (gateway, key, room) = (Arc::clone(gateway), key.to_owned(), Arc::clone(&room));
        let mut random = SmallRng::seed_from_u64(seed + number as u64);
        let patience = match random.random_range(0..3) {
            0 => Duration::from_micros(random.random_range(0..80_000)),
            _ => Duration::from_secs(60),
        };
        crowd.spawn(async move {
            let _room = room.acquire().await.unwrap();
            let id = format!("n{number}");
            let request = post(&gateway, &key, &id, &chat(random.random_bool(0.7), &json!({})));
            let mut came = false;
            let answer = async {
                let response = request.send().await.unwrap();
                came = true;
                // An answer that breaks off is one of the things that happen here.
                let _ = response.bytes().await;
            };
            let stayed = tokio::time::timeout(patience, answer).await.is_ok();
            assert!(stayed || patience < Duration::from_secs(60), "{id} was never answered");
            Ended { id, came, stayed }
        });
    }
    crowd.join_all().await
}

/// A budget of what was used and a little more lets a little more pass: not even one reservation is still held.
async fn check_nothing_is_held(gateway: &Gateway, key: &str) {
    let used = gateway.get("usage").await[0]["total_tokens"].as_u64().unwrap();
    let tenant = gateway.get("tenants").await[0]["id"].as_str().unwrap().to_owned();
    gateway
        .put(&format!("tenants/{tenant}"), json!({ "budget_tokens": used + 15 }))
        .await;
    let ask = async || post(gateway, key, "more", &chat(false, &json!({}))).send().await.unwrap();
    let mut more = ask().await;
    // The endpoint may still be thought to be down.
    for _ in 0..100 {
        if more.status() != 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        more = ask().await;
    }
    assert_eq!(more.status(), 200, "a reservation is still held: {}", more.text().await.unwrap());
    gateway.idle().await;
    assert_eq!(ask().await.status(), 429, "what was used is counted");
}

/// Each request that was answered or went upstream has one row, and no row is of nobody.
async fn check_broken(gateway: &Gateway, upstream: &Upstream, sent: &HashMap<String, bool>) {
    // A request that left before its head was read is not one that the gateway knows of.
    let answered = sent.values().filter(|came| **came).count();
    eventually("a row for each answer", Duration::from_secs(2), || async {
        let rows = gateway.list("usage/requests?limit=1000").await;
        let theirs = rows
            .iter()
            .filter(|row| row["client_request_id"].as_str().and_then(|id| sent.get(id)) == Some(&true));
        theirs.count() == answered
    })
    .await;
    eventually("the upstream runs nothing", Duration::from_secs(10), || async {
        let stats = upstream.stats().await;
        stats["running"] == 0 && stats["waiting"] == 0
    })
    .await;
    let mut outcomes: HashMap<String, u64> = HashMap::new();
    let mut rows = HashMap::new();
    for row in gateway.list("usage/requests?limit=1000").await {
        let id = row["client_request_id"].as_str().unwrap().to_owned();
        assert!(sent.contains_key(&id), "a row of nobody: {row}");
        *outcomes.entry(row["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        assert!(rows.insert(id.clone(), row).is_none(), "two rows of {id}");
    }
    println!("{} requests, {answered} answered, rows: {outcomes:?}", sent.len());
    for (id, came) in sent {
        assert!(!came || rows.contains_key(id), "{id} was answered and has no row");
    }
    for entry in upstream.requests().await.as_array().unwrap() {
        assert!(
            rows.contains_key(entry["id"].as_str().unwrap()),
            "went upstream and has no row: {entry}"
        );
    }
    let used = gateway.get("usage").await;
    assert_eq!(used[0]["requests"], rows.len(), "{used}");
    let tokens: u64 = rows.values().map(|row| row["output_tokens"].as_u64().unwrap()).sum();
    assert_eq!(used[0]["output_tokens"], tokens, "{used}");
    assert!(outcomes.len() >= 3, "the network did not break: {outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_changes_changes_no_bill_of_what_ran_before() {
    let upstream = Upstream::start(&["--output-tokens", "8"]).await;
    let gateway = Gateway::start().await;
    let model = json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm", "input_cost_per_token": INPUT_COST, "output_cost_per_token": OUTPUT_COST });
    let model = gateway.create("models", model).await["id"].as_str().unwrap().to_owned();
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let whole = post(&gateway, &key, "before", &chat(false, &json!({})))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let (input, output) = usage(&whole).unwrap();
    // This one runs while the price rises, and is charged what it was when it came.
    let slow = chat(true, &json!({ "sim_ms_per_token": 50 }));
    let mut running = post(&gateway, &key, "during", &slow).send().await.unwrap();
    running.chunk().await.unwrap();
    gateway
        .put(
            &format!("models/{model}"),
            json!({ "input_cost_per_token": "1", "output_cost_per_token": "10" }),
        )
        .await;
    running.bytes().await.unwrap();
    let bill = input + 10 * output;
    post(&gateway, &key, "after", &chat(false, &json!({})))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    eventually("three rows", Duration::from_secs(2), || async {
        gateway.list("usage/requests").await.len() == 3
    })
    .await;
    for row in gateway.list("usage/requests").await {
        let expected = if row["client_request_id"] == "after" { 1_000 * bill } else { bill };
        assert_eq!(thousandths(&row["cost_usd"]), expected, "{row}");
    }
    let costs = gateway.get("costs").await;
    assert_eq!(thousandths(&costs[0]["total_cost"]), 1_002 * bill, "{costs}");
}
