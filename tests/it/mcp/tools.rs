//! Tools that may not be called are not called and not shown, however they are asked for.

use reqwest::Method;
use serde_json::{Value, json};

use super::{House, Step, answer, call, chunk, last_chunk, list, stream_head};

async fn house() -> House {
    House::new(json!({ "denied_tools": ["delete"] })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_reaches_nobody_in_any_spelling() {
    let house = house().await;
    for body in [
        call("delete").to_string(),
        r#"{"jsonrpc":"2.0","id":7,"method":"tools\/call","params":{"name":"d\u0065lete","arguments":{}}}"#.to_owned(),
        r#"{"m\u0065thod":"tools/call","p\u0061rams":{"n\u0061me":"delete"},"id":7}"#.to_owned(),
    ] {
        let response = house.raw(body.clone()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{body}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(
            answer,
            json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -32602, "message": "Unknown tool: delete" } })
        );
    }
    assert!(house.server.seen().is_empty(), "{:?}", house.server.seen());
    let rows = house.rows(3).await;
    for row in rows {
        assert_eq!(
            (&row["outcome"], &row["error_code"]),
            (&json!("rejected"), &json!("tool_denied")),
            "{row}"
        );
    }
    assert_eq!(house.call("read").send().await.unwrap().status(), 200);
    assert_eq!(house.server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_two_readers_read_in_two_ways_reaches_nobody() {
    let house = house().await;
    for body in [
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read","name":"delete"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete","n\u0061me":"read"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read"},"params":{"name":"delete"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/call","params":{"name":"delete"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read"},"Params":{"name":"delete"}}"#,
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"delete\"}}",
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete"}} {}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete\u0000"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read","name\u0000":"delete"}}"#,
        r#"[{"id":7,"method":"tools/call","params":{"name":"read"}},{"id":8,"method":"tools/call","params":{"name":"read"}}]"#,
        "not json",
    ] {
        let response = house.raw(body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["type"], "invalid_request_error", "{answer}");
    }
    assert!(house.server.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_another_encoding_reaches_nobody() {
    let house = house().await;
    // Read as UTF-7, this calls `delete`.
    let body =
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read","x":"+ACIALAAiAG4AYQBtAGUAIgA6ACIAZABlAGwAZQB0AGU-"}}"#;
    for content_type in [
        "application/json; charset=utf-7",
        "application/json;CHARSET=\"utf-16\"",
        "application/json; charset=utf-8; charset = utf-7",
        "application/json; charset*=utf-7''x",
    ] {
        let request = house.ask(Method::POST).header("content-type", content_type).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 415, "{content_type}");
    }
    assert!(house.server.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_judged_call_by_call() {
    let house = house().await;
    let batch = json!([call("read"), { "jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": { "name": "delete" } }]);
    let response = house.post(&batch).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer[1]["id"], "b");
    assert_eq!(answer[1]["error"]["code"], -32602);
    assert!(house.server.seen().is_empty(), "none of it went up");
    let good = json!([{ "jsonrpc": "2.0", "method": "notifications/initialized" }]);
    assert_eq!(house.post(&good).send().await.unwrap().status(), 202);
    let late = house.post(&good).header("mcp-protocol-version", "2025-06-18");
    assert_eq!(late.send().await.unwrap().status(), 400);
    assert_eq!(house.server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_says_otherwise_than_the_body_stops_it() {
    let house = house().await;
    let modern = |tool: &str| {
        let mut body = call(tool);
        body["params"]["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        house
            .post(&body)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
    };
    for request in [
        modern("delete").header("mcp-name", "read"),
        modern("read").header("mcp-name", "delete"),
        modern("read").header("mcp-name", "=?base64?ZGVsZXRl?="),
        modern("read").header("mcp-name", "read").header("mcp-name", "delete"),
        modern("read").header("mcp-method", "ping"),
        house.call("read").header("mcp-name", "delete"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let answer: Value = response.json().await.unwrap();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32020), &json!(7)), "{answer}");
    }
    assert!(house.server.seen().is_empty());
    let response = modern("delete").header("mcp-name", "delete").send().await.unwrap();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["code"], -32602);
    assert!(house.server.seen().is_empty());
    assert_eq!(modern("read").header("mcp-name", "read").send().await.unwrap().status(), 200);
    let seen = house.server.last();
    assert_eq!(
        (seen.header("mcp-name"), seen.header("mcp-method")),
        (Some("read"), Some("tools/call"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_shortened_and_its_hints_say_so() {
    let house = house().await;
    let answer: Value = house.post(&list()).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["result"],
        json!({ "tools": [{ "name": "read" }], "cacheScope": "private", "ttlMs": 0 })
    );
    let open = House::new(json!({})).await;
    let whole: Value = open.post(&list()).send().await.unwrap().json().await.unwrap();
    assert_eq!(whole["result"]["tools"].as_array().unwrap().len(), 2);
    assert_eq!(whole["result"]["cacheScope"], "public");
    let none = House::new(json!({ "allowed_tools": [] })).await;
    let answer: Value = none.post(&list()).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["tools"], json!([]));
}

/// A list in events, cut in the middle, between others that must stay as they are.
const EVENTS: [&str; 3] = [
    "id: 1\r\ndata:\r\n\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}\r\n\r\nid: 2\r\ndata: {\"id\":1,\"result\":{\"tools\":[{\"na",
    "me\":\"delete\"},{\"name\":\"read\",\"x\":1.0}],\"next",
    "Cursor\":\"c\"}}\r\n\r\n",
];
const SHORTENED: &str = "id: 1\r\ndata:\r\n\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}\r\n\r\nid: 2\r\ndata: \
                         {\"id\":1,\"result\":{\"tools\":[{\"name\":\"read\",\"x\":1.0}],\"nextCursor\":\"c\"}}\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_events_is_shortened_also_when_it_is_sent_again() {
    let house = House::with(json!({ "denied_tools": ["delete"] }), |_| {
        let mut steps = vec![stream_head(&[])];
        steps.extend(EVENTS.map(chunk));
        steps.push(last_chunk());
        steps
    })
    .await;
    let posted = house.post(&list()).send().await.unwrap().text().await.unwrap();
    assert_eq!(posted, SHORTENED);
    let resumed = house.ask(Method::GET).header("last-event-id", "1").send().await.unwrap();
    assert_eq!(resumed.text().await.unwrap(), SHORTENED);
    assert_eq!(house.server.last().header("last-event-id"), Some("1"));
    let other = house.call("read").send().await.unwrap().text().await.unwrap();
    assert_eq!(other, EVENTS.concat(), "what lists no tools is not looked into");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_read_is_not_shown() {
    for (kind, body) in [
        ("application/json", "{\"result\":{\"tools\":[{\"name\":\"delete\"},NaN]}}"),
        ("application/json", "{\"result\":{\"tools\":[{\"name\":\"delete\""),
        ("text/plain", "tools: delete"),
    ] {
        let house = House::with(json!({ "denied_tools": ["delete"] }), move |_| {
            answer(200, &[("content-type", kind)], body)
        })
        .await;
        let response = house.post(&list()).send().await.unwrap();
        // An error if the head was not on its way yet, else an end in the middle.
        let status = response.status();
        let text = response.text().await;
        assert!(status == 502 || text.is_err(), "{status} {text:?}");
        assert!(!text.unwrap_or_default().contains("delete"));
        assert_eq!(house.rows(1).await[0]["outcome"], "error");
    }
    let house = House::with(json!({ "denied_tools": ["delete"] }), |seen| {
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        vec![Step::Send(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        )]
    })
    .await;
    assert_eq!(house.post(&list()).send().await.unwrap().status(), 502);
}
