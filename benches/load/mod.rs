//! What the scheduler's benches load: schedulers full of waiters, an admission with one tenant, and rivals.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use obleth::admission::{Admission, Ask, Permit, Settings};
use obleth::catalog::{ApiKey, Budget, Catalog, DEFAULT_GROUP, Provenance, Tenant, TenantStatus};
use obleth::id::{KeyId, ModelId, TenantId};
use obleth::scheduler::{
    Entered, Event, Grant, GroupIx, Handle, Leave, Moment, Request, Scheduler, Settings as Rules, TenantIx, TenantTerms, TicketIx,
};
use obleth::units::Weight;

const GROUPS: usize = 16;
const WAITERS_PER_TENANT: usize = 2;
const SLOTS: u32 = 64;

/// A scheduler whose slots are full and whose tenants all wait.
pub struct Backlog {
    scheduler: Scheduler,
    tenants: Vec<Handle<TenantIx>>,
    running: VecDeque<(u32, Grant)>,
    waiting: Vec<Handle<TicketIx>>,
    now_ns: u64,
    random: u64,
}

impl Backlog {
    /// So many tenants in 16 groups, two waiters each, on 64 slots.
    pub fn of(tenants: usize) -> Self {
        Self::with(tenants, tenants * WAITERS_PER_TENANT + SLOTS as usize)
    }

    /// So many tenants and requests.
    pub fn with(tenants: usize, requests: usize) -> Self {
        let rules = Rules {
            max_queued: u32::MAX,
            max_queued_bytes: u64::MAX,
            ..Rules::default()
        };
        let mut scheduler = Scheduler::new(rules);
        scheduler.set_max_in_flight(SLOTS);
        let groups: Vec<Handle<GroupIx>> = (0..GROUPS)
            .map(|n| scheduler.add_group(&Arc::from(format!("g{n}")), Weight::default()))
            .collect();
        let tenants = (0..tenants)
            .map(|n| {
                let terms = TenantTerms {
                    group: groups[n % GROUPS],
                    weight: Weight::new(1 + n as u64 * 37 % 500).expect("in range"),
                    max_in_flight: None,
                    max_queued: None,
                };
                scheduler.add_tenant(TenantId::mint(), &terms).expect("its group is there")
            })
            .collect();
        let mut backlog = Self {
            scheduler,
            tenants,
            running: VecDeque::new(),
            waiting: Vec::with_capacity(requests),
            now_ns: 1,
            random: 42,
        };
        for n in 0..requests {
            backlog.enter(n % backlog.tenants.len());
        }
        backlog
    }

    fn enter(&mut self, tenant: usize) {
        let request = Request {
            tenant: self.tenants[tenant],
            key: None,
            model: None,
            input_tokens: 200,
            max_tokens: None,
            body_bytes: 1000,
            patience: None,
            owner: u32::try_from(tenant).expect("few"),
        };
        let now = self.now();
        match self.scheduler.enter(&request, now).expect("the queue is unbounded") {
            Entered::Granted(grant) => self.running.push_back((request.owner, grant)),
            Entered::Queued(ticket) => self.waiting.push(ticket),
        }
    }

    fn now(&mut self) -> Moment {
        self.now_ns += 1000;
        Moment::from_start(Duration::from_nanos(self.now_ns))
    }

    /// Marsaglia 2003.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// One request ends and is settled, the next is granted, and its tenant asks again.
    pub fn cycle(&mut self) {
        let output = 50 + self.next_random() % 500;
        let Some((tenant, grant)) = self.running.pop_front() else { return };
        let now = self.now();
        self.scheduler.leave(grant.ticket, Leave::Settled { input: 200, output }, now);
        while let Some(event) = self.scheduler.next_event() {
            if let Event::Granted { owner, grant } = event {
                self.running.push_back((owner, grant));
            }
        }
        self.waiting.clear();
        self.enter(tenant as usize);
    }

    /// One waiter goes.
    pub fn cancel(&mut self) {
        if let Some(ticket) = self.waiting.pop() {
            self.scheduler.cancel(ticket);
        }
    }

