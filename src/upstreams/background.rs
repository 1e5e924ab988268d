//! The slow work, on a thread of its own with a runtime of its own: resolving, checking, scraping, reading certificates.
//!
//! The thread sleeps until something is due, starts what is due as tasks, and lets time pass for the rules. It holds no
//! strong reference between two rounds: dropping the last [`Upstreams`] ends it.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pingora::connectors::http::Connector;
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use super::endpoint::{Backend, Endpoint, Place};
use super::fetch::{self, Failure};
use super::pool::{Inner, Pool};
use super::probe::{self, Ask};
use super::resolver::Resolver;
use super::signals::{self, Signals};
use super::{Upstreams, tls};
use crate::catalog::Engine;

/// Time passes for the rules this often.
const TICK: Duration = Duration::from_millis(250);

/// What the tasks share.
struct Tools {
    resolver: Arc<dyn Resolver>,
    lookups: Semaphore,
    connector: Connector,
    asks: Semaphore,
}

/// A piece of work that is due.
enum Job {
    Resolve(Arc<Endpoint>),
    ReadTrust(Arc<Endpoint>),
    Check(Arc<Endpoint>, Arc<Backend>),
    Scrape(Arc<Endpoint>, Arc<Backend>, Engine),
}

/// Starts the thread.
///
/// # Errors
/// When the system gives no thread or no runtime.
pub(super) fn start(upstreams: &Arc<Upstreams>, resolver: Arc<dyn Resolver>) -> std::io::Result<()> {
    let settings = &upstreams.settings;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Lookups are nearly the only blocking work. One that hangs holds its thread, so there are a few more than may run.
        .max_blocking_threads(settings.dns.lookups_max.max(1) * 2)
        .build()?;
    let tools = Tools {
        resolver,
        lookups: Semaphore::new(settings.dns.lookups_max.max(1)),
        connector: Connector::new(None),
        asks: Semaphore::new(settings.probe.at_once.max(1)),
    };
    let nudge = Arc::clone(&upstreams.nudge);
    let upstreams = Arc::downgrade(upstreams);
    std::thread::Builder::new().name("upstreams".to_owned()).spawn(move || {
        runtime.block_on(run(upstreams, &nudge, &Arc::new(tools)));
        runtime.shutdown_background();
    })?;
    Ok(())
}

async fn run(upstreams: Weak<Upstreams>, nudge: &Notify, tools: &Arc<Tools>) {
    loop {
        {
            let Some(upstreams) = upstreams.upgrade() else { return };
            let now = Instant::now();
            upstreams.tick(now);
            for pool in upstreams.pools.load().values() {
                for job in pool.look(|inner| due(inner, now)) {
                    tokio::spawn(work(Arc::clone(pool), job, Arc::clone(tools)));
                }
            }
        }
        // Waking for nothing is harmless, waking late is not.
        let _woken = tokio::time::timeout(TICK, nudge.notified()).await;
    }
}

/// What of a pool is to be started now; it is marked as running.
fn due(inner: &mut Inner, now: Instant) -> Vec<Job> {
    let mut jobs = Vec::new();
    for site in inner.sites.iter_mut().filter(|site| site.barred.is_none()) {
        let endpoint = &site.endpoint;
        if matches!(endpoint.place, Place::Name(..)) && site.names.ask.start(now) {
            jobs.push(Job::Resolve(Arc::clone(endpoint)));
        }
        if endpoint.needs_files() && site.trust.start(now) {
            jobs.push(Job::ReadTrust(Arc::clone(endpoint)));
        }
        if !endpoint.trusted() {
            continue;
        }
        for entry in &mut site.entries {
            if entry.check.start(now) {
                jobs.push(Job::Check(Arc::clone(endpoint), Arc::clone(&entry.backend)));
            }
            if let Some(engine) = endpoint.plan.engine.filter(|engine| signals::has_metrics(*engine))
                && entry.health.usable()
                && entry.scrape.start(now)
            {
                jobs.push(Job::Scrape(Arc::clone(endpoint), Arc::clone(&entry.backend), engine));
            }
        }
    }
    jobs
}

