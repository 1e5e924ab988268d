//! The limits' way to another process: whoever hands them over keeps its requests, and asks the heir for what they still need.
//!
//! The handover is one moment. What was taken and settled before it is in the state that the heir gets, what is settled after
//! it is told to the heir: nothing is in both, nothing in neither. What running requests have taken counts as used until the
//! heir hears what they really used.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::account::Account;
use super::reservation::{Actual, Share};
use super::{Ask, Exceeded, Limits, Records, Reservation};
use crate::catalog::Principal;
use crate::id::{KeyId, TenantId};
use crate::quota::{Moment, Spent};
use crate::store::ledger::Owner;
use crate::units::UnixMs;

/// What the heir is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parting {
    /// How an account stands at the handover.
    Account(Box<Standing>),
    /// A request that had taken its share before the handover has ended.
    Corrects(Box<Correction>),
    /// A request asks for its share, and waits to hear of it.
    Wants {
        /// A number of the teller's own.
        number: u64,
        /// With which key.
        key: KeyId,
        /// What it asks.
        ask: Ask,
    },
    /// A request that has asked has ended: what it used, or nothing if it gives everything back.
    Ends {
        /// Its number.
        number: u64,
        /// What it used.
        actual: Option<Actual>,
    },
}

/// How an account stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub(super) owner: Owner,
    /// Of a minute's requests, how many are used.
    pub(super) requests: u64,
    /// Of a minute's tokens.
    pub(super) tokens: u64,
    pub(super) spent: Spent,
}

/// What a request had taken, and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    pub(super) key: KeyId,
    pub(super) tenant: TenantId,
    pub(super) of_key: Share,
    pub(super) of_tenant: Share,
    pub(super) actual: Actual,
    pub(super) keeps_request: bool,
    pub(super) wall: UnixMs,
}

/// What the heir answers to [`Parting::Wants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It has its share.
    Reserved {
        /// Whose.
        number: u64,
    },
    /// It has none.
    Exceeded {
        /// Who.
        number: u64,
        /// Why.
        exceeded: Exceeded,
    },
}

/// By which the heir is told. Must not block.
pub type Tell = Box<dyn Fn(Parting) + Send + Sync>;

/// The process that keeps the limits now, as seen from the one that did.
pub struct Heir {
    tell: Tell,
    /// What must not be told before the heir knows how the accounts stand; `None` once it does.
    early: Mutex<Option<Vec<Parting>>>,
    next: AtomicU64,
    /// Whoever waits to hear; `None` once nobody answers any more.
    wishes: Mutex<Option<HashMap<u64, Wish>>>,
}

/// By which a request hears whether it has its share.
type Wish = oneshot::Sender<Result<(), Exceeded>>;

impl Heir {
    pub(super) fn told(&self, parting: Parting) {
        match &mut *self.early.lock() {
            Some(early) => early.push(parting),
            None => (self.tell)(parting),
        }
    }

    /// The accounts have been told.
    fn begins(&self) {
        let mut early = self.early.lock();
        early.take().into_iter().flatten().for_each(&self.tell);
    }

    /// Takes in what the heir answers.
    pub fn heard(&self, reply: Reply) {
        let (number, outcome) = match reply {
            Reply::Reserved { number } => (number, Ok(())),
            Reply::Exceeded { number, exceeded } => (number, Err(exceeded)),
        };
        let wish = self.wishes.lock().as_mut().and_then(|wishes| wishes.remove(&number));
        if let Some(wish) = wish {
            // Whoever left meanwhile has said so.
            let _ = wish.send(outcome);
        }
    }

    /// The heir is gone: whoever waits for it is refused, and whoever comes.
    pub fn is_gone(&self) {
        *self.wishes.lock() = None;
    }

    /// Asks the heir. What it says is good once this returns; dropped before, it is taken back.
    pub(super) async fn ask(self: Arc<Self>, key: KeyId, ask: Ask) -> Result<HeirsShare, Exceeded> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        match &mut *self.wishes.lock() {
            Some(wishes) => wishes.insert(number, reply),
            None => return Err(NOBODY),
        };
        let mut share = HeirsShare {
            heir: self,
            number,
            is_held: true,
        };
        share.heir.told(Parting::Wants { number, key, ask });
        match answer.await {
            Ok(Ok(())) => Ok(share),
            Ok(Err(exceeded)) => {
                share.is_held = false;
                Err(exceeded)
            }
            Err(_) => Err(NOBODY),
        }
    }
}

