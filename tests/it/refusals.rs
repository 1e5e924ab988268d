//! Every way in which the data plane says no: status, type, code, headers, dialect; and that no upstream hears of it.

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream};

struct House {
    gateway: Gateway,
    upstream: Upstream,
    tenant: String,
    key: String,
}

async fn house() -> House {
    house_with(&[]).await
}

async fn house_with(flags: &[&str]) -> House {
    let upstream = Upstream::start(flags).await;
    let gateway = Gateway::start().await;
    let tenant = gateway.create("tenants", json!({ "name": "acme" })).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = gateway.key(&tenant, json!({ "name": "k" })).await;
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" }),
        )
        .await;
    House {
        gateway,
        upstream,
        tenant,
        key,
    }
}

impl House {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        Client::new().request(method, format!("http://{}{path}", self.gateway.data))
    }

    fn chat(&self) -> RequestBuilder {
        self.request(Method::POST, "/v1/chat/completions").bearer_auth(&self.key)
    }

    /// Checks an OpenAI-shaped refusal and that the upstream saw nothing.
    async fn refused(&self, request: RequestBuilder, status: u16, kind: &str, code: &str) -> Response {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{code}");
        assert_eq!(response.headers()["content-type"], "application/json", "{code}");
        assert!(response.headers().contains_key("x-request-id"), "{code}");
        let (parts, body) = (response.headers().clone(), response.bytes().await.unwrap());
        let body: Value = serde_json::from_slice(&body).unwrap();
        let error = body["error"].as_object().unwrap();
        assert_eq!((error["type"].as_str(), error["code"].as_str()), (Some(kind), Some(code)), "{body}");
        assert!(
            error.contains_key("message") && error.contains_key("param") && error.len() == 4,
            "{body}"
        );
        assert_eq!(self.upstream.stats().await["requests"], 0, "{code}: nothing goes upstream");
        let mut empty = http::Response::new(body.to_string());
        *empty.headers_mut() = parts;
        *empty.status_mut() = StatusCode::from_u16(status).unwrap();
        empty.into()
    }
}

