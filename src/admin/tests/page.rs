//! The user's page, route by route and line by line: what it prints must work as it stands.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

use super::harness::{Answer, House, TOKEN};

/// What curl sends for a line of the page: its own `Content-Type` for `-d` unless the line has one.
async fn curl(house: &House, method: &str, url: &str, json: bool, data: &str) -> Answer {
    let path = url.strip_prefix("http://localhost:9090").unwrap();
    let kind = if json {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:9090")
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", kind)
        .header("content-length", data.len());
    house.send(request.body(Body::from(data.to_owned())).unwrap()).await
}

#[tokio::test]
async fn the_lines_of_the_page_work_as_printed() {
    let house = House::new();
    let data = r#"{"name": "acme", "weight": 200, "tokens_per_minute": 100000}"#;
    let tenant = curl(&house, "POST", "http://localhost:9090/api/v1/tenants", true, data)
        .await
        .expect(201);
    let id = tenant.id();
    let url = format!("http://localhost:9090/api/v1/tenants/{id}/weight");
    let weighed = curl(&house, "PATCH", &url, false, r#"{"weight": 500}"#).await.expect(200).json();
    assert_eq!(weighed["weight"], 500);
    let url = format!("http://localhost:9090/api/v1/tenants/{id}/keys");
    let made = curl(&house, "POST", &url, false, r#"{"name": "prod-key"}"#)
        .await
        .expect(201)
        .json();
    let (key, secret) = (&made["key"], made["secret"].as_str().unwrap());
    assert!(key["id"].is_string() && secret.starts_with(key["key_prefix"].as_str().unwrap()));
    assert_eq!(key["key_prefix"].as_str().unwrap().len(), "sk_a1b2c3d4e5f6a1b".len());
}

/// The routes of the page that this room answers, with what they need, and the status of success.
#[tokio::test]
async fn the_routes_of_the_page_are_there() {
    let house = House::new();
    let tenant = house.tenant("acme").await;
    house.post("/fairshare/groups", json!({"name": "research"})).await.expect(201);
    let key = house.post(&format!("/tenants/{tenant}/keys"), json!({"name": "k"})).await.json()["key"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let model = house
        .post("/models", json!({"model_name": "m", "api_base": "http://127.0.0.1:8000"}))
        .await
        .id();
    let server = house
        .post("/mcp-servers", json!({"name": "s", "upstream_url": "http://127.0.0.1:7000"}))
        .await
        .id();
    let routes: Vec<(&str, String, Json, u16)> = vec![
        ("GET", "/tenants".to_owned(), Json::Null, 200),
        ("POST", "/tenants".to_owned(), json!({"name": "other"}), 201),
        ("GET", format!("/tenants/{tenant}"), Json::Null, 200),
        ("PATCH", format!("/tenants/{tenant}/weight"), json!({"weight": 1}), 200),
        ("PUT", format!("/tenants/{tenant}/quota"), json!({"tokens_per_minute": 1}), 200),
        (
            "PATCH",
            format!("/tenants/{tenant}/group"),
            json!({"fairshare_group": "research"}),
            200,
        ),
        ("POST", format!("/tenants/{tenant}/keys"), json!({"name": "k2"}), 201),
        ("GET", "/keys".to_owned(), Json::Null, 200),
        ("PUT", format!("/keys/{key}/disabled"), json!({"disabled": true}), 200),
        ("DELETE", format!("/keys/{key}"), Json::Null, 204),
        (
            "POST",
            "/models".to_owned(),
            json!({"model_name": "m2", "api_base": "http://127.0.0.1:8000/v1"}),
            201,
        ),
        ("GET", "/models".to_owned(), Json::Null, 200),
        ("GET", format!("/models/{model}"), Json::Null, 200),
        ("PUT", format!("/models/{model}"), json!({"enabled": false}), 200),
        ("PUT", format!("/models/{model}/cache"), json!({"cache_enabled": true}), 200),
        ("DELETE", format!("/models/{model}"), Json::Null, 204),
        ("GET", "/fairshare/live".to_owned(), Json::Null, 200),
        ("POST", "/fairshare/groups".to_owned(), json!({"name": "g2"}), 201),
        ("GET", "/fairshare/groups".to_owned(), Json::Null, 200),
        ("PATCH", "/fairshare/groups/research/weight".to_owned(), json!({"weight": 2}), 200),
        (
            "POST",
            "/mcp-servers".to_owned(),
            json!({"name": "s2", "upstream_url": "http://127.0.0.1:7000/mcp"}),
            201,
        ),
        ("GET", "/mcp-servers".to_owned(), Json::Null, 200),
        ("GET", format!("/mcp-servers/{server}"), Json::Null, 200),
        ("PUT", format!("/mcp-servers/{server}"), json!({"enabled": false}), 200),
        ("DELETE", format!("/mcp-servers/{server}"), Json::Null, 204),
        ("GET", "/stats".to_owned(), Json::Null, 200),
        ("GET", "/capacity".to_owned(), Json::Null, 200),
        ("PUT", "/capacity".to_owned(), json!({"max_in_flight": 5}), 200),
        ("GET", "/audit".to_owned(), Json::Null, 200),
        ("GET", "/health".to_owned(), Json::Null, 200),
        ("GET", "/openapi.json".to_owned(), Json::Null, 200),
    ];
    for (method, path, body, status) in routes {
        let body = (!body.is_null()).then(|| body.to_string());
        house
            .call(method, &format!("/api/v1{path}"), &[], body.as_deref())
            .await
            .expect(status);
    }
}
