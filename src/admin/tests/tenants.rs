//! `/tenants`.

use serde_json::{Value as Json, json};

use super::harness::House;

#[tokio::test]
async fn a_tenant_is_made_with_the_defaults_of_the_contract() {
    let house = House::new();
    let made = house
        .post("/tenants", json!({"name": "acme", "weight": 200, "tokens_per_minute": 100_000}))
        .await
        .expect(201);
    let id = made.id();
    assert_eq!(made.header("location"), format!("/api/v1/tenants/{id}"));
    assert_eq!(made.header("etag"), "\"v1\"");
    let mut tenant = made.json();
    let (created, updated) = (tenant["created_at"].take(), tenant["updated_at"].take());
    assert_eq!(created, updated);
    assert!(created.as_str().unwrap().ends_with('Z'), "{created}");
    let expected = json!({
        "id": id, "name": "acme", "description": "", "fairshare_group": "default", "weight": 200, "tokens_per_minute": 100_000,
        "requests_per_minute": 0, "max_in_flight": null, "max_queued": null, "status": "active", "allowed_models": null,
        "budget_cost_usd": null, "budget_tokens": null, "budget_period": "month", "metadata": {}, "managed_by": "api", "overridden": [],
        "version": 1, "created_at": null, "updated_at": null,
    });
    assert_eq!(tenant, expected);
    assert_eq!(house.get(&format!("/tenants/{id}")).await.expect(200).json(), made.json());
    assert_eq!(house.get("/tenants").await.expect(200).json(), Json::Array(vec![made.json()]));
}

#[tokio::test]
async fn every_field_of_a_tenant_can_be_set_when_it_is_made_and_later() {
    let house = House::new();
    house.post("/fairshare/groups", json!({"name": "research"})).await.expect(201);
    let fields = json!({
        "name": "acme", "description": "supplies", "fairshare_group": "research", "weight": 7, "tokens_per_minute": 1, "requests_per_minute": 2,
        "max_in_flight": 3, "max_queued": 0, "status": "suspended", "allowed_models": ["llama"], "budget_cost_usd": "12.000000000001",
        "budget_tokens": 5, "budget_period": "day", "metadata": {"owner": "coyote"},
    });
    let made = house.post("/tenants", fields.clone()).await.expect(201);
    let other = house.tenant("other").await;
    let mut again = fields.clone();
    again["name"] = json!("other, renamed");
    let changed = house.put(&format!("/tenants/{other}"), again).await.expect(200);
    assert!(
        made.text.contains("\"budget_cost_usd\":12.000000000001,"),
        "money is a number, and exact: {}",
        made.text
    );
    for (field, value) in fields.as_object().unwrap() {
        if field != "budget_cost_usd" {
            assert_eq!(&made.json()[field], value, "{field}");
        }
        if field != "name" {
            assert_eq!(changed.json()[field], made.json()[field], "{field}");
        }
    }
    assert_eq!(changed.header("etag"), "\"v2\"");
}

#[tokio::test]
async fn what_is_shown_can_be_edited_and_put_back() {
    let house = House::new();
    let id = house.tenant("acme").await;
    let mut shown = house.get(&format!("/tenants/{id}")).await.json();
    shown["weight"] = json!(300);
    let after = house.put(&format!("/tenants/{id}"), shown.clone()).await.expect(200).json();
    assert_eq!((&after["weight"], &after["version"]), (&json!(300), &json!(2)));
    // On a creation the same fields are a mistake.
    shown["name"] = json!("other");
    let refused = house.post("/tenants", shown).await.problem(422, "invalid");
    for field in ["id", "managed_by", "overridden", "version", "created_at", "updated_at"] {
        assert!(refused.contains(&field.to_owned()), "{refused:?}");
    }
}

