//! `/openapi.json`: valid, complete, and true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value as Json, json};

use super::harness::House;
use crate::admin::document;

/// Operations as (path, method, operation).
fn operations(document: &Json) -> Vec<(String, String, Json)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push((path.clone(), method.to_uppercase(), operation.clone()));
        }
    }
    found
}

/// To write the snapshot anew: `OBLETH_UPDATE_SNAPSHOTS=1 cargo nextest run --lib openapi`.
#[test]
fn the_document_is_the_committed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/openapi.json");
    let now = format!("{:#}\n", document());
    if std::env::var_os("OBLETH_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == now,
        "src/admin/openapi.json is not what the code says: see how to write it anew above this test"
    );
}

#[test]
fn references_lead_somewhere_and_operations_have_ids_of_their_own() {
    fn references<'a>(value: &'a Json, found: &mut Vec<&'a str>) {
        match value {
            Json::Object(map) => {
                found.extend(map.get("$ref").and_then(Json::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Json::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for reference in found {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some(), "{reference}");
    }
    let ids: Vec<String> = operations(&document)
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn no_parameter_is_described_twice() {
    for (path, method, operation) in operations(&document()) {
        let parameters = operation["parameters"].as_array().unwrap();
        let names: BTreeSet<String> = parameters.iter().map(|one| format!("{} {}", one["in"], one["name"])).collect();
        assert_eq!(names.len(), parameters.len(), "{method} {path}: {names:?}");
    }
}

#[tokio::test]
async fn no_route_of_the_document_answers_without_the_token() {
    let house = House::new();
    for (path, method, operation) in operations(&document()) {
        let request = axum::http::Request::builder()
            .method(&*method)
            .uri(path.replace(['{', '}'], ""))
            .header("host", "localhost");
        let answer = house.send(request.body(axum::body::Body::from("{}")).unwrap()).await;
        answer.problem(401, "unauthorized");
        for status in ["401", "403", "405", "429", "500", "503"] {
            assert!(operation["responses"].get(status).is_some(), "{method} {path} documents {status}");
        }
    }
}

#[tokio::test]
async fn the_document_is_served_and_so_is_its_reader() {
    let house = House::new();
    let served = house.get("/openapi.json").await.expect(200);
    assert_eq!(
        (served.header("content-type"), served.json()),
        ("application/json".to_owned(), document())
    );
    // The reader needs no token and loads nothing from elsewhere.
    let open = async |path: &str| {
        let request = axum::http::Request::builder().uri(path).header("host", "localhost:9090");
        house.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    let page = open("/docs/").await.expect(200);
    assert!(page.text.contains("swagger-ui") && !page.text.contains("https://"), "{}", page.text);
    assert!(page.header("content-security-policy").contains("default-src 'self'"));
    assert_eq!(open("/docs/openapi.json").await.expect(200).json(), document());
    assert!(open("/docs/swagger-ui-bundle.js").await.expect(200).text.len() > 100_000);
    open("/docs/nothing.js").await.problem(404, "not_found");
    assert_eq!(open("/docs").await.status.as_u16(), 303);
}

/// Each request example of the document is sent, and gets the success that the document promises.
#[tokio::test]
async fn the_examples_work() {
    let document = document();
    let house = House::new();
    house.post("/fairshare/groups", json!({"name": "g"})).await.expect(201);
    let tenant = house.tenant("t").await;
    let key = house.post(&format!("/tenants/{tenant}/keys"), json!({"name": "k"})).await.json()["key"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let model = house
        .post("/models", json!({"model_name": "m", "api_base": "http://10.0.0.1"}))
        .await
        .id();
    let server = house
        .post("/mcp-servers", json!({"name": "s", "upstream_url": "http://10.0.0.1"}))
        .await
        .id();
    let mut operations = operations(&document);
    // Keys before tenants, as the alphabet has it; a model's cache before the model.
    operations.sort_by_key(|(path, method, _)| (method == "DELETE", !path.ends_with("/cache"), path.clone()));
    for (path, method, operation) in operations {
        let id = match path.split('/').nth(3) {
            Some("tenants") => &tenant,
            Some("keys") => &key,
            Some("models") => &model,
            _ => &server,
        };
        let target = path.replace("{id}", id).replace("{name}", "g");
        let content = &operation["requestBody"]["content"]["application/json"];
        if operation.get("requestBody").is_some() {
            assert!(content["example"].is_object(), "{method} {path} has an example");
        }
        let body = content.get("example").map(ToString::to_string);
        let answer = house.call(&method, &target, &[], body.as_deref()).await;
        let responses = operation["responses"].as_object().unwrap();
        let promised = &responses[responses.keys().find(|status| status.starts_with('2')).unwrap()];
        assert!(
            answer.status.is_success() && responses.contains_key(answer.status.as_str()),
            "{method} {path}: {answer:?}"
        );
        for (name, header) in promised["headers"].as_object().unwrap() {
            let required = document.pointer(&header["$ref"].as_str().unwrap()[1..]).unwrap()["required"] == json!(true);
            assert!(
                !required || answer.headers.contains_key(name),
                "{method} {path} answers with {name}: {answer:?}"
            );
        }
    }
}

/// What objects are made of is what their schema says, field by field.
#[tokio::test]
async fn objects_have_exactly_the_fields_of_their_schemas() {
    let house = House::new();
    let tenant = house.post("/tenants", json!({"name": "t"})).await;
    let key = house
        .post(&format!("/tenants/{}/keys", tenant.id()), json!({"name": "k"}))
        .await
        .json()["key"]
        .clone();
    let endpoints = json!({"model_name": "m", "endpoints": [{"url": "http://10.0.0.1"}]});
    let shown = BTreeMap::from([
        ("Tenant", tenant.json()),
        ("ApiKey", key),
        ("Model", house.post("/models", endpoints).await.json()),
        (
            "McpServer",
            house
                .post("/mcp-servers", json!({"name": "s", "upstream_url": "http://10.0.0.1"}))
                .await
                .json(),
        ),
        ("Group", house.post("/fairshare/groups", json!({"name": "g"})).await.json()),
        ("Capacity", house.get("/capacity").await.json()),
        ("Stats", house.get("/stats").await.json()),
        ("Live", house.get("/fairshare/live").await.json()),
        ("AuditRow", house.get("/audit").await.json()[0].clone()),
        ("ConfigStatus", house.get("/config/status").await.json()),
        ("Problem", house.get("/nothing").await.json()),
    ]);
    let document = document();
    for (name, object) in shown {
        let schema = &document["components"]["schemas"][name];
        let described: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let there: BTreeSet<&String> = object.as_object().unwrap().keys().collect();
        assert_eq!(there, described, "{name}");
        for (field, described) in schema["properties"].as_object().unwrap() {
            if let Some(kind) = described.get("type") {
                let kinds: Vec<&str> = kind.as_str().map_or_else(
                    || kind.as_array().unwrap().iter().filter_map(Json::as_str).collect(),
                    |one| vec![one],
                );
                let is = match &object[field] {
                    Json::Null => "null",
                    Json::Bool(_) => "boolean",
                    Json::Number(number) if number.is_f64() => "number",
                    Json::Number(_) => {
                        if kinds.contains(&"integer") {
                            "integer"
                        } else {
                            "number"
                        }
                    }
                    Json::String(_) => "string",
                    Json::Array(_) => "array",
                    Json::Object(_) => "object",
                };
                assert!(kinds.contains(&is), "{name}.{field} is {is}, not {kinds:?}");
            }
        }
    }
}
