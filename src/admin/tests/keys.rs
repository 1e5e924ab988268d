//! `/keys`.

use serde_json::{Value as Json, json};

use super::harness::House;
use crate::catalog::Principal;
use crate::credential::KeyHasher;

/// Whom a secret lets in.
fn principal(house: &House, secret: &str) -> Option<Principal> {
    let digest = KeyHasher::new(None).digest(secret.as_bytes())?;
    house.live.load().principal(&digest)
}

#[tokio::test]
async fn a_key_is_made_with_the_defaults_of_the_contract_and_its_secret_is_shown_once() {
    let house = House::new();
    let tenant = house.tenant("acme").await;
    let made = house
        .post(&format!("/tenants/{tenant}/keys"), json!({"name": "prod-key"}))
        .await
        .expect(201);
    let body = made.json();
    let secret = body["secret"].as_str().unwrap();
    let mut key = body["key"].clone();
    let id = key["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/api/v1/keys/{id}"));
    assert_eq!(made.header("etag"), "\"v1\"");
    assert_eq!((key["created_at"].take(), secret.len()), (key["updated_at"].take(), 67));
    let expected = json!({
        "id": id, "tenant_id": tenant, "name": "prod-key", "description": "", "key_prefix": secret[..18], "disabled": false,
        "expires_at": null, "allowed_models": null, "tokens_per_minute": 0, "requests_per_minute": 0, "max_in_flight": null,
        "budget_cost_usd": null, "budget_tokens": null, "budget_period": "month", "last_used_at": null, "managed_by": "api",
        "overridden": [], "version": 1, "created_at": null, "updated_at": null,
    });
    assert_eq!(key, expected);
    assert_eq!(principal(&house, secret).unwrap().tenant.name, "acme");
    for path in ["/keys".to_owned(), format!("/keys/{id}"), "/audit".to_owned()] {
        let shown = house.get(&path).await.expect(200).text;
        assert!(shown.contains(&id) && !shown.contains(&secret[18..]), "{path}: {shown}");
    }
}

#[tokio::test]
async fn keys_are_listed_by_tenant() {
    let house = House::new();
    let (one, two) = (house.tenant("one").await, house.tenant("two").await);
    house.post(&format!("/tenants/{one}/keys"), json!({"name": "a"})).await.expect(201);
    house.post(&format!("/tenants/{two}/keys"), json!({"name": "a"})).await.expect(201);
    assert_eq!(house.get("/keys").await.json().as_array().unwrap().len(), 2);
    let found = house.get(&format!("/keys?tenant_id={two}")).await.expect(200).json();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["tenant_id"]), (1, &json!(two)));
    assert_eq!(house.get("/keys?tenant_id=two").await.problem(422, "invalid"), ["tenant_id"]);
}

