//! What of a head goes up, and what comes back: allow-lists both ways, seen by an upstream that writes down what it gets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::Gateway;

/// A request as the upstream saw it.
#[derive(Clone)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

type Record = Arc<Mutex<Vec<Seen>>>;

/// An upstream that answers with headers nobody should see.
async fn witness() -> (SocketAddr, Record) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let record = Record::default();
    let shared = Arc::clone(&record);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let record = Arc::clone(&shared);
            let service = service_fn(move |request| testify(request, Arc::clone(&record)));
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, record)
}

async fn testify(request: Request<Incoming>, record: Record) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let echo = head
        .headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let failing = memchr::memmem::find(&body, b"please fail").is_some();
    record.lock().push(Seen {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
    });
    let response = Response::builder()
        .status(if failing { 401 } else { 200 })
        .header("content-type", "application/json")
        .header("set-cookie", "a=b")
        .header("server", "uvicorn")
        .header("x-ratelimit-limit-requests", "7")
        .header("openai-organization", "our-account")
        .header("retry-after", "9")
        .header("x-request-id", "the-upstreams-own");
    let body = if failing {
        format!(r#"{{"error":{{"message":"bad key {echo}"}}}}"#)
    } else {
        r#"{"choices":[]}"#.to_owned()
    };
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

struct House {
    gateway: Gateway,
    record: Record,
    key: String,
}

async fn house() -> House {
    let (address, record) = witness().await;
    let gateway = Gateway::start_with(&[], &[("THE_UPSTREAMS_KEY", "upstream-secret-0123456789")]);
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let model = json!({ "model_name": "llama", "upstream_model": "org/llama", "aliases": ["gpt-4"], "api_base": format!("http://{address}/base/v1"), "api_key": "env:THE_UPSTREAMS_KEY" });
    gateway.create("models", model).await;
    House { gateway, record, key }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_allow_list_goes_up_and_only_the_allow_list_comes_back() {
    let house = house().await;
    let body = r#"{"model": "gpt-4", "messages": [], "priority": 1, "cache_salt": "x", "unknown": 0.10}"#;
    let response = house
        .gateway
        .post("/v1/chat/completions?user=secret", &house.key, &Value::Null)
        .body(body)
        .header("cookie", "session=1")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-api-key", &house.key)
        .header("openai-organization", "theirs")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("x-request-id", "client.id_1")
        .header("accept-encoding", "gzip, br")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let answered = response.headers().clone();
    assert_eq!(answered["x-request-id"], "client.id_1");
    assert_eq!(answered["x-obleth-model"], "llama", "after aliases");
    assert_ne!(answered["x-obleth-request-id"], "client.id_1");
    for hidden in ["set-cookie", "server", "x-ratelimit-limit-requests", "openai-organization"] {
        assert!(!answered.contains_key(hidden), "{hidden} came back");
    }
    // Health checks go there too, and say nothing of a client's.
    let seen = house.record.lock().iter().find(|seen| !seen.body.is_empty()).unwrap().clone();
    assert_eq!(seen.path, "/base/v1/chat/completions", "never made of anything the client sent");
    assert_eq!(seen.headers["authorization"], "Bearer upstream-secret-0123456789");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert_eq!(seen.headers["x-request-id"], "client.id_1");
    assert!(seen.headers.contains_key("traceparent"));
    for private in ["cookie", "x-forwarded-for", "x-api-key", "openai-organization"] {
        assert!(!seen.headers.contains_key(private), "{private} went up");
    }
    assert!(
        !format!("{:?}", seen.headers).contains(&house.key),
        "the client's credential went up"
    );
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(sent["model"], "org/llama");
    assert!(sent.get("priority").is_none() && sent.get("cache_salt").is_none(), "{sent}");
    assert!(memchr::memmem::find(&seen.body, b"0.10").is_some(), "number spellings survive");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_request_id_is_replaced_by_the_gateways_own() {
    let house = house().await;
    for unfit in ["a b", "ü", &"x".repeat(129), "a;b"] {
        let body = json!({ "model": "llama", "messages": [] });
        let value = http::HeaderValue::from_bytes(unfit.as_bytes()).unwrap();
        let response = house
            .gateway
            .post("/v1/chat/completions", &house.key, &body)
            .header("x-request-id", value)
            .send()
            .await
            .unwrap();
        assert_eq!(
            response.headers()["x-request-id"],
            response.headers()["x-obleth-request-id"],
            "{unfit:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstreams_own_error_passes_with_its_retry_after_and_without_our_credential() {
    let house = house().await;
    let body = json!({ "model": "llama", "messages": [{ "role": "user", "content": "please fail" }] });
    let response = house.gateway.post("/v1/chat/completions", &house.key, &body).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["retry-after"], "9");
    let text = response.text().await.unwrap();
    assert!(text.contains("bad key Bearer ***"), "{text}");
    assert!(!text.contains("upstream-secret"), "{text}");
}
