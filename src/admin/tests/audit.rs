//! `/audit`: each route that changes something leaves a row that says who, what, and from what to what.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::harness::House;
use crate::admin::document;
use crate::catalog::ManagedBy;
use crate::store::{Author, Change, Source};

/// What is there before each case.
struct Ids {
    tenant: String,
    key: String,
    model: String,
    server: String,
}

/// An operation of the document, its request, and the row it must leave: action, noun, changed fields.
struct Case {
    operation: &'static str,
    method: &'static str,
    path: fn(&Ids) -> String,
    body: Json,
    row: (&'static str, &'static str),
    changed: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let case = |operation, method, path, body, row, changed| Case {
        operation,
        method,
        path,
        body,
        row,
        changed,
    };
    let tenants: fn(&Ids) -> String = |_| "/tenants".to_owned();
    vec![
        case(
            "create_tenant",
            "POST",
            tenants,
            json!({"name": "new"}),
            ("create_tenant", "tenant"),
            &[],
        ),
        case(
            "update_tenant",
            "PUT",
            |ids| format!("/tenants/{}", ids.tenant),
            json!({"description": "x", "status": "suspended"}),
            ("update_tenant", "tenant"),
            &["description", "status"],
        ),
        case(
            "delete_tenant",
            "DELETE",
            |ids| format!("/tenants/{}", ids.tenant),
            Json::Null,
            ("delete_tenant", "tenant"),
            &[],
        ),
        case(
            "set_tenant_weight",
            "PATCH",
            |ids| format!("/tenants/{}/weight", ids.tenant),
            json!({"weight": 7}),
            ("update_weight", "tenant"),
            &["weight"],
        ),
        case(
            "set_tenant_quota",
            "PUT",
            |ids| format!("/tenants/{}/quota", ids.tenant),
            json!({"tokens_per_minute": 7, "max_in_flight": 1}),
            ("update_quota", "tenant"),
            &["max_in_flight", "tokens_per_minute"],
        ),
        case(
            "set_tenant_group",
            "PATCH",
            |ids| format!("/tenants/{}/group", ids.tenant),
            json!({"fairshare_group": "research"}),
            ("update_tenant_group", "tenant"),
            &["fairshare_group"],
        ),
        case(
            "create_key",
            "POST",
            |ids| format!("/tenants/{}/keys", ids.tenant),
            json!({"name": "new"}),
            ("create_key", "key"),
            &[],
        ),
        case(
            "update_key",
            "PUT",
            |ids| format!("/keys/{}", ids.key),
            json!({"budget_cost_usd": 0.25}),
            ("update_key", "key"),
            &["budget_cost_usd"],
        ),
        case(
            "delete_key",
            "DELETE",
            |ids| format!("/keys/{}", ids.key),
            Json::Null,
            ("delete_key", "key"),
            &[],
        ),
        case(
            "set_key_disabled",
            "PUT",
            |ids| format!("/keys/{}/disabled", ids.key),
            json!({"disabled": true}),
            ("disable_key", "key"),
            &["disabled"],
        ),
        case(
            "set_key_disabled",
            "PUT",
            |ids| format!("/keys/{}/disabled", ids.key),
            json!({"disabled": false}),
            ("enable_key", "key"),
            &[],
        ),
        case(
            "rotate_key",
            "POST",
            |ids| format!("/keys/{}/rotate", ids.key),
            json!({"grace_secs": 5}),
            ("rotate_key", "key"),
            &["grace_secs", "key_prefix"],
        ),
        case(
            "create_model",
            "POST",
            |_| "/models".to_owned(),
            json!({"model_name": "new", "api_base": "http://10.0.0.1", "api_key": "s3cret"}),
            ("create_model", "model"),
            &[],
        ),
        case(
            "update_model",
            "PUT",
            |ids| format!("/models/{}", ids.model),
            json!({"api_key": "s3cret", "input_cost_per_token": "0.000001"}),
            ("update_model", "model"),
            &["api_key", "input_cost_per_token"],
        ),
        case(
            "delete_model",
            "DELETE",
            |ids| format!("/models/{}", ids.model),
            Json::Null,
            ("delete_model", "model"),
            &[],
        ),
        case(
            "set_model_cache",
            "PUT",
            |ids| format!("/models/{}/cache", ids.model),
            json!({"cache_enabled": true}),
            ("set_model_cache", "model"),
            &["cache_enabled"],
        ),
        case(
            "purge_model_cache",
            "DELETE",
            |ids| format!("/models/{}/cache", ids.model),
            Json::Null,
            ("purge_model_cache", "model"),
            &[],
        ),
        case(
            "create_fairshare_group",
            "POST",
            |_| "/fairshare/groups".to_owned(),
            json!({"name": "new"}),
            ("create_fairshare_group", "group"),
            &[],
        ),
        case(
            "set_fairshare_group_weight",
            "PATCH",
            |_| "/fairshare/groups/research/weight".to_owned(),
            json!({"weight": 9}),
            ("update_fairshare_group_weight", "group"),
            &["weight"],
        ),
        case(
            "delete_fairshare_group",
            "DELETE",
            |_| "/fairshare/groups/research".to_owned(),
            Json::Null,
            ("delete_fairshare_group", "group"),
            &[],
        ),
        case(
            "create_mcp_server",
            "POST",
            |_| "/mcp-servers".to_owned(),
            json!({"name": "new", "upstream_url": "http://10.0.0.1", "auth_header": "s3cret"}),
            ("create_mcp_server", "mcp_server"),
            &[],
        ),
        case(
            "update_mcp_server",
            "PUT",
            |ids| format!("/mcp-servers/{}", ids.server),
            json!({"auth_header": "s3cret"}),
            ("update_mcp_server", "mcp_server"),
            &["auth_header"],
        ),
        case(
            "delete_mcp_server",
            "DELETE",
            |ids| format!("/mcp-servers/{}", ids.server),
            Json::Null,
            ("delete_mcp_server", "mcp_server"),
            &[],
        ),
        case(
            "set_capacity",
            "PUT",
            |_| "/capacity".to_owned(),
            json!({"max_in_flight": 9}),
            ("set_capacity", "capacity"),
            &["max_in_flight"],
        ),
    ]
}

