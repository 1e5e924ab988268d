//! What was acknowledged outlives `kill -9`: changes with their audit rows, and a row for each request that went upstream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use obleth::store::{Chain, Options, Store};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, eventually, rounds, seed};

/// One change that somebody asked for.
struct Asked {
    /// The id of its request, which its audit row bears.
    id: String,
    change: Change,
    /// Whether the answer arrived, a 2xx.
    acknowledged: bool,
}

enum Change {
    Tenant { name: String },
    Key { tenant: String, name: String },
    Weight { tenant: String, weight: u64 },
}

/// Creates tenants, their keys, and changes their weights, until the gateway is gone. Each weight is used once.
async fn write(gateway: Arc<Gateway>, name: String) -> Vec<Asked> {
    let mut asked = Vec::new();
    for count in 0.. {
        let tenant_name = format!("{name}-{count}");
        let body = json!({ "name": tenant_name, "weight": 1 });
        let change = Change::Tenant { name: tenant_name.clone() };
        let made = send(&gateway, &mut asked, Method::POST, "tenants", body, change).await;
        let Some(made) = made else { break };
        let tenant = made["id"].as_str().unwrap().to_owned();
        let change = Change::Key {
            tenant: tenant.clone(),
            name: tenant_name.clone(),
        };
        let path = format!("tenants/{tenant}/keys");
        if send(&gateway, &mut asked, Method::POST, &path, json!({ "name": tenant_name }), change)
            .await
            .is_none()
        {
            break;
        }
        for weight in 2..5 {
            let change = Change::Weight {
                tenant: tenant.clone(),
                weight,
            };
            let path = format!("tenants/{tenant}/weight");
            if send(&gateway, &mut asked, Method::PATCH, &path, json!({ "weight": weight }), change)
                .await
                .is_none()
            {
                return asked;
            }
        }
    }
    asked
}

