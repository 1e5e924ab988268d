//! What requests of another process have taken of the limits: of the one before, which handed them over.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::account::Account;
use super::heir::{Correction, Parting, Reply, Standing};
use super::{Limits, Reservation};
use crate::quota::{Held, Sum};
use crate::store::ledger::Owner;
use crate::units::UnixMs;

/// By which the other process is answered. Must not block.
pub type Answer = Box<dyn Fn(Reply) + Send + Sync>;

/// The other process's share. Dropping it gives back what that process can no longer give back: what its requests held of
/// budgets. What they took of this minute's requests and tokens stays taken, and flows in again within two minutes.
pub struct Estate {
    limits: Arc<Limits>,
    answer: Answer,
    /// What was asked for here.
    taken: Mutex<HashMap<u64, Reservation>>,
    /// What was held at the handover and has not been given back.
    held: Mutex<HashMap<Owner, Sum>>,
}

impl Estate {
    /// Begins with nothing.
    #[must_use]
    pub fn new(limits: Arc<Limits>, answer: Answer) -> Self {
        Self {
            limits,
            answer,
            taken: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Takes in what the other process tells. `wall` is [`calendar`](Limits::calendar) time.
    pub fn heard(&self, parting: Parting, wall: UnixMs) {
        match parting {
            Parting::Account(standing) => self.account(*standing),
            Parting::Corrects(correction) => self.corrects(*correction),
            Parting::Wants { number, key, ask } => {
                let records = self.limits.records.load();
                let outcome = self.limits.reserve_of(&records, &key, &ask, self.limits.now(), wall);
                drop(records);
                (self.answer)(match outcome {
                    Ok(reservation) => {
                        self.taken.lock().insert(number, reservation);
                        Reply::Reserved { number }
                    }
                    Err(exceeded) => Reply::Exceeded { number, exceeded },
                });
            }
            Parting::Ends { number, actual } => {
                let reservation = self.taken.lock().remove(&number);
                if let (Some(reservation), Some(actual)) = (reservation, actual) {
                    reservation.settle(actual);
                }
            }
        }
    }

    fn account(&self, standing: Standing) {
        let Standing {
            owner,
            requests,
            tokens,
            spent,
        } = standing;
        let now = self.limits.now();
        let held = spent.held();
        self.limits.records.load().with_account(&owner, |account| {
            for (bucket, used) in [(&account.requests, requests), (&account.tokens, tokens)] {
                if let Some(bucket) = bucket {
                    bucket.charge(used, now);
                }
            }
            *account.spent.lock() = spent;
            if held != Sum::default() {
                self.held.lock().insert(owner, held);
            }
        });
    }

    fn corrects(&self, correction: Correction) {
        let Correction {
            key,
            tenant,
            of_key,
            of_tenant,
            actual,
            keeps_request,
            wall,
        } = correction;
        let now = self.limits.now();
        let records = self.limits.records.load();
        for (owner, mut share) in [(Owner::Tenant(tenant), of_tenant), (Owner::Key(key), of_key)] {
            if let (Some(held), Some(left)) = (share.held(), self.held.lock().get_mut(&owner)) {
                left.cost.0 = left.cost.0.saturating_sub(held.cost.0);
                left.tokens = left.tokens.saturating_sub(held.tokens);
            }
            records.with_account(&owner, |account| share.finish(account, actual, keeps_request, now, wall));
        }
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        let records = self.limits.records.load();
        for (owner, held) in self.held.lock().drain() {
            records.with_account(&owner, |account| account.spent.lock().release(Held::elsewhere(held)));
        }
    }
}

impl super::Records {
    fn with_account(&self, owner: &Owner, each: impl FnOnce(&Account)) {
        let account = match owner {
            Owner::Tenant(id) => self.tenants.get(id).map(|record| &record.account),
            Owner::Key(id) => self.keys.get(id).map(|record| &record.account),
        };
        if let Some(account) = account {
            each(account);
        }
    }
}

impl std::fmt::Debug for Estate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Estate").finish_non_exhaustive()
    }
}
