//! A configuration file that is edited as badly as files are, while clients keep the gateway busy.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, eventually, rounds};

/// The weight that only files say which must not be applied.
const POISON: u64 = 666;

const CLIENTS: usize = 4;

fn resources(upstream: &str, weight: u64) -> String {
    format!(
        "tenants:\n  - name: acme\n    weight: {weight}\n    keys: [ {{ name: prod, secret: {} }} ]\nmodels:\n  - model_name: llama\n    api_base: \
         \"{upstream}\"\n",
        secret()
    )
}

fn secret() -> String {
    format!("sk_{}", "5".repeat(64))
}

async fn weight(gateway: &Gateway) -> Value {
    gateway.get("tenants?name=acme").await[0]["weight"].clone()
}

/// The ways in which a file is written. A good one is seen by whoever watches it; a bad one must not be.
#[derive(Debug, Clone, Copy)]
enum Way {
    InPlace,
    Renamed,
    Swapped,
}

fn write(gateway: &Gateway, way: Way, round: u64, text: &str) {
    let file = gateway.file();
    match way {
        Way::InPlace => fs::write(&file, text).unwrap(),
        Way::Renamed => {
            let new = file.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &file).unwrap();
        }
        // As Kubernetes does it: a folder of its own, and a link that is replaced.
        Way::Swapped => {
            let folder = file.with_extension(format!("{round}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("obleth.yaml"), text).unwrap();
            let link = file.with_extension("link");
            symlink(folder.join("obleth.yaml"), &link).unwrap();
            fs::rename(&link, &file).unwrap();
        }
    }
}

/// What is wrong with a file whose beginning looks good.
fn spoiled(round: u64, good: &str) -> String {
    match round % 5 {
        0 => format!("{good}groups: [\n"),
        1 => good[..good.len() - 20].to_owned(),
        2 => format!("{good}tenants: []\n"),
        3 => format!("{good}capacity: {{ max_in_flight: many }}\n"),
        _ => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_good_broken_half_written_and_swapped_fail_no_request_and_only_the_good_are_applied() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Arc::new(Gateway::start_configured(&resources(&upstream.url(), 1)));
    let head = fs::read_to_string(gateway.file())
        .unwrap()
        .replace(&resources(&upstream.url(), 1), "");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (gateway, stop, asked) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&asked));
        clients.spawn(async move {
            let body = json!({ "model": "llama", "messages": [{ "role": "user", "content": "hello" }] });
            while !stop.load(Ordering::Relaxed) {
                let answer = gateway.post("/v1/chat/completions", &secret(), &body).send().await.unwrap();
                let status = answer.status();
                let text = answer.text().await.unwrap();
                assert_eq!(status, 200, "{text}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut in_force = 1;
    for round in 0..rounds("OBLETH_ROUNDS", 20) {
        let way = [Way::InPlace, Way::Renamed, Way::Swapped][usize::try_from(round % 3).unwrap()];
        if round % 2 == 1 {
            let poison = head.clone() + &resources(&upstream.url(), POISON);
            write(&gateway, way, round, &spoiled(round / 2, &poison));
            // Read now and with every error, whether or not the watch has seen it.
            let (code, problem) = gateway.answer(Method::POST, "config/reload").await;
            assert_eq!(
                (code, &problem["code"]),
                (422, &json!("invalid_config")),
                "round {round}, {way:?}: {problem}"
            );
            assert_eq!(weight(&gateway).await, in_force, "round {round}, {way:?}");
            continue;
        }
        let next = if in_force == 2 { 3 } else { 2 };
        write(&gateway, way, round, &(head.clone() + &resources(&upstream.url(), next)));
        if round % 10 != 0 {
            // One in five is left to the watch.
            gateway.hang_up();
        }
        eventually(&format!("round {round}, {way:?}"), Duration::from_secs(20), || async {
            weight(&gateway).await == next
        })
        .await;
        in_force = next;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no request failed");
    }
    println!("{} requests", asked.load(Ordering::Relaxed));
    assert!(asked.load(Ordering::Relaxed) > 0);
    let poisoned = gateway.list("audit?entity_type=tenant").await;
    let poisoned: Vec<&Value> = poisoned
        .iter()
        .filter(|row| row["detail"].to_string().contains(&POISON.to_string()))
        .collect();
    assert!(poisoned.is_empty(), "{poisoned:?}");
}
