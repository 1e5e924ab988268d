//! `/models`.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use super::harness::House;
use crate::catalog::Endpoint;
use crate::egress;

/// The endpoints of the only model.
fn endpoints(house: &House) -> Vec<Endpoint> {
    house.live.load().models().values().next().unwrap().endpoints.clone()
}

fn secret(endpoint: &Endpoint) -> Option<&str> {
    endpoint.credential.as_ref()?.secret.as_deref()
}

#[tokio::test]
async fn a_model_is_made_with_the_defaults_of_the_contract() {
    let house = House::new();
    let made = house
        .post("/models", json!({"model_name": "llama", "api_base": "http://127.0.0.1:8000"}))
        .await
        .expect(201);
    let mut model = made.json();
    assert_eq!(model["created_at"].take(), model["updated_at"].take());
    let expected = format!(
        r#"{{
        "id": "{}", "model_name": "llama", "aliases": [], "description": "", "upstream_model": "llama",
        "api_base": "http://127.0.0.1:8000", "endpoints": null, "api_key_set": false, "engine": "other", "protocol": "openai",
        "model_type": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0, "cached_input_cost_per_token": null,
        "cost_per_request": 0, "context_window": 8192, "admission_weight": 100, "max_in_flight": null, "load_balancing": "least_request",
        "connect_timeout_ms": 5000, "first_byte_timeout_secs": 120, "idle_timeout_secs": 120, "total_timeout_secs": 1800,
        "max_retries": 1, "retry_after_dispatch": false, "engine_priority": false, "http2": false, "tls_ca_file": null,
        "tls_server_name": null, "tls_client_cert_file": null, "tls_client_key_file": null, "supports_function_calling": false,
        "supports_system_messages": true, "supports_response_schema": false, "supports_tool_choice": false, "supports_vision": false,
        "tags": [], "enabled": true, "cache_enabled": false, "cache_ttl_secs": 300, "cache_scope": "tenant",
        "cache_max_entry_bytes": 1048576, "cache_mode": "all",
        "health": [{{"url": "http://127.0.0.1:8000", "status": "unknown", "in_flight": 0, "last_error": null}}],
        "managed_by": "api", "overridden": [], "version": 1, "created_at": null, "updated_at": null
    }}"#,
        made.id()
    );
    let expected: Json = serde_json::from_str(&expected).unwrap();
    assert_eq!(model, expected);
    assert_eq!(made.header("location"), format!("/api/v1/models/{}", made.id()));
    assert_eq!(house.get("/models").await.expect(200).json(), json!([made.json()]));
}

