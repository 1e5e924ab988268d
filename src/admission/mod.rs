//! Lock and wakers around the scheduler: hands out permits.
//!
//! One lock guards the scheduler and the mailboxes of those who wait. There is no task in between: an actor would cost a
//! wake-up per request where the lock costs tens of nanoseconds, and would itself wait its turn under load.
//!
//! # A waiter's states
//!
//! A waiting request is a place (the future), a mailbox, and a ticket in the scheduler. All three change under the lock
//! only:
//!
//! - *Waiting*: the ticket is queued and the box holds the future's waker, if it was polled. The place's drop cancels the
//!   ticket and frees the box: O(1), whatever the queue's length.
//! - *Granted*: the ticket runs and the box holds the grant. Either the future's next poll takes it and becomes a
//!   [`Permit`], or the place's drop gives it back unused, with a full refund, and the next waiter is woken. There is no
//!   third way, so no wake-up is lost.
//! - *Expired*, *Dismissed*: the ticket is gone and the box holds the reason, for the next poll to read or the drop to discard.
//!
//! Only the place frees its box, so an event always finds it. Wakers are called after the lock is released. The scheduler
//! drops its tickets by itself (deadline, deleted tenant), the permit by `leave`; a generation makes a second time a no-op.
//!
//! # Two processes
//!
//! In an upgrade the slots go to the next process while this one's requests go on (`heir`, here; `estate`, there).
//!
//! # Lock order
//!
//! `applied` (one [`apply`](Admission::apply) at a time) before `inner`; the bell's own lock is taken under neither. No lock
//! is held across an await, a wake-up or a heap that grows with the catalog.

mod ask;
mod clock;
mod directory;
mod estate;
mod follow;
mod heir;
mod mailbox;
mod permit;
mod place;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

pub use ask::{Ask, Refusal};
pub use estate::{Answer, Estate};
pub use heir::{Heir, Parting, Reply, Tell};
pub use permit::Permit;
pub use settings::Settings;

use crate::id::{McpServerId, ModelId};
use crate::scheduler::{Entered, Grant, Handle, Leave, Moment, Refused, Request, Scheduler, Snapshot, Standing, TicketIx};
use clock::{Bell, Clock};
use directory::Directory;
use follow::Applied;
use mailbox::{Mail, Mailboxes, Wakes};
use place::{Ended, Place};

/// Counts for people and probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests upstream.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// How many may be upstream at once.
    pub max_in_flight: u32,
}

/// Hands out permits by fair share.
#[derive(Debug)]
pub struct Admission {
    inner: Mutex<Inner>,
    directory: ArcSwap<Directory>,
    applied: Mutex<Applied>,
    clock: Clock,
    bell: Arc<Bell>,
    /// Whose slots it hands out.
    slots: Slots,
    /// The longest that anybody waits.
    queue_timeout: Duration,
}

/// Whose slots an admission hands out. Each kind has a queue of its own: a call of a tool takes no model's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slots {
    /// The models', of which the process has so many in all.
    Models,
    /// The MCP servers', which are bound by their own caps alone.
    McpServers,
}

/// What the lock guards.
#[derive(Debug)]
struct Inner {
    scheduler: Scheduler,
    mailboxes: Mailboxes,
    shut: bool,
    /// Who hands out the slots, if this process does not any more.
    heir: Option<Arc<Heir>>,
    /// The clock thread sleeps and must be rung when somebody begins to wait.
    clock_sleeps: bool,
}

/// What the scheduler knows a server's slots by: it tells whatever is capped apart by an id alone.
#[must_use]
pub const fn slots_of(server: &McpServerId) -> ModelId {
    ModelId::from_bytes(*server.as_bytes())
}

/// A request that entered: it runs, or waits, or has to ask elsewhere.
enum Entry {
    Permit(Permit),
    Place(Place),
    /// Its slot is the heir's to give.
    Heirs(Arc<Heir>),
}

/// Mailboxes kept in memory after a flood.
const MAILBOXES_KEPT: usize = 1024;

