//! Usage, costs and the request log, over HTTP.
use serde_json::{Value as Json, json};

use super::harness::{Answer, House};
use crate::id::{KeyId, RequestId, TenantId};
use crate::store::ledger::{Attempt, AttemptOutcome, CacheStatus, Charge, Cursor, Outcome, Row, Saved, Timing, Tokens, UsageSource};
use crate::units::{PicoUsd, UnixMs};

const T0: i64 = 1_795_500_000_000;

fn row(tenant: TenantId, key: KeyId, model: &str, at: i64) -> Row {
    Row {
        request_id: RequestId::mint(),
        at: UnixMs(at),
        tenant,
        key,
        model: model.into(),
        client_request_id: Some("=cmd()".into()),
        session_id: None,
        endpoint: "http://127.0.0.1:8000".into(),
        route: "/v1/chat/completions".into(),
        outcome: Outcome::Ok,
        status: 200,
        error_code: None,
        attempts: 1,
        attempt_log: Box::default(),
        tokens: Tokens {
            input: 10,
            cached_input: 4,
            output: 20,
            reasoning: 5,
        },
        usage_source: UsageSource::Reported,
        charge: Charge {
            input: PicoUsd(10_000_000),
            output: PicoUsd(40_000_000),
            request: PicoUsd(1),
        },
        cache: CacheStatus::Miss,
        saved: Saved::default(),
        timing: Timing {
            queue_ms: 2,
            ttft_ms: Some(10),
            total_ms: 110,
        },
        stream: true,
    }
}

/// A house whose ledger has rows of two tenants: three to llama, one of them an error, and one to qwen.
async fn house() -> (House, [TenantId; 2], [KeyId; 2]) {
    let house = House::new();
    let (tenants, keys) = ([TenantId::mint(), TenantId::mint()], [KeyId::mint(), KeyId::mint()]);
    let mut rows = vec![
        row(tenants[0], keys[0], "llama", T0),
        row(tenants[0], keys[0], "llama", T0 + 60_000),
        row(tenants[1], keys[1], "llama", T0 + 120_000),
        row(tenants[1], keys[1], "qwen", T0 + 600_000),
    ];
    rows[1].outcome = Outcome::Error;
    rows[1].attempts = 2;
    let attempt = |endpoint: &str, outcome, status| Attempt {
        endpoint: endpoint.into(),
        outcome,
        status,
        start_ms: 2,
        duration_ms: 7,
    };
    rows[1].attempt_log = Box::new([
        attempt("gpu-1:8000", AttemptOutcome::ConnectRefused, None),
        attempt("gpu-2:8000", AttemptOutcome::Status, Some(503)),
    ]);
    rows[3].cache = CacheStatus::Hit;
    rows[3].charge = Charge::default();
    rows[3].saved = Saved {
        tokens: 30,
        cost: PicoUsd(50_000_000),
    };
    let store = std::sync::Arc::clone(&house.store);
    let work = move || store.append(rows.into(), Cursor::default()).unwrap();
    tokio::task::spawn_blocking(work).await.unwrap();
    (house, tenants, keys)
}

async fn get(house: &House, path: &str) -> Answer {
    house.call("GET", path, &[], None).await
}

