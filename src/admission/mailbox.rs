//! Where a waiting future and the scheduler's events meet.

use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::scheduler::{Event, Grant, Handle, Scheduler, TicketIx};

/// One waiting request's box. Its index is the request's `owner` number.
#[derive(Debug)]
pub(super) enum Mail {
    /// Nothing yet. The waker is missing until the future is polled.
    Waiting { ticket: Handle<TicketIx>, waker: Option<Waker> },
    /// A slot.
    Granted(Grant),
    /// The deadline came first.
    Expired { waited: Duration, retry_after: Duration },
    /// The tenant was deleted, or the gateway is going down.
    Dismissed,
}

/// All boxes. Under the admission lock like the scheduler itself, so no state of a request is ever split over two locks.
pub(super) type Mailboxes = Slab<Mail>;

/// Wakers to be called once the lock is released: a woken task may take it at once.
///
/// A batch has a fixed size, so delivering allocates nothing; when it is full the caller wakes it and comes back.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    batch: [Option<Waker>; Self::BATCH],
    len: usize,
}

impl Wakes {
    const BATCH: usize = 4;

    /// Calls all.
    pub(super) fn wake(&mut self) {
        for waker in self.batch.iter_mut().take(self.len) {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
        self.len = 0;
    }
}

/// Puts the scheduler's events into their boxes and collects the wakers. Returns whether all events are delivered.
pub(super) fn deliver(scheduler: &mut Scheduler, mailboxes: &mut Mailboxes, wakes: &mut Wakes) -> bool {
    while wakes.len < Wakes::BATCH {
        let Some(event) = scheduler.next_event() else { return true };
        let (owner, mail) = match event {
            Event::Granted { owner, grant } => (owner, Mail::Granted(grant)),
            Event::Expired {
                owner,
                waited,
                retry_after,
            } => (owner, Mail::Expired { waited, retry_after }),
            Event::Dismissed { owner } => (owner, Mail::Dismissed),
        };
        let held = mailboxes.get_mut(owner as usize);
        debug_assert!(
            matches!(held, Some(Mail::Waiting { .. })),
            "a waiter keeps its box until it is cancelled or has read it, and gets one event"
        );
        let Some(held) = held else { continue };
        if let Mail::Waiting { waker: Some(waker), .. } = std::mem::replace(held, mail) {
            wakes.batch[wakes.len] = Some(waker);
            wakes.len += 1;
        }
    }
    false
}

const _: () = assert!(size_of::<Mail>() <= 40);
