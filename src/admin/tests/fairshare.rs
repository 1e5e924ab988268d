//! `/fairshare`, `/capacity`, `/stats`.

use serde_json::{Value as Json, json};

use super::harness::House;

#[tokio::test]
async fn the_default_group_is_always_there() {
    let house = House::new();
    let groups = house.get("/fairshare/groups").await.expect(200).json();
    assert_eq!(
        (groups.as_array().unwrap().len(), &groups[0]["name"], &groups[0]["weight"]),
        (1, &json!("default"), &json!(100))
    );
    house.delete("/fairshare/groups/default").await.problem(409, "default_group");
    house
        .post("/fairshare/groups", json!({"name": "default"}))
        .await
        .problem(409, "name_taken");
}

#[tokio::test]
async fn a_group_lives_from_creation_to_deletion() {
    let house = House::new();
    let made = house
        .post("/fairshare/groups", json!({"name": "r & d/1", "weight": 200}))
        .await
        .expect(201);
    let path = made.header("location").trim_start_matches("/api/v1").to_owned();
    let mut group = made.json();
    assert_eq!(group["created_at"].take(), group["updated_at"].take());
    let expected = json!({
        "name": "r & d/1", "weight": 200, "tenants": 0, "managed_by": "api", "overridden": [], "version": 1, "created_at": null, "updated_at": null,
    });
    assert_eq!(group, expected);
    let tenant = house
        .post("/tenants", json!({"name": "acme", "fairshare_group": "r & d/1"}))
        .await
        .expect(201)
        .id();
    let weight = house.patch(&format!("{path}/weight"), json!({"weight": 300})).await.expect(200);
    assert_eq!(
        (&weight.json()["weight"], &weight.json()["tenants"], weight.header("etag")),
        (&json!(300), &json!(1), "\"v2\"".to_owned())
    );
    let listed = house.get("/fairshare/groups").await.json();
    assert_eq!((&listed[1]["name"], &listed[1]["tenants"]), (&json!("r & d/1"), &json!(1)));
    house.delete(&path).await.problem(409, "group_in_use");
    house
        .patch(&format!("/tenants/{tenant}/group"), json!({"fairshare_group": null}))
        .await
        .expect(200);
    house.delete(&path).await.expect(204);
    house.delete(&path).await.problem(404, "not_found");
    house
        .patch(&format!("{path}/weight"), json!({"weight": 300}))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_group_needs_a_name_and_a_weight_in_range() {
    let house = House::new();
    assert_eq!(
        house.post("/fairshare/groups", json!({"tenants": 3})).await.problem(422, "invalid"),
        ["name", "tenants"]
    );
    for weight in [json!(0), json!(1_000_001), json!(-1), json!("1"), json!(1.5)] {
        assert_eq!(
            house
                .post("/fairshare/groups", json!({"name": "x", "weight": weight}))
                .await
                .problem(422, "invalid"),
            ["weight"]
        );
    }
    assert_eq!(
        house
            .patch("/fairshare/groups/default/weight", json!({"weight": null}))
            .await
            .problem(422, "invalid"),
        ["weight"]
    );
    house
        .post("/fairshare/groups", json!({"name": "x", "weight": null}))
        .await
        .expect(201);
}

#[tokio::test]
async fn the_capacity_is_changed_at_once_and_written_down() {
    let house = House::new();
    assert_eq!(house.get("/capacity").await.expect(200).json(), json!({"max_in_flight": 64}));
    assert_eq!(
        house.put("/capacity", json!({"max_in_flight": 0})).await.expect(200).json(),
        json!({"max_in_flight": 0})
    );
    assert_eq!(
        house.put("/capacity", json!({"max_in_flight": 128})).await.expect(200).json(),
        json!({"max_in_flight": 128})
    );
    assert_eq!(house.get("/capacity").await.json(), json!({"max_in_flight": 128}));
    assert_eq!(
        house.get("/stats").await.expect(200).json(),
        json!({"in_flight": 0, "queued": 0, "max_in_flight": 128})
    );
    let detail = house.audit().await[0].detail.clone();
    assert_eq!(detail, json!({"before": {"max_in_flight": 0}, "after": {"max_in_flight": 128}}));
    for body in [
        json!({}),
        json!({"max_in_flight": null}),
        json!({"max_in_flight": -1}),
        json!({"max_in_flight": 1e30}),
    ] {
        assert_eq!(house.put("/capacity", body).await.problem(422, "invalid"), ["max_in_flight"]);
    }
}

#[tokio::test]
async fn an_idle_scheduler_is_shown_without_anybody() {
    let house = House::new();
    let mut live = house.get("/fairshare/live").await.expect(200).json();
    // A group may count as recently active in the first minute of its life.
    for group in live["groups"].take().as_array().unwrap() {
        assert_eq!(
            (&group["name"], &group["in_flight"], &group["queued"]),
            (&json!("default"), &json!(0), &json!(0))
        );
    }
    let expected = json!({
        "algorithm": "hierarchical", "max_in_flight": 64, "global_in_flight": 0, "global_queued": 0, "groups": null, "tenants": [],
        "model_in_flight": {}, "model_queued": {}, "model_max_in_flight": {}, "fairness_index": Json::Null,
    });
    assert_eq!(live, expected);
}
