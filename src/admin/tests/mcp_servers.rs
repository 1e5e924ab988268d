//! `/mcp-servers`.

use serde_json::{Value as Json, json};

use super::harness::House;

fn secret(house: &House) -> Option<String> {
    let catalog = house.live.load();
    let server = catalog.mcp_servers().values().next().unwrap();
    Some(server.auth_header.as_ref()?.secret.as_deref()?.to_owned())
}

#[tokio::test]
async fn a_server_is_made_with_the_defaults_of_the_contract() {
    let house = House::new();
    let made = house
        .post(
            "/mcp-servers",
            json!({"name": "files", "upstream_url": "http://127.0.0.1:7000/mcp"}),
        )
        .await
        .expect(201);
    let mut server = made.json();
    assert_eq!(server["created_at"].take(), server["updated_at"].take());
    let expected = json!({
        "id": made.id(), "name": "files", "upstream_url": "http://127.0.0.1:7000/mcp", "auth_header_set": false,
        "auth_header_name": "Authorization", "enabled": true, "allowed_tools": null, "denied_tools": [], "allowed_tenants": null,
        "allowed_origins": [], "idle_timeout_secs": 300, "max_in_flight": null, "managed_by": "api", "overridden": [], "version": 1,
        "created_at": null, "updated_at": null,
    });
    assert_eq!(server, expected);
    assert_eq!(house.get("/mcp-servers").await.expect(200).json(), json!([made.json()]));
    assert_eq!(
        house.get(&format!("/mcp-servers/{}", made.id())).await.expect(200).json(),
        made.json()
    );
}

#[tokio::test]
async fn every_field_can_be_set_and_put_back_as_shown() {
    let house = House::new();
    let tenant = house.tenant("acme").await;
    let fields = json!({
        "name": "files-2", "upstream_url": "https://tools.example.com/mcp", "auth_header": "Bearer s3cret", "auth_header_name": "X-Api-Key",
        "enabled": false, "allowed_tools": ["read"], "denied_tools": ["delete"], "allowed_tenants": [tenant],
        "allowed_origins": ["https://chat.example.com", "http://localhost:3000"], "idle_timeout_secs": 9, "max_in_flight": 2,
    });
    let made = house.post("/mcp-servers", fields.clone()).await.expect(201);
    for (field, value) in fields.as_object().unwrap().iter().filter(|(field, _)| *field != "auth_header") {
        assert_eq!(&made.json()[field], value, "{field}");
    }
    assert!(!made.text.contains("s3cret"));
    let path = format!("/mcp-servers/{}", made.id());
    let put = house.put(&path, made.json()).await.expect(200).json();
    assert_eq!((&put["auth_header_set"], &put["version"]), (&json!(true), &json!(2)));
    assert_eq!(secret(&house).unwrap(), "Bearer s3cret");
    assert!(!house.get("/audit").await.text.contains("s3cret"));
    house.delete(&path).await.expect(204);
    house.get(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_credential_does_not_follow_to_another_url() {
    let house = House::new();
    let body = json!({"name": "files", "upstream_url": "http://10.0.0.1/mcp", "auth_header": "Bearer one"});
    let path = format!("/mcp-servers/{}", house.post("/mcp-servers", body).await.expect(201).id());
    let refused = house
        .put(&path, json!({"upstream_url": "http://10.6.6.6/mcp", "auth_header": null}))
        .await;
    assert_eq!(refused.problem(422, "auth_header_required"), ["auth_header"]);
    house
        .put(&path, json!({"upstream_url": "http://10.6.6.6/mcp", "auth_header": ""}))
        .await
        .expect(200);
    assert_eq!(secret(&house), None);
    house
        .put(
            &path,
            json!({"upstream_url": "http://10.0.0.1/mcp", "auth_header": "env:UPSTREAM_KEY"}),
        )
        .await
        .expect(200);
    assert_eq!(secret(&house).unwrap(), "resolved-secret");
    assert_eq!(house.audit().await[0].detail["after"]["auth_header"], json!("env:UPSTREAM_KEY"));
}

#[tokio::test]
async fn what_cannot_be_a_server_is_refused() {
    let house = House::new();
    let good = json!({"name": "files", "upstream_url": "http://10.0.0.1/mcp"});
    house.post("/mcp-servers", good.clone()).await.expect(201);
    house.post("/mcp-servers", good.clone()).await.problem(409, "name_taken");
    let long = "x".repeat(41);
    let cases: [(&str, Json); 12] = [
        ("name", json!("Files")),
        ("name", json!("a/b")),
        ("name", json!(long)),
        ("name", json!("")),
        ("upstream_url", json!("http://169.254.169.254/mcp")),
        ("upstream_url", json!("stdio:rm -rf")),
        ("auth_header_name", json!("Host")),
        ("auth_header_name", json!("X Y")),
        ("allowed_origins", json!(["https://chat.example.com/"])),
        ("allowed_origins", json!(["https://chat.example.com:443"])),
        ("allowed_tenants", json!(["acme"])),
        ("command", json!("rm")),
    ];
    for (field, value) in cases {
        let mut body = good.clone();
        body["name"] = json!("other");
        body[field] = value.clone();
        let paths = house.post("/mcp-servers", body).await.problem(422, "invalid");
        assert!(paths[0].starts_with(field) && paths.len() == 1, "{field} {value}: {paths:?}");
    }
    let mut both = house.post("/mcp-servers", json!({})).await.problem(422, "invalid");
    both.sort();
    assert_eq!(both, ["name", "upstream_url"]);
}