#[tokio::test]
async fn a_key_can_be_changed_disabled_and_deleted() {
    let house = House::new();
    let tenant = house.tenant("acme").await;
    let made = house
        .post(&format!("/tenants/{tenant}/keys"), json!({"name": "prod"}))
        .await
        .expect(201)
        .json();
    let (id, secret) = (made["key"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let mut shown = house.get(&format!("/keys/{id}")).await.expect(200).json();
    shown["expires_at"] = json!("2027-01-31T13:00:00+01:00");
    shown["budget_cost_usd"] = json!(0.25);
    shown["allowed_models"] = json!([]);
    let changed = house.put(&format!("/keys/{id}"), shown).await.expect(200).json();
    assert_eq!(
        (&changed["expires_at"], &changed["budget_cost_usd"]),
        (&json!("2027-01-31T12:00:00.000Z"), &json!(0.25))
    );
    assert_eq!((&changed["allowed_models"], &changed["version"]), (&json!([]), &json!(2)));
    let disabled = house
        .put(&format!("/keys/{id}/disabled"), json!({"disabled": true}))
        .await
        .expect(200)
        .json();
    assert_eq!(disabled["disabled"], true);
    assert!(principal(&house, secret).unwrap().key.disabled, "at once");
    house
        .put(&format!("/keys/{id}/disabled"), json!({"disabled": false}))
        .await
        .expect(200);
    assert_eq!(
        house
            .put(&format!("/keys/{id}/disabled"), json!({"disabled": "yes"}))
            .await
            .problem(422, "invalid"),
        ["disabled"]
    );
    house.delete(&format!("/keys/{id}")).await.expect(204);
    assert!(principal(&house, secret).is_none(), "at once");
    house.get(&format!("/keys/{id}")).await.problem(404, "not_found");
    let actions: Vec<String> = house.audit().await.into_iter().take(4).map(|row| row.action).collect();
    assert_eq!(actions, ["delete_key", "enable_key", "disable_key", "update_key"]);
}

#[tokio::test]
async fn a_rotated_key_accepts_its_old_secret_for_the_grace_time_only() {
    let house = House::new();
    let tenant = house.tenant("acme").await;
    let made = house
        .post(&format!("/tenants/{tenant}/keys"), json!({"name": "prod"}))
        .await
        .expect(201)
        .json();
    let (id, first) = (made["key"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let rotated = house
        .post(&format!("/keys/{id}/rotate"), json!({"grace_secs": 60}))
        .await
        .expect(200)
        .json();
    let second = rotated["secret"].as_str().unwrap();
    assert_eq!(rotated["key"]["key_prefix"], second[..18]);
    let retired = principal(&house, first).unwrap().key.retired.clone().unwrap();
    assert_eq!(
        retired.until.0 - principal(&house, second).unwrap().key.provenance.updated_at.0,
        60_000
    );
    // Without a body there is no grace; the one retired before is out as well.
    let again = house
        .call("POST", &format!("/api/v1/keys/{id}/rotate"), &[], None)
        .await
        .expect(200)
        .json();
    assert!(principal(&house, first).is_none() && principal(&house, second).is_none());
    assert!(principal(&house, again["secret"].as_str().unwrap()).is_some());
    let row = &house.audit().await[0];
    assert_eq!((&*row.action, &row.detail["after"]["grace_secs"]), ("rotate_key", &json!(0)));
    assert_eq!(row.detail["before"]["key_prefix"], json!(second[..18]));
}

#[tokio::test]
async fn a_repeated_creation_has_no_secret_and_makes_no_second_key() {
    let house = House::new();
    let tenant = house.tenant("acme").await;
    let path = format!("/api/v1/tenants/{tenant}/keys");
    let send = |body: &'static str| house.call("POST", &path, &[("idempotency-key", "k1")], Some(body));
    let first = send(r#"{"name":"prod"}"#).await.expect(201);
    assert!(first.json()["secret"].is_string() && !first.headers.contains_key("idempotency-replayed"));
    let second = send(r#"{"name":"prod"}"#).await.expect(201);
    assert_eq!(
        (second.header("idempotency-replayed"), second.header("location")),
        ("true".to_owned(), first.header("location"))
    );
    assert_eq!(second.header("etag"), "\"v1\"");
    assert_eq!((&second.json()["key"], second.json().get("secret")), (&first.json()["key"], None));
    assert_eq!(house.get("/keys").await.json().as_array().unwrap().len(), 1);
    send(r#"{"name":"other"}"#).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_needs_its_tenant_and_a_name() {
    let house = House::new();
    let nobody = "/tenants/01890000-0000-7000-8000-000000000000/keys";
    house.post(nobody, json!({"name": "prod"})).await.problem(404, "not_found");
    house
        .post("/tenants/acme/keys", json!({"name": "prod"}))
        .await
        .problem(404, "not_found");
    let tenant = house.tenant("acme").await;
    let refused = house
        .post(
            &format!("/tenants/{tenant}/keys"),
            json!({"key_prefix": "sk_", "secret": "sk_x", "expires_at": "soon"}),
        )
        .await;
    let mut paths = refused.problem(422, "invalid");
    paths.sort();
    assert_eq!(paths, ["expires_at", "key_prefix", "name", "secret"]);
    assert_eq!(house.get("/keys").await.json(), Json::Array(vec![]));
}
