//! A session is of use to who opened it, and to nobody else.

use reqwest::{Client, Method, Response};
use serde_json::json;

use super::{House, call, plain, register};
use crate::support::Gateway;
use crate::support::mcp_server::McpServer;

async fn open(house: &House) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": { "protocolVersion": "2025-11-25" } });
    let response = house.post(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    assert!(text.starts_with("id: 1\ndata:\nretry: 100\n\n"), "the priming event: {text}");
    assert!(!id.contains("raw-session"), "{id}");
    id
}

/// Uses a session with another key, and at another server's path.
async fn with(house: &House, key: &str, server: &str, method: Method, id: &str) -> Response {
    let url = format!("http://{}/mcp/{server}", house.gateway.data);
    let mut request = house
        .client
        .request(method.clone(), url)
        .bearer_auth(key)
        .header("mcp-session-id", id);
    if method == Method::POST {
        request = request.body(call("read").to_string());
    }
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opener_uses_and_ends_its_session_under_the_name_it_was_given() {
    let house = House::new(json!({})).await;
    let id = open(&house).await;
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let response = with(&house, &house.key, "files", method.clone(), &id).await;
        assert_eq!(response.status(), 200, "{method}");
        assert_eq!(house.server.last().header("mcp-session-id"), Some("raw-session-1"), "{method}");
    }
    assert!(!house.server.got(&id), "the server never sees the sealed name");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_drives_attaches_to_or_ends_it() {
    let house = House::new(json!({})).await;
    register(&house.gateway, "twin", &house.server, json!({})).await;
    let sibling = house.gateway.key(&house.tenant, json!({ "name": "sibling" })).await;
    let stranger = house.gateway.tenant_key(json!({ "name": "stranger" })).await;
    let id = open(&house).await;
    let mut tampered = id.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    for method in [Method::POST, Method::GET, Method::DELETE] {
        for (key, server, id) in [
            (&stranger, "files", &id),
            (&sibling, "files", &id),
            (&house.key, "twin", &id),
            (&house.key, "files", &tampered),
            (&house.key, "files", &"raw-session-1".to_owned()),
            (&house.key, "files", &String::new()),
        ] {
            let response = with(&house, key, server, method.clone(), id).await;
            assert_eq!(response.status(), 404, "{method} {server} {id}");
        }
    }
    assert_eq!(house.server.seen().len(), 1, "only what opened it");
    assert_eq!(with(&house, &house.key, "files", Method::POST, &id).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_sessions_takes_none_up_and_brings_none_down() {
    let house = House::new(json!({})).await;
    let id = open(&house).await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } } });
    let request = house
        .post(&body)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-session-id", &id);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("mcp-session-id"));
    assert_eq!(house.server.last().header("mcp-session-id"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_at_an_address_that_is_gone_is_gone() {
    let house = House::new(json!({})).await;
    let id = open(&house).await;
    let other = McpServer::start(plain).await;
    let moved = json!({ "upstream_url": other.url(), "auth_header": "env:MCP_CREDENTIAL" });
    house.gateway.put(&format!("mcp-servers/{}", house.id), moved).await;
    assert_eq!(with(&house, &house.key, "files", Method::POST, &id).await.status(), 404);
    assert!(other.seen().is_empty(), "another server's session is not tried on it");
    assert!(!open(&house).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_under_one_sealing_key_share_sessions_and_others_do_not() {
    let server = McpServer::start(plain).await;
    let secret = format!("sk_{}", "ab".repeat(32));
    // One file for all: each gateway has a store and ids of its own.
    let resources = format!(
        "tenants: [{{ name: acme, keys: [{{ name: k, secret: {secret} }}] }}]\nmcp_servers: [{{ name: files, upstream_url: \"{}\" }}]\n",
        server.url()
    );
    let gateway = |sealing_key: String| Gateway::start_configured_with(&resources, &[("OBLETH_ENCRYPTION_KEY", &sealing_key)]);
    let (one, two, other) = (gateway("0a".repeat(32)), gateway("0a".repeat(32)), gateway("0b".repeat(32)));
    let client = Client::new();
    let ask = |gateway: &Gateway| client.post(format!("http://{}/mcp/files", gateway.data)).bearer_auth(&secret);
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" });
    let opened = ask(&one).body(initialize.to_string()).send().await.unwrap();
    let id = opened.headers()["mcp-session-id"].clone();
    for (gateway, status) in [(&two, 200), (&one, 200), (&other, 404)] {
        let response = ask(gateway)
            .header("mcp-session-id", &id)
            .body(call("read").to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(server.seen().len(), 3);
}