async fn furnish(house: &House) -> Ids {
    house.post("/fairshare/groups", json!({"name": "research"})).await.expect(201);
    let tenant = house.tenant("acme").await;
    let key = house.post(&format!("/tenants/{tenant}/keys"), json!({"name": "k"})).await.json()["key"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let model = json!({"model_name": "m", "api_base": "http://10.0.0.1", "api_key": "0ld-s3cret"});
    let server = json!({"name": "s", "upstream_url": "http://10.0.0.1", "auth_header": "0ld-s3cret"});
    Ids {
        tenant,
        key,
        model: house.post("/models", model).await.expect(201).id(),
        server: house.post("/mcp-servers", server).await.expect(201).id(),
    }
}

#[tokio::test]
async fn each_change_leaves_one_row_without_secrets() {
    let mut covered = BTreeSet::new();
    for case in cases() {
        let house = House::new();
        let ids = furnish(&house).await;
        let before = house.audit().await.len();
        let headers = [("x-obleth-audit-actor", "zoe"), ("x-request-id", "req-1")];
        let body = (!case.body.is_null()).then(|| case.body.to_string());
        let answer = house
            .call(case.method, &format!("/api/v1{}", (case.path)(&ids)), &headers, body.as_deref())
            .await;
        assert!(answer.status.is_success(), "{}: {answer:?}", case.operation);
        let rows = house.get("/audit").await.expect(200);
        assert!(!rows.text.contains("s3cret") && !rows.text.contains("\"secret\""), "{}", rows.text);
        let rows = rows.json();
        assert_eq!(rows.as_array().unwrap().len(), before + 1, "{}", case.operation);
        let row = &rows[0];
        assert_eq!((row["action"].as_str().unwrap(), row["entity_type"].as_str().unwrap()), case.row);
        assert_eq!(
            (&row["actor"], &row["request_id"], &row["source"]),
            (&json!("zoe"), &json!("req-1"), &json!("api"))
        );
        let (was, is) = (&row["detail"]["before"], &row["detail"]["after"]);
        match case.method {
            _ if case.operation.starts_with("create") => assert!(was.is_null() && is.is_object(), "{row}"),
            _ if case.operation == "purge_model_cache" => assert!(was.is_null() && is.is_null(), "nothing configured changes: {row}"),
            "DELETE" => assert!(was.is_object() && is.is_null(), "{row}"),
            _ => {
                let fields: Vec<&String> = is.as_object().unwrap().keys().collect();
                assert_eq!(fields, case.changed, "{row}");
            }
        }
        covered.insert(case.operation.to_owned());
    }
    let mut mutating = BTreeSet::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // The rows of a reload are the file's, and are written by whoever brought it.
            if method != "get" && operation["operationId"] != "reload_config" {
                let id = operation["operationId"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{method} {path} has no operationId"));
                mutating.insert(id.to_owned());
            }
        }
    }
    assert_eq!(covered, mutating, "each mutating route of the document has its case");
}