#[tokio::test]
async fn every_field_of_a_model_can_be_set_and_put_back_as_shown() {
    let house = House::new();
    let fields = r#"{
        "model_name": "llama", "aliases": ["l3", "meta/llama"], "description": "d", "upstream_model": "Llama-3",
        "endpoints": [
            {"url": "http://10.0.0.1:8000/v1", "weight": 3, "priority": 1, "max_in_flight": 8, "api_key": "one"},
            {"url": "https://inference.example.com", "api_key": "env:UPSTREAM_KEY"}
        ],
        "engine": "vllm", "protocol": "anthropic", "model_type": "audio_speech", "input_cost_per_token": "0.000000000001",
        "output_cost_per_token": 2.5e-6, "cached_input_cost_per_token": 0, "cost_per_request": "0.10", "context_window": 131072,
        "admission_weight": 250, "max_in_flight": "auto", "load_balancing": "prefix", "connect_timeout_ms": 1, "first_byte_timeout_secs": 2,
        "idle_timeout_secs": 3, "total_timeout_secs": 4, "max_retries": 0, "retry_after_dispatch": true, "engine_priority": true,
        "http2": true, "tls_ca_file": "/ca.pem", "tls_server_name": "inference", "tls_client_cert_file": "/c.pem",
        "tls_client_key_file": "/k.pem", "supports_function_calling": true, "supports_system_messages": false,
        "supports_response_schema": true, "supports_tool_choice": true, "supports_vision": true, "tags": ["gpu"], "enabled": false,
        "cache_enabled": true, "cache_ttl_secs": 5, "cache_scope": "global", "cache_max_entry_bytes": 6, "cache_mode": "deterministic"
    }"#;
    let fields: Json = serde_json::from_str(fields).unwrap();
    let made = house.post("/models", fields.clone()).await.expect(201);
    let shown = made.json();
    for (field, value) in fields.as_object().unwrap() {
        if !matches!(
            &**field,
            "endpoints" | "input_cost_per_token" | "output_cost_per_token" | "cost_per_request"
        ) {
            assert_eq!(&shown[field], value, "{field}");
        }
    }
    assert_eq!(
        shown["endpoints"][0],
        json!({"url": "http://10.0.0.1:8000/v1", "weight": 3, "priority": 1, "max_in_flight": 8, "api_key_set": true})
    );
    assert_eq!(shown["api_base"], Json::Null);
    for price in [
        "\"input_cost_per_token\":0.000000000001,",
        "\"output_cost_per_token\":0.0000025,",
        "\"cost_per_request\":0.1,",
    ] {
        assert!(made.text.contains(price), "{price} in {}", made.text);
    }
    let before = endpoints(&house);
    assert_eq!((secret(&before[0]), secret(&before[1])), (Some("one"), Some("resolved-secret")));
    let put = house.put(&format!("/models/{}", made.id()), shown.clone()).await.expect(200).json();
    assert_eq!((&put["endpoints"], &put["version"]), (&shown["endpoints"], &json!(2)));
    assert_eq!(endpoints(&house), before, "credentials are kept");
    assert!(!house.get("/audit").await.text.contains("\"one\""), "a value is never in the log");
}

