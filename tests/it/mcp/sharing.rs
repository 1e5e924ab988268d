//! Slots, streams, limits and the ledger.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::{House, Step, call, chunk, json_answer, last_chunk, list, plain, register, stream_head};
use crate::support::{Fault, FaultProxy, eventually};

/// Waits in a call of `slow`, and does all else at once.
fn slow(seen: &super::Seen) -> Vec<Step> {
    let body = seen.json();
    if body["method"] == "tools/call" && body["params"]["name"] == "slow" {
        let mut steps = vec![Step::Wait];
        steps.extend(json_answer(&json!({ "jsonrpc": "2.0", "id": body["id"], "result": {} })));
        return steps;
    }
    plain(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_slot_of_the_server_and_takes_none_of_a_models() {
    let house = House::with(json!({ "max_in_flight": 1 }), slow).await;
    let first = tokio::spawn(house.call("slow").send());
    house.server.until_seen(1).await;
    let second = tokio::spawn(house.call("read").send());
    let patient = house.call("read").header("x-obleth-max-queue-ms", "50").send().await.unwrap();
    assert_eq!(patient.status(), 503);
    let body: Value = patient.json().await.unwrap();
    assert_eq!(body["error"]["code"], "queue_timeout");
    assert_eq!(house.server.seen().len(), 1, "the second waits");
    assert_eq!(house.gateway.stats().await["in_flight"], 0, "no slot of a model's");
    for (message, status) in [
        (json!({ "jsonrpc": "2.0", "id": 3, "result": {} }), 202),
        (json!({ "jsonrpc": "2.0", "method": "notifications/cancelled" }), 202),
    ] {
        let response = house.post(&message).send().await.unwrap();
        assert_eq!(response.status(), status, "what a running call may wait for does not wait for it");
    }
    assert_eq!(house.ask(Method::DELETE).send().await.unwrap().status(), 200);
    house.server.go_on();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.status(), 200);
    let waited: u64 = second.headers()["x-obleth-queue-ms"].to_str().unwrap().parse().unwrap();
    assert!(waited >= 50, "{waited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_of_a_server_go_by_weight_whoever_asks_more() {
    let house = House::with(json!({ "max_in_flight": 1 }), slow).await;
    let other = house.gateway.tenant_key(json!({ "name": "quiet" })).await;
    let first = tokio::spawn(house.call("slow").send());
    house.server.until_seen(1).await;
    let mut loud = Vec::new();
    for _ in 0..20 {
        loud.push(tokio::spawn(house.call("slow").send()));
    }
    // All of the loud one's calls stand in the queue before the quiet one's.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let quiet = house.client.post(house.url()).bearer_auth(other).body(call("quiet").to_string());
    let quiet = tokio::spawn(quiet.send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    house.server.go_on();
    assert_eq!(quiet.await.unwrap().unwrap().status(), 200);
    let before = house
        .server
        .seen()
        .iter()
        .filter(|seen| seen.json()["params"]["name"] == "slow")
        .count();
    assert!(before <= 3, "{before} of the loud one's calls came first");
    for call in loud.into_iter().chain([first]) {
        house.server.go_on();
        call.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_the_queue_is_never_called_and_gives_its_place_back() {
    let house = House::with(json!({ "max_in_flight": 1 }), slow).await;
    let first = tokio::spawn(house.call("slow").send());
    house.server.until_seen(1).await;
    let left = house.call("read").timeout(Duration::from_millis(200)).send().await;
    assert!(left.is_err());
    house.server.go_on();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(house.post(&list()).send().await.unwrap().status(), 200);
    assert_eq!(house.server.seen().len(), 2, "the one that left was not called");
    let rows = house.rows(3).await;
    assert!(
        rows.iter()
            .any(|row| row["outcome"] == "cancelled" && row["model"] == "mcp:files/read"),
        "{rows:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_listen_have_a_cap_of_their_own_and_hold_no_slot() {
    let house = House::new(json!({ "max_in_flight": 1 })).await;
    let listen = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen" });
    let mut streams = Vec::new();
    for _ in 0..64 {
        let response = house.ask(Method::GET).send().await.unwrap();
        assert_eq!(response.status(), 200);
        streams.push(response);
    }
    for request in [house.ask(Method::GET), house.post(&listen)] {
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
        let body: Value = refused.json().await.unwrap();
        assert_eq!(body["error"]["code"], "too_many_streams");
    }
    assert_eq!(house.call("read").send().await.unwrap().status(), 200, "the one slot is free");
    streams.pop();
    house.server.until_gone(1).await;
    eventually("a stream's place is given back", Duration::from_secs(5), || async {
        house.ask(Method::GET).send().await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_stream_does_not_hold_up_the_gateways_end() {
    let mut house = House::new(json!({})).await;
    let response = house.ask(Method::GET).send().await.unwrap();
    let mut body = response.bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), ": open\n\n");
    house.gateway.terminate();
    let gateway = std::sync::Arc::get_mut(&mut house.gateway).unwrap();
    assert!(gateway.ended(Duration::from_secs(5)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_per_minute_count_and_rows_name_server_and_tool() {
    let house = House::with(json!({ "denied_tools": ["delete"] }), |seen| {
        if seen.json()["params"]["name"] == "stream" {
            return vec![stream_head(&[]), chunk("data: {}\n\n"), last_chunk()];
        }
        plain(seen)
    })
    .await;
    let limited = house
        .gateway
        .tenant_key(json!({ "name": "limited", "requests_per_minute": 4 }))
        .await;
    let ask = |body: Value| house.client.post(house.url()).bearer_auth(&limited).body(body.to_string()).send();
    for body in [call("delete"), call("read"), list(), call("stream"), call("odd name?")] {
        let response = ask(body).await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap();
    }
    let refused = ask(call("read")).await.unwrap();
    assert_eq!(refused.status(), 429, "a refusal burns nothing, and four went up");
    assert_eq!(refused.headers()["x-ratelimit-limit-requests"], "4");
    let rows = house.rows(6).await;
    let told: Vec<(&str, &str, &str)> = rows
        .iter()
        .map(|row| {
            assert_eq!(row["route"], "mcp");
            assert_eq!((&row["input_tokens"], &row["output_tokens"]), (&json!(0), &json!(0)));
            let text = |name: &str| row[name].as_str().unwrap();
            (text("model"), text("outcome"), text("usage_source"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("mcp:files", "rejected", "none"),
            ("mcp:files/read", "ok", "none"),
            ("mcp:files", "ok", "none"),
            ("mcp:files/stream", "ok", "none"),
            ("mcp:files/*", "ok", "none"),
            ("mcp:files/read", "rejected", "none"),
        ]
    );
    assert_eq!(rows[1]["endpoint"], house.server.addr.to_string());
    assert_eq!((&rows[1]["stream"], &rows[3]["stream"]), (&json!(false), &json!(true)));
    let usage = house.gateway.get("usage?group_by=model").await;
    let of = |name: &str| {
        usage
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["model"] == name)
            .map(|row| row["requests"].clone())
    };
    assert_eq!((of("mcp:files/read"), of("mcp:files")), (Some(json!(2)), Some(json!(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_a_clear_error() {
    let house = House::new(json!({})).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let body = json!({ "name": "gone", "upstream_url": format!("http://{address}/mcp") });
    house.gateway.create("mcp-servers", body).await;
    register(
        &house.gateway,
        "named",
        &house.server,
        json!({ "upstream_url": "http://no-such-host.invalid/mcp" }),
    )
    .await;
    for name in ["gone", "named"] {
        let url = format!("http://{}/mcp/{name}", house.gateway.data);
        let response = house
            .client
            .post(url)
            .bearer_auth(&house.key)
            .body(call("read").to_string())
            .send()
            .await
            .unwrap();
        assert!(matches!(response.status().as_u16(), 502 | 503), "{name}: {}", response.status());
        let body: Value = response.json().await.unwrap();
        assert!(
            ["upstream_unreachable", "no_healthy_upstream"].contains(&body["error"]["code"].as_str().unwrap()),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_reached_nobody_says_so_and_one_that_went_well_says_nothing() {
    let house = House::new(json!({})).await;
    let proxy = FaultProxy::start(house.server.addr).await;
    let server = json!({ "name": "relayed", "upstream_url": format!("{}/mcp", proxy.url()) });
    house.gateway.create("mcp-servers", server).await;
    let url = format!("http://{}/mcp/relayed", house.gateway.data);
    let sent = AtomicUsize::new(0);
    // Each with an id of its own, by which its row is found.
    let ask = || async {
        let id = format!("n{}", sent.fetch_add(1, Ordering::Relaxed));
        let request = house.client.post(&url).bearer_auth(&house.key).header("x-request-id", &id);
        let request = request.header("accept", "application/json, text/event-stream").json(&call("read"));
        let status = request.send().await.unwrap().status().as_u16();
        let rows = house.rows(sent.load(Ordering::Relaxed)).await;
        let row = rows.into_iter().find(|row| row["client_request_id"] == id.as_str()).unwrap();
        (status, row)
    };
    let mut row = Value::Null;
    for _ in 0..10 {
        eventually("served", Duration::from_secs(30), || async {
            let (status, row) = ask().await;
            if status == 200 {
                assert_eq!((&row["attempts"], &row["attempt_log"]), (&json!(1), &Value::Null), "{row}");
            }
            status == 200
        })
        .await;
        proxy.set(Fault::Refuse);
        eventually("nobody listens", Duration::from_secs(30), || async {
            tokio::net::TcpStream::connect(proxy.addr).await.is_err()
        })
        .await;
        row = ask().await.1;
        // Known to be there until somebody meets it; should the checks have been faster, once more.
        if row["attempt_log"][0]["outcome"] == "connect_refused" {
            break;
        }
        proxy.set(Fault::None);
    }
    assert_eq!(row["attempt_log"][0]["outcome"], "connect_refused", "{row}");
    assert_eq!(
        (&row["attempts"], &row["error_code"]),
        (&json!(1), &json!("upstream_unreachable")),
        "{row}"
    );
    assert_eq!(row["attempt_log"].as_array().unwrap().len(), 1, "{row}");
    assert_eq!(row["attempt_log"][0]["endpoint"], json!(proxy.addr.to_string()));
}
