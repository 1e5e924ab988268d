//! A place in the queue, as a future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::mailbox::Mail;
use super::{Admission, Heir, Permit, Refusal};
use crate::scheduler::Leave;

/// Resolves to a permit. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    /// The mailbox; `None` once it was read and freed.
    mailbox: Option<usize>,
}

impl Place {
    pub(super) const fn new(admission: Arc<Admission>, mailbox: usize) -> Self {
        Self {
            admission,
            mailbox: Some(mailbox),
        }
    }
}

/// Why a place led to no permit.
#[derive(Debug)]
pub(super) enum Ended {
    /// There is none.
    Refused(Refusal),
    /// Another process hands them out now.
    HandedOver(Arc<Heir>),
}

impl Future for Place {
    type Output = Result<Permit, Ended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let place = &mut *self;
        // A future that is polled after its end is its caller's fault and never ends again.
        let Some(mailbox) = place.mailbox else { return Poll::Pending };
        let mut inner = place.admission.inner.lock();
        if let Some(Mail::Waiting { waker, .. }) = inner.mailboxes.get_mut(mailbox) {
            if waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                return Poll::Pending;
            }
            let outdated = waker.replace(context.waker().clone());
            // Its drop may drop a task, and with it another place: not under the lock.
            drop(inner);
            drop(outdated);
            return Poll::Pending;
        }
        place.mailbox = None;
        let (mail, shut, heir) = (inner.mailboxes.try_remove(mailbox), inner.shut, inner.heir.clone());
        drop(inner);
        Poll::Ready(match mail {
            Some(Mail::Granted(grant)) => Ok(Permit::new(Arc::clone(&place.admission), grant)),
            Some(Mail::Expired { waited, retry_after }) => Err(Ended::Refused(Refusal::TimedOut { retry_after, waited })),
            Some(Mail::Dismissed) if !shut => Err(heir.map_or(Ended::Refused(Refusal::UnknownTenant), Ended::HandedOver)),
            Some(Mail::Dismissed | Mail::Waiting { .. }) | None => Err(Ended::Refused(Refusal::ShuttingDown)),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mailbox) = self.mailbox else { return };
        let now = self.admission.clock.now();
        let mut inner = self.admission.inner.lock();
        // The waker in it is dropped after the lock is released, for the same reason.
        let mail = inner.mailboxes.try_remove(mailbox);
        match &mail {
            Some(Mail::Waiting { ticket, .. }) => {
                let waited = inner.scheduler.cancel(*ticket);
                debug_assert!(waited, "a box in waiting has a queued ticket");
            }
            Some(Mail::Granted(grant)) => {
                let ran = inner.leave(grant.ticket, Leave::Unused, now);
                debug_assert!(ran, "a granted ticket runs");
            }
            Some(Mail::Expired { .. } | Mail::Dismissed) | None => {}
        }
        self.admission.release(inner);
        drop(mail);
    }
}