#[tokio::test]
async fn null_brings_the_default_back_and_absence_keeps() {
    let house = House::new();
    let id = house
        .post(
            "/tenants",
            json!({"name": "acme", "weight": 5, "description": "x", "max_in_flight": 9, "metadata": {"a": "b"}}),
        )
        .await
        .id();
    let kept = house
        .put(&format!("/tenants/{id}"), json!({"description": "y"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&kept["weight"], &kept["description"], &kept["max_in_flight"]),
        (&json!(5), &json!("y"), &json!(9))
    );
    let nulls = json!({"weight": null, "description": null, "max_in_flight": null, "metadata": null, "fairshare_group": null});
    let reset = house.put(&format!("/tenants/{id}"), nulls).await.expect(200).json();
    assert_eq!(
        (&reset["weight"], &reset["description"], &reset["max_in_flight"]),
        (&json!(100), &json!(""), &Json::Null)
    );
    assert_eq!((&reset["metadata"], &reset["fairshare_group"]), (&json!({}), &json!("default")));
    assert_eq!(
        house
            .put(&format!("/tenants/{id}"), json!({"name": null}))
            .await
            .problem(422, "invalid"),
        ["name"]
    );
}

#[tokio::test]
async fn weight_quota_and_group_have_routes_of_their_own() {
    let house = House::new();
    house.post("/fairshare/groups", json!({"name": "research"})).await.expect(201);
    let id = house.tenant("acme").await;
    let at = |aspect: &str| format!("/tenants/{id}/{aspect}");
    let weight = house.patch(&at("weight"), json!({"weight": 500})).await.expect(200).json();
    assert_eq!(weight["weight"], 500);
    let quota = json!({"tokens_per_minute": 10, "requests_per_minute": 20, "max_in_flight": 3});
    let quota = house.put(&at("quota"), quota).await.expect(200).json();
    assert_eq!(
        (&quota["tokens_per_minute"], &quota["requests_per_minute"], &quota["max_in_flight"]),
        (&json!(10), &json!(20), &json!(3))
    );
    let quota = house
        .put(&at("quota"), json!({"tokens_per_minute": 0, "max_in_flight": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&quota["tokens_per_minute"], &quota["requests_per_minute"], &quota["max_in_flight"]),
        (&json!(0), &json!(20), &Json::Null)
    );
    let group = house
        .patch(&at("group"), json!({"fairshare_group": "research"}))
        .await
        .expect(200)
        .json();
    assert_eq!((&group["fairshare_group"], &group["version"]), (&json!("research"), &json!(5)));
    assert_eq!(
        house
            .patch(&at("group"), json!({"fairshare_group": "nowhere"}))
            .await
            .problem(422, "invalid"),
        ["fairshare_group"]
    );
    assert_eq!(
        house
            .put(&at("quota"), json!({"requests_per_minute": 1}))
            .await
            .problem(422, "invalid"),
        ["tokens_per_minute"]
    );
    assert_eq!(
        house
            .patch(&at("weight"), json!({"weight": 0, "wait": 1}))
            .await
            .problem(422, "invalid"),
        ["weight", "wait"]
    );
}

#[tokio::test]
async fn all_faults_of_a_body_are_told_at_once() {
    let house = House::new();
    let body = r#"{"name": "", "weight": 0, "weight": 7, "tokens_per_minute": 1.5, "max_in_flight": 0, "fairshare_group": "nowhere",
        "status": "asleep", "allowed_models": ["a", "a"], "budget_cost_usd": 0.0000000000001, "metadata": {"k": 1}, "wieght": 1}"#;
    let paths = house.call("POST", "/api/v1/tenants", &[], Some(body)).await.problem(422, "invalid");
    for path in [
        "name",
        "weight",
        "tokens_per_minute",
        "max_in_flight",
        "fairshare_group",
        "status",
        "allowed_models[1]",
        "budget_cost_usd",
        "metadata.k",
        "wieght",
    ] {
        assert!(paths.contains(&path.to_owned()), "{path} in {paths:?}");
    }
    assert_eq!(house.get("/tenants").await.json(), json!([]));
}

#[tokio::test]
async fn tenants_are_found_by_name_and_by_group() {
    let house = House::new();
    house.post("/fairshare/groups", json!({"name": "a & b"})).await.expect(201);
    house.tenant("one").await;
    let two = house
        .post("/tenants", json!({"name": "two", "fairshare_group": "a & b"}))
        .await
        .id();
    for query in ["?name=two", "?group=a+%26+b", "?group=a%20%26%20b&name=two"] {
        let found = house.get(&format!("/tenants{query}")).await.expect(200).json();
        assert_eq!((found.as_array().unwrap().len(), &found[0]["id"]), (1, &json!(two)), "{query}");
    }
    assert_eq!(house.get("/tenants?name=tw").await.json(), json!([]));
}

#[tokio::test]
async fn a_tenant_takes_its_keys_along_when_it_is_deleted() {
    let house = House::new();
    let id = house.tenant("acme").await;
    let key = house
        .post(&format!("/tenants/{id}/keys"), json!({"name": "prod"}))
        .await
        .expect(201)
        .json()["key"]["id"]
        .clone();
    let gone = house.delete(&format!("/tenants/{id}")).await.expect(204);
    assert_eq!(gone.text, "");
    assert_eq!(house.get("/keys").await.json(), json!([]));
    house.get(&format!("/tenants/{id}")).await.problem(404, "not_found");
    house.delete(&format!("/tenants/{id}")).await.problem(404, "not_found");
    assert_eq!(house.audit().await[0].detail["before"]["keys"], json!([key]));
    // The name is free again.
    house.tenant("acme").await;
}

#[tokio::test]
async fn of_many_creations_of_one_name_one_succeeds() {
    let house = House::new();
    let create = || house.post("/tenants", json!({"name": "acme"}));
    let answers = futures_util::future::join_all((0..100).map(|_| create())).await;
    let of = |status: u16| answers.iter().filter(|answer| answer.status.as_u16() == status).count();
    assert_eq!((of(201), of(409)), (1, 99));
    answers
        .iter()
        .find(|answer| answer.status.as_u16() == 409)
        .unwrap()
        .problem(409, "name_taken");
    assert_eq!(house.get("/tenants").await.json().as_array().unwrap().len(), 1);
    let renamed = house.tenant("other").await;
    house
        .put(&format!("/tenants/{renamed}"), json!({"name": "acme"}))
        .await
        .problem(409, "name_taken");
}