async fn rows(house: &House, path: &str) -> Vec<Json> {
    let answer = get(house, path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json().as_array().unwrap().clone()
}

fn span() -> String {
    format!("since_ms={T0}&until_ms={}", T0 + 3_600_000)
}

#[tokio::test]
async fn usage_is_grouped_as_asked_and_every_filter_narrows_every_route() {
    let (house, tenants, keys) = house().await;
    let by_tenant = rows(&house, &format!("/api/v1/usage?{}", span())).await;
    assert_eq!(by_tenant.len(), 2);
    assert!(by_tenant[0].get("model").is_none());
    let by_key = rows(&house, &format!("/api/v1/usage?group_by=key&{}", span())).await;
    assert_eq!(by_key[0]["tenant_id"].as_str().map(str::len), Some(36));
    let by_model = rows(&house, &format!("/api/v1/usage?group_by=model&{}", span())).await;
    assert_eq!(
        by_model[0],
        json!({"model": "llama", "requests": 3, "errors": 1, "input_tokens": 30, "cached_input_tokens": 12,
            "output_tokens": 60, "total_tokens": 90, "cost_usd": 0.000_150_000_003})
    );
    let narrow = format!("tenant_id={}&key_id={}&model=llama&{}", tenants[0], keys[0], span());
    for route in [
        "usage",
        "usage/keys",
        "usage/models",
        "usage/series",
        "usage/series/tenants",
        "usage/requests",
        "costs",
    ] {
        let found = rows(&house, &format!("/api/v1/{route}?{narrow}")).await;
        let requests: u64 = found.iter().map(|row| row["requests"].as_u64().unwrap_or(1)).sum();
        assert_eq!(requests, 2, "{route}: {found:?}");
    }
    let cache = get(&house, &format!("/api/v1/usage/cache?{narrow}")).await.json();
    assert_eq!((&cache["misses"], &cache["hits"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn models_have_percentiles_and_the_cache_its_savings() {
    let (house, ..) = house().await;
    let models = rows(&house, &format!("/api/v1/usage/models?{}", span())).await;
    let llama = &models[0];
    assert_eq!(
        (&llama["p50_ttft_ms"], &llama["users"], &llama["errors"]),
        (&json!(10), &json!(2), &json!(1))
    );
    assert_eq!(llama["gen_tokens_per_sec"], json!(200.0));
    assert_eq!(
        models[1]["p95_total_ms"],
        Json::Null,
        "the cache's own answers say nothing about a model"
    );
    let cache = get(&house, &format!("/api/v1/usage/cache?{}", span())).await.json();
    assert_eq!(
        cache,
        json!({"hits": 1, "misses": 3, "bypasses": 0, "coalesced": 0, "hit_ratio": 0.25, "tokens_saved": 30,
            "cost_saved_usd": 0.000_05, "entries": 3, "bytes": 77})
    );
}

#[tokio::test]
async fn parts_of_costs_add_up_to_the_digit() {
    let (house, ..) = house().await;
    for by in ["model", "tenant", "key"] {
        for row in rows(&house, &format!("/api/v1/costs?group_by={by}&{}", span())).await {
            let pico = |part: &str| (row[part].as_f64().unwrap() * 1e12).round();
            assert!(
                (pico("input_cost") + pico("output_cost") + pico("request_cost") - pico("total_cost")).abs() < 0.5,
                "{row}"
            );
        }
    }
    let text = get(&house, &format!("/api/v1/costs?{}", span())).await.text;
    assert!(text.contains("\"total_cost\":0.000150000003"), "{text}");
}

#[tokio::test]
async fn a_series_is_ascending_and_filled_when_asked() {
    let (house, ..) = house().await;
    let sparse = rows(&house, &format!("/api/v1/usage/series?{}", span())).await;
    assert_eq!(sparse.len(), 2, "two of twelve buckets of five minutes");
    let full = rows(&house, &format!("/api/v1/usage/series?fill=true&{}", span())).await;
    assert_eq!(full.len(), 12);
    assert!(full.is_sorted_by_key(|row| row["bucket_ms"].as_i64()));
    assert_eq!(full.iter().filter(|row| row["requests"] == 0).count(), 10);
    let full = rows(&house, &format!("/api/v1/usage/series/tenants?fill=true&{}", span())).await;
    assert_eq!(full.len(), 24);
}

#[tokio::test]
async fn the_log_is_newest_first_and_pages_by_its_link() {
    let (house, ..) = house().await;
    let mut path = format!("/api/v1/usage/requests?limit=3&{}", span());
    let mut seen = Vec::new();
    loop {
        let answer = get(&house, &path).await;
        seen.extend(answer.json().as_array().unwrap().iter().map(|row| row["ts_ms"].as_i64().unwrap()));
        let Some(link) = answer.headers.get("link") else { break };
        let link = link.to_str().unwrap();
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(seen, [T0 + 600_000, T0 + 120_000, T0 + 60_000, T0]);
}

#[tokio::test]
async fn csv_is_for_those_who_accept_it_and_runs_no_formula() {
    let (house, ..) = house().await;
    let csv = |path: String| {
        let house = &house;
        async move { house.call("GET", &path, &[("accept", "text/csv")], None).await }
    };
    let usage = csv(format!("/api/v1/usage?group_by=model&{}", span())).await;
    assert!(usage.header("content-type").starts_with("text/csv"));
    let mut lines = usage.text.lines();
    assert_eq!(
        lines.next(),
        Some("model,requests,errors,input_tokens,cached_input_tokens,output_tokens,total_tokens,cost_usd")
    );
    assert_eq!(lines.next(), Some("llama,3,1,30,12,60,90,0.000150000003"));
    let log = csv(format!("/api/v1/usage/requests?limit=1&{}", span())).await;
    assert!(log.text.contains(",'=cmd(),"), "{}", log.text);
    assert!(log.headers.contains_key("link"));
    // The columns are the same whether or not a row has a log of attempts.
    let log = csv(format!("/api/v1/usage/requests?{}", span())).await;
    let columns = |line: &str| line.split(",attempts,attempt_log,input_tokens,").count();
    assert_eq!(columns(log.text.lines().next().unwrap()), 2, "{}", log.text);
    assert!(log.text.lines().nth(1).unwrap().contains(",1,,10,"), "{}", log.text);
    let cell = r#",2,"[{""endpoint"":""gpu-1:8000"",""outcome"":""connect_refused"",""status"":null,"#;
    assert!(log.text.contains(cell), "{}", log.text);
}

#[tokio::test]
async fn a_request_that_was_tried_twice_or_in_vain_says_how_each_attempt_ended() {
    let (house, ..) = house().await;
    let rows = rows(&house, &format!("/api/v1/usage/requests?{}", span())).await;
    let log: Vec<_> = rows.iter().map(|row| (&row["attempts"], &row["attempt_log"])).collect();
    let (one, none) = (json!(1), Json::Null);
    let attempts = json!([
        { "endpoint": "gpu-1:8000", "outcome": "connect_refused", "status": null, "start_ms": 2, "duration_ms": 7 },
        { "endpoint": "gpu-2:8000", "outcome": "status", "status": 503, "start_ms": 2, "duration_ms": 7 },
    ]);
    assert_eq!(log, [(&one, &none), (&one, &none), (&json!(2), &attempts), (&one, &none)]);
}

#[tokio::test]
async fn bad_values_are_named() {
    let house = House::new();
    let cases = [
        ("usage?tenant_id=x", vec!["tenant_id"]),
        ("usage/keys?key_id=1&since_ms=-1", vec!["key_id", "since_ms"]),
        ("usage?group_by=shoe", vec!["group_by"]),
        ("usage/models?until_ms=soon", vec!["until_ms"]),
        ("usage/series?bucket_ms=9999", vec!["bucket_ms"]),
        ("usage/series?fill=maybe", vec!["fill"]),
        ("usage/series/tenants?since_ms=0&bucket_ms=10000", vec!["bucket_ms"]),
        ("usage/requests?limit=0", vec!["limit"]),
        ("usage/requests?cursor=7a", vec!["cursor"]),
        ("costs?since_ms=2&until_ms=1", vec!["until_ms"]),
        ("usage/cache?colour=red", vec!["colour"]),
    ];
    for (path, expected) in cases {
        let answer = get(&house, &format!("/api/v1/{path}")).await;
        let paths = answer.problem(422, "invalid");
        assert_eq!(paths, expected, "{path}");
    }
}
