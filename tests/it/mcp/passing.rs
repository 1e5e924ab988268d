//! What passes as it is, and what must not pass.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CREDENTIAL, House, Step, answer, call, chunk, last_chunk, list, stream_head};

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_credential_goes_up_and_the_clients_never() {
    let house = House::new(json!({})).await;
    let methods = [Method::POST, Method::GET, Method::DELETE];
    for (at, method) in methods.into_iter().enumerate() {
        let mut request = house.ask(method.clone());
        if method == Method::POST {
            request = request.body(call("read").to_string());
        }
        let response = request
            .header("x-api-key", &house.key)
            .header("cookie", "a=b")
            .header("x-forwarded-for", "1.2.3.4")
            .header("forwarded", "for=1.2.3.4")
            .header("proxy-authorization", "Basic x")
            .header("origin", "http://localhost:1")
            .header("mcp-param-secret", &house.key)
            .header("mcp-param-x", "1")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{method}");
        drop(response);
        house.server.until_seen(at + 1).await;
        let seen = house.server.last();
        assert_eq!(seen.line(), format!("{method} /mcp HTTP/1.1"));
        assert_eq!(seen.header("authorization"), Some(CREDENTIAL), "{method}");
        assert_eq!(seen.header("mcp-param-x"), Some("1"));
        assert_eq!(seen.header("host"), Some(&*house.server.addr.to_string()));
        for name in [
            "cookie",
            "x-forwarded-for",
            "forwarded",
            "proxy-authorization",
            "x-api-key",
            "origin",
            "mcp-param-secret",
        ] {
            assert_eq!(seen.header(name), None, "{method} {name}");
        }
    }
    assert!(!house.server.got("sk_"), "no key of ours in any byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_header_takes_the_credential_and_a_request_without_a_key_reaches_nobody() {
    let house = House::new(json!({ "auth_header_name": "X-Server-Key" })).await;
    let request = house.call("read").header("x-server-key", "mine");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = house.server.last();
    assert_eq!(seen.header("x-server-key"), Some(CREDENTIAL));
    assert_eq!(seen.header("authorization"), None);
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let response = house.client.request(method, house.url()).send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer",
            "no metadata, so that no client begins to ask for tokens"
        );
    }
    assert_eq!(house.server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_statuses_and_unknown_headers_pass_as_they_are() {
    const BODY: &str = "{ \"jsonrpc\":\"2.0\", \"id\" : 1.50, \"method\":\"x\\u002fy\",\n\"params\":{\"a\":1,\"a\":2e400} }";
    const ANSWER: &str = "{\"jsonrpc\" : \"2.0\",\"id\":1.50,\"error\":{\"code\":-32022,\"data\":{\"supported\":[]}}}";
    let house = House::with(json!({}), |seen| {
        let status = seen.header("mcp-param-status").map_or(200, |status| status.parse().unwrap());
        let headers = [
            ("content-type", "application/json"),
            ("x-new-header", "kept"),
            ("retry-after", "3"),
            ("set-cookie", "a=b"),
            ("server", "uvicorn"),
            ("access-control-allow-origin", "*"),
            ("www-authenticate", "Bearer resource_metadata=\"http://elsewhere\""),
        ];
        answer(status, &headers, ANSWER)
    })
    .await;
    for status in [200_u16, 202, 400, 403, 404, 405, 429, 500, 503] {
        let response = house.raw(BODY).header("mcp-param-status", status.to_string()).send().await.unwrap();
        assert_eq!(response.status(), status);
        let headers = response.headers().clone();
        assert_eq!(headers["x-new-header"], "kept");
        assert_eq!(headers["retry-after"], "3");
        assert_eq!(headers["content-type"], "application/json");
        for name in ["set-cookie", "server", "access-control-allow-origin", "www-authenticate"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert!(headers.contains_key("x-request-id") && headers.contains_key("x-obleth-request-id"));
        assert_eq!(response.text().await.unwrap(), ANSWER);
        assert_eq!(house.server.last().body, BODY.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_challenge_is_not_the_gateways() {
    let house = House::with(json!({}), |_| {
        answer(401, &[("www-authenticate", "Bearer realm=\"x\"")], "who are you")
    })
    .await;
    let response = house.call("read").send().await.unwrap();
    assert_eq!(response.status(), 502);
    assert!(!response.headers().contains_key("www-authenticate"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "upstream_error");
    let house = House::with(json!({}), |_| answer(307, &[("location", "http://169.254.169.254/")], "")).await;
    assert_eq!(house.call("read").send().await.unwrap().status(), 502);
    assert_eq!(house.server.seen().len(), 1, "not followed, not repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echoed_credential_is_blotted_out_in_answers_of_any_kind() {
    let house = House::with(json!({}), |seen| {
        let echo = seen.header("authorization").unwrap().to_owned();
        match seen.json()["method"].as_str() {
            Some("json") => answer(
                200,
                &[("content-type", "application/json"), ("x-echo", &echo)],
                &format!("\"{echo}\""),
            ),
            Some("error") => answer(400, &[("content-type", "text/plain")], &format!("bad {echo}")),
            _ => {
                let (first, second) = echo.split_at(20);
                vec![
                    stream_head(&[]),
                    chunk(&format!("data: {first}")),
                    chunk(&format!("{second}\n\n")),
                    last_chunk(),
                ]
            }
        }
    })
    .await;
    for method in ["json", "error", "stream"] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method });
        let response = house.post(&body).send().await.unwrap();
        assert!(!response.headers().contains_key("x-echo"));
        let text = response.text().await.unwrap();
        assert!(text.contains("*****") && !text.contains("servers-own"), "{method}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_priming_event_and_half_events_come_through_at_once() {
    let house = House::with(json!({ "denied_tools": ["delete"] }), |_| {
        vec![
            stream_head(&[("mcp-session-id", "s")]),
            Step::Wait,
            chunk("id: 1\ndata:\nretry: 100\n\n"),
            Step::Wait,
            chunk("id: 2\ndata: {\"jsonrpc\":\"2.0\","),
            Step::Wait,
            chunk("\"id\":7,\"result\":{}}\n\n"),
            last_chunk(),
        ]
    })
    .await;
    let limit = Duration::from_secs(5);
    let response = tokio::time::timeout(limit, house.call("read").send()).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.bytes_stream();
    for expected in [
        "id: 1\ndata:\nretry: 100\n\n",
        "id: 2\ndata: {\"jsonrpc\":\"2.0\",",
        "\"id\":7,\"result\":{}}\n\n",
    ] {
        house.server.go_on();
        let piece = tokio::time::timeout(limit, body.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(piece, expected);
    }
    assert!(body.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lives_while_it_moves_and_ends_in_order_when_it_is_silent_too_long() {
    let house = House::with(json!({ "idle_timeout_secs": 1 }), |_| {
        let mut steps = vec![stream_head(&[])];
        for _ in 0..6 {
            steps.extend([Step::Wait, chunk(": ka\n\n")]);
        }
        steps.push(Step::UntilGone);
        steps
    })
    .await;
    let response = house.ask(Method::GET).send().await.unwrap();
    let mut body = response.bytes_stream();
    let began = std::time::Instant::now();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        house.server.go_on();
        assert_eq!(body.next().await.unwrap().unwrap(), ": ka\n\n");
    }
    assert!(began.elapsed() > Duration::from_millis(1500), "longer than the silence allowed");
    assert!(body.next().await.is_none(), "an end, and no error");
    house.server.until_gone(1).await;
    let row = &house.rows(1).await[0];
    assert_eq!(
        (&row["outcome"], &row["attempt_log"][0]["outcome"]),
        (&json!("timeout"), &json!("idle_timeout"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_server_breaks_off_is_broken_off_and_nothing_is_put_into_it() {
    let house = House::with(json!({}), |_| vec![stream_head(&[]), chunk("data: {}\n\n"), Step::Close]).await;
    let response = house.call("read").send().await.unwrap();
    let mut body = response.bytes_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "data: {}\n\n");
    assert!(body.next().await.unwrap().is_err(), "no end that could be taken for one");
    let row = &house.rows(1).await[0];
    assert_eq!(row["outcome"], "interrupted");
    let attempt = &row["attempt_log"][0];
    assert_eq!(
        (&attempt["outcome"], &attempt["status"]),
        (&json!("interrupted"), &json!(200)),
        "{row}"
    );
    assert_eq!(house.server.seen().len(), 1, "not called a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_left_by_the_gateway_too() {
    let house = House::with(json!({}), |_| vec![stream_head(&[]), chunk(": x\n\n"), Step::UntilGone]).await;
    for (at, request) in [house.call("read"), house.ask(Method::GET)].into_iter().enumerate() {
        let response = request.send().await.unwrap();
        let left = std::time::Instant::now();
        drop(response);
        house.server.until_gone(at + 1).await;
        assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    }
    let rows = house.rows(2).await;
    assert!(
        rows.iter().all(|row| row["outcome"] == "cancelled" && row["status"] == 499),
        "{rows:?}"
    );
}

/// What a request with these fields is answered, as text.
async fn raw(house: &House, fields: &str) -> String {
    let mut stream = TcpStream::connect(house.gateway.data).await.unwrap();
    let body = list().to_string();
    let head = format!(
        "POST /mcp/files HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
         close\r\n{fields}\r\n",
        house.key,
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_elsewhere_are_refused_and_allowed_ones_are_told_so() {
    let house = House::new(json!({ "allowed_origins": ["https://chat.example.com"] })).await;
    for fields in [
        "host: 127.0.0.1\r\norigin: http://evil.example.com\r\n",
        "host: 127.0.0.1\r\norigin: null\r\n",
        "host: 127.0.0.1\r\norigin: http://localhost\r\norigin: http://localhost\r\n",
        "host: evil.example.com:8080\r\n",
        "host: evil.example.com:8080\r\norigin: http://evil.example.com:8080\r\n",
    ] {
        let answer = raw(&house, fields).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("origin_not_allowed"),
            "{fields}: {answer}"
        );
        assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    }
    assert!(house.server.seen().is_empty());
    for (fields, origin) in [
        (
            "host: localhost:1\r\norigin: http://localhost:5173\r\n",
            Some("http://localhost:5173"),
        ),
        (
            "host: chat.example.com\r\norigin: https://chat.example.com\r\n",
            Some("https://chat.example.com"),
        ),
        ("host: [::1]:80\r\n", None),
    ] {
        let answer = raw(&house, fields).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{fields}: {answer}");
        assert_eq!(answer.contains("access-control-allow-origin"), origin.is_some());
        if let Some(origin) = origin {
            assert!(answer.contains(&format!("access-control-allow-origin: {origin}\r\n")), "{answer}");
            assert!(answer.contains("mcp-session-id"), "pages may read it");
        }
    }
    let preflight = |origin: &'static str| {
        house
            .client
            .request(Method::OPTIONS, house.url())
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, mcp-param-region, x-other")
    };
    let allowed = preflight("https://chat.example.com").send().await.unwrap();
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://chat.example.com");
    let headers = allowed.headers()["access-control-allow-headers"].to_str().unwrap().to_owned();
    assert!(headers.contains("mcp-session-id") && headers.contains("mcp-param-region") && !headers.contains("x-other"));
    let refused = preflight("https://evil.example.com").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_for_the_caller_does_not_exist() {
    let house = House::new(json!({})).await;
    let at = |path: &str, method: Method| {
        let url = format!("http://{}{path}", house.gateway.data);
        house
            .client
            .request(method, url)
            .bearer_auth(&house.key)
            .body(call("read").to_string())
    };
    for (path, method, status) in [
        ("/mcp/other", Method::POST, 404),
        ("/mcp", Method::POST, 404),
        ("/mcp/files/%2e%2e/admin", Method::POST, 404),
        ("/mcp/files", Method::PUT, 405),
    ] {
        let response = at(path, method).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"].as_object().unwrap().len(), 4, "the gateway's own shape: {body}");
    }
    let someone = house.gateway.tenant(json!({ "name": "someone" })).await;
    let path = format!("mcp-servers/{}", house.id);
    let set = |body: Value| house.gateway.put(&path, body);
    set(json!({ "allowed_tenants": [someone] })).await;
    assert_eq!(house.call("read").send().await.unwrap().status(), 404);
    set(json!({ "allowed_tenants": [someone, house.tenant] })).await;
    assert_eq!(house.call("read").send().await.unwrap().status(), 200);
    set(json!({ "enabled": false })).await;
    assert_eq!(house.call("read").send().await.unwrap().status(), 404);
    assert_eq!(house.server.seen().len(), 1);
    set(json!({ "enabled": true })).await;
    assert_eq!(at("/mcp/files/v2/x", Method::POST).send().await.unwrap().status(), 200);
    assert_eq!(house.server.last().line(), "POST /mcp/v2/x HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_too_large_coded_or_where_none_belongs_are_refused() {
    let house = House::new(json!({})).await;
    let large = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}", "x".repeat(17 << 20));
    assert_eq!(house.raw(large).send().await.unwrap().status(), 413);
    let coded = house.raw(list().to_string()).header("content-encoding", "gzip");
    assert_eq!(coded.send().await.unwrap().status(), 415);
    let with_body = house.ask(Method::DELETE).body("x");
    assert_eq!(with_body.send().await.unwrap().status(), 400);
    assert!(house.server.seen().is_empty());
}
