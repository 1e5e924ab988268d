//! Inference servers: resolution, health, in-flight counts, choice.
//!
//! [`Upstreams`] follows the catalog and answers one question for the proxy: where does this attempt go
//! ([`Upstreams::choose`]). The answer, [`Chosen`], is an in-flight mark that is given back by `Drop`, and is told what
//! became of the attempt. Endpoints come, go and change while requests run; one that has left the catalog finishes what it
//! has.
//!
//! What may be slow happens elsewhere: [`Upstreams::start`] runs one thread with a runtime of its own that resolves names,
//! checks health, scrapes load and reads certificates. A choice reads a view made by it or by a change, without a lock,
//! an allocation or a clock.
//!
//! The rules are pure and take `now` as an argument: [`choice`], [`health`], [`speed`], [`signals`].

pub mod auto_capacity;
mod background;
mod capacity;
pub mod choice;
mod chosen;
mod configure;
mod elsewhere;
mod endpoint;
mod fetch;
pub mod health;
pub mod hints;
mod peer;
mod pool;
pub mod priority;
pub mod probe;
pub mod resolver;
pub mod retry_budget;
mod settings;
mod show;
pub mod signals;
mod site;
pub mod speed;
mod tls;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use choice::{Blocks, EndpointId, Hint, session_hash};
pub use chosen::{Chosen, ConnectFailure, Outcome};
pub use elsewhere::{Busy, Elsewhere};
pub use hints::session_of;
pub use priority::engine_priority_value;
pub use settings::{Dns, Probe, Scrape, Settings};
pub use show::{AddressHealth, EndpointHealth, HealthState};

use crate::catalog::{Catalog, LoadBalancing, ModelCapacity};
use crate::id::{McpServerId, ModelId};
use configure::{configure, plan_of_mcp_server, plans_of_model};
use endpoint::Plan;
use pool::Pool;

/// Who has endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// A model.
    Model(ModelId),
    /// An MCP server, which has one endpoint.
    McpServer(McpServerId),
}

impl From<&ModelId> for Owner {
    fn from(id: &ModelId) -> Self {
        Self::Model(*id)
    }
}

impl From<&McpServerId> for Owner {
    fn from(id: &McpServerId) -> Self {
        Self::McpServer(*id)
    }
}

/// Why nobody can be chosen. `Display` holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The owner is unknown here or has no endpoints.
    #[error("no endpoints")]
    NoEndpoints,
    /// Each endpoint fails its checks or cannot be used.
    #[error("all endpoints are down: {last_error}")]
    AllDown {
        /// What one of them said last.
        last_error: Arc<str>,
    },
    /// No name has been resolved. Without an error the first lookup is under way: see [`Upstreams::resolved`].
    #[error("no address of an endpoint is known{}{}", if last_error.is_some() { ": " } else { "" }, last_error.as_deref().unwrap_or_default())]
    Unresolved {
        /// Why the last lookup failed.
        last_error: Option<Arc<str>>,
    },
    /// Those that are up are at their caps: see [`Upstreams::room`].
    #[error("all endpoints are at their caps")]
    AtCapacity,
    /// The address asked for is not among those of the owner.
    #[error("the address is no endpoint any more")]
    Left,
    /// Each usable address is in `tried`.
    #[error("every usable endpoint was tried")]
    AllTried,
}

/// Who hears how many requests a model's endpoints take at once; `None` is no bound.
pub type CapacityListener = Box<dyn Fn(ModelId, Option<u32>) + Send + Sync>;

#[derive(Default)]
struct Telling {
    listener: Option<CapacityListener>,
    told: HashMap<ModelId, u32>,
}

/// All endpoints of all models and MCP servers.
pub struct Upstreams {
    settings: Arc<Settings>,
    pools: ArcSwap<HashMap<Owner, Arc<Pool>>>,
    /// The catalog last applied. Guards that one is applied at a time.
    applied: Mutex<Option<Catalog>>,
    epoch: Instant,
    /// Who is told of capacities, and what was told last. Held while telling, so that the last word is the latest.
    telling: Mutex<Telling>,
    /// Wakes the background work.
    nudge: Arc<Notify>,
}