/// Sends a change; `None` when the gateway did not answer.
async fn send(gateway: &Gateway, asked: &mut Vec<Asked>, method: Method, path: &str, body: Value, change: Change) -> Option<Value> {
    let id = match &change {
        Change::Tenant { name } => format!("{name}.tenant"),
        Change::Key { name, .. } => format!("{name}.key"),
        Change::Weight { tenant, weight } => format!("{tenant}.weight.{weight}"),
    };
    let answer = async {
        let response = gateway.ask(method, path).header("x-request-id", &id).json(&body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        assert!(status.is_success(), "{path}: {status} {text}");
        reqwest::Result::Ok(serde_json::from_str(&text).unwrap())
    };
    let answer = answer.await.ok();
    asked.push(Asked {
        id,
        change,
        acknowledged: answer.is_some(),
    });
    answer
}

/// How many audit rows each request of this round has. Rows come newest first, so those before `known` rows are new.
async fn audited(gateway: &Gateway, known: &mut u64) -> HashMap<String, u32> {
    let rows = gateway.list("audit?limit=1000").await;
    let new = rows.len() as u64 - *known;
    *known = rows.len() as u64;
    let mut found = HashMap::new();
    for row in rows.into_iter().take(usize::try_from(new).unwrap()) {
        *found.entry(row["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    found
}

/// Whether a change is to be seen in the objects.
async fn took_effect(gateway: &Gateway, change: &Change) -> bool {
    match change {
        Change::Tenant { name } => gateway.get(&format!("tenants?name={name}")).await.as_array().unwrap().len() == 1,
        Change::Key { tenant, name } => {
            let keys = gateway.get(&format!("keys?tenant_id={tenant}")).await;
            keys.as_array().unwrap().iter().any(|key| key["name"] == **name)
        }
        Change::Weight { tenant, weight } => {
            let tenant = gateway.get(&format!("tenants/{tenant}")).await;
            // Weights rise by one a change, and so do versions.
            assert_eq!(tenant["weight"], tenant["version"], "half a change: {tenant}");
            tenant["weight"].as_u64().unwrap() >= *weight
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_and_their_audit_rows_outlive_a_kill_and_none_is_there_by_half() {
    let mut random = SmallRng::seed_from_u64(seed());
    let mut gateway = Gateway::start().await;
    let (mut known, mut acknowledged, mut in_doubt) = (0, 0_u64, 0_u64);
    audited(&gateway, &mut known).await;
    for round in 0..rounds("OBLETH_ROUNDS", 20) {
        let shared = Arc::new(gateway);
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            writers.spawn(write(Arc::clone(&shared), format!("r{round}-w{writer}")));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(20..300))).await;
        kill_process(shared.pid(), Signal::KILL).unwrap();
        let asked: Vec<Asked> = writers.join_all().await.into_iter().flatten().collect();
        gateway = Arc::into_inner(shared).unwrap();
        gateway.restart();
        let audited = audited(&gateway, &mut known).await;
        for Asked {
            id,
            change,
            acknowledged: told,
        } in &asked
        {
            let rows = audited.get(id).copied().unwrap_or(0);
            assert!(rows <= 1, "round {round}: {rows} audit rows of {id}");
            assert!(rows == 1 || !told, "round {round}: {id} was acknowledged and has no audit row");
            assert_eq!(
                took_effect(&gateway, change).await,
                rows == 1,
                "round {round}: half of {id} is there"
            );
            acknowledged += u64::from(*told);
            in_doubt += u64::from(!told);
        }
        assert!(
            audited.keys().all(|id| asked.iter().any(|asked| asked.id == *id)),
            "an audit row of nobody"
        );
    }
    println!("{acknowledged} changes acknowledged, {in_doubt} cut off");
    assert!(acknowledged > 0 && in_doubt > 0, "the kills hit nothing");
    gateway.end();
    let (store, _) = Store::open(Options::new(gateway.store())).unwrap();
    let chain = store.verify_audit().await.unwrap();
    assert_eq!(chain, Chain::Intact { rows: known });
}

/// How a stream ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Whole,
    Cut,
}

/// One stream after the other until the gateway is gone; the ids that were sent, and how each ended.
async fn stream(gateway: Arc<Gateway>, key: String, name: String) -> Vec<(String, Seen)> {
    let mut sent = Vec::new();
    loop {
        let id = format!("{name}-{}", sent.len());
        let body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "go" }] });
        let answer = async {
            let response = gateway
                .post("/v1/chat/completions", &key, &body)
                .header("x-request-id", &id)
                .send()
                .await?;
            let status = response.status();
            let text = response.text().await?;
            assert!(status == 200, "{status} {text}");
            reqwest::Result::Ok(text.contains("[DONE]"))
        };
        let whole = answer.await.unwrap_or(false);
        sent.push((id, if whole { Seen::Whole } else { Seen::Cut }));
        if !whole {
            return sent;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_that_went_upstream_has_one_row_after_a_kill_under_load() {
    const STREAMS: usize = 24;
    let mut random = SmallRng::seed_from_u64(seed());
    let upstream = Upstream::start(&["--ms-per-token", "2", "--output-tokens", "20", "--log-length", "1000000"]).await;
    let mut gateway = Gateway::start().await;
    let model = json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" });
    gateway.create("models", model).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let mut seen = HashMap::new();
    for round in 0..rounds("OBLETH_ROUNDS", 5) {
        let shared = Arc::new(gateway);
        let mut streams = JoinSet::new();
        for client in 0..STREAMS {
            streams.spawn(stream(Arc::clone(&shared), key.clone(), format!("r{round}-c{client}")));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..500))).await;
        kill_process(shared.pid(), Signal::KILL).unwrap();
        seen.extend(streams.join_all().await.into_iter().flatten());
        gateway = Arc::into_inner(shared).unwrap();
        gateway.restart();
    }
    eventually("the upstream runs nothing", Duration::from_secs(5), || async {
        let stats = upstream.stats().await;
        stats["running"] == 0 && stats["waiting"] == 0
    })
    .await;
    let mut rows: HashMap<String, Value> = HashMap::new();
    for row in gateway.list("usage/requests?limit=1000").await {
        let id = row["client_request_id"].as_str().unwrap().to_owned();
        assert!(seen.contains_key(&id), "a row of nobody: {row}");
        assert!(rows.insert(id.clone(), row).is_none(), "two rows of {id}");
    }
    let went_up = upstream.requests().await;
    let went_up = went_up.as_array().unwrap();
    for entry in went_up {
        let id = entry["id"].as_str().unwrap();
        assert!(rows.contains_key(id), "{id} went upstream and has no row");
    }
    let mut interrupted = 0;
    for (id, seen) in &seen {
        let outcome = rows.get(id).map(|row| row["outcome"].as_str().unwrap());
        interrupted += u32::from(outcome == Some("interrupted"));
        let right = match seen {
            // Its last byte may have left before its row did.
            Seen::Whole => matches!(outcome, Some("ok" | "interrupted")),
            // It may not have come to the gateway at all.
            Seen::Cut => matches!(outcome, Some("interrupted") | None),
        };
        assert!(right, "{id}: {seen:?} by its client and {outcome:?} in the ledger");
    }
    println!("{} requests, {} upstream, {interrupted} interrupted", seen.len(), went_up.len());
    assert!(interrupted > 0, "the kills hit nothing");
}
