//! The slots' way to another process: whoever hands them over keeps its requests, and asks the heir for what they need.
//!
//! From the moment of the handover there is one scheduler, the heir's. It is told first of everybody who has a slot here, then
//! of everybody who wants one, and of every slot that comes back. What it grants comes by [`Heir::heard`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Admission, Ask, Permit, Refusal};
use crate::id::{KeyId, ModelId};
use crate::scheduler::{Handle, KeyIx, Leave};

/// What the heir is told. A `ticket` is a number of the teller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parting {
    /// A request has a slot.
    Holds {
        /// Which.
        ticket: u64,
        /// What it once asked.
        ask: Ask,
    },
    /// A request wants one, and waits to hear of it.
    Wants {
        /// Which.
        ticket: u64,
        /// What it asks.
        ask: Ask,
    },
    /// A request has gone, with its slot or from its place in the queue.
    Leaves {
        /// Which.
        ticket: u64,
        /// How.
        how: Leave,
    },
}

/// What the heir answers to [`Parting::Wants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The slot is there.
    Granted {
        /// Whose.
        ticket: u64,
    },
    /// There will be none.
    Refused {
        /// For whom.
        ticket: u64,
        /// Why.
        refusal: Refusal,
    },
}

/// By which the heir is told. Must not block.
pub type Tell = Box<dyn Fn(Parting) + Send + Sync>;

/// The process that hands out the slots now, as seen from the one that did.
pub struct Heir {
    tell: Tell,
    next: AtomicU64,
    /// Whoever waits to hear; `None` once nobody answers any more.
    wishes: Mutex<Option<HashMap<u64, Wish>>>,
}

/// By which a request hears whether it has its slot.
type Wish = oneshot::Sender<Result<(), Refusal>>;

/// Tickets that were minted for the heir; the scheduler's own do not get that far.
const MINTED: u64 = 1 << 63;

impl Heir {
    fn new(tell: Tell) -> Arc<Self> {
        Arc::new(Self {
            tell,
            next: AtomicU64::new(MINTED),
            wishes: Mutex::new(Some(HashMap::new())),
        })
    }

    pub(super) fn told(&self, parting: Parting) {
        (self.tell)(parting);
    }

    /// Takes in what the heir answers.
    pub fn heard(&self, reply: Reply) {
        let (ticket, outcome) = match reply {
            Reply::Granted { ticket } => (ticket, Ok(())),
            Reply::Refused { ticket, refusal } => (ticket, Err(refusal)),
        };
        let wish = self.wishes.lock().as_mut().and_then(|wishes| wishes.remove(&ticket));
        if let Some(wish) = wish {
            // Whoever left meanwhile has said so.
            let _ = wish.send(outcome);
        }
    }

    /// The heir is gone: whoever waits for it is refused, and whoever comes.
    pub fn is_gone(&self) {
        *self.wishes.lock() = None;
    }

    /// Asks the heir for a slot.
    pub(super) async fn ask(self: Arc<Self>, ask: Ask) -> Result<Permit, Refusal> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        match &mut *self.wishes.lock() {
            Some(wishes) => wishes.insert(ticket, reply),
            None => return Err(Refusal::ShuttingDown),
        };
        let mut place = HeirsPlace {
            heir: self,
            ticket,
            is_asked: true,
        };
        place.heir.told(Parting::Wants { ticket, ask });
        let outcome = answer.await.unwrap_or(Err(Refusal::ShuttingDown));
        place.is_asked = false;
        outcome.map(|()| Permit::of_heir(Arc::clone(&place.heir), ticket))
    }
}

impl fmt::Debug for Heir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heir").finish_non_exhaustive()
    }
}

/// A place in the heir's queue. Dropping it leaves the queue.
struct HeirsPlace {
    heir: Arc<Heir>,
    ticket: u64,
    is_asked: bool,
}

impl Drop for HeirsPlace {
    fn drop(&mut self) {
        if self.is_asked {
            if let Some(wishes) = &mut *self.heir.wishes.lock() {
                wishes.remove(&self.ticket);
            }
            self.heir.told(Parting::Leaves {
                ticket: self.ticket,
                how: Leave::Unused,
            });
        }
    }
}

impl Admission {
    /// Hands the slots over: tells the heir who has one, asks it on behalf of everybody who waits, and from now on of everybody
    /// who comes. Once.
    pub fn hand_over(&self, tell: Tell) -> Arc<Heir> {
        let heir = Heir::new(tell);
        let keys: HashMap<Handle<KeyIx>, KeyId> = {
            let directory = self.directory.load();
            directory.keys.iter().map(|(id, entry)| (entry.key, *id)).collect()
        };
        let mut inner = self.inner.lock();
        for running in inner.scheduler.everybody_running() {
            let nobody = [0; 16];
            let ask = Ask {
                tenant: running.tenant,
                key: running
                    .key
                    .and_then(|key| keys.get(&key).copied())
                    .unwrap_or(KeyId::from_bytes(nobody)),
                model: running.model.unwrap_or(ModelId::from_bytes(nobody)),
                input_tokens: running.input_tokens,
                max_tokens: running.max_tokens,
                body_bytes: 0,
                patience: None,
            };
            heir.told(Parting::Holds {
                ticket: running.ticket.number(),
                ask,
            });
        }
        inner.heir = Some(Arc::clone(&heir));
        inner.scheduler.dismiss_all();
        self.release(inner);
        heir
    }
}
