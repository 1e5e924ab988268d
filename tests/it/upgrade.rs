//! SIGQUIT: the running process starts the program that stands under its name, hands everything over to it, and finishes what it
//! has. Clients here keep their connections and never ask twice, so that nothing is hidden.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Gateway, Upstream, eventually, rounds};

const LONG: Duration = Duration::from_secs(120);

/// The processes of a gateway: those that come after the first are nobody's children.
struct Lineage {
    store: String,
    seen: Mutex<Vec<Pid>>,
}

impl Lineage {
    fn of(gateway: &Gateway) -> Self {
        Self {
            store: gateway.store().to_str().unwrap().to_owned(),
            seen: Mutex::default(),
        }
    }

    /// Who has the store, as its lock says.
    fn holder(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(format!("{}.lock", self.store)).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let mut seen = self.seen.lock();
        if !seen.contains(&pid) {
            seen.push(pid);
        }
        Some(pid)
    }

    /// Whether that process runs, and is one of this gateway's.
    fn runs(&self, pid: Pid) -> bool {
        let of = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", pid.as_raw_nonzero())).unwrap_or_default();
        let dead = of("stat")
            .rsplit_once(')')
            .is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
        !dead && of("cmdline").contains(&self.store)
    }

    /// Asks whoever has the store to hand over, until another has it and serves. Returns who did.
    async fn upgrade(&self, gateway: &Gateway) -> Pid {
        let before = self.holder().unwrap();
        eventually("another process has the store", LONG, || async {
            // Asked again if the process before was still there: one that is at it refuses.
            let _ = kill_process(before, Signal::QUIT);
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(3) {
                if self.holder().is_some_and(|holder| holder != before) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            false
        })
        .await;
        gateway.stats().await;
        before
    }

    async fn gone(&self, pid: Pid) {
        eventually("the process before has ended", LONG, || async { !self.runs(pid) }).await;
    }
}

impl Drop for Lineage {
    fn drop(&mut self) {
        self.holder();
        for pid in self.seen.lock().iter().filter(|pid| self.runs(**pid)) {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

fn chat(model: &str, stream: bool) -> Value {
    json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": "go" }] })
}

/// A client that keeps its connection as long as the gateway does, and never asks twice.
struct Patron {
    gateway: Arc<Gateway>,
    key: String,
    connection: Option<TcpStream>,
}

/// What came back.
struct Answer {
    status: u16,
    closes: bool,
    text: String,
}

impl Patron {
    fn new(gateway: &Arc<Gateway>, key: &str) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            key: key.to_owned(),
            connection: None,
        }
    }

    async fn ask(&mut self, body: &Value) -> std::io::Result<Answer> {
        let stream = match &mut self.connection {
            Some(stream) => stream,
            none => none.insert(TcpStream::connect(self.gateway.data).await?),
        };
        let body = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: \
             {}\r\n\r\n",
            self.key,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
        let answer = read(stream).await?;
        if answer.closes {
            self.connection = None;
        }
        Ok(answer)
    }
}

/// Reads one answer to its end, which its head tells.
async fn read(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let whole = String::from_utf8_lossy(&text);
        if let Some((head, body)) = whole.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let is_whole = length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length| body.len() >= length);
            if is_whole {
                return Ok(Answer {
                    status: head[9..12].parse().unwrap(),
                    closes: head.contains("connection: close"),
                    text: body.to_owned(),
                });
            }
        }
        match stream.read(&mut piece).await? {
            0 => return Err(std::io::Error::other(format!("cut after {whole:?}"))),
            count => text.extend_from_slice(&piece[..count]),
        }
    }
}

async fn model(gateway: &Gateway, name: &str, upstream: &Upstream, cap: u32) {
    let body = json!({ "model_name": name, "upstream_model": "llama", "api_base": upstream.url(), "engine": "vllm", "max_in_flight": cap });
    gateway.create("models", body).await;
}

