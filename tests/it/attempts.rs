//! The ledger says of each attempt where it went and how it ended, and nothing where there is nothing to say.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::mcp_server::{McpServer, Seen, Step, answer, chunk, last_chunk, stream_head};
use crate::support::{Fault, FaultProxy, Gateway, Upstream, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with one model, whose endpoints are tried in their order.
struct House {
    gateway: Arc<Gateway>,
    key: String,
}

impl House {
    async fn new(gateway: Gateway, endpoints: &[String], more: Value) -> Self {
        let endpoints = endpoints.iter().zip(0..);
        let endpoints: Vec<Value> = endpoints.map(|(url, tier)| json!({ "url": url, "priority": tier })).collect();
        let mut model = json!({ "model_name": "llama", "engine": "vllm", "endpoints": endpoints });
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        gateway.create("models", model).await;
        let key = gateway.tenant_key(json!({ "name": "acme" })).await;
        let house = Self {
            gateway: Arc::new(gateway),
            key,
        };
        house.healthy().await;
        house
    }

    /// Waits until all endpoints are.
    async fn healthy(&self) {
        eventually("healthy", PATIENCE, || async {
            let health = self.gateway.get("models").await[0]["health"].clone();
            health.as_array().unwrap().iter().all(|endpoint| endpoint["status"] == "healthy")
        })
        .await;
    }

    /// Changes the model.
    async fn change(&self, terms: Value) {
        let model = self.gateway.get("models").await[0]["id"].as_str().unwrap().to_owned();
        self.gateway.put(&format!("models/{model}"), terms).await;
    }

    fn post(&self, id: &str, more: &Value) -> reqwest::RequestBuilder {
        let mut body = json!({ "model": "llama", "messages": [{ "role": "user", "content": "go" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.gateway
            .post("/v1/chat/completions", &self.key, &body)
            .header("x-request-id", id)
    }

    /// Sends a request to its end, good or bad; its row.
    async fn sent(&self, id: &str, more: &Value) -> Value {
        if let Ok(response) = self.post(id, more).send().await {
            let _end = response.text().await;
        }
        self.row(id).await
    }

    /// The row of a request that has ended, or is about to.
    async fn row(&self, id: &str) -> Value {
        let find = || async {
            let rows = self.gateway.list("usage/requests").await;
            rows.into_iter().find(|row| row["client_request_id"] == id)
        };
        eventually("a row", PATIENCE, || async { find().await.is_some() }).await;
        find().await.unwrap()
    }
}

fn label(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Each attempt of a row: where, how it ended, the endpoint's status.
fn attempts(row: &Value) -> Vec<(&str, &str, Option<u64>)> {
    let log = row["attempt_log"].as_array().map_or(&[][..], |log| log);
    log.iter()
        .map(|attempt| {
            (
                attempt["endpoint"].as_str().unwrap(),
                attempt["outcome"].as_str().unwrap(),
                attempt["status"].as_u64(),
            )
        })
        .collect()
}

/// The attempts follow one another within the request's own time.
#[track_caller]
fn assert_in_order(row: &Value) {
    let mut from = 0;
    for attempt in row["attempt_log"].as_array().unwrap() {
        let (start, time) = (attempt["start_ms"].as_u64().unwrap(), attempt["duration_ms"].as_u64().unwrap());
        // Each is cut to whole milliseconds.
        assert!(start + 1 >= from, "{row}");
        from = start + time;
    }
    assert!(from <= row["total_ms"].as_u64().unwrap() + 1, "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_at_the_first_and_served_by_the_second() {
    let (first, second) = (Upstream::start(&[]).await, Upstream::start(&[]).await);
    let proxy = FaultProxy::start(label(&first.url()).parse().unwrap()).await;
    let gateway = Gateway::start_logged(&["--log-requests", "all"]);
    let house = House::new(gateway, &[proxy.url(), second.url()], json!({ "max_retries": 1 })).await;
    let plain = house.sent("plain", &json!({})).await;
    assert_eq!((&plain["attempts"], &plain["attempt_log"]), (&json!(1), &Value::Null), "{plain}");
    // Known as healthy until somebody meets it; should the checks have been faster, once more.
    let mut row = Value::Null;
    for round in 0..10 {
        proxy.set(Fault::Refuse);
        eventually("nobody listens", PATIENCE, || async {
            tokio::net::TcpStream::connect(proxy.addr).await.is_err()
        })
        .await;
        row = house.sent(&format!("refused-{round}"), &json!({})).await;
        if row["attempts"] == 2 {
            break;
        }
        proxy.set(Fault::None);
        house.healthy().await;
    }
    let (there, here) = (proxy.url(), second.url());
    let expected = [(label(&there), "connect_refused", None), (label(&here), "ok", Some(200))];
    assert_eq!(attempts(&row), expected, "{row}");
    assert_eq!((&row["outcome"], &row["endpoint"]), (&json!("ok"), &json!(label(&here))));
    assert_in_order(&row);
    let metrics = house.gateway.metrics().await;
    for series in [
        format!(
            "obleth_upstream_attempts_total{{model=\"llama\",endpoint=\"{}\",result=\"connect_refused\"}}",
            label(&there)
        ),
        "obleth_upstream_retries_total{model=\"llama\"} 1.0".to_owned(),
    ] {
        assert!(metrics.contains(&series), "{series}: {metrics}");
    }
    let line = || house.gateway.log().into_iter().find(|line| line["request_id"] == row["request_id"]);
    eventually("a line", PATIENCE, || async { line().is_some() }).await;
    let told: Value = serde_json::from_str(line().unwrap()["attempt_log"].as_str().unwrap()).unwrap();
    assert_eq!(told[0]["outcome"], "connect_refused");
    assert_eq!(
        (told[1]["endpoint"].as_str(), &told[1]["status"]),
        (Some(label(&here)), &json!(200))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_the_dispatch_shows_both_and_so_do_attempts_that_are_used_up() {
    let broken = [
        Upstream::start(&["--fault", "reset"]).await,
        Upstream::start(&["--fault", "reset"]).await,
    ];
    let good = Upstream::start(&[]).await;
    let urls = [broken[0].url(), broken[1].url(), good.url()];
    let terms = |retries: u8| json!({ "max_retries": retries, "retry_after_dispatch": true });
    let house = House::new(Gateway::start().await, &urls, terms(2)).await;
    let row = house.sent("hidden", &json!({})).await;
    let [first, second, third] = urls.each_ref().map(|url| label(url));
    let died = |at| (at, "closed_early", None);
    assert_eq!(attempts(&row), [died(first), died(second), (third, "ok", Some(200))], "{row}");
    assert_eq!(
        (&row["attempts"], &row["outcome"], &row["status"]),
        (&json!(3), &json!("ok"), &json!(200))
    );
    assert_in_order(&row);
    // One attempt less, and nobody is left to hide it.
    let house = House::new(Gateway::start().await, &urls, terms(1)).await;
    let row = house.sent("used-up", &json!({})).await;
    assert_eq!(attempts(&row), [died(first), died(second)], "{row}");
    assert_eq!(
        (&row["attempts"], &row["outcome"], &row["status"]),
        (&json!(2), &json!("error"), &json!(502))
    );
    assert_in_order(&row);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_second_attempt_left_the_second() {
    let broken = Upstream::start(&["--fault", "reset"]).await;
    let slow = Upstream::start(&["--ttft-ms", "600000"]).await;
    let terms = json!({ "max_retries": 1, "retry_after_dispatch": true });
    let house = House::new(Gateway::start().await, &[broken.url(), slow.url()], terms).await;
    let leaving = tokio::spawn(house.post("left", &json!({})).send());
    eventually("at the second", PATIENCE, || async { slow.stats().await["running"] == 1 }).await;
    leaving.abort();
    let row = house.row("left").await;
    let (there, here) = (broken.url(), slow.url());
    let expected = [(label(&there), "closed_early", None), (label(&here), "client_gone", None)];
    assert_eq!(attempts(&row), expected, "{row}");
    assert_eq!((&row["outcome"], &row["status"]), (&json!("cancelled"), &json!(499)));
    assert_in_order(&row);
}

/// What a single attempt can come to.
#[tokio::test(flavor = "multi_thread")]
async fn an_only_attempt_that_went_badly_says_how() {
    let upstream = Upstream::start(&["--ms-per-token", "1", "--output-tokens", "4"]).await;
    let house = House::new(Gateway::start().await, &[upstream.url()], json!({ "max_retries": 0 })).await;
    let stream = |fault: &str| json!({ "stream": true, "sim_fault": fault });
    let whole = |fault: &str| json!({ "sim_fault": fault });
    let url = upstream.url();
    for (nth, (body, outcome, status)) in [
        (whole("status=503"), "status", Some(503)),
        (whole("status=400"), "status", Some(400)),
        (whole("redirect"), "status", Some(307)),
        (whole("garbage"), "malformed", None),
        (stream("cut=2"), "interrupted", Some(200)),
        (whole("delay=600000"), "first_byte_timeout", None),
        (stream("stall=2"), "idle_timeout", Some(200)),
    ]
    .into_iter()
    .enumerate()
    {
        let what = body["sim_fault"].clone();
        // Short only for who is to be late.
        match outcome {
            "first_byte_timeout" => house.change(json!({ "first_byte_timeout_secs": 1 })).await,
            "idle_timeout" => {
                house
                    .change(json!({ "first_byte_timeout_secs": 600, "idle_timeout_secs": 1 }))
                    .await
            }
            _ => {}
        }
        let row = house.sent(&format!("r{nth}"), &body).await;
        assert_eq!(attempts(&row), [(label(&url), outcome, status)], "{what}: {row}");
        assert_eq!(row["attempts"], 1);
        assert_in_order(&row);
        if outcome.ends_with("timeout") {
            assert!(row["attempt_log"][0]["duration_ms"].as_u64().unwrap() >= 1_000, "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_from_the_pool_that_dies_is_told_from_a_new_one() {
    let upstream = Upstream::start(&[]).await;
    let house = House::new(Gateway::start().await, &[upstream.url()], json!({ "max_retries": 0 })).await;
    let url = upstream.url();
    let row = house.sent("new", &json!({ "sim_fault": "reset" })).await;
    assert_eq!(attempts(&row), [(label(&url), "closed_early", None)], "{row}");
    assert_eq!(house.sent("good", &json!({})).await["attempt_log"], Value::Null);
    // Its row is written after its connection has gone back to the pool.
    let row = house.sent("pooled", &json!({ "sim_fault": "reset" })).await;
    assert_eq!(attempts(&row), [(label(&url), "dead_connection", None)], "{row}");
}

/// A server that tells of an error in its stream where it is asked for `error`, and else says nothing after its first piece.
fn breaks_down(seen: &Seen) -> Vec<Step> {
    if !seen.line().starts_with("POST") {
        return answer(200, &[], "{}");
    }
    let event = json!({ "error": { "message": "out of memory", "code": 500 } });
    let end = match seen.json()["user"].as_str() {
        Some("error") => vec![chunk(&format!("data: {event}\n\n")), chunk("data: [DONE]\n\n"), last_chunk()],
        _ => vec![chunk(": open\n\n"), Step::UntilGone],
    };
    [vec![stream_head(&[])], end].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_an_error_in_it_and_one_that_goes_on_too_long_are_told_apart() {
    let server = McpServer::start(breaks_down).await;
    let terms = json!({ "engine": "openai", "max_retries": 0 });
    let url = format!("http://{}", server.addr);
    let house = House::new(Gateway::start().await, std::slice::from_ref(&url), terms).await;
    for (user, outcome) in [("error", "error_event"), ("silence", "total_timeout")] {
        if outcome == "total_timeout" {
            house.change(json!({ "total_timeout_secs": 1 })).await;
        }
        let row = house.sent(user, &json!({ "stream": true, "user": user })).await;
        assert_eq!(attempts(&row), [(label(&url), outcome, Some(200))], "{row}");
        assert_in_order(&row);
    }
}
