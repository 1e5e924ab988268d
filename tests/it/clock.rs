//! A wall clock that jumps by hours, ahead and back, moves no window: neither quotas, nor budgets, nor deadlines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, eventually};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;

/// A gateway whose wall clock is what we say; its monotonic clock is left alone, as it is when somebody sets the system's.
struct House {
    gateway: Arc<Gateway>,
    upstream: Upstream,
    offset: PathBuf,
    /// Seconds from now to a noon.
    noon: i64,
    _scratch: tempfile::TempDir,
}

/// The library that answers for the system's clock.
fn faketime() -> PathBuf {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu", "."];
    let mut found = places
        .iter()
        .map(|place| Path::new("/usr/lib").join(place).join("faketime/libfaketime.so.1"));
    found
        .find(|path| path.exists())
        .expect("libfaketime is here: scripts/setup installs it")
}

impl House {
    async fn at_noon() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let offset = scratch.path().join("offset");
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let noon = DAY / 2 - now % DAY;
        std::fs::write(&offset, format!("{noon:+}")).unwrap();
        let gateway = Gateway::start_with(
            &[],
            &[
                ("LD_PRELOAD", faketime().to_str().unwrap()),
                ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ],
        );
        let upstream = Upstream::start(&["--output-tokens", "5"]).await;
        gateway
            .create(
                "models",
                json!({ "model_name": "llama", "api_base": upstream.url(), "engine": "vllm" }),
            )
            .await;
        Self {
            gateway: Arc::new(gateway),
            upstream,
            offset,
            noon,
            _scratch: scratch,
        }
    }

    /// Sets the clock so many hours ahead of where it was at first.
    fn jump(&self, hours: i64) {
        let new = self.offset.with_extension("new");
        std::fs::write(&new, format!("{:+}", self.noon + hours * HOUR)).unwrap();
        std::fs::rename(&new, &self.offset).unwrap();
    }

    async fn ask(&self, key: &str) -> Response {
        let body = json!({ "model": "llama", "max_tokens": 5, "messages": [{ "role": "user", "content": "hi" }] });
        let response = self.gateway.post("/v1/chat/completions", key, &body).send().await.unwrap();
        self.gateway.idle().await;
        response
    }

    /// Asks until it is refused.
    async fn use_up(&self, key: &str) -> Response {
        for _ in 0..20 {
            let response = self.ask(key).await;
            if response.status() == 429 {
                return response;
            }
            assert_eq!(response.status(), 200);
        }
        panic!("nothing ends it");
    }
}

fn number(response: &Response, header: &str) -> u64 {
    response.headers()[header].to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_budget_stays_so_through_jumps_of_the_clock() {
    let house = House::at_noon().await;
    let made = house.gateway.get("tenants").await;
    assert_eq!(made, json!([]));
    let key = house
        .gateway
        .tenant_key(json!({ "name": "acme", "budget_tokens": 30, "budget_period": "day" }))
        .await;
    let refused = house.use_up(&key).await;
    let to_midnight = number(&refused, "retry-after");
    let twelve_hours = 12 * 3600;
    assert!((twelve_hours - 60..=twelve_hours).contains(&to_midnight), "{to_midnight}");
    let made = house.gateway.get("tenants").await[0]["created_at"].clone();
    assert!(made.as_str().unwrap().contains("T12:0"), "the clock is set: {made}");
    for hours in [14, 0, 24 * 40, 0, -14, 0, 2, 0] {
        house.jump(hours);
        for _ in 0..3 {
            let refused = house.ask(&key).await;
            assert_eq!(refused.status(), 429, "{hours} hours on");
            let wait = number(&refused, "retry-after");
            assert!((to_midnight - 60..=to_midnight).contains(&wait), "{wait} after {hours} hours");
            assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "insufficient_quota");
        }
    }
    // A new process has nothing but the ledger and the clock.
    let House { gateway, .. } = house;
    let mut gateway = Arc::into_inner(gateway).unwrap();
    gateway.restart();
    let body = json!({ "model": "llama", "messages": [] });
    assert_eq!(
        gateway.post("/v1/chat/completions", &key, &body).send().await.unwrap().status(),
        429
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refills_by_the_time_that_passes_and_not_by_the_time_it_is() {
    let house = House::at_noon().await;
    let key = house
        .gateway
        .tenant_key(json!({ "name": "acme", "requests_per_minute": 2, "tokens_per_minute": 1000 }))
        .await;
    let first = number(&house.use_up(&key).await, "retry-after-ms");
    let (start, mut before) = (Instant::now(), first);
    for hours in [5, 0, -5, 0] {
        house.jump(hours);
        let refused = house.ask(&key).await;
        assert_eq!(refused.status(), 429, "{hours} hours on");
        let wait = number(&refused, "retry-after-ms");
        assert!(wait <= before, "{wait} ms after {before} ms");
        before = wait;
    }
    let passed = u64::try_from(start.elapsed().as_millis()).unwrap();
    assert!(
        before + passed + 1_000 >= first,
        "of {first} ms {before} are left after {passed} ms"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_and_who_runs_are_not_hurried_by_the_clock() {
    let house = House::at_noon().await;
    let key = house.gateway.tenant_key(json!({ "name": "acme" })).await;
    house.gateway.put("capacity", json!({ "max_in_flight": 1 })).await;
    let slow = json!({ "model": "llama", "sim_ms_per_token": 20, "sim_output_tokens": 100, "messages": [] });
    let both = [0; 2].map(|_| tokio::spawn(house.gateway.post("/v1/chat/completions", &key, &slow).send()));
    eventually("one runs, one waits", Duration::from_secs(5), || async {
        let stats = house.gateway.stats().await;
        stats["in_flight"] == 1 && stats["queued"] == 1
    })
    .await;
    for hours in [5, -5, 0] {
        house.jump(hours);
        assert_eq!(house.gateway.get("health").await["status"], "ok");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for answer in both {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    eventually("their rows", Duration::from_secs(2), || async {
        house.gateway.list("usage/requests").await.len() == 2
    })
    .await;
    for row in house.gateway.list("usage/requests").await {
        assert_eq!(row["outcome"], "ok", "{row}");
        assert!(
            row["total_ms"].as_u64().unwrap() < 60_000 && row["queue_ms"].as_u64().unwrap() < 60_000,
            "{row}"
        );
    }
    assert_eq!(house.upstream.stats().await["requests"], 2);
}