fn hello(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_known_is_refused_before_the_body_is_read() {
    let house = house().await;
    let post = || house.request(Method::POST, "/v1/chat/completions").json(&hello("llama"));
    let response = house.refused(post(), 401, "invalid_request_error", "invalid_api_key").await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    for wrong in ["sk_", "nonsense", &format!("sk_{}", "0".repeat(64))] {
        house
            .refused(post().bearer_auth(wrong), 401, "invalid_request_error", "invalid_api_key")
            .await;
        house
            .refused(post().header("x-api-key", wrong), 401, "invalid_request_error", "invalid_api_key")
            .await;
    }
    let two = post().bearer_auth(&house.key).header("x-api-key", "sk_other");
    house.refused(two, 400, "invalid_request_error", "conflicting_credentials").await;
    let query = house
        .request(Method::POST, &format!("/v1/chat/completions?api_key={}", house.key))
        .json(&hello("llama"));
    house.refused(query, 401, "invalid_request_error", "invalid_api_key").await;
    // 40 MB that nobody will read: the refusal must not wait for them.
    let flood = house
        .request(Method::POST, "/v1/chat/completions")
        .bearer_auth("sk_x")
        .body(vec![b' '; 40_000_000]);
    house.refused(flood, 401, "invalid_request_error", "invalid_api_key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_keys_is_damped_and_the_right_key_never() {
    let house = house().await;
    let guess = || house.request(Method::GET, "/v1/models").bearer_auth("sk_guess");
    house.refused(guess(), 401, "invalid_request_error", "invalid_api_key").await;
    let mut damped = false;
    // Two intervals' worth, should one end in between.
    for _ in 0..2_002 {
        damped = guess().send().await.unwrap().status() == 429;
        if damped {
            break;
        }
    }
    assert!(damped, "a flood goes on and on");
    let refused = house.refused(guess(), 429, "rate_limit_error", "too_many_failures").await;
    assert_eq!(refused.headers()["retry-after"], "10");
    let no_key = house.request(Method::POST, "/v1/chat/completions");
    house.refused(no_key, 429, "rate_limit_error", "too_many_failures").await;
    let right = house
        .request(Method::GET, "/v1/models")
        .bearer_auth(&house.key)
        .send()
        .await
        .unwrap();
    assert_eq!(right.status(), 200);
    // At the other door nobody has failed.
    let management = format!("http://{}/api/v1/health", house.gateway.management);
    assert_eq!(reqwest::get(management).await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_but_may_not_is_told_why() {
    let house = house().await;
    let disabled = house.gateway.key_object(&house.tenant, json!({ "name": "off" })).await;
    house
        .gateway
        .put(&format!("keys/{}/disabled", disabled.id), json!({ "disabled": true }))
        .await;
    let post = || house.request(Method::POST, "/v1/chat/completions").json(&hello("llama"));
    house
        .refused(post().bearer_auth(&disabled.secret), 403, "permission_error", "key_disabled")
        .await;
    let expired = house
        .gateway
        .key(&house.tenant, json!({ "name": "old", "expires_at": "2020-01-01T00:00:00Z" }))
        .await;
    house
        .refused(post().bearer_auth(expired), 403, "permission_error", "key_expired")
        .await;
    let narrow = house
        .gateway
        .key(&house.tenant, json!({ "name": "narrow", "allowed_models": ["other"] }))
        .await;
    house
        .refused(post().bearer_auth(&narrow), 403, "permission_error", "model_not_allowed")
        .await;
    house
        .gateway
        .put(&format!("tenants/{}", house.tenant), json!({ "status": "suspended" }))
        .await;
    house
        .refused(post().bearer_auth(&house.key), 403, "permission_error", "tenant_suspended")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_refused_with_the_field_that_is_wrong() {
    let house = house().await;
    let kind = "invalid_request_error";
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"model":"llama"}x"#, "invalid_json"),
        (r#"{"messages":[]}"#, "missing_model"),
    ] {
        house.refused(house.chat().body(body), 400, kind, code).await;
    }
    for body in [r#"{"model":"llama","model":"other"}"#, r#"{"model":"llama","mod\u0065l":"other"}"#] {
        let response = house.chat().body(body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
    }
    let deep = format!(r#"{{"model":"llama","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(house.chat().body(deep).send().await.unwrap().status(), 400);
    assert_eq!(house.chat().body(&b"{\"model\":\"\xff\"}"[..]).send().await.unwrap().status(), 400);
    house
        .refused(house.chat().json(&hello("nobody")), 404, kind, "model_not_found")
        .await;
    house
        .refused(
            house.chat().header("content-encoding", "gzip").body("x"),
            415,
            kind,
            "unsupported_media_type",
        )
        .await;
    house
        .refused(
            house.chat().header("content-type", "multipart/form-data; boundary=x").body("--x--"),
            415,
            kind,
            "unsupported_media_type",
        )
        .await;
    let large = house.chat().body(vec![b' '; 65 << 20]);
    house.refused(large, 413, kind, "request_too_large").await;
    let response = house
        .refused(
            house.request(Method::GET, "/v1/chat/completions").bearer_auth(&house.key),
            405,
            kind,
            "method_not_allowed",
        )
        .await;
    assert_eq!(response.headers()["allow"], "POST");
    for path in [
        "/invocations",
        "/pause",
        "/metrics",
        "/v1/chat/completions/",
        "/v1/%63hat/completions",
        "//v1/chat/completions",
        "/mcp",
    ] {
        house
            .refused(
                house.request(Method::POST, path).bearer_auth(&house.key).json(&hello("llama")),
                404,
                kind,
                "not_found",
            )
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_routes_are_refused_in_their_own_dialect() {
    let house = house().await;
    let post = |body: Value| {
        house
            .request(Method::POST, "/v1/messages")
            .header("x-api-key", &house.key)
            .json(&body)
    };
    for (request, status, kind) in [
        (
            house.request(Method::POST, "/v1/messages").json(&json!({})),
            401,
            "authentication_error",
        ),
        (post(json!({ "messages": [] })), 400, "invalid_request_error"),
        (post(json!({ "model": "nobody", "messages": [] })), 404, "not_found_error"),
        (house.request(Method::GET, "/v1/messages"), 405, "invalid_request_error"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (body["type"].as_str(), body["error"]["type"].as_str()),
            (Some("error"), Some(kind)),
            "{body}"
        );
        assert!(body["request_id"].is_string(), "{body}");
    }
    assert_eq!(house.upstream.stats().await["requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_and_an_ended_patience_say_when_to_come_back() {
    let house = house_with(&["--slots", "1", "--ms-per-token", "20", "--output-tokens", "200"]).await;
    house.gateway.put("capacity", json!({ "max_in_flight": 1 })).await;
    let mut running = house
        .chat()
        .json(&json!({ "model": "llama", "stream": true, "messages": [] }))
        .send()
        .await
        .unwrap();
    running.chunk().await.unwrap();
    let response = house
        .chat()
        .header("x-obleth-max-queue-ms", "50")
        .json(&hello("llama"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "queue_timeout");
    house
        .gateway
        .put(&format!("tenants/{}", house.tenant), json!({ "max_queued": 0 }))
        .await;
    let response = house.chat().json(&hello("llama")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "queue_full");
    drop(running);
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_is_named_by_how_it_failed() {
    let house = house().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    house
        .gateway
        .create("models", json!({ "model_name": "dead", "api_base": format!("http://{dead}") }))
        .await;
    let response = house.chat().json(&hello("dead")).send().await.unwrap();
    let status = response.status().as_u16();
    let code = response.json::<Value>().await.unwrap()["error"]["code"]
        .as_str()
        .unwrap()
        .to_owned();
    // Whoever comes first finds out: this request, or the first health check.
    let told = [(502, "upstream_unreachable"), (503, "no_healthy_upstream")];
    assert!(told.contains(&(status, code.as_str())), "{status} {code}");

    house
        .gateway
        .create(
            "models",
            json!({ "model_name": "slow", "api_base": house.upstream.url(), "first_byte_timeout_secs": 1, "upstream_model": "llama" }),
        )
        .await;
    let fault = |model: &str, fault: &str| {
        let mut body = hello(model);
        body["sim_fault"] = json!(fault);
        house.chat().json(&body)
    };
    let response = fault("slow", "delay=3000").send().await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "upstream_timeout");

    let response = fault("llama", "reset").send().await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "upstream_error");

    let response = fault("llama", "status=503").send().await.unwrap();
    assert_eq!(response.status(), 503, "the upstream's own error comes back as it is");
    house.gateway.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_body_that_is_not_framed_as_http_asks_nothing_more_is_read_from_the_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let house = house().await;
    for broken in ["zz\r\n", "5\r\nhelloXX\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(house.gateway.data).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n{broken}",
            house.key
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 400"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
        let smuggled = format!("GET /v1/models HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\n\r\n", house.key);
        // Closed already, or closed when it comes.
        let _ = stream.write_all(smuggled.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_to_end(&mut rest))
            .await
            .expect("it closes");
        assert!(
            !String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"),
            "a second request was read out of a broken body"
        );
    }
    assert_eq!(house.upstream.stats().await["requests"], 0);
}
