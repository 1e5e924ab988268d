//! The ledger: every request's use, counted once.
//!
//! # Promises
//!
//! - **No dispatched request without a row**, also across `kill -9`: [`Meter::begin`] has written the request's intent to
//!   the spool, by plain `write(2)`, before it returns the [`Ticket`] without which nobody dispatches. What the system was
//!   given survives the process.
//! - **One row per request.** A ticket is settled once; dropped unsettled, it writes an `interrupted` row; killed with the
//!   process, the next start does. The request's id is the ledger's primary key, so a replay adds nothing.
//! - After a power failure at most the last 50 ms are missing: the spool is synced by a thread of its own.
//! - A request thread waits for no disk. What it does is one `write(2)` of some two hundred bytes to the page cache under
//!   a lock held for just that (a microsecond or two; `benches/ledger.rs` has the figure). A queue in memory would be
//!   faster by that microsecond and lose its contents with the process.
//! - Everything is bounded. When the spool is full or cannot be written, new requests are refused ([`Unavailable`]) or, if
//!   the operator says so, served and counted as at risk. Running ones still get their rows: by a bounded memory of rows
//!   that waits for the store.
//!
//! # Inside
//!
//! `spool` appends records (`codec`) to numbered segments; `mover` reads them back and moves rows to the store in batches
//! (every 100 ms or 1 024 records), the cursor in the same transaction. A segment is deleted when all its rows are moved;
//! intents still open in it are first carried into the newest segment. `recovery` is the same reading at start. A row that
//! the store refuses for good is set aside (`aside`), damage is passed over: neither holds up what comes after it. In an upgrade
//! the ledger goes to the next process (`handover`), which reads along what this one's requests still write (`left`).

mod aside;
mod codec;
mod handover;
mod left;
mod mover;
mod recovery;
mod sink;
mod spool;
mod ticket;
mod trouble;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

pub use crate::store::ledger::{
    ATTEMPTS_MAX, Attempt, AttemptOutcome, CacheStatus, Charge, Outcome, Row, Saved, Timing, Tokens, UsageSource, attempts_json,
};
pub use sink::Sink;
pub use spool::EXTENSION as RECORDS;
pub use ticket::{Intent, Ticket};

use crate::store::Clock;
use aside::Aside;
use codec::Record;
use mover::{Mover, Progress};
use spool::Spool;
use trouble::Trouble;

/// What to do with new requests when the spool cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Refuse them.
    #[default]
    Reject,
    /// Serve them; a crash now would lose their rows.
    Serve,
}

/// How the room is set up.
#[derive(Clone)]
pub struct Settings {
    /// Where the spool's segments lie; made if it does not exist.
    pub spool_dir: PathBuf,
    /// How large all segments may grow together.
    pub spool_bytes_max: u64,
    /// How large one segment grows.
    pub segment_bytes: u64,
    /// What happens at the bound.
    pub when_full: WhenFull,
    /// How many days raw rows and sums per minute stay. Sums per hour and day stay for ever.
    pub retention_days: u32,
    /// Wall-clock time, for retention.
    pub clock: Clock,
    /// Hears of each row once, when it is about to be moved to the store. Called on the moving thread: it may take a few
    /// microseconds, and must not wait.
    pub observer: Observer,
}

/// Hears of rows.
pub type Observer = Arc<dyn Fn(&Row) + Send + Sync>;

impl Settings {
    /// The defaults: 256 MiB in segments of 8 MiB, refuse when full, 90 days.
    #[must_use]
    pub fn new(spool_dir: PathBuf, clock: Clock) -> Self {
        Self {
            spool_dir,
            spool_bytes_max: 256 << 20,
            segment_bytes: 8 << 20,
            when_full: WhenFull::Reject,
            retention_days: 90,
            clock,
            observer: Arc::new(|_| {}),
        }
    }
}

/// Why the room cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The spool's directory cannot be used.
    #[error("the spool {} cannot be used", path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What the spool holds cannot be moved to the store.
    #[error("the ledger cannot be written: {0}")]
    Store(String),
}

/// The ledger cannot take a new request: its spool is full or cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be written")]
pub struct Unavailable;

/// What happened so far. All but `open`, `spool_bytes`, `waiting_rows` and `set_aside` only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests begun and not settled.
    pub open: u64,
    /// Bytes of all segments.
    pub spool_bytes: u64,
    /// Rows that could not be spooled and wait in memory for the store.
    pub waiting_rows: u64,
    /// Rows in the store.
    pub rows: u64,
    /// Writes to the spool that failed.
    pub write_errors: u64,
    /// Syncs of the spool that failed.
    pub sync_errors: u64,
    /// Attempts to read the spool back, or to delete what is moved, that failed.
    pub read_errors: u64,
    /// Batches that the store did not take, each tried again.
    pub store_errors: u64,
    /// Requests begun without an intent (`when_full: serve`).
    pub unspooled: u64,
    /// Rows that are lost: neither spool nor memory had room.
    pub lost: u64,
    /// Requests refused by [`Meter::begin`].
    pub refused: u64,
    /// Damaged stretches of segments that were skipped.
    pub damaged: u64,
    /// Rows that the store refuses, kept in a file beside the spool.
    pub set_aside: u64,
}

/// How many rows wait in memory while neither spool nor store can be written: some 25 MiB (few in tests, which fill it).
const WAITING_MAX: usize = if cfg!(test) { 1_024 } else { 65_536 };

