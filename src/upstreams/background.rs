//! The slow work, on a thread of its own with a runtime of its own: resolving, checking, scraping, reading certificates.
//!
//! The thread sleeps until something is due, starts what is due as tasks, and lets time pass for the rules. It holds no
//! strong reference between two rounds: dropping the last [`Upstreams`] ends it.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use super::Upstreams;
use super::endpoint::{Endpoint, Place};
use super::pool::Pool;
use super::resolver::Resolver;

/// Time passes for the rules this often.
const TICK: Duration = Duration::from_millis(250);

/// What the tasks share.
pub(super) struct Tools {
    pub(super) resolver: Arc<dyn Resolver>,
    lookups: Semaphore,
}

/// A piece of work that is due.
enum Job {
    Resolve(Arc<Pool>, Arc<Endpoint>),
}

/// Starts the thread.
///
/// # Errors
/// When the system gives no thread or no runtime.
pub(super) fn start(upstreams: &Arc<Upstreams>, resolver: Arc<dyn Resolver>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Lookups are the only blocking work. One that hangs holds its thread, so there are a few more than may run.
        .max_blocking_threads(upstreams.settings.dns.lookups_max.max(1) * 2)
        .build()?;
    let tools = Arc::new(Tools {
        resolver,
        lookups: Semaphore::new(upstreams.settings.dns.lookups_max.max(1)),
    });
    let nudge = Arc::clone(&upstreams.nudge);
    let upstreams = Arc::downgrade(upstreams);
    std::thread::Builder::new().name("upstreams".to_owned()).spawn(move || {
        runtime.block_on(run(upstreams, &nudge, &tools));
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
            for job in due(&upstreams, now) {
                tokio::spawn(work(job, Arc::clone(tools)));
            }
        }
        // Waking for nothing is harmless, waking late is not.
        let _woken = tokio::time::timeout(TICK, nudge.notified()).await;
    }
}

fn due(upstreams: &Upstreams, now: Instant) -> Vec<Job> {
    let mut jobs = Vec::new();
    for pool in upstreams.pools.load().values() {
        pool.look(|inner| {
            for site in &mut inner.sites {
                if matches!(site.endpoint.place, Place::Name(..)) && site.barred.is_none() && site.names.ask.start(now) {
                    jobs.push(Job::Resolve(Arc::clone(pool), Arc::clone(&site.endpoint)));
                }
            }
        });
    }
    jobs
}

async fn work(job: Job, tools: Arc<Tools>) {
    match job {
        Job::Resolve(pool, endpoint) => {
            let answer = resolve(&pool, &endpoint, &tools).await;
            if let Err(error) = &answer {
                warn!(upstream = %pool.name, endpoint = %endpoint.label, %error, "name not resolved");
            }
            let now = Instant::now();
            pool.change(now, |inner| inner.resolved(&endpoint, answer, now, &pool.settings));
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
