//! `obleth sim-upstream`: an inference server without a model.
//!
//! It speaks what vLLM speaks, at a pace that is set and with faults that are asked for, and it keeps exact books: what
//! arrived, what ran at once, which tokens went out, who left. Demo, tests and benches measure the gateway against it, so
//! it knows nothing of the gateway.

mod ask;
mod body;
mod dialect;
mod fault;
mod job;
mod prefix_cache;
mod routes;
mod slots;
mod small;
mod tally;
mod wire;

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use ask::Ask;
use fault::{Fault, Unreadable};
use job::Pace;
use prefix_cache::{PrefixCache, Prompt};
use slots::Slots;
use tally::Tally;
use wire::{Lever, Wire};

/// The simulated KV cache, in tokens per slot.
const KV_TOKENS_PER_SLOT: u64 = 4096;
/// Different faults with `times=` that are remembered; beyond, all are forgotten, which only tests could notice.
const FAULT_USES_MAX: usize = 4096;

/// A simulated inference server: OpenAI's and Anthropic's routes, vLLM's metrics, and faults on request.
///
/// Prints `listening on http://ADDRESS` as its first line. GET /sim/stats tells what it did, GET /sim/requests the latest
/// requests. A request may set `sim_output_tokens`, `sim_ttft_ms`, `sim_ms_per_token`, `sim_ms_per_running`,
/// `sim_cached_tokens` and `sim_fault` in its body (or the header `x-sim-fault`).
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A model it serves (repeatable); `*` serves any
    #[arg(long = "model", value_name = "NAME", default_value = "llama")]
    models: Vec<String>,
    /// How many requests generate at once; more wait their turn
    #[arg(long, default_value_t = 256, value_name = "N")]
    slots: u32,
    /// From getting a slot to the first token, in milliseconds
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    ttft_ms: f64,
    /// From token to token, in milliseconds
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    ms_per_token: f64,
    /// A token takes at least this long times the requests that generate, in milliseconds
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    ms_per_running: f64,
    /// How many tokens of input and output its key-value cache holds at once; more wait their turn [default: 4096 per slot,
    /// and nobody waits for them]
    #[arg(long, value_name = "N")]
    kv_tokens: Option<u32>,
    /// How many tokens of prompts it remembers: found again they are read at once and reported as cached [default: none]
    #[arg(long, value_name = "N")]
    prefix_cache_tokens: Option<u64>,
    /// Input tokens read per second before the first output token [default: at once]
    #[arg(long, value_name = "N")]
    prefill_tokens_per_sec: Option<f64>,
    /// Tokens of an answer; a request's `max_tokens` can only shorten it
    #[arg(long, default_value_t = 16, value_name = "N")]
    output_tokens: u64,
    /// What goes wrong with every request, e.g. `delay=200,status=503`, `stall=3`, `cut=5`, `reset`, `garbage`, `redirect`,
    /// `gzip`, `no-usage`, `usage-twice`; `times=N` ends it
    #[arg(long, value_name = "FAULT")]
    fault: Option<String>,
    /// The only bearer token it accepts [default: any or none]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// How many requests /sim/requests remembers
    #[arg(long, default_value_t = 1000, value_name = "N")]
    log_length: usize,
    /// Worker threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
}

/// One running simulation.
#[derive(Debug)]
struct Server {
    models: Vec<String>,
    output_tokens: u64,
    pace: Pace,
    kv_tokens: u64,
    fault: Option<String>,
    api_key: Option<String>,
    slots: Slots,
    prefix_cache: Option<Mutex<PrefixCache>>,
    tally: Arc<Tally>,
    /// How often each fault with `times=` occurred, by its spelling.
    fault_uses: Mutex<HashMap<String, u32>>,
}