/// What a request hears whose heir has died.
const NOBODY: Exceeded = Exceeded::Elsewhere;

impl fmt::Debug for Heir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heir").finish_non_exhaustive()
    }
}

/// What a request has of the heir's limits. Dropping it gives everything back.
#[derive(Debug)]
pub(super) struct HeirsShare {
    heir: Arc<Heir>,
    number: u64,
    is_held: bool,
}

impl HeirsShare {
    /// Once; a second end says nothing.
    pub(super) fn end(&mut self, actual: Option<Actual>) {
        if std::mem::take(&mut self.is_held) {
            self.heir.told(Parting::Ends {
                number: self.number,
                actual,
            });
        }
    }
}

impl Drop for HeirsShare {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// How long to wait between two looks whether everybody has let the old records go; they are held for microseconds.
const LOOK_EVERY: Duration = Duration::from_micros(50);

impl Limits {
    /// Reserves here, or where the limits were handed over to. Otherwise as [`reserve`](Self::reserve).
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is taken then.
    pub async fn obtain(self: &Arc<Self>, who: &Principal, ask: &Ask, now: Moment, wall: UnixMs) -> Result<Reservation, Exceeded> {
        let (heir, record) = {
            let records = self.records.load();
            match &records.heir {
                None => return self.reserve_of(&records, &who.key.id, ask, now, wall),
                Some(heir) => (
                    Arc::clone(heir),
                    records.keys.get(&who.key.id).map(Arc::clone).ok_or(Exceeded::Gone)?,
                ),
            }
        };
        let share = heir.ask(who.key.id, *ask).await?;
        Ok(Reservation::of_heir(Arc::clone(self), record, share, wall))
    }

    /// Hands the limits over: tells the heir how every account stands, and from now on what becomes of what was taken, and asks
    /// it for what is to be taken. Once. Blocks for some microseconds until everybody who is in the middle of taking or giving
    /// back is through.
    pub fn hand_over(&self, tell: Tell) -> Arc<Heir> {
        let heir = Arc::new(Heir {
            tell,
            early: Mutex::new(Some(Vec::new())),
            next: AtomicU64::new(0),
            wishes: Mutex::new(Some(HashMap::new())),
        });
        let _one_at_a_time = self.applying.lock();
        let next = {
            let records = self.records.load();
            Records {
                heir: Some(Arc::clone(&heir)),
                tenant_table: records.tenant_table.clone(),
                key_table: records.key_table.clone(),
                tenants: records.tenants.clone(),
                keys: records.keys.clone(),
            }
        };
        // Whoever has looked at the old records holds a reference to them until it is done, and the swap counts it.
        let before = self.records.swap(Arc::new(next));
        while Arc::strong_count(&before) > 1 {
            std::thread::sleep(LOOK_EVERY);
        }
        let now = self.now();
        let tenants = before.tenants.iter().map(|(id, record)| (Owner::Tenant(*id), &record.account));
        let keys = before.keys.iter().map(|(id, record)| (Owner::Key(*id), &record.account));
        for (owner, account) in tenants.chain(keys) {
            if let Some(standing) = account.standing(owner, now) {
                (heir.tell)(Parting::Account(Box::new(standing)));
            }
        }
        heir.begins();
        heir
    }
}

impl Account {
    /// How it stands; `None` where nothing was ever taken.
    fn standing(&self, owner: Owner, now: Moment) -> Option<Standing> {
        let used = |bucket: &Option<super::account::Bucket>| bucket.as_ref().map_or(0, |bucket| bucket.used(now));
        let standing = Standing {
            owner,
            requests: used(&self.requests),
            tokens: used(&self.tokens),
            spent: self.spent.lock().clone(),
        };
        let untouched = standing.requests == 0 && standing.tokens == 0 && standing.spent == Spent::default();
        (!untouched).then_some(standing)
    }
}
