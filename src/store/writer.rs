//! The one writer: a thread that owns the writing connection and takes jobs from a bounded queue.
//!
//! Jobs that wait are grouped into one transaction, since what a commit costs is its `fsync`. Each runs in a savepoint of
//! its own: one that fails leaves the others alone. Nobody is answered before the batch's commit, and then the catalog is
//! published first. If the commit fails, nothing of the batch has happened, in memory or on disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};

use super::Clock;
use super::checkpoint::{Checkpoints, is_sync_failure};
use super::columns::Unstorable;
use super::ledger::WriteError;
use super::vault::Vault;
use crate::catalog::{Catalog, Live};
use crate::units::UnixMs;

/// How many jobs may wait; more are refused.
pub(super) const QUEUE: usize = 1024;

/// How many jobs share a commit.
const BATCH: usize = 128;

/// How often a writer whose last write failed tries again by itself.
const PROBE: Duration = Duration::from_secs(1);

/// A piece of work. Returns how to answer it once the batch's fate is known.
pub(super) type Job = Box<dyn FnOnce(&mut Batch<'_>) -> Settle + Send>;

/// Answers a job: `Ok` when the batch is durable and published, else why nothing of it has happened.
pub(super) type Settle = Box<dyn FnOnce(&Result<(), String>)>;

/// Why a job could not write.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it cannot be stored: {0:?}")]
    Unstorable(Unstorable),
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    /// The whole batch is lost.
    #[error("{0}")]
    Lost(String),
    /// The job panicked.
    #[error("it panicked")]
    Panicked,
}

impl Fault {
    /// What the ledger is told: whether the same rows may be written later.
    pub(super) fn into_write_error(self) -> WriteError {
        let why = self.to_string();
        let refused = match &self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(code) => matches!(
                    code,
                    ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange
                ),
                // Not SQLite's word but its driver's: a value that it cannot hand over.
                None => true,
            },
            Self::Panicked | Self::Unstorable(_) => true,
            Self::Lost(_) => false,
        };
        if refused {
            WriteError::Refused(why)
        } else {
            WriteError::Unavailable(why)
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Runs what others wrote. A panic is logged by the hook, and ends nothing but this.
pub(super) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Fault::Panicked)
}

/// What the writer shares with the store's handle. The two locks are never held together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) catalog: ArcSwap<Catalog>,
    /// Held while a catalog is published, so that a follower misses none.
    pub(super) live: Mutex<Option<Arc<Live>>>,
    /// Whether the last write went through, or why not.
    pub(super) health: Mutex<Result<(), String>>,
}

/// The jobs that share a transaction.
pub(super) struct Batch<'a> {
    connection: &'a Connection,
    pub(super) vault: &'a Vault,
    clock: &'a Clock,
    /// With the changes of the jobs so far.
    pub(super) catalog: Arc<Catalog>,
    begun: bool,
    lost: Option<Lost>,
}

/// Why a batch's transaction is gone.
#[derive(Debug, Clone)]
struct Lost {
    why: String,
    /// Until the store is opened anew.
    for_good: bool,
}

impl Lost {
    fn by(error: &rusqlite::Error) -> Self {
        Self {
            why: error.to_string(),
            for_good: is_sync_failure(error),
        }
    }
}

impl Batch<'_> {
    pub(super) fn now(&self) -> UnixMs {
        (self.clock)()
    }

    /// Reads what the batch has written so far.
    pub(super) const fn connection(&self) -> &Connection {
        self.connection
    }

    /// Runs `work` in a savepoint: all of it or nothing.
    pub(super) fn transact<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        if let Some(lost) = &self.lost {
            return Err(Fault::Lost(lost.why.clone()));
        }
        if !self.begun {
            // Another process may hold the database; the wait is bounded by the busy timeout.
            if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
                return Err(self.lose(&error));
            }
            self.begun = true;
        }
        if let Err(error) = self.connection.execute_batch("SAVEPOINT job") {
            return Err(self.lose(&error));
        }
        let connection = self.connection;
        match guard(|| work(connection)).and_then(|outcome| outcome) {
            Ok(value) => match self.connection.execute_batch("RELEASE job") {
                Ok(()) => Ok(value),
                Err(error) => Err(self.lose(&error)),
            },
            Err(fault) => Err(self.undo(fault)),
        }
    }

    /// Takes back what a failed job wrote. A full disk and the like end the whole transaction (SQLite: "Response To Errors
    /// Within A Transaction").
    fn undo(&mut self, fault: Fault) -> Fault {
        match &fault {
            Fault::Sqlite(error) if self.connection.is_autocommit() || is_sync_failure(error) => return self.lose(error),
            Fault::Sqlite(_) | Fault::Unstorable(_) | Fault::Lost(_) | Fault::Panicked => {}
        }
        match self.connection.execute_batch("ROLLBACK TO job; RELEASE job") {
            Ok(()) => fault,
            Err(error) => self.lose(&error),
        }
    }

    fn lose(&mut self, error: &rusqlite::Error) -> Fault {
        let lost = Lost::by(error);
        let why = lost.why.clone();
        self.lost = Some(lost);
        Fault::Lost(why)
    }

    fn commit(&mut self) -> Result<(), Lost> {
        if self.begun
            && self.lost.is_none()
            && let Err(error) = self.connection.execute_batch("COMMIT")
        {
            self.lose(&error);
        }
        let Some(lost) = self.lost.take() else { return Ok(()) };
        if !self.connection.is_autocommit() {
            // Its failure changes nothing: the next BEGIN says so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        Err(lost)
    }
}