/// What the threads and the tickets share.
#[derive(Debug)]
struct Shared {
    spool: Spool,
    when_full: WhenFull,
    waiting: Mutex<Vec<Row>>,
    progress: Progress,
    open: AtomicU64,
    unspooled: Trouble,
    lost: Trouble,
    refused: Trouble,
    damaged: AtomicU64,
    aside: Aside,
    read_errors: Trouble,
    /// What this process writes to since it has handed the ledger over.
    own: Mutex<Option<left::Own>>,
}

/// The ledger's front. Dropping it moves what is spooled and ends the threads.
pub struct Meter {
    shared: Arc<Shared>,
    settings: Settings,
    sink: Arc<dyn Sink>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Meter {
    /// Opens the spool, moves what an earlier process left in it to the store, and starts the threads. Blocks: call it
    /// while the house is being built, outside the runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: &Settings, sink: Arc<dyn Sink>) -> Result<Arc<Self>, OpenError> {
        let spool_error = |source| OpenError::Spool {
            path: settings.spool_dir.clone(),
            source,
        };
        let recovered = recovery::recover(&settings.spool_dir, &*sink)?;
        if recovered.interrupted > 0 {
            info!(
                rows = recovered.interrupted,
                "requests that an earlier process left unsettled are in the ledger as interrupted"
            );
        }
        if recovered.damaged > 0 {
            warn!(
                stretches = recovered.damaged,
                "the ledger's spool was damaged; what could not be read is skipped"
            );
        }
        let spool = Spool::open(
            &settings.spool_dir,
            recovered.next_segment,
            settings.segment_bytes,
            settings.spool_bytes_max,
        )
        .map_err(spool_error)?;
        let shared = Arc::new(Shared {
            spool,
            when_full: settings.when_full,
            waiting: Mutex::new(Vec::new()),
            progress: Progress::default(),
            open: AtomicU64::new(0),
            unspooled: Trouble::default(),
            lost: Trouble::default(),
            refused: Trouble::default(),
            damaged: AtomicU64::new(recovered.damaged),
            aside: recovered.aside,
            read_errors: Trouble::default(),
            own: Mutex::new(None),
        });
        let mut mover = Mover::new(Arc::clone(&shared), Arc::clone(&sink), recovered.next_segment, settings);
        mover.inherit()?;
        let syncing = Arc::clone(&shared);
        let meter = Self {
            shared,
            settings: settings.clone(),
            sink,
            threads: Mutex::default(),
        };
        meter.start(mover).map_err(spool_error)?;
        let thread = std::thread::Builder::new().name("ledger-sync".to_owned());
        let thread = thread.spawn(move || syncing.spool.sync_until_closed()).map_err(spool_error)?;
        meter.threads.lock().push(thread);
        Ok(Arc::new(meter))
    }

    /// Starts the moving thread.
    fn start(&self, mover: Mover) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("ledger-move".to_owned());
        let thread = thread.spawn(move || mover.run())?;
        *self.shared.progress.mover.lock() = Some(thread.thread().clone());
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Records that a request is about to be dispatched. Nobody may dispatch without the ticket.
    ///
    /// # Errors
    /// [`Unavailable`] when the spool is full or cannot be written, unless the operator chose to serve all the same.
    pub fn begin(&self, intent: Intent) -> Result<Ticket, Unavailable> {
        let shared = &self.shared;
        let open = shared.open.load(Ordering::Relaxed);
        let spooled = shared.spool.has_room(open) && shared.append(&Record::Intent(&intent));
        if !spooled {
            match shared.when_full {
                WhenFull::Reject => {
                    if let Some(left_out) = shared.refused.again() {
                        error!(left_out, "the ledger's spool is full or cannot be written: requests are refused");
                    }
                    return Err(Unavailable);
                }
                WhenFull::Serve => {
                    if let Some(left_out) = shared.unspooled.again() {
                        error!(
                            left_out,
                            "the ledger's spool is full or cannot be written: requests are served that a crash would lose"
                        );
                    }
                }
            }
        }
        Ok(Ticket::new(Arc::clone(shared), intent))
    }

    /// Records a request that was never dispatched: a refusal, an answer from the cache.
    pub fn record(&self, row: Row) {
        self.shared
            .settle(row, self.shared.spool.has_room(self.shared.open.load(Ordering::Relaxed)));
    }

    /// Waits until everything recorded so far is in the store. Returns whether that came about in time. Blocks.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.shared.progress.flush(&self.shared, timeout)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            open: of(&shared.open),
            spool_bytes: shared.spool.bytes(),
            waiting_rows: shared.waiting.lock().len() as u64,
            rows: of(&shared.progress.rows),
            write_errors: shared.spool.write_errors.count(),
            sync_errors: shared.spool.sync_errors.count(),
            read_errors: shared.read_errors.count(),
            store_errors: shared.progress.store_errors.count(),
            unspooled: shared.unspooled.count(),
            lost: shared.lost.count().saturating_add(of(&shared.aside.lost)),
            refused: shared.refused.count(),
            damaged: of(&shared.damaged),
            set_aside: of(&shared.aside.rows),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.progress.stop();
        self.shared.spool.close();
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Appends a record; whether it is in the spool.
    fn append(&self, record: &Record<'_>) -> bool {
        let written = self.spool.append(&codec::frame(record)).is_ok();
        if written {
            self.progress.appended();
        }
        written
    }

    /// Spools a row, or keeps it in memory for the mover.
    fn settle(&self, row: Row, may_spool: bool) {
        if may_spool && self.append(&Record::Settle(&row)) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(row);
            drop(waiting);
            self.progress.appended();
        } else {
            drop(waiting);
            if let Some(left_out) = self.lost.again() {
                error!(left_out, "a row of the ledger is lost: neither the spool nor the memory has room");
            }
        }
    }
}

#[cfg(test)]
mod tests;
