//! `ETag`, `If-Match`, `Idempotency-Key`, pages.

use serde_json::{Value as Json, json};

use super::harness::{Answer, House};

async fn weigh(house: &House, id: &str, if_match: &str) -> Answer {
    let path = format!("/api/v1/tenants/{id}/weight");
    house.call("PATCH", &path, &[("if-match", if_match)], Some(r#"{"weight":5}"#)).await
}

#[tokio::test]
async fn a_change_meant_for_another_version_is_refused() {
    let house = House::new();
    let id = house.tenant("acme").await;
    assert_eq!(weigh(&house, &id, "\"v1\"").await.expect(200).header("etag"), "\"v2\"");
    for stale in ["\"v1\"", "W/\"v2\"", "\"v3\", \"v9\"", "v2", "\"\""] {
        weigh(&house, &id, stale).await.problem(412, "version_mismatch");
    }
    for odd in ["", "2", "{}", "\"v2", "\"v2\";", "\"a\"b\""] {
        assert_eq!(weigh(&house, &id, odd).await.problem(422, "invalid"), ["If-Match"], "{odd}");
    }
    for fitting in ["\"v9\", \"v2\"", "*", "\"v4\""] {
        weigh(&house, &id, fitting).await.expect(200);
    }
    let path = format!("/api/v1/tenants/{id}");
    house
        .call("DELETE", &path, &[("if-match", "\"v1\"")], None)
        .await
        .problem(412, "version_mismatch");
    house.call("DELETE", &path, &[("if-match", "\"v5\"")], None).await.expect(204);
    // Of an object that is not there no version is the right one.
    weigh(&house, &id, "\"v5\"").await.problem(404, "not_found");
}

#[tokio::test]
async fn of_two_changes_to_one_version_one_is_made() {
    let house = House::new();
    let id = house.tenant("acme").await;
    let answers = futures_util::future::join_all((0..20).map(|_| weigh(&house, &id, "\"v1\""))).await;
    let of = |status: u16| answers.iter().filter(|answer| answer.status.as_u16() == status).count();
    assert_eq!((of(200), of(412)), (1, 19));
}

#[tokio::test]
async fn a_repeated_creation_gets_its_first_answer() {
    let house = House::new();
    let house = &house;
    let send = async |key: &str, body: &str| house.call("POST", "/api/v1/tenants", &[("idempotency-key", key)], Some(body)).await;
    let first = send("k1", r#"{"name":"acme"}"#).await.expect(201);
    house
        .put(&format!("/tenants/{}", first.id()), json!({"weight": 7}))
        .await
        .expect(200);
    let again = send("k1", r#"{"name":"acme"}"#).await.expect(201);
    assert_eq!(
        (again.text.clone(), again.header("location"), again.header("etag")),
        (first.text.clone(), first.header("location"), first.header("etag"))
    );
    assert_eq!(again.header("idempotency-replayed"), "true");
    send("k1", r#"{"name": "acme"}"#).await.problem(422, "idempotency_key_reused");
    send("k2", r#"{"name":"acme"}"#).await.problem(409, "name_taken");
    // The same key on another path is another request.
    let elsewhere = house
        .call(
            "POST",
            "/api/v1/fairshare/groups",
            &[("idempotency-key", "k1")],
            Some(r#"{"name":"acme"}"#),
        )
        .await;
    elsewhere.problem(422, "idempotency_key_reused");
    // A refused request leaves no answer behind.
    send("k3", r#"{"name":"beta","fairshare_group":"later"}"#)
        .await
        .problem(422, "invalid");
    house.post("/fairshare/groups", json!({"name": "later"})).await.expect(201);
    let late = send("k3", r#"{"name":"beta","fairshare_group":"later"}"#).await.expect(201);
    assert!(!late.headers.contains_key("idempotency-replayed"));
    for key in ["", "ä"] {
        let refused = house
            .call("POST", "/api/v1/tenants", &[("idempotency-key", key)], Some(r#"{"name":"x"}"#))
            .await;
        assert_eq!(refused.problem(422, "invalid"), ["idempotency-key"]);
    }
    assert_eq!(house.audit().await.iter().filter(|row| row.action == "create_tenant").count(), 2);
}

#[tokio::test]
async fn parallel_repetitions_make_one_object() {
    let house = House::new();
    let send = || house.call("POST", "/api/v1/tenants", &[("idempotency-key", "k")], Some(r#"{"name":"acme"}"#));
    let answers = futures_util::future::join_all((0..20).map(|_| send())).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status.as_u16() == 201 && answer.text == answers[0].text),
        "{answers:?}"
    );
    let replayed = answers
        .iter()
        .filter(|answer| answer.headers.contains_key("idempotency-replayed"))
        .count();
    assert_eq!(replayed, 19);
}

/// Follows the links of a list to its end.
async fn walk(house: &House, first: &str) -> (Vec<Json>, usize) {
    let (mut path, mut rows, mut pages) = (first.to_owned(), Vec::new(), 0);
    loop {
        let page = house.call("GET", &path, &[], None).await.expect(200);
        rows.extend(page.json().as_array().unwrap().clone());
        pages += 1;
        let Some(link) = page.headers.get("link") else {
            return (rows, pages);
        };
        let link = link.to_str().unwrap();
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert!(pages < 100, "{path}");
    }
}

#[tokio::test]
async fn pages_hold_every_row_once_and_in_order() {
    let house = House::new();
    for index in 0..7 {
        house
            .post("/fairshare/groups", json!({"name": format!("g{index}")}))
            .await
            .expect(201);
        let tenant = house.tenant(&format!("t{index}")).await;
        house
            .post(&format!("/tenants/{tenant}/keys"), json!({"name": "k"}))
            .await
            .expect(201);
        house
            .post("/models", json!({"model_name": format!("m{index}"), "api_base": "http://10.0.0.1"}))
            .await
            .expect(201);
        house
            .post(
                "/mcp-servers",
                json!({"name": format!("s{index}"), "upstream_url": "http://10.0.0.1/mcp"}),
            )
            .await
            .expect(201);
    }
    for (path, count) in [
        ("tenants", 7),
        ("keys", 7),
        ("models", 7),
        ("mcp-servers", 7),
        ("fairshare/groups", 8),
        ("audit", 35),
    ] {
        let (whole, pages) = walk(&house, &format!("/api/v1/{path}")).await;
        assert_eq!((whole.len(), pages), (count, 1), "{path}");
        for limit in [1, 3, 7] {
            let (rows, pages) = walk(&house, &format!("/api/v1/{path}?limit={limit}")).await;
            assert_eq!(rows, whole, "{path} by {limit}");
            assert!(pages >= count / limit, "{path} by {limit}: {pages}");
        }
    }
    let names: Vec<Json> = walk(&house, "/api/v1/tenants?limit=2")
        .await
        .0
        .iter()
        .map(|tenant| tenant["name"].clone())
        .collect();
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
    // Filters go along.
    assert_eq!(walk(&house, "/api/v1/audit?action=create_tenant&limit=2").await.0.len(), 7);
    assert_eq!(walk(&house, "/api/v1/tenants?group=default&limit=2").await.0.len(), 7);
}

#[tokio::test]
async fn a_page_survives_the_deletion_of_its_last_row() {
    let house = House::new();
    let ids = [house.tenant("a").await, house.tenant("b").await, house.tenant("c").await];
    let page = house.get("/tenants?limit=2").await;
    let link = page.header("link");
    house.delete(&format!("/tenants/{}", ids[1])).await.expect(204);
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let rest = house.call("GET", next, &[], None).await.expect(200).json();
    assert_eq!((rest.as_array().unwrap().len(), &rest[0]["name"]), (1, &json!("c")));
}

#[tokio::test]
async fn bad_parameters_are_told_at_once() {
    let house = House::new();
    for path in ["tenants", "keys", "models", "mcp-servers", "fairshare/groups", "audit"] {
        for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1&limit=2"] {
            assert_eq!(
                house.get(&format!("/{path}?{query}")).await.problem(422, "invalid"),
                ["limit"],
                "{path}?{query}"
            );
        }
        let all = house.get(&format!("/{path}?limit=&cursor=zz&nmae=x")).await.problem(422, "invalid");
        assert_eq!(all, ["limit", "cursor", "nmae"], "{path}");
        house.get(&format!("/{path}?limit=1000")).await.expect(200);
    }
    assert_eq!(house.get("/audit?cursor=6162").await.problem(422, "invalid"), ["cursor"]);
}