#[tokio::test]
async fn refused_changes_leave_no_row() {
    let house = House::new();
    let ids = furnish(&house).await;
    let before = house.audit().await.len();
    house.post("/tenants", json!({"name": "acme"})).await.expect(409);
    house.post("/tenants", json!({"name": ""})).await.expect(422);
    house
        .call(
            "DELETE",
            &format!("/api/v1/tenants/{}", ids.tenant),
            &[("if-match", "\"v9\"")],
            None,
        )
        .await
        .expect(412);
    house.delete("/fairshare/groups/default").await.expect(409);
    assert_eq!(house.audit().await.len(), before);
}

#[tokio::test]
async fn rows_are_found_by_each_filter() {
    let house = House::new();
    let ids = furnish(&house).await;
    house
        .call(
            "PATCH",
            &format!("/api/v1/tenants/{}/weight", ids.tenant),
            &[("x-obleth-audit-actor", "zoe")],
            Some(r#"{"weight":1}"#),
        )
        .await
        .expect(200);
    for (query, count) in [
        ("actor=zoe", 1),
        ("action=create_key", 1),
        ("entity_type=tenant", 2),
        (&*format!("entity_id={}", ids.tenant), 2),
        ("entity_type=tenant&actor=admin", 1),
        ("actor=nobody", 0),
        ("limit=2", 2),
    ] {
        let rows = house.get(&format!("/audit?{query}")).await.expect(200).json();
        assert_eq!(rows.as_array().unwrap().len(), count, "{query}");
    }
    // Rows cannot be changed or deleted.
    house.delete("/audit").await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_change_to_what_the_file_made_is_marked_as_overriding_it() {
    let house = House::new();
    let id = house.tenant("acme").await;
    let tenant = id.parse().unwrap();
    let file = Author {
        actor: "config".to_owned(),
        source: Source::File,
        request_id: String::new(),
        idempotency: None,
    };
    let adopt = house.store.change(file, move |catalog, _| {
        let mut tenant = (**catalog.tenants().get(&tenant).unwrap()).clone();
        tenant.provenance.managed_by = ManagedBy::File;
        catalog.put_tenant(tenant).map(|()| Change::new(()))
    });
    adopt.await.unwrap();
    house
        .patch(&format!("/tenants/{id}/weight"), json!({"weight": 7}))
        .await
        .expect(200);
    // Saying again what is so overrides nothing.
    let shown = house
        .put(
            &format!("/tenants/{id}"),
            json!({"weight": 7, "description": "", "status": "suspended"}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&shown["managed_by"], &shown["overridden"]),
        (&json!("file"), &json!(["status", "weight"]))
    );
}