impl Admission {
    /// Starts with no tenants and no slots; [`apply`](Self::apply) brings both. Needs no runtime. Its clock thread ends when
    /// the admission is dropped.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Self::started(&settings, Slots::Models)
    }

    /// The same for the slots of MCP servers, by the same rules: groups, tenants and keys share each server's
    /// `max_in_flight`. [`slots_of`] names a server in an [`Ask`].
    #[must_use]
    pub fn for_mcp_servers(settings: Settings) -> Arc<Self> {
        Self::started(&settings, Slots::McpServers)
    }

    fn started(settings: &Settings, slots: Slots) -> Arc<Self> {
        let admission = Arc::new(Self::with_clock(settings, Clock::system(), slots));
        clock::start(&admission, &admission.bell);
        admission
    }

    fn with_clock(settings: &Settings, clock: Clock, slots: Slots) -> Self {
        Self {
            slots,
            queue_timeout: settings.queue_timeout,
            inner: Mutex::new(Inner {
                scheduler: Scheduler::new(settings.scheduler()),
                mailboxes: Mailboxes::new(),
                shut: false,
                heir: None,
                clock_sleeps: true,
            }),
            directory: ArcSwap::default(),
            applied: Mutex::default(),
            clock,
            bell: Arc::default(),
        }
    }

    /// Waits for a slot. Dropping the future leaves the queue, or gives back a slot it was granted and has not taken.
    ///
    /// # Errors
    /// See [`Refusal`]. A refusal has taken nothing.
    pub async fn admit(self: &Arc<Self>, ask: Ask) -> Result<Permit, Refusal> {
        let place = match self.enter(&ask)? {
            Entry::Permit(permit) => return Ok(permit),
            Entry::Place(place) => place,
            Entry::Heirs(heir) => return heir.ask(ask).await,
        };
        let began = Instant::now();
        match place.await {
            Ok(permit) => Ok(permit),
            Err(Ended::Refused(refusal)) => Err(refusal),
            Err(Ended::HandedOver(heir)) => {
                let waited = began.elapsed();
                let patience = ask.patience.unwrap_or(self.queue_timeout).min(self.queue_timeout);
                let ask = Ask {
                    patience: Some(patience.saturating_sub(waited)),
                    ..ask
                };
                heir.ask(ask).await.map(|permit| permit.after(began.elapsed()))
            }
        }
    }

    /// Refuses everybody who waits and everybody who comes. Permits in use stay valid.
    pub fn shut_down(&self) {
        let mut inner = self.inner.lock();
        inner.shut = true;
        inner.scheduler.dismiss_all();
        self.release(inner);
    }

    /// Counts now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let scheduler = &self.inner.lock().scheduler;
        Stats {
            in_flight: scheduler.in_flight(),
            queued: scheduler.queued(),
            max_in_flight: scheduler.max_in_flight(),
        }
    }

    /// The scheduler's state now, for the management API.
    #[must_use]
    pub fn live(&self) -> Snapshot {
        let mut inner = self.inner.lock();
        inner.scheduler.advance(self.clock.now());
        let snapshot = inner.scheduler.snapshot();
        self.release(inner);
        snapshot
    }

    /// (new) => Running | Waiting | refused.
    fn enter(self: &Arc<Self>, ask: &Ask) -> Result<Entry, Refusal> {
        let mut request = self.resolve(ask)?;
        let mut inner = self.inner.lock();
        if inner.shut {
            return Err(Refusal::ShuttingDown);
        }
        if let Some(heir) = &inner.heir {
            return Ok(Entry::Heirs(Arc::clone(heir)));
        }
        if let Some(grant) = inner.scheduler.enter_at_once(&request) {
            drop(inner);
            return Ok(Entry::Permit(Permit::new(Arc::clone(self), grant)));
        }
        let owner = inner.mailboxes.vacant_key();
        request.owner = u32::try_from(owner).unwrap_or(u32::MAX);
        let entered = inner.scheduler.enter(&request, self.clock.now());
        let mut ring = false;
        if let Ok(Entered::Queued(ticket)) = entered {
            inner.mailboxes.insert(Mail::Waiting { ticket, waker: None });
            ring = std::mem::take(&mut inner.clock_sleeps);
        }
        self.release(inner);
        if ring {
            self.bell.ring();
        }
        match entered {
            Ok(Entered::Granted(grant)) => Ok(Entry::Permit(Permit::new(Arc::clone(self), grant))),
            Ok(Entered::Queued(_)) => Ok(Entry::Place(Place::new(Arc::clone(self), owner))),
            Err(Refused::QueueFull { retry_after }) => Err(Refusal::QueueFull { retry_after }),
            Err(Refused::NoPatience { retry_after }) => Err(Refusal::TimedOut {
                retry_after,
                waited: Duration::ZERO,
            }),
            Err(Refused::UnknownTenant) => Err(Refusal::UnknownTenant),
        }
    }

    /// Identifiers to handles, outside the lock. A key or model that is unknown (deleted a moment ago, and still named by a
    /// request that holds the catalog before) has no cap; an unknown tenant is refused.
    fn resolve(&self, ask: &Ask) -> Result<Request, Refusal> {
        let directory = self.directory.load();
        let key = directory.keys.get(&ask.key).filter(|key| key.tenant_id == ask.tenant);
        let tenant = match key {
            Some(key) => key.tenant,
            None => *directory.tenants.get(&ask.tenant).ok_or(Refusal::UnknownTenant)?,
        };
        Ok(Request {
            tenant,
            key: key.map(|key| key.key),
            model: directory.models.get(&ask.model).copied(),
            input_tokens: ask.input_tokens,
            max_tokens: ask.max_tokens,
            body_bytes: ask.body_bytes,
            patience: ask.patience,
            owner: u32::MAX,
        })
    }

    fn standing(&self, grant: &Grant) -> Standing {
        self.inner.lock().scheduler.standing(grant)
    }

    fn progress(&self, ticket: Handle<TicketIx>, output_so_far: u64) -> u64 {
        self.inner.lock().scheduler.progress(ticket, output_so_far)
    }

    /// Running => gone. Wakes whom the slot goes to.
    fn leave(&self, ticket: Handle<TicketIx>, how: Leave) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        let ran = inner.leave(ticket, how, now);
        debug_assert!(ran, "a permit is given back once");
        self.release(inner);
    }

    /// Lets deadlines pass. Returns whether anybody still waits; if not, the clock must be rung to tick again.
    fn tick(&self) -> bool {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        inner.scheduler.advance(now);
        let anybody_waits = inner.scheduler.queued() > 0;
        inner.clock_sleeps = !anybody_waits;
        if inner.mailboxes.is_empty() && inner.mailboxes.capacity() > MAILBOXES_KEPT {
            inner.mailboxes = Mailboxes::new();
        }
        self.release(inner);
        anybody_waits
    }

    /// Delivers what the scheduler has decided, unlocks, and then wakes.
    fn release(&self, mut inner: MutexGuard<'_, Inner>) {
        let Inner { scheduler, mailboxes, .. } = &mut *inner;
        if !scheduler.has_events() {
            return;
        }
        let mut wakes = Wakes::default();
        let mut done = mailbox::deliver(scheduler, mailboxes, &mut wakes);
        drop(inner);
        wakes.wake();
        while !done {
            let mut inner = self.inner.lock();
            let Inner { scheduler, mailboxes, .. } = &mut *inner;
            done = mailbox::deliver(scheduler, mailboxes, &mut wakes);
            drop(inner);
            wakes.wake();
        }
    }
}

impl Inner {
    /// Running => gone. An heir is told of it.
    fn leave(&mut self, ticket: Handle<TicketIx>, how: Leave, now: Moment) -> bool {
        if let Some(heir) = &self.heir {
            let ticket = ticket.number();
            heir.told(Parting::Leaves { ticket, how });
        }
        self.scheduler.leave(ticket, how, now)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.bell.end();
    }
}

#[cfg(test)]
mod tests;
