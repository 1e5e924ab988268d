//! What a busy scheduler looks like.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::show;
use crate::admin::tests::harness::House;
use crate::id::{ModelId, TenantId};
use crate::scheduler::{GroupView, ModelView, Snapshot, TenantView};

#[tokio::test]
async fn a_busy_scheduler_is_shown_by_names_and_without_what_is_gone() {
    let house = House::new();
    let tenant: TenantId = house.tenant("acme").await.parse().unwrap();
    let model = house
        .post("/models", json!({"model_name": "llama", "api_base": "http://10.0.0.1"}))
        .await
        .id();
    let model: ModelId = model.parse().unwrap();
    let group: Arc<str> = "default".into();
    let of = |tenant: TenantId| TenantView {
        tenant,
        group: Arc::clone(&group),
        weight: 200,
        in_flight: 3,
        queued: 2,
        oldest_wait: Duration::from_millis(1500),
        weight_share: 0.5,
        expected_slots: 2.0,
        borrowed: 1.0,
        served_tokens: 1000,
        share_score: 5.0,
    };
    let snapshot = Snapshot {
        max_in_flight: 4,
        in_flight: 3,
        queued: 2,
        groups: vec![GroupView {
            name: Arc::clone(&group),
            weight: 100,
            in_flight: 3,
            queued: 2,
            weight_share: 1.0,
            expected_slots: 4.0,
            borrowed: 0.0,
            served_tokens: 1000,
            share_score: 10.0,
        }],
        tenants: vec![of(tenant), of(TenantId::mint())],
        models: vec![
            ModelView {
                model,
                in_flight: 3,
                queued: 0,
                cap: Some(8),
            },
            ModelView {
                model: ModelId::mint(),
                in_flight: 1,
                queued: 1,
                cap: None,
            },
        ],
        fairness_index: Some(0.75),
    };
    let live = serde_json::to_value(show(&snapshot, &house.live.load())).unwrap();
    let expected = json!({
        "algorithm": "hierarchical", "max_in_flight": 4, "global_in_flight": 3, "global_queued": 2,
        "groups": [{
            "name": "default", "weight": 100, "in_flight": 3, "queued": 2, "weight_share": 1.0, "expected_slots": 4.0, "borrowed": 0.0,
            "served_tokens": 1000, "share_score": 10.0,
        }],
        "tenants": [{
            "tenant_id": tenant.to_string(), "name": "acme", "fairshare_group": "default", "weight": 200, "in_flight": 3, "queued": 2,
            "oldest_wait_ms": 1500, "weight_share": 0.5, "expected_slots": 2.0, "borrowed": 1.0, "served_tokens": 1000, "share_score": 5.0,
        }],
        "model_in_flight": {"llama": 3}, "model_queued": {}, "model_max_in_flight": {"llama": 8}, "fairness_index": 0.75,
    });
    assert_eq!(live, expected);
}
