//! The embedded SQLite store: configuration, audit log, ledger. The only room that knows rusqlite.
//!
//! # Promises
//!
//! - A change is one transaction: objects, audit rows, the catalog's version and the answer kept for repetitions. It is
//!   durable (WAL, `synchronous=FULL`) and published before it is answered; otherwise nothing of it has happened. (After an
//!   `fsync` that failed only a new start knows; until then nothing more is written.)
//! - What is on disk is what is in force: the writer publishes what it has committed, in the order of the commits.
//! - The audit log is only ever added to, and shows what was done around it ([`Store::verify_audit`]).
//! - An upstream's secret is on disk only sealed; a client's secret not at all.
//! - A damaged, foreign, newer or locked store is refused as it is. No operation blocks a runtime's thread.
//!
//! # Inside
//!
//! | file | does |
//! |---|---|
//! | `open` | looks before it touches; `lock`, `schema` and `migrations/` |
//! | `writer` | the one writing thread: queue, batches, savepoints, publishing, health; `checkpoint` |
//! | `attempt` | a change's way on that thread; `change`, `idempotency`, `audit` and its `chain` |
//! | `rows` | catalog ↔ tables; `columns`, `noun/` one file per noun; `vault` seals |
//! | `readers` | the threads that answer queries |
//! | `ledger` | the requests' rows and their roll-ups; `usage` answers questions about them |
//!
//! The ledger reaches the threads by two private ways: [`Store::write`] runs a closure in a savepoint of the writer's next
//! transaction and answers once that is durable; [`Store::read`] runs one on a reader under a deadline. Rows of both kinds
//! share commits; a failed batch leaves the other jobs alone.

mod attempt;
mod audit;
mod chain;
mod change;
mod checkpoint;
mod columns;
mod idempotency;
pub mod ledger;
mod lock;
mod noun;
mod open;
mod readers;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
pub mod usage;
mod vault;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use audit::{AuditQuery, AuditRow};
pub use chain::{Chain, Head, NoHead, Verdict, verify_file};
pub use change::{Author, Change, ChangeError, Done, Entry, Idempotency, Render, Source, StoredAnswer};

use crate::catalog::{Catalog, Live};
use crate::units::UnixMs;
use ledger::WriteError;
use lock::Lock;
use readers::Readers;
use vault::Vault;
use writer::{Fault, Job, Shared, Writer};

/// Looks up what a credential's reference (`env:NAME`, `file:PATH`) stands for now; `None` when it stands for nothing.
pub type Resolver = Arc<dyn Fn(&str) -> Option<Arc<str>> + Send + Sync>;

/// Tells the wall-clock time.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// The database file. Its directory is made (0700) if it does not exist.
    pub path: PathBuf,
    /// What stored credentials of upstreams are sealed with (AES-256-GCM). Without it only references are accepted.
    pub sealing_key: Option<[u8; 32]>,
    /// The capacity that a new store starts with; an old one has its own.
    pub max_in_flight: u32,
    /// Resolves references; by default from the environment and from files.
    pub resolve: Resolver,
    /// The clock; by default the system's.
    pub clock: Clock,
}

impl Options {
    /// A store at `path` with the defaults: no sealing key, 64 requests in flight.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            sealing_key: None,
            max_in_flight: 64,
            resolve: Arc::new(vault::resolve_from_system),
            clock: Arc::new(system_clock),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("path", &self.path)
            .field("sealing_key", &self.sealing_key.map(|_| "***"))
            .field("max_in_flight", &self.max_in_flight)
            .finish_non_exhaustive()
    }
}

fn system_clock() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Why a store cannot be opened. Each is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store {} is in use by process {pid}", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
        /// Who has it, as the lock file says.
        pid: String,
    },
    /// Not a database, not ours, or damaged. Nothing of it has been touched.
    #[error("the store {} is damaged or is no obleth store: {detail}", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a later version of the program. Nothing of it has been touched.
    #[error("the store {} has schema {found}, and this program knows schemas up to {known}: use the newer program", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The latest this program knows.
        known: i64,
    },
    /// Stored credentials are sealed, and no key was given.
    #[error("the credential of {owner} is sealed, and there is no key to open it: set OBLETH_ENCRYPTION_KEY")]
    NoSealingKey {
        /// Noun and name.
        owner: String,
    },
    /// Stored credentials are sealed with another key.
    #[error("the credential of {owner} cannot be opened: OBLETH_ENCRYPTION_KEY is not the key it was sealed with, or the row was altered")]
    WrongSealingKey {
        /// Noun and name.
        owner: String,
    },
    /// The operating system or SQLite refused.
    #[error("the store {} cannot be opened: {detail}", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// What it said.
        detail: String,
    },
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too many queries are waiting; try again.
    #[error("the store is busy with other queries")]
    Busy,
    /// It took longer than a query may.
    #[error("the query took too long")]
    TimedOut,
    /// SQLite refused.
    #[error("the store cannot be read: {0}")]
    Failed(String),
}

