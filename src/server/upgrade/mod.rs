//! Upgrade in place: SIGQUIT lets the running process start its own program again, whatever stands under that name by then, and
//! hand everything over to it.
//!
//! The *elder* is the process that runs, the *heir* the one it starts. A Unix socket between them, the heir's standard input,
//! carries the listening sockets and then one message a line:
//!
//! | elder | heir |
//! |---|---|
//! | its listening sockets | reads its configuration, looks at the store: `Ready`, and how it takes over |
//! | closes the management API, moves the last rows, closes the store: `Store` | opens it, builds the house: `Open` |
//! | accepts no more; says how limits and slots stand: `Serve` | accepts |
//! | tells how its requests end, asks for what they still need | answers |
//!
//! At each moment one process has the store, one has the limits, one has the slots. Until `Serve` the elder is the gateway: if
//! the heir does not come up, it takes the store back and goes on. Clients notice nothing: the listening sockets are never closed,
//! and between the elder's last accept and the heir's first one connections wait in the kernel's queue for some milliseconds.
//! A request that the elder has stays there to its end, and comes to be counted, admitted and billed as any of the heir's.

mod elder;
mod heir;
mod line;
mod passing;

pub(super) use elder::{Candidate, Elder, Estate, Failure, Management};
pub(super) use heir::Inheritance;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says to a process that its standard input is the line to the one it is to take over from.
const VARIABLE: &str = "OBLETH_UPGRADE_FROM";

/// How long the heir may take to read its configuration and look at the store.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take to open the store, bring its schema up to date and build the house.
const OPEN_WITHIN: Duration = Duration::from_secs(120);

/// How long an heir waits for the store: until the elder's last management request and row are done.
const STORE_WITHIN: Duration = Duration::from_secs(60);

/// Whether the process before still has requests.
#[derive(Debug, Default)]
pub(super) struct Predecessor(AtomicBool);

impl Predecessor {
    fn begins(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn ends(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
