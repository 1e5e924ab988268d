//! Capacity that is learned: `max_in_flight: auto` against engines whose limit is their slots, their cache or their speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, eventually, rounds};

/// A simulated engine, how the gateway knows it, and a change of speed.
struct Kind {
    name: &'static str,
    engine: &'static str,
    flags: &'static [&'static str],
    /// What requests ask for until the change, and from then on.
    before: (&'static str, f64),
    after: (&'static str, f64),
    /// Limits among which the best fixed one is.
    limits: [u32; 4],
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "slots",
        engine: "vllm",
        flags: &["--slots", "24", "--output-tokens", "20"],
        before: ("sim_ms_per_token", 50.0),
        after: ("sim_ms_per_token", 120.0),
        limits: [16, 24, 32, 48],
    },
    Kind {
        name: "cache",
        engine: "vllm",
        flags: &["--slots", "256", "--kv-tokens", "680", "--output-tokens", "20"],
        before: ("sim_ms_per_token", 50.0),
        after: ("sim_ms_per_token", 120.0),
        limits: [16, 24, 32, 48],
    },
    // It tells nothing of its queue: the time per token must do. Twice as fast, it has use for twice as many requests.
    Kind {
        name: "speed",
        engine: "other",
        flags: &["--slots", "256", "--ms-per-token", "50", "--output-tokens", "20"],
        before: ("sim_ms_per_running", 4.0),
        after: ("sim_ms_per_running", 2.0),
        limits: [6, 12, 24, 48],
    },
];

/// More clients than any limit has room for, so that the limit is what binds.
const CLIENTS: usize = 64;

struct Trial {
    /// Dropped before what they talk to.
    _clients: JoinSet<()>,
    kind: &'static Kind,
    upstream: Upstream,
    gateway: Arc<Gateway>,
    changed: Arc<AtomicBool>,
    model: String,
}

impl Trial {
    async fn start(kind: &'static Kind) -> Self {
        let upstream = Upstream::start(kind.flags).await;
        let gateway = Arc::new(Gateway::start().await);
        gateway.put("capacity", json!({ "max_in_flight": 1000 })).await;
        let model = json!({ "model_name": "llama", "engine": kind.engine, "api_base": upstream.url(), "max_in_flight": "auto" });
        let model = gateway.create("models", model).await["id"].as_str().unwrap().to_owned();
        let key = gateway.tenant_key(json!({ "name": "acme" })).await;
        let changed = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (gateway, key, changed) = (Arc::clone(&gateway), key.clone(), Arc::clone(&changed));
            clients.spawn(async move {
                loop {
                    let (field, value) = if changed.load(Ordering::Relaxed) { kind.after } else { kind.before };
                    let body = json!({ "model": "llama", "stream": true, field: value, "messages": [{ "role": "user", "content": "go" }] });
                    let response = gateway.post("/v1/chat/completions", &key, &body).send().await.unwrap();
                    assert_eq!(response.status(), 200);
                    let _whole = response.bytes().await;
                }
            });
        }
        Self {
            _clients: clients,
            kind,
            upstream,
            gateway,
            changed,
            model,
        }
    }

    async fn limit(&self, limit: Value) {
        self.gateway
            .put(&format!("models/{}", self.model), json!({ "max_in_flight": limit }))
            .await;
    }

    /// As operators see it.
    async fn learned(&self) -> u64 {
        self.gateway.get("fairshare/live").await["model_max_in_flight"]["llama"]
            .as_u64()
            .unwrap()
    }

    /// Tokens per second over some time, and how many requests waited inside the engine meanwhile.
    async fn watch(&self, time: Duration) -> (f64, f64) {
        let (start, before) = (tokio::time::Instant::now(), self.upstream.stats().await);
        let (mut waiting, mut samples) = (0.0, 0.0);
        while start.elapsed() < time {
            tokio::time::sleep(Duration::from_millis(200)).await;
            waiting += self.upstream.stats().await["waiting"].as_f64().unwrap();
            samples += 1.0;
        }
        let tokens = self.upstream.stats().await["tokens"].as_f64().unwrap() - before["tokens"].as_f64().unwrap();
        (tokens / start.elapsed().as_secs_f64(), waiting / samples)
    }

    /// The best throughput of any fixed limit.
    async fn best(&self) -> f64 {
        let mut best = 0.0_f64;
        for limit in self.kind.limits {
            self.limit(json!(limit)).await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            best = best.max(self.watch(Duration::from_secs(8)).await.0);
        }
        best
    }

    /// Fixed limits, learning, a change of speed, thirty seconds, and what the best fixed limit is then.
    async fn run(self) {
        let name = self.kind.name;
        let best = self.best().await;
        self.limit(json!("auto")).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (throughput, waiting) = self.watch(Duration::from_secs(20)).await;
        let learned = self.learned().await;
        println!("{name}: {throughput:.0} of {best:.0} tokens/s at a learned {learned}, {waiting:.1} waiting");
        self.changed.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let (recovered, _) = self.watch(Duration::from_secs(15)).await;
        let learned_after = self.learned().await;
        let best_after = self.best().await;
        println!("{name}, changed: {recovered:.0} of {best_after:.0} tokens/s at a learned {learned_after}");
        assert!(throughput >= best * 0.85, "{name}: {throughput} of {best}");
        assert!(waiting <= 6.0, "{name}: {waiting} wait in the engine");
        assert!(recovered >= best_after * 0.85, "{name}, changed: {recovered} of {best_after}");
    }
}

/// Takes five minutes; scripts/soak does.
pub(crate) async fn learned_capacity_is_as_good_as_the_best_fixed_one() {
    let mut trials = JoinSet::new();
    for kind in &KINDS {
        trials.spawn(async move { Trial::start(kind).await.run().await });
    }
    trials.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_learned_from_the_engines_queue_and_shown() {
    if rounds("OBLETH_LEARN", 0) > 0 {
        return learned_capacity_is_as_good_as_the_best_fixed_one().await;
    }
    static FEW: Kind = Kind {
        name: "few",
        engine: "vllm",
        flags: &["--slots", "3", "--output-tokens", "20"],
        before: ("sim_ms_per_token", 10.0),
        after: ("sim_ms_per_token", 10.0),
        limits: [3; 4],
    };
    let trial = Trial::start(&FEW).await;
    assert!(trial.learned().await > 6, "it does not begin with what it must learn");
    eventually("learned", Duration::from_secs(20), || async { trial.learned().await <= 5 }).await;
    // Enough to keep all slots busy, and hardly more.
    let (throughput, waiting) = trial.watch(Duration::from_secs(4)).await;
    assert!(waiting < 3.0, "{waiting} wait in the engine");
    assert!(throughput > 3.0 * 100.0 * 0.7, "{throughput} tokens/s of 300");
}