/// The writer thread's own.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) checkpoints: Checkpoints,
    pub(super) vault: Arc<Vault>,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    /// Works until every handle of the store is gone.
    pub(super) fn run(self, jobs: &Receiver<Job>) {
        let mut lost_for_good = None;
        loop {
            let healthy = self.shared.health.lock().is_ok();
            let next = if healthy {
                jobs.recv().map_err(RecvTimeoutError::from)
            } else {
                jobs.recv_timeout(PROBE)
            };
            let first = match next {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => Box::new(probe),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let outcome = self.batch(first, jobs, lost_for_good.clone()).and_then(|()| self.checkpoint());
            if let Err(lost) = outcome
                && lost.for_good
            {
                self.report(Err(lost.why.clone()));
                lost_for_good = Some(lost);
            }
        }
    }

    fn batch(&self, first: Job, jobs: &Receiver<Job>, lost: Option<Lost>) -> Result<(), Lost> {
        let mut batch = Batch {
            connection: &self.connection,
            vault: &self.vault,
            clock: &self.clock,
            catalog: self.shared.catalog.load_full(),
            begun: false,
            lost,
        };
        let mut settles = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            // Jobs guard what others wrote; what else may panic in one must not end the writer. Its caller is answered
            // all the same, by the end of the channel.
            if let Ok(settle) = guard(|| job(&mut batch)) {
                settles.push(settle);
            }
            next = if settles.len() < BATCH { jobs.try_recv().ok() } else { None };
        }
        let outcome = batch.commit();
        let touched = batch.begun || outcome.is_err();
        let fate = match &outcome {
            Ok(()) => Ok(()),
            Err(lost) => Err(lost.why.clone()),
        };
        let mut health = fate.clone();
        if touched {
            if outcome.is_ok() {
                health = self.publish(&batch.catalog);
            }
            self.report(health);
        }
        for settle in settles {
            settle(&fate);
        }
        outcome
    }

    fn checkpoint(&self) -> Result<(), Lost> {
        self.checkpoints.make(&self.connection).map_err(|error| {
            // Nothing is lost yet: what is not brought home stays in the WAL.
            tracing::warn!(%error, "store could not bring its write-ahead log home");
            Lost::by(&error)
        })
    }

    /// Puts a committed catalog in force, unless it is. An engine that panics over it does not end the writer; the store is
    /// shown as not healthy, and the next write, at the latest a probe, tries again.
    fn publish(&self, catalog: &Arc<Catalog>) -> Result<(), String> {
        let live = self.shared.live.lock();
        self.shared.catalog.store(Arc::clone(catalog));
        match &*live {
            Some(live) if live.load().version() != catalog.version() => {
                guard(|| live.publish(Arc::clone(catalog))).map_err(|_| "an engine failed to take the configuration over".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn report(&self, now: Result<(), String>) {
        let before = std::mem::replace(&mut *self.shared.health.lock(), now.clone());
        match (before, now) {
            (Ok(()), Err(reason)) => tracing::error!(%reason, "store is out of order"),
            (Err(_), Ok(())) => tracing::info!("store is in order again"),
            (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        }
    }
}

/// Writes something, to see whether that works again.
fn probe(batch: &mut Batch<'_>) -> Settle {
    let written = batch.transact(|connection| Ok(connection.execute("UPDATE state SET audit_rows = audit_rows", [])?));
    if let Err(fault) = written {
        tracing::debug!(?fault, "store still cannot be written");
    }
    Box::new(|_| {})
}