    /// One running request reports enough progress to be charged.
    pub fn progress(&mut self, output: u64) {
        if let Some((_, grant)) = self.running.front() {
            self.scheduler.progress(grant.ticket, grant.charge_at + output);
        }
    }
}

/// An admission with room, one tenant and one key.
pub struct Uncontended {
    pub admission: Arc<Admission>,
    ask: Ask,
}

impl Uncontended {
    pub fn new(slots: u32) -> Self {
        let tenant = Tenant {
            id: TenantId::mint(),
            name: "acme".to_owned(),
            description: String::new(),
            group: Arc::from(DEFAULT_GROUP),
            weight: Weight::default(),
            tokens_per_minute: 0,
            requests_per_minute: 0,
            max_in_flight: None,
            max_queued: None,
            status: TenantStatus::Active,
            allowed_models: None,
            budget: Budget::default(),
            metadata: BTreeMap::new(),
            provenance: Provenance::default(),
        };
        let key = ApiKey {
            id: KeyId::mint(),
            tenant_id: tenant.id,
            name: "key".to_owned(),
            description: String::new(),
            prefix: String::new(),
            digest: [0; 32],
            retired: None,
            disabled: false,
            expires_at: None,
            allowed_models: None,
            tokens_per_minute: 0,
            requests_per_minute: 0,
            max_in_flight: None,
            budget: Budget::default(),
            provenance: Provenance::default(),
        };
        let ask = Ask {
            tenant: tenant.id,
            key: key.id,
            model: ModelId::mint(),
            input_tokens: 200,
            max_tokens: None,
            body_bytes: 1000,
            patience: None,
        };
        let mut catalog = Catalog::empty(slots);
        catalog.put_tenant(tenant).expect("the default group is there");
        catalog.put_key(key).expect("its tenant is there");
        let settings = Settings {
            max_queued: u32::MAX,
            ..Settings::default()
        };
        let admission = Admission::new(settings);
        admission.apply(&catalog);
        Self { admission, ask }
    }

    pub async fn admit(&self) -> Permit {
        self.admission
            .admit(self.ask)
            .await
            .expect("its tenant is there and nobody shuts down")
    }

    /// Takes a free slot and gives it back, settled.
    pub fn acquire_and_release(&self) {
        if let Poll::Ready(Ok(mut permit)) = once(self.admission.admit(self.ask)) {
            permit.dispatched();
            permit.settle(200, 128);
        }
    }
}

/// Polls a future that needs no wake-up.
pub fn once<T>(future: impl Future<Output = T>) -> Poll<T> {
    std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// So many tasks take turns for 64 slots: each turn waits, is woken, and releases.
pub async fn tasks<F, Fut>(tasks: usize, turns: usize, turn: F)
where
    F: Fn() -> Fut + Clone + 'static,
    Fut: Future<Output = ()>,
{
    let local = tokio::task::LocalSet::new();
    for _ in 0..tasks {
        let turn = turn.clone();
        local.spawn_local(async move {
            for _ in 0..turns {
                turn().await;
            }
        });
    }
    local.await;
}

/// A rival: every pick scans a map of all tenants for the lowest service by weight.
#[derive(Default)]
pub struct Scan(HashMap<u32, (u64, VecDeque<u32>)>);

impl Scan {
    pub fn of(tenants: u32) -> Self {
        Self(
            (0..tenants)
                .map(|tenant| (tenant, (u64::from(tenant), VecDeque::from([0, 1]))))
                .collect(),
        )
    }

    pub fn cycle(&mut self) {
        let waiting = self.0.iter_mut().filter(|(_, (_, queue))| !queue.is_empty());
        if let Some((_, (served, queue))) = waiting.min_by_key(|(_, (served, _))| *served) {
            *served += 200;
            let request = queue.pop_front().unwrap_or_default();
            queue.push_back(request);
        }
    }
}

/// The speed of light: one queue for everybody.
pub struct Fifo(VecDeque<u32>);

impl Fifo {
    pub fn of(tenants: u32) -> Self {
        Self((0..tenants * 2).collect())
    }

    pub fn cycle(&mut self) {
        if let Some(request) = self.0.pop_front() {
            self.0.push_back(request);
        }
    }
}