impl Server {
    fn new(flags: &Flags) -> anyhow::Result<Self> {
        if let Some(fault) = &flags.fault {
            fault.parse::<Fault>()?;
        }
        anyhow::ensure!(flags.slots > 0, "--slots must be at least 1");
        anyhow::ensure!(
            flags.prefill_tokens_per_sec.is_none_or(|rate| rate > 0.0),
            "--prefill-tokens-per-sec must be above 0"
        );
        Ok(Self {
            models: flags.models.clone(),
            output_tokens: flags.output_tokens,
            pace: Pace {
                ttft: millis(flags.ttft_ms).context("--ttft-ms")?,
                per_token: millis(flags.ms_per_token).context("--ms-per-token")?,
                per_running: millis(flags.ms_per_running).context("--ms-per-running")?,
                prefill: flags.prefill_tokens_per_sec,
            },
            kv_tokens: flags.kv_tokens.map_or(u64::from(flags.slots) * KV_TOKENS_PER_SLOT, u64::from),
            fault: flags.fault.clone(),
            api_key: flags.api_key.clone(),
            slots: Slots::new(flags.slots, flags.kv_tokens),
            prefix_cache: flags.prefix_cache_tokens.map(|tokens| Mutex::new(PrefixCache::new(tokens))),
            tally: Arc::new(Tally::new(flags.log_length)),
            fault_uses: Mutex::default(),
        })
    }

    fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|served| served == model || served == "*")
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.api_key else { return true };
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let given = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()));
        given == Some(key)
    }

    /// How fast this request is served; numbers that are no duration are ignored.
    fn pace(&self, ask: &Ask) -> Pace {
        let asked = |value: Option<f64>, default| value.and_then(|value| millis(value).ok()).unwrap_or(default);
        Pace {
            ttft: asked(ask.sim_ttft_ms, self.pace.ttft),
            per_token: asked(ask.sim_ms_per_token, self.pace.per_token),
            per_running: asked(ask.sim_ms_per_running, self.pace.per_running),
            prefill: self.pace.prefill,
        }
    }

    /// Looks a body's prompt up in the prefix cache and keeps it there. `None` without a cache.
    fn read_prompt(&self, body: &[u8]) -> Option<u64> {
        let cache = self.prefix_cache.as_ref()?;
        let prompt: Prompt<'_> = serde_json::from_slice(body).ok()?;
        Some(cache.lock().read(&prompt))
    }

    /// What goes wrong with this request: what it asks for, else what the flags say, unless that happened often enough.
    fn fault(&self, asked: Option<&str>) -> Result<Fault, Unreadable> {
        let Some(text) = asked.or(self.fault.as_deref()) else {
            return Ok(Fault::default());
        };
        let fault: Fault = text.parse()?;
        let Some(times) = fault.times else { return Ok(fault) };
        let mut uses = self.fault_uses.lock();
        if uses.len() >= FAULT_USES_MAX {
            uses.clear();
        }
        let used = uses.entry(text.to_owned()).or_default();
        *used += 1;
        Ok(if *used <= times { fault } else { Fault::default() })
    }
}

fn millis(value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value / 1000.0).with_context(|| format!("{value} is no number of milliseconds"))
}

/// Serves until a signal comes.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let server = Arc::new(Server::new(flags)?);
    let mut runtime = match flags.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        more => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(more);
            builder
        }
    };
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(flags.listen)
            .await
            .with_context(|| format!("cannot listen on {}", flags.listen))?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        std::io::stdout().flush()?;
        tokio::select! {
            () = accept(&listener, &server) => Ok(()),
            stopped = super::signal::stop() => stopped,
        }
    })
}

async fn accept(listener: &TcpListener, server: &Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(server)));
            }
            // Out of descriptors: those that close will make room.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>) {
    // Without it a small event may wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let lever = Lever::default();
    let wire = Wire::new(stream, lever.clone());
    let service = service_fn(move |request| routes::answer(Arc::clone(&server), lever.clone(), request));
    // It ends with an error whenever a client leaves or a fault is asked for; both are counted where they happen.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(wire), service).await;
}

#[cfg(test)]
mod tests;
