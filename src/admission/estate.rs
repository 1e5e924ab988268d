//! Slots of requests that another process has: the one before, which handed the slots over and keeps its requests.
//!
//! Each of its requests stands here for a permit, or for one who waits, like anybody's own: caps, fair share and figures know
//! no difference. Dropping the estate gives everything back.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::heir::{Parting, Reply};
use super::{Admission, Ask, Entry, Permit};
use crate::scheduler::Leave;

/// By which the other process is answered. Must not block.
pub type Answer = Arc<dyn Fn(Reply) + Send + Sync>;

/// The requests of another process.
pub struct Estate {
    admission: Arc<Admission>,
    answer: Answer,
    runtime: Handle,
    members: Members,
}

type Members = Arc<Mutex<HashMap<u64, Member>>>;

enum Member {
    /// It has a slot.
    Holds(Permit),
    /// It waits for one.
    Waits(AbortHandle),
}

impl Estate {
    /// Begins with nobody. Who waits, waits on `runtime`.
    #[must_use]
    pub fn new(admission: Arc<Admission>, runtime: Handle, answer: Answer) -> Self {
        Self {
            admission,
            answer,
            runtime,
            members: Members::default(),
        }
    }

    /// Takes in what the other process tells.
    pub fn heard(&self, parting: Parting) {
        match parting {
            Parting::Holds { ticket, ask } => self.holds(ticket, &ask),
            Parting::Wants { ticket, ask } => self.wants(ticket, ask),
            Parting::Leaves { ticket, how } => {
                let member = self.members.lock().remove(&ticket);
                match member {
                    Some(Member::Holds(permit)) => leave(permit, how),
                    Some(Member::Waits(waits)) => waits.abort(),
                    // Refused, which it has not heard yet; or of a tenant that is gone.
                    None => {}
                }
            }
        }
    }

    /// It has its slot already, so it gets one here before anybody else does; where there is none (a cap that is learned anew),
    /// it gets the next that is its.
    fn holds(&self, ticket: u64, ask: &Ask) {
        match self.admission.enter(ask) {
            Ok(Entry::Permit(permit)) => {
                self.members.lock().insert(ticket, Member::Holds(permit));
            }
            Ok(Entry::Place(_) | Entry::Heirs(_)) => self.wait(ticket, *ask, None),
            Err(refusal) => tracing::debug!(%refusal, "a running request of the process before has no slot here"),
        }
    }

    fn wants(&self, ticket: u64, ask: Ask) {
        self.wait(ticket, ask, Some(Arc::clone(&self.answer)));
    }

    fn wait(&self, ticket: u64, ask: Ask, answer: Option<Answer>) {
        let (admission, members) = (Arc::clone(&self.admission), Arc::clone(&self.members));
        // Held until its entry stands: the task may be done at once.
        let mut standing = self.members.lock();
        let task = self.runtime.spawn(async move {
            let outcome = admission.admit(ask).await;
            let mut members = members.lock();
            let reply = match outcome {
                Ok(permit) if members.contains_key(&ticket) => {
                    members.insert(ticket, Member::Holds(permit));
                    Reply::Granted { ticket }
                }
                Ok(_) => return,
                Err(refusal) => {
                    members.remove(&ticket);
                    Reply::Refused { ticket, refusal }
                }
            };
            drop(members);
            if let Some(answer) = answer {
                answer(reply);
            }
        });
        standing.insert(ticket, Member::Waits(task.abort_handle()));
    }
}

fn leave(mut permit: Permit, how: Leave) {
    match how {
        Leave::Unused => {}
        Leave::Aborted { output } => {
            permit.dispatched();
            permit.progress(output);
        }
        Leave::Settled { input, output } => permit.settle(input, output),
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        for (_, member) in self.members.lock().drain() {
            match member {
                Member::Holds(permit) => leave(permit, Leave::Aborted { output: 0 }),
                Member::Waits(waits) => waits.abort(),
            }
        }
    }
}

impl fmt::Debug for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Estate").finish_non_exhaustive()
    }
}