/// The store. Closed when the last handle is dropped, which waits for the changes under way.
#[derive(Debug)]
pub struct Store {
    /// `None` while it is closed.
    house: RwLock<Option<House>>,
    options: Options,
    shared: Arc<Shared>,
    vault: Arc<Vault>,
}

/// The threads of an open store.
#[derive(Debug)]
struct House {
    /// `None` while the writer is being ended.
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    readers: Readers,
    /// The last to go.
    _lock: Lock,
}

impl Store {
    /// Opens a store, or makes a new one, and loads the catalog. Blocks: call it while the house is being built.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: Options) -> Result<(Arc<Self>, Catalog), OpenError> {
        let vault = Arc::new(Vault::new(options.sealing_key.as_ref(), Arc::clone(&options.resolve)));
        let opened = open::open(&options, &vault)?;
        let shared = Arc::new(Shared {
            catalog: ArcSwap::from_pointee(opened.catalog.clone()),
            live: Mutex::new(None),
            health: Mutex::new(Ok(())),
        });
        let catalog = opened.catalog.clone();
        let house = House::start(opened, &options, &vault, &shared)?;
        let store = Self {
            house: RwLock::new(Some(house)),
            options,
            shared,
            vault,
        };
        Ok((Arc::new(store), catalog))
    }

    /// Whether a store could be opened as it lies there, as far as that can be seen while another process has it: nothing is
    /// locked, made or brought up to date. One that does not exist yet could be.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn examine(options: &Options) -> Result<(), OpenError> {
        let vault = Vault::new(options.sealing_key.as_ref(), Arc::clone(&options.resolve));
        open::look(&options.path, &vault)
    }

    /// Closes it while its handles live, and gives the lock back: for another process that takes over. What is asked of it
    /// until it is [opened again](Self::reopen) fails. Waits for the changes and queries under way. Blocks.
    pub fn close(&self) {
        let house = self.house.write().take();
        // Not under the lock: a job may ask for it.
        drop(house);
    }

    /// Opens it again, and publishes what it holds. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]; then it stays closed.
    pub fn reopen(&self) -> Result<(), OpenError> {
        let mut house = self.house.write();
        let opened = open::open(&self.options, &self.vault)?;
        let catalog = Arc::new(opened.catalog.clone());
        *house = Some(House::start(opened, &self.options, &self.vault, &self.shared)?);
        self.shared.catalog.store(Arc::clone(&catalog));
        if let Some(live) = &*self.shared.live.lock()
            && live.load().version() != catalog.version()
        {
            live.publish(catalog);
        }
        Ok(())
    }

    /// From now on, publishes each committed catalog to `live` before the change is answered. Publishes the present
    /// catalog at once if `live` holds another version. The engines that follow `live` must not call this room back.
    pub fn follow(&self, live: Arc<Live>) {
        let mut followed = self.shared.live.lock();
        let present = self.catalog();
        if live.load().version() != present.version() {
            live.publish(present);
        }
        *followed = Some(live);
    }

    /// The catalog as last committed.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    /// Resolves a credential's reference, as the store does when it loads. May read a file.
    #[must_use]
    pub fn resolve(&self, reference: &str) -> Option<Arc<str>> {
        self.vault.resolve(reference)
    }

    /// Changes the catalog: `edit` runs on the writer thread on a copy of the catalog in force; see [`Change`] for what it
    /// returns and what the store adds. When the answer arrives, the change is durable and published.
    ///
    /// A caller that goes away while the change still waits takes it back; afterwards it happens all the same.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn change<T, E, F>(&self, author: Author, edit: F) -> Result<Done<T>, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut Catalog, UnixMs) -> Result<Change<T>, E> + Send + 'static,
    {
        self.change_with(author, None, edit).await
    }

    /// As [`change`](Self::change), and remembers in the same transaction that the configuration file `document` was
    /// applied. The document is the file as the program understood it, without any secret in clear.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed, and the file applied before is still remembered.
    pub async fn apply_file<T, E, F>(&self, author: Author, document: String, edit: F) -> Result<Done<T>, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut Catalog, UnixMs) -> Result<Change<T>, E> + Send + 'static,
    {
        self.change_with(author, Some(document), edit).await
    }

    /// The configuration file last applied: one side of the next three-way merge.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn applied_file(&self) -> Result<Option<String>, ReadError> {
        self.read(READ, rows::applied_file).await
    }

    async fn change_with<T, E, F>(&self, author: Author, file: Option<String>, edit: F) -> Result<Done<T>, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut Catalog, UnixMs) -> Result<Change<T>, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = attempt::job(author, file, edit, reply);
        self.submit(job).map_err(ChangeError::Unavailable)?;
        answer.await.unwrap_or_else(|_| Err(ChangeError::Unavailable(CLOSING.to_owned())))
    }

    /// Whether the last write went through and was taken over by the engines; what `GET /health` asks. After a failure the writer tries by itself every
    /// second.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn writable(&self) -> Result<(), String> {
        self.shared.health.lock().clone()
    }

    /// Runs `work` in a savepoint of the writer's next transaction. It must neither commit nor roll back by itself. The
    /// answer comes once the transaction is durable; on an error nothing of `work` is.
    ///
    /// # Errors
    /// Why the store cannot be written, in a sentence, at once when the queue is full.
    fn write<T, F>(&self, work: F) -> Result<oneshot::Receiver<Result<T, WriteError>>, WriteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.submit(Box::new(move |batch| {
            let outcome = batch.transact(|connection| work(connection).map_err(Fault::from));
            Box::new(move |fate| {
                let fate = fate.clone().map_err(WriteError::Unavailable);
                // Who asked may have gone; what is written stands.
                let _ = reply.send(fate.and_then(|()| outcome.map_err(Fault::into_write_error)));
            })
        }))
        .map_err(WriteError::Unavailable)?;
        Ok(answer)
    }

    /// Runs `query` on a reader, for `budget` at most.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn read<T, F>(&self, budget: Duration, query: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let closing = || ReadError::Failed(CLOSING.to_owned());
        let answer = match &*self.house.read() {
            Some(house) => house.readers.ask(budget, query)?,
            None => return Err(closing()),
        };
        answer.await.unwrap_or_else(|_| Err(closing()))
    }

    fn submit(&self, job: Job) -> Result<(), String> {
        let house = self.house.read();
        let jobs = house
            .as_ref()
            .and_then(|house| house.jobs.as_ref())
            .ok_or_else(|| CLOSING.to_owned())?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => "too many changes are waiting".to_owned(),
            TrySendError::Disconnected(_) => CLOSING.to_owned(),
        })
    }
}

impl House {
    fn start(opened: open::Opened, options: &Options, vault: &Arc<Vault>, shared: &Arc<Shared>) -> Result<Self, OpenError> {
        let readers = Readers::start(&opened.path)?;
        let (jobs, queue) = sync_channel(writer::QUEUE);
        let writer = Writer {
            connection: opened.writer,
            checkpoints: opened.checkpoints,
            vault: Arc::clone(vault),
            clock: Arc::clone(&options.clock),
            shared: Arc::clone(shared),
        };
        let thread = std::thread::Builder::new().name("store-write".to_owned());
        let thread = thread.spawn(move || writer.run(&queue)).map_err(|error| OpenError::Io {
            path: opened.path,
            detail: error.to_string(),
        })?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(thread),
            readers,
            _lock: opened.lock,
        })
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // The writer's connection must be the last to close: only it can bring the WAL home.
        self.readers.end();
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            join(writer);
        }
    }
}

/// Waits for a thread of this room, unless it is the one that waits: a job may hold the store's last handle.
fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        // One that panicked has nothing to give back.
        let _ = thread.join();
    }
}

/// How long a query of the management API may take.
const READ: Duration = Duration::from_secs(5);

const CLOSING: &str = "the store is closing";
