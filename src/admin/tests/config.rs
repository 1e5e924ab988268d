//! `/config` and the purge of a model's cache: what they answer, and what they ask of those who brought them.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::harness::{House, Stated};
use crate::admin::{ConfigFault, ReloadError};

#[tokio::test]
async fn the_status_is_shown_and_the_export_is_yaml() {
    let house = House::new();
    let status = house.get("/config/status").await.expect(200).json();
    assert_eq!(
        (&status["outcome"], &status["applied_at"], &status["errors"][0]["place"]),
        (&json!("refused"), &json!("1970-01-01T00:00:00.000Z"), &json!("obleth.yaml:2:3"))
    );
    let export = house.get("/config/export").await.expect(200);
    assert_eq!(
        (export.header("content-type"), &*export.text),
        ("application/yaml".to_owned(), "{}\n")
    );
}

#[tokio::test]
async fn a_reload_answers_with_every_fault_and_its_place() {
    let fault = |line: u32| ConfigFault {
        place: format!("obleth.yaml:{line}:5"),
        path: "tenants[0].weight".to_owned(),
        message: "must be an integer".to_owned(),
    };
    let refused = |error| House::with(|doors| doors.configuration = Arc::new(Stated(Err(error))));
    let faulty = refused(ReloadError::Faulty(vec![fault(1), fault(2)]));
    let answer = faulty.post("/config/reload", json!({})).await;
    assert_eq!(answer.problem(422, "invalid_config"), ["tenants[0].weight", "tenants[0].weight"]);
    assert_eq!(answer.json()["errors"][1]["place"], "obleth.yaml:2:5");

    let none = refused(ReloadError::NoFile).post("/config/reload", json!({})).await;
    none.problem(409, "no_config_file");
    let away = refused(ReloadError::Unavailable("disk full at /secret/place".to_owned()));
    let away = away.post("/config/reload", json!({})).await;
    away.problem(503, "store_unavailable");
    assert!(!away.text.contains("secret"), "{}", away.text);
}

#[tokio::test]
async fn a_purge_is_audited_and_empties_only_its_model() {
    let purged = Arc::new(Mutex::new(Vec::new()));
    let house = House::with(|doors| {
        let purged = Arc::clone(&purged);
        doors.purge_cache = Arc::new(move |model| purged.lock().push(model.to_string()));
    });
    let model = house
        .post("/models", json!({"model_name": "m", "api_base": "http://10.0.0.1"}))
        .await
        .id();
    let path = format!("/models/{model}/cache");
    house.delete(&path).await.expect(204);
    let stale = house
        .call("DELETE", &format!("/api/v1{path}"), &[("if-match", "\"v9\"")], None)
        .await;
    stale.problem(412, "version_mismatch");
    let unknown = house.delete("/models/01890000-0000-7000-8000-000000000000/cache").await;
    unknown.problem(404, "not_found");
    assert_eq!(*purged.lock(), std::slice::from_ref(&model));
    let row = &house.audit().await[0];
    assert_eq!(
        (&*row.action, &*row.entity_type, &row.entity_id),
        ("purge_model_cache", "model", &model)
    );
}