async fn work(pool: Arc<Pool>, job: Job, tools: Arc<Tools>) {
    match job {
        Job::Resolve(endpoint) => {
            let answer = resolve(&pool, &endpoint, &tools).await;
            if let Err(error) = &answer {
                warn!(upstream = %pool.name, endpoint = %endpoint.label, %error, "name not resolved");
            }
            let now = Instant::now();
            pool.change(now, |inner| inner.resolved(&endpoint, answer, now, &pool.settings));
            // New addresses are checked at once.
            pool.nudge.notify_one();
        }
        Job::ReadTrust(endpoint) => {
            read_trust(&pool, &endpoint).await;
            pool.nudge.notify_one();
        }
        Job::Check(endpoint, backend) => {
            let verdict = check(&pool, &endpoint, &backend, &tools).await;
            pool.checked(&backend, verdict, Instant::now());
        }
        Job::Scrape(endpoint, backend, engine) => {
            let answer = scrape(&pool, &endpoint, backend.addr, engine, &tools).await;
            pool.scraped(&backend, answer, Instant::now());
        }
    }
}

async fn resolve(pool: &Pool, endpoint: &Endpoint, tools: &Tools) -> Result<Vec<SocketAddr>, Arc<str>> {
    let Place::Name(name, port) = &endpoint.place else {
        return Err("not a name".into());
    };
    let lookup = async {
        let _permit = tools.lookups.acquire().await.map_err(|_| "shutting down".to_owned())?;
        tools
            .resolver
            .resolve(name, *port)
            .await
            .map_err(|error| format!("name not resolved: {error}"))
    };
    match tokio::time::timeout(pool.settings.dns.timeout, lookup).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err("name not resolved in time".into()),
    }
}

/// Reads an endpoint's certificates. What was read before stays in force while the files cannot be read.
async fn read_trust(pool: &Pool, endpoint: &Arc<Endpoint>) {
    let files = endpoint.plan.files.clone();
    let read = tokio::task::spawn_blocking(move || tls::read(&files).map_err(|error| Arc::from(error.to_string()))).await;
    let read = read.unwrap_or_else(|_| Err("certificates: the reader failed".into()));
    if let Err(error) = &read {
        warn!(upstream = %pool.name, endpoint = %endpoint.label, %error, "certificates not read");
    }
    let now = Instant::now();
    pool.change(now, |inner| {
        let Some(site) = inner.site(endpoint) else { return };
        site.trust.done(now + pool.settings.certificates_refresh);
        site.trust_error = match read {
            Ok(trust) => {
                let in_force = endpoint.material.read.load();
                if in_force.as_ref().is_none_or(|in_force| in_force.generation != trust.generation) {
                    endpoint.material.read.store(Some(Arc::new(trust)));
                }
                None
            }
            Err(error) => Some(error),
        };
    });
}

/// Checks an address. `None` when the check says nothing: it was late, but requests were answered meanwhile. A server that
/// is too busy for its health route is not a dead one, and taking it out would break the next.
async fn check(pool: &Pool, endpoint: &Endpoint, backend: &Backend, tools: &Tools) -> Option<Result<(), Arc<str>>> {
    let _permit = tools.asks.acquire().await.ok()?;
    let heads = backend.heads.load(Ordering::Relaxed);
    let ask = async {
        match (probe::ask(endpoint.plan.engine), endpoint.plan.engine) {
            (Ask::Get(path), Some(engine)) => {
                let answer = fetch::get(&tools.connector, endpoint, backend.addr, path, 0).await;
                let answer = answer.map_err(|failure| Arc::from(failure.to_string()))?;
                probe::judge(engine, answer.status).map_err(|words| Arc::from(&*words))
            }
            (Ask::Connect | Ask::Get(_), _) => {
                let connected = fetch::connect(&tools.connector, endpoint, backend.addr).await;
                connected.map_err(|failure| Arc::from(failure.to_string()))
            }
        }
    };
    match tokio::time::timeout(pool.settings.probe.timeout, ask).await {
        Ok(verdict) => Some(verdict),
        Err(_) if backend.heads.load(Ordering::Relaxed) != heads => None,
        Err(_) => Some(Err("health check timed out".into())),
    }
}

/// Reads an address's metrics page.
async fn scrape(pool: &Pool, endpoint: &Endpoint, addr: SocketAddr, engine: Engine, tools: &Tools) -> Result<Option<Signals>, ()> {
    let _permit = tools.asks.acquire().await.map_err(|_| ())?;
    let rules = &pool.settings.scrape;
    let ask = fetch::get(&tools.connector, endpoint, addr, "/metrics", rules.page_max);
    match tokio::time::timeout(rules.timeout, ask).await {
        Ok(Ok(answer)) if answer.status == 200 => {
            let page = String::from_utf8_lossy(&answer.body);
            Ok(signals::read(engine, &page))
        }
        // Not switched on, not allowed, or no metrics page at all.
        Ok(Ok(answer)) if answer.status < 500 || answer.status == 501 => Ok(None),
        Ok(Err(Failure::TooLong)) => Ok(None),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(()),
    }
}