async fn rows(gateway: &Gateway) -> u64 {
    let usage = gateway.get("usage?group_by=tenant").await;
    usage.as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_request_fails_none_is_counted_twice_and_the_upstream_is_never_over_its_capacity() {
    const CAP: u32 = 6;
    let upstream = Upstream::start(&["--output-tokens", "10", "--ttft-ms", "2", "--ms-per-token", "4"]).await;
    let gateway = Arc::new(Gateway::start().await);
    let lineage = Lineage::of(&gateway);
    model(&gateway, "llama", &upstream, CAP).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..12 {
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        let mut patron = Patron::new(&gateway, &key);
        clients.spawn(async move {
            let (streams, keeps) = (number % 2 == 0, number % 3 > 0);
            while !stop.load(Ordering::Relaxed) {
                let answer = patron.ask(&chat("llama", streams)).await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text);
                assert!(!streams || answer.text.contains("[DONE]"), "{}", answer.text);
                asked.fetch_add(1, Ordering::Relaxed);
                if !keeps {
                    patron.connection = None;
                }
            }
        });
    }
    let some_more = |count: u64| {
        let (asked, from) = (&asked, asked.load(Ordering::Relaxed));
        eventually("clients are answered", LONG, move || async move {
            asked.load(Ordering::Relaxed) >= from + count
        })
    };
    for round in 0..rounds("OBLETH_ROUNDS", 3) {
        some_more(30).await;
        let before = lineage.upgrade(&gateway).await;
        some_more(10).await;
        lineage.gone(before).await;
        assert!(!clients.is_empty(), "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no request failed");
    }
    let asked = asked.load(Ordering::Relaxed);
    let seen = upstream.stats().await;
    println!("{asked} requests over {} processes: {seen}", lineage.seen.lock().len());
    assert_eq!(
        (&seen["requests"], &seen["completed"]),
        (&json!(asked), &json!(asked)),
        "each ran once"
    );
    assert!(seen["max_running"].as_u64().unwrap() <= u64::from(CAP), "{seen}");
    gateway.idle().await;
    eventually("a row for each request", LONG, || async { rows(&gateway).await == asked }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_who_waits_and_who_is_silent_are_served_by_the_process_they_came_to_under_the_next_one_s_slots() {
    let upstream = Upstream::start(&["--output-tokens", "300", "--ms-per-token", "20"]).await;
    let quick = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Arc::new(Gateway::start().await);
    let lineage = Lineage::of(&gateway);
    model(&gateway, "slow", &upstream, 1).await;
    model(&gateway, "quick", &quick, 1).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let mut silent = Patron::new(&gateway, &key);
    assert!(!silent.ask(&chat("quick", false)).await.unwrap().closes);
    let mut running = Vec::new();
    for number in 1..=2 {
        let mut patron = Patron::new(&gateway, &key);
        running.push(tokio::spawn(async move { patron.ask(&chat("slow", true)).await }));
        eventually("one runs, then one waits", LONG, || async {
            let stats = gateway.stats().await;
            stats["in_flight"].as_u64().unwrap() + stats["queued"].as_u64().unwrap() == number
        })
        .await;
    }
    let before = lineage.upgrade(&gateway).await;
    assert_eq!(gateway.stats().await["in_flight"], 1, "the stream is known here");
    // It came before, so its answer comes from there, and is the last on this connection.
    let last = silent.ask(&chat("quick", false)).await.unwrap();
    assert_eq!((last.status, last.closes), (200, true), "{}", last.text);
    assert!(
        !silent.ask(&chat("quick", false)).await.unwrap().closes,
        "and here is the next process"
    );
    for patron in running {
        let answer = patron.await.unwrap().unwrap();
        assert!(answer.text.contains("[DONE]"), "{}", answer.text);
        assert!(answer.closes || lineage.runs(before), "who is done leaves");
    }
    assert_eq!(upstream.stats().await["max_running"], 1, "never two at once");
    gateway.idle().await;
    lineage.gone(before).await;
    eventually("five rows", LONG, || async { rows(&gateway).await == 5 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_and_a_rate_are_what_they_were() {
    let slow = Upstream::start(&["--output-tokens", "100", "--ms-per-token", "40"]).await;
    let quick = Upstream::start(&["--output-tokens", "9"]).await;
    let gateway = Arc::new(Gateway::start().await);
    let lineage = Lineage::of(&gateway);
    model(&gateway, "slow", &slow, 9).await;
    model(&gateway, "quick", &quick, 9).await;
    let tenant = gateway.tenant(json!({ "name": "acme" })).await;
    // A request of the quick one uses ten tokens, the stream a hundred and one.
    let key = json!({ "name": "budget", "budget_tokens": 301, "budget_period": "lifetime" });
    let budget = gateway.key(&tenant, key).await;
    let rate = gateway.key(&tenant, json!({ "name": "rate", "requests_per_minute": 30 })).await;
    let began = Instant::now();
    let mut early = Patron::new(&gateway, &rate);
    for _ in 0..25 {
        let answer = early.ask(&chat("quick", false)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    drop(early);
    let mut patron = Patron::new(&gateway, &budget);
    assert_eq!(patron.ask(&chat("quick", false)).await.unwrap().status, 200);
    let stream = {
        let mut patron = Patron::new(&gateway, &budget);
        tokio::spawn(async move { patron.ask(&chat("slow", true)).await })
    };
    eventually("the stream runs", LONG, || async { slow.stats().await["requests"] == 1 }).await;
    let before = lineage.upgrade(&gateway).await;

    let mut passed = 1;
    while patron.ask(&chat("quick", false)).await.unwrap().status == 200 {
        passed += 1;
    }
    assert!(passed <= 20, "{passed} requests of 10 tokens, beside one of 101, of 301 tokens");
    assert!(stream.await.unwrap().unwrap().text.contains("[DONE]"));
    // Its end is told to the next process a moment after its client has it.
    let told = Instant::now();
    while passed < 20 {
        assert!(told.elapsed() < LONG, "{passed} of 20");
        passed += u32::from(patron.ask(&chat("quick", false)).await.unwrap().status == 200);
    }
    for _ in 0..3 {
        assert_ne!(patron.ask(&chat("quick", false)).await.unwrap().status, 200);
    }

    let mut patron = Patron::new(&gateway, &rate);
    let mut passed = 25;
    while patron.ask(&chat("quick", false)).await.unwrap().status == 200 {
        passed += 1;
    }
    let flowed_in = began.elapsed().as_secs_f64() * 0.5;
    assert!(
        passed >= 30 && f64::from(passed) <= 30.0 + flowed_in + 1.0,
        "{passed} of 30 a minute, {flowed_in} more since"
    );
    lineage.gone(before).await;
}

async fn house(program: &Path, env: &[(&str, &str)]) -> (Arc<Gateway>, Upstream, Patron) {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Arc::new(Gateway::start_program(program, env));
    model(&gateway, "llama", &upstream, 9).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let patron = Patron::new(&gateway, &key);
    (gateway, upstream, patron)
}

async fn logged(gateway: &Gateway, what: &str, times: usize) {
    eventually(what, LONG, || async { gateway.log_text().matches(what).count() >= times }).await;
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_obleth"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_process_that_dies_with_the_store_in_hand_changes_nothing() {
    let (gateway, _upstream, mut patron) = house(program(), &[("FAILPOINTS", "upgrade::open=panic")]).await;
    let lineage = Lineage::of(&gateway);
    let mut asked = 0;
    for times in 1..=2 {
        asked += 1;
        assert_eq!(patron.ask(&chat("llama", false)).await.unwrap().status, 200);
        kill_process(gateway.pid(), Signal::QUIT).unwrap();
        // Asked on while the store is away, too.
        while gateway.log_text().matches("upgrade failed").count() < times {
            asked += 1;
            assert_eq!(patron.ask(&chat("llama", true)).await.unwrap().status, 200);
        }
        logged(&gateway, "this process serves as before", times).await;
        gateway.tenant(json!({ "name": format!("new-{times}") })).await;
        assert_eq!(lineage.holder(), Some(gateway.pid()));
    }
    let answer = patron.ask(&chat("llama", false)).await.unwrap();
    assert_eq!((answer.status, answer.closes), (200, false));
    gateway.idle().await;
    eventually("a row for each", LONG, || async { rows(&gateway).await == asked + 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_again_it_refuses_and_told_to_stop_it_stops() {
    let (gateway, _upstream, mut patron) = house(program(), &[("FAILPOINTS", "upgrade::ready=sleep(600000)")]).await;
    eventually("it refuses to begin twice", LONG, || async {
        kill_process(gateway.pid(), Signal::QUIT).unwrap();
        gateway.log_text().contains("one is under way")
    })
    .await;
    assert_eq!(patron.ask(&chat("llama", false)).await.unwrap().status, 200);
    drop(patron);
    gateway.terminate();
    let mut gateway = Arc::into_inner(gateway).unwrap();
    assert!(gateway.ended(LONG).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_the_one_that_stands_under_its_name_by_then() {
    let scratch = tempfile::tempdir().unwrap();
    let name = scratch.path().join("obleth");
    std::os::unix::fs::symlink(program(), &name).unwrap();
    let (gateway, _upstream, mut patron) = house(&name, &[]).await;
    let lineage = Lineage::of(&gateway);
    std::fs::remove_file(&name).unwrap();
    kill_process(gateway.pid(), Signal::QUIT).unwrap();
    logged(&gateway, "cannot start the program", 1).await;
    assert_eq!(patron.ask(&chat("llama", false)).await.unwrap().status, 200);

    // One that is no gateway.
    std::os::unix::fs::symlink("/bin/true", &name).unwrap();
    kill_process(gateway.pid(), Signal::QUIT).unwrap();
    logged(&gateway, "the new process cannot serve", 1).await;
    assert_eq!(patron.ask(&chat("llama", false)).await.unwrap().status, 200);

    let next = scratch.path().join("next");
    std::fs::copy(program(), &next).unwrap();
    std::fs::remove_file(&name).unwrap();
    std::fs::rename(&next, &name).unwrap();
    let before = lineage.upgrade(&gateway).await;
    let holder = lineage.holder().unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{}/exe", holder.as_raw_nonzero())).unwrap(), name);
    assert_eq!(patron.ask(&chat("llama", false)).await.unwrap().status, 200);
    lineage.gone(before).await;
    eventually("three rows", LONG, || async { rows(&gateway).await == 3 }).await;
}
