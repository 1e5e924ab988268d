//! Placement that looks at what is asked: `session` and `prefix` against engines that keep a prefix cache, beside one engine
//! that has the caches of all.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, rounds, seed};

const ENGINES: usize = 4;
/// A multiple of the engines by four: a quarter above each one's share is a whole number.
const AT_ONCE: usize = 64;
const CONVERSATIONS: usize = 160;
/// Of each engine: too little for all conversations, and more than its part of them.
const CACHE_TOKENS: u64 = 160_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| format!("{:012x} ", self.next() >> 16)).collect()
    }
}

/// Conversations that grow turn by turn under a few system prompts, end, and make room for others.
struct Conversations {
    open: Vec<Vec<Value>>,
    /// Those that wait for an answer, and so have no next turn yet.
    busy: Vec<bool>,
    random: Random,
}

impl Conversations {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let open = (0..CONVERSATIONS).map(|_| fresh(&mut random)).collect();
        Self {
            open,
            busy: vec![false; CONVERSATIONS],
            random,
        }
    }

    /// The next request, and whose it is.
    fn next(&mut self) -> (usize, Value) {
        let free: Vec<usize> = (0..CONVERSATIONS).filter(|at| !self.busy[*at]).collect();
        let at = free[self.random.below(free.len())];
        if self.random.below(12) == 0 {
            self.open[at] = fresh(&mut self.random);
        }
        let words = 20 + self.random.below(60);
        let turn = json!({ "role": "user", "content": self.random.text(words) });
        self.open[at].push(turn);
        self.busy[at] = true;
        (at, json!({ "model": "llama", "messages": self.open[at] }))
    }

    fn answered(&mut self, at: usize) {
        let content = self.random.text(30);
        self.open[at].push(json!({ "role": "assistant", "content": content }));
        self.busy[at] = false;
    }
}

fn fresh(random: &mut Random) -> Vec<Value> {
    let system = random.below(6) as u64;
    vec![json!({ "role": "system", "content": Random(system).text(150) })]
}

/// Prompt tokens found cached, of all.
fn hit_share(stats: &[Value]) -> f64 {
    let sum = |figure: &str| stats.iter().map(|stats| stats[figure].as_f64().unwrap()).sum::<f64>();
    sum("cached_tokens") / sum("prompt_tokens")
}

struct Placed {
    found: f64,
    /// What one engine with all caches finds in the same prompts: no placement finds more.
    possible: f64,
    /// The busiest engine's requests by the mean.
    fullest: f64,
}

async fn place(policy: &str, requests: u64, seed: u64) -> Placed {
    let flags = |cache: u64| ["--prefix-cache-tokens".to_owned(), cache.to_string()];
    let mut engines = Vec::new();
    for _ in 0..ENGINES {
        let [flag, cache] = flags(CACHE_TOKENS);
        engines.push(Upstream::start(&[&flag, &cache, "--ttft-ms", "60", "--ms-per-token", "4"]).await);
    }
    let [flag, cache] = flags(CACHE_TOKENS * ENGINES as u64);
    let oracle = Upstream::start(&[&flag, &cache, "--slots", "256"]).await;
    let gateway = Arc::new(Gateway::start().await);
    gateway.put("capacity", json!({ "max_in_flight": 1000 })).await;
    let endpoints: Vec<Value> = engines.iter().map(|engine| json!({ "url": engine.url() })).collect();
    let model = json!({ "model_name": "llama", "engine": "vllm", "endpoints": endpoints, "load_balancing": policy });
    gateway.create("models", model).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let client = reqwest::Client::new();
    let mut conversations = Conversations::new(seed);
    let mut running = JoinSet::new();
    for _ in 0..requests {
        if running.len() == AT_ONCE {
            conversations.answered(running.join_next().await.unwrap().unwrap());
        }
        let (at, body) = conversations.next();
        let request = gateway.post("/v1/chat/completions", &key, &body);
        let beside = client.post(format!("{}/v1/chat/completions", oracle.url())).json(&body);
        running.spawn(async move {
            assert_eq!(beside.send().await.unwrap().status(), 200);
            assert_eq!(request.send().await.unwrap().status(), 200);
            at
        });
    }
    running.join_all().await;
    let mut stats = Vec::new();
    for engine in &engines {
        stats.push(engine.stats().await);
    }
    let loads: Vec<f64> = stats.iter().map(|stats| stats["completed"].as_f64().unwrap()).collect();
    let mean = loads.iter().sum::<f64>() / ENGINES as f64;
    Placed {
        found: hit_share(&stats),
        possible: hit_share(&[oracle.stats().await]),
        fullest: loads.iter().copied().fold(0.0, f64::max) / mean,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_and_prefix_find_nine_tenths_of_what_an_oracle_finds_and_overload_nobody() {
    let (requests, seed) = (rounds("OBLETH_REQUESTS", 1_500), seed());
    let by_load = place("least_request", requests, seed).await;
    println!("least_request: {:.3} of {:.3}", by_load.found, by_load.possible);
    assert!(
        by_load.found < by_load.possible * 0.8,
        "too easy: {} of {}",
        by_load.found,
        by_load.possible
    );
    for policy in ["session", "prefix"] {
        let Placed { found, possible, fullest } = place(policy, requests, seed).await;
        println!(
            "{policy}: {found:.3} of {possible:.3} = {:.3}; fullest {fullest:.3} of the mean",
            found / possible
        );
        assert!(found >= possible * 0.9, "{policy}: {found} of {possible}");
        assert!(fullest <= 1.25, "{policy}: one engine serves {fullest} of the mean");
    }
}