impl Upstreams {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings: Arc::new(settings),
            pools: ArcSwap::default(),
            applied: Mutex::new(None),
            epoch: Instant::now(),
            telling: Mutex::default(),
            nudge: Arc::new(Notify::new()),
        })
    }

    /// Starts the background work: one thread that ends when the last `Arc` of this is dropped. Once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_with(Arc::new(resolver::System))
    }

    /// Starts the background work with another resolver.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_with(self: &Arc<Self>, resolver: Arc<dyn resolver::Resolver>) -> std::io::Result<()> {
        background::start(self, resolver)
    }

    /// Follows the catalog. What did not change keeps its health, marks and memory; what left drains. Endpoints given as
    /// addresses can be chosen when this returns, names as soon as they are resolved.
    pub fn apply(&self, catalog: &Catalog) {
        let mut applied = self.applied.lock();
        let same = |before: &Catalog| before.models().same(catalog.models()) && before.mcp_servers().same(catalog.mcp_servers());
        if applied.as_ref().is_some_and(same) {
            return;
        }
        let now = Instant::now();
        let before = self.pools.load();
        let mut pools = HashMap::new();
        let mut put = |owner: Owner, name: &str, policy: LoadBalancing, capacity: ModelCapacity, plans: Vec<Plan>| {
            let fresh = || Arc::new(Pool::new(name.to_owned(), Arc::clone(&self.settings), Arc::clone(&self.nudge)));
            let pool = before.get(&owner).cloned().unwrap_or_else(fresh);
            pool.change(now, |inner| {
                inner.set_policy(policy, self.settings.prefix_entries);
                inner.capacity.configure(capacity, &self.settings);
                configure(inner, plans, now, &self.settings);
            });
            pools.insert(owner, pool);
        };
        for model in catalog.models().values() {
            put(
                Owner::Model(model.id),
                &model.name,
                model.load_balancing,
                model.capacity,
                plans_of_model(model),
            );
        }
        for server in catalog.mcp_servers().values() {
            put(
                Owner::McpServer(server.id),
                &server.name,
                LoadBalancing::default(),
                ModelCapacity::Uncapped,
                vec![plan_of_mcp_server(server)],
            );
        }
        let left: Vec<Arc<Pool>> = before
            .iter()
            .filter(|(owner, _)| !pools.contains_key(owner))
            .map(|(_, pool)| Arc::clone(pool))
            .collect();
        self.pools.store(Arc::new(pools));
        for pool in left {
            // Whoever waits for room there hears that there will be none.
            pool.change(now, |inner| inner.sites.clear());
        }
        *applied = Some(catalog.clone());
        drop(applied);
        self.tell();
        self.nudge.notify_one();
    }

    /// Chooses an endpoint for one attempt and marks it as in flight there. `tried` are the addresses this request has
    /// already been to.
    ///
    /// # Errors
    /// [`Unavailable`], at once.
    pub fn choose(&self, owner: impl Into<Owner>, hint: &Hint<'_>, tried: &[EndpointId]) -> Result<Chosen, Unavailable> {
        let pools = self.pools.load();
        let pool = pools.get(&owner.into()).ok_or(Unavailable::NoEndpoints)?;
        if tried.is_empty() {
            pool.retries.deposit();
        }
        pool.choose(hint, tried, entropy())
    }

    /// Chooses a known address, for who has state there.
    ///
    /// # Errors
    /// [`Unavailable`]: [`Left`](Unavailable::Left) where the address is no longer one of the owner's.
    pub fn choose_at(&self, owner: impl Into<Owner>, addr: SocketAddr) -> Result<Chosen, Unavailable> {
        self.pool(owner.into())?.choose_at(addr)
    }

    /// Asks whether one more retry can be afforded; if so it is spent. First attempts save for it.
    #[must_use]
    pub fn may_retry(&self, owner: impl Into<Owner>) -> bool {
        self.pool(owner.into())
            .is_ok_and(|pool| pool.retries.withdraw(self.epoch.elapsed()))
    }

    /// Waits until an endpoint has an address or the first lookup has failed, at most `timeout`.
    ///
    /// # Errors
    /// [`Unavailable`] when there is still nobody to choose.
    pub async fn resolved(&self, owner: impl Into<Owner>, timeout: Duration) -> Result<(), Unavailable> {
        let pool = self.pool(owner.into())?;
        let pending = |why: &Option<Unavailable>| matches!(why, Some(Unavailable::Unresolved { last_error: None }));
        match wait(&pool, timeout, || pool.unavailable(), pending).await {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// Chooses like [`choose`](Self::choose), and waits at most `timeout` for room where all endpoints are at their caps.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn room(
        &self,
        owner: impl Into<Owner>,
        hint: &Hint<'_>,
        tried: &[EndpointId],
        timeout: Duration,
    ) -> Result<Chosen, Unavailable> {
        let pool = self.pool(owner.into())?;
        let choose = || pool.choose(hint, tried, entropy());
        wait(&pool, timeout, choose, |chosen| matches!(chosen, Err(Unavailable::AtCapacity))).await
    }

    /// How the endpoints of a model or MCP server stand, in the catalog's order.
    #[must_use]
    pub fn health(&self, owner: impl Into<Owner>) -> Vec<EndpointHealth> {
        let now = Instant::now();
        self.pool(owner.into())
            .map_or_else(|_| Vec::new(), |pool| pool.look(|inner| show::endpoints(inner, now)))
    }

    /// How many requests the owner's endpoints take at once: the tightest of the model's own cap, what was learned of it
    /// (`max_in_flight: auto`) and the sum of the endpoints' caps. `None` when nothing binds.
    #[must_use]
    pub fn cap(&self, owner: impl Into<Owner>) -> Option<u32> {
        self.pool(owner.into()).ok()?.look(|inner| inner.cap())
    }

    /// Names who is told when the [`cap`](Self::cap) of a model changes: the scheduler, so that requests wait there by fair
    /// share and not at an endpoint. It is told what holds now before this returns, and must not call back.
    pub fn on_capacity(&self, listener: CapacityListener) {
        {
            let mut telling = self.telling.lock();
            telling.told.clear();
            telling.listener = Some(listener);
        }
        self.tell();
    }

    /// Tells of capacities that changed.
    fn tell(&self) {
        let mut telling = self.telling.lock();
        let Telling {
            listener: Some(listener),
            told,
        } = &mut *telling
        else {
            return;
        };
        let pools = self.pools.load();
        told.retain(|model, _| {
            let known = pools.contains_key(&Owner::Model(*model));
            if !known {
                listener(*model, None);
            }
            known
        });
        for (owner, pool) in pools.iter() {
            let Owner::Model(model) = owner else { continue };
            let cap = pool.look(|inner| inner.cap());
            let before = match cap {
                Some(cap) => told.insert(*model, cap),
                None => told.remove(model),
            };
            if before != cap {
                listener(*model, cap);
            }
        }
    }

    /// Lets time pass: called by the background work several times a second, and by tests.
    pub fn tick(&self, now: Instant) {
        for pool in self.pools.load().values() {
            pool.tick(now);
        }
        self.tell();
    }

    fn pool(&self, owner: Owner) -> Result<Arc<Pool>, Unavailable> {
        self.pools.load().get(&owner).cloned().ok_or(Unavailable::NoEndpoints)
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.nudge.notify_one();
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams")
            .field("owners", &self.pools.load().len())
            .finish_non_exhaustive()
    }
}

/// Asks until the answer is not a waiting one, or the time is over.
async fn wait<T>(pool: &Pool, timeout: Duration, mut ask: impl FnMut() -> T, waiting: impl Fn(&T) -> bool) -> T {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        let changed = pool.changed.notified();
        tokio::pin!(changed);
        // Listen first: what happens between the question and the wait is not missed.
        changed.as_mut().enable();
        let answer = ask();
        if !waiting(&answer) || tokio::time::timeout_at(deadline, changed).await.is_err() {
            return answer;
        }
    }
}

/// A uniform random number: SplitMix64, seeded per thread.
fn entropy() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(rand::random());
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        choice::mix(next)
    })
}

#[cfg(test)]
mod tests;