#[tokio::test]
async fn a_credential_is_kept_replaced_or_cleared_but_never_sent_elsewhere() {
    let house = House::new();
    let body = json!({"model_name": "llama", "api_base": "http://10.0.0.1:8000", "api_key": "1st-secret"});
    let made = house.post("/models", body).await.expect(201);
    let path = format!("/models/{}", made.id());
    assert_eq!(made.json()["api_key_set"], true);
    assert!(!made.text.contains("1st-secret"));
    for kept in [
        json!({"api_key": null}),
        json!({"description": "x"}),
        json!({"api_base": "http://10.0.0.1:8000/"}),
    ] {
        house.put(&path, kept).await.expect(200);
        assert_eq!(secret(&endpoints(&house)[0]), Some("1st-secret"));
    }
    // Another URL, in either spelling, with or without null.
    let elsewhere = [
        json!({"api_base": "http://10.6.6.6:8000"}),
        json!({"api_base": "http://10.0.0.1:8001", "api_key": null}),
        json!({"endpoints": [{"url": "http://10.6.6.6:8000"}]}),
        json!({"endpoints": [{"url": "http://10.6.6.6:8000", "api_key": null}]}),
    ];
    for body in elsewhere {
        let refused = house.put(&path, body.clone()).await;
        let paths = refused.problem(422, "api_key_required");
        assert!(paths[0].ends_with("api_key"), "{body} {paths:?}");
        assert_eq!(secret(&endpoints(&house)[0]), Some("1st-secret"));
    }
    let moved = house
        .put(&path, json!({"api_base": "http://10.6.6.6:8000", "api_key": "second"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&moved["api_base"], secret(&endpoints(&house)[0])),
        (&json!("http://10.6.6.6:8000"), Some("second"))
    );
    house
        .put(&path, json!({"api_base": "http://10.0.0.1:8000", "api_key": ""}))
        .await
        .expect(200);
    assert_eq!(endpoints(&house)[0].credential, None);
    house.put(&path, json!({"api_base": "http://10.0.0.2:8000"})).await.expect(200);
    let details: Vec<Json> = house.audit().await.into_iter().map(|row| row.detail).collect();
    assert_eq!(details[2]["after"]["api_key"], json!("***"));
    assert!(!Json::Array(details).to_string().contains("second"));
}

#[tokio::test]
async fn an_endpoint_keeps_its_credential_in_a_longer_list_and_a_new_one_gets_none() {
    let house = House::new();
    let body = json!({"model_name": "llama", "endpoints": [{"url": "http://10.0.0.1:1", "api_key": "one"}, {"url": "http://10.0.0.2:1", "api_key": "two"}]});
    let path = format!("/models/{}", house.post("/models", body).await.expect(201).id());
    let longer =
        json!({"endpoints": [{"url": "http://10.0.0.2:1"}, {"url": "http://10.0.0.3:1"}, {"url": "http://10.0.0.1:1", "api_key": ""}]});
    house.put(&path, longer).await.expect(200);
    let after = endpoints(&house);
    assert_eq!((secret(&after[0]), secret(&after[1]), secret(&after[2])), (Some("two"), None, None));
    // The top-level key is for all that have none of their own in the same body.
    house.put(&path, json!({"api_key": "all"})).await.expect(200);
    assert!(endpoints(&house).iter().all(|endpoint| secret(endpoint) == Some("all")));
    let short = json!({"api_base": "http://10.0.0.2:1"});
    let shown = house.put(&path, short).await.expect(200).json();
    assert_eq!(
        (&shown["api_base"], &shown["endpoints"], endpoints(&house).len()),
        (&json!("http://10.0.0.2:1"), &Json::Null, 1)
    );
    assert_eq!(secret(&endpoints(&house)[0]), Some("all"));
}

#[tokio::test]
async fn addresses_where_no_upstream_can_be_are_refused() {
    let house = House::new();
    for url in [
        "ftp://10.0.0.1",
        "http://user:pw@10.0.0.1",
        "http://10.0.0.1/#x",
        "http://169.254.169.254/latest",
        "http://[fe80::1]",
        "http://0.0.0.0:1",
        "http://224.0.0.1",
        "http://metadata.google.internal",
        "http://127.0.0.1:9090",
        "http://localhost:8080",
        "http://2852039166",
        "nonsense",
        "",
    ] {
        let refused = house.post("/models", json!({"model_name": "m", "api_base": url})).await;
        assert_eq!(refused.problem(422, "invalid"), ["api_base"], "{url}");
        let refused = house
            .post(
                "/models",
                json!({"model_name": "m", "endpoints": [{"url": "http://10.0.0.1"}, {"url": url}]}),
            )
            .await;
        assert_eq!(refused.problem(422, "invalid"), ["endpoints[1].url"], "{url}");
    }
    let strict = House::with(|doors| doors.egress = egress::Policy::PublicOnly);
    strict
        .post("/models", json!({"model_name": "m", "api_base": "http://127.0.0.1:8000"}))
        .await
        .problem(422, "invalid");
    strict
        .post("/models", json!({"model_name": "m", "api_base": "http://93.184.216.34"}))
        .await
        .expect(201);
}

#[tokio::test]
async fn names_and_aliases_are_unique_together() {
    let house = House::new();
    let model = |name: &str, aliases: Json| json!({"model_name": name, "api_base": "http://10.0.0.1", "aliases": aliases});
    house.post("/models", model("a", json!(["b"]))).await.expect(201);
    for (name, aliases) in [("a", json!([])), ("b", json!([])), ("c", json!(["a"])), ("c", json!(["b"]))] {
        house.post("/models", model(name, aliases)).await.problem(409, "name_taken");
    }
    assert_eq!(
        house.post("/models", model("c", json!(["d", "d"]))).await.problem(422, "invalid"),
        ["aliases[1]"]
    );
    assert_eq!(
        house.post("/models", model("c", json!(["c"]))).await.problem(422, "invalid"),
        ["aliases"]
    );
}

#[tokio::test]
async fn a_model_needs_one_way_to_say_where_it_is() {
    let house = House::new();
    assert_eq!(
        house.post("/models", json!({})).await.problem(422, "invalid"),
        ["model_name", "api_base"]
    );
    let both = json!({"model_name": "m", "api_base": "http://10.0.0.1", "endpoints": [{"url": "http://10.0.0.1"}]});
    assert_eq!(house.post("/models", both).await.problem(422, "invalid"), ["endpoints"]);
    assert_eq!(
        house
            .post("/models", json!({"model_name": "m", "endpoints": []}))
            .await
            .problem(422, "invalid"),
        ["endpoints"]
    );
    let twice = json!({"model_name": "m", "endpoints": [{"url": "http://10.0.0.1"}, {"url": "http://10.0.0.1/", "wait": 1}]});
    let mut paths = house.post("/models", twice).await.problem(422, "invalid");
    paths.sort();
    assert_eq!(paths, ["endpoints[1].url", "endpoints[1].wait"]);
    let half = json!({"model_name": "m", "api_base": "http://10.0.0.1", "tls_client_cert_file": "/c.pem"});
    assert_eq!(house.post("/models", half).await.problem(422, "invalid"), ["tls_client_key_file"]);
}

#[tokio::test]
async fn without_a_sealing_key_only_references_are_taken() {
    let house = House::with(|doors| doors.seals = false);
    let model = |key: &str| json!({"model_name": key.trim().replace('\n', ""), "api_base": "http://10.0.0.1", "api_key": key});
    assert_eq!(
        house.post("/models", model("a-value")).await.problem(422, "no_sealing_key"),
        ["api_key"]
    );
    house.post("/models", model("env:UPSTREAM_KEY")).await.expect(201);
    house.post("/models", model("file:/run/secrets/upstream")).await.expect(201);
    for key in [
        "env:",
        "env:1A",
        "env:OBLETH_ADMIN_TOKEN",
        "env:obleth_encryption_key",
        "file:relative",
        "with\nline",
        " padded",
    ] {
        assert_eq!(
            house.post("/models", model(key)).await.problem(422, "invalid")[0],
            "api_key",
            "{key}"
        );
    }
}

#[tokio::test]
async fn the_cache_has_a_route_of_its_own() {
    let house = House::new();
    let path = format!(
        "/models/{}",
        house
            .post("/models", json!({"model_name": "m", "api_base": "http://10.0.0.1"}))
            .await
            .id()
    );
    let body = json!({"cache_enabled": true, "cache_ttl_secs": 60, "cache_scope": "group"});
    let shown = house.put(&format!("{path}/cache"), body).await.expect(200).json();
    assert_eq!(
        (&shown["cache_enabled"], &shown["cache_ttl_secs"], &shown["cache_scope"]),
        (&json!(true), &json!(60), &json!("group"))
    );
    let shown = house
        .put(&format!("{path}/cache"), json!({"cache_enabled": false, "cache_ttl_secs": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&shown["cache_enabled"], &shown["cache_ttl_secs"], &shown["cache_scope"]),
        (&json!(false), &json!(300), &json!("group"))
    );
    assert_eq!(
        house
            .put(&format!("{path}/cache"), json!({"cache_ttl_secs": 0}))
            .await
            .problem(422, "invalid"),
        ["cache_enabled", "cache_ttl_secs"]
    );
    assert_eq!(house.audit().await[0].action, "set_model_cache");
    house.delete(&path).await.expect(204);
    house
        .put(&format!("{path}/cache"), json!({"cache_enabled": true}))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_model_can_be_renamed_without_a_word_about_its_upstream_name() {
    let house = House::new();
    let path = format!(
        "/models/{}",
        house
            .post("/models", json!({"model_name": "a", "api_base": "http://10.0.0.1"}))
            .await
            .id()
    );
    let renamed = house.put(&path, json!({"model_name": "b"})).await.expect(200).json();
    assert_eq!((&renamed["model_name"], &renamed["upstream_model"]), (&json!("b"), &json!("a")));
    let reset = house
        .put(&path, json!({"upstream_model": null, "max_in_flight": 4}))
        .await
        .expect(200)
        .json();
    assert_eq!((&reset["upstream_model"], &reset["max_in_flight"]), (&json!("b"), &json!(4)));
    let named: SocketAddr = "127.0.0.1:9090".parse().unwrap();
    assert_eq!(
        house
            .put(&path, json!({"api_base": format!("http://{named}")}))
            .await
            .problem(422, "invalid"),
        ["api_base"]
    );
}
