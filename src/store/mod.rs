//! The embedded SQLite store: configuration, audit, ledger.

mod audit;
mod change;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use audit::{AuditQuery, AuditRow, Chain};
pub use change::{Author, Change, ChangeError, Done, Entry, Idempotency, Render, Source, StoredAnswer};

use crate::catalog::{Catalog, Live};
use crate::units::UnixMs;

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
            resolve: Arc::new(|_| None),
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

/// Why a store cannot be opened. Each is a sentence for the operator; nothing has been changed on disk.
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
    /// Not a database, not ours, or damaged.
    #[error("the store {} is damaged or is no obleth store: {detail}", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a later version of the program.
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

/// The store. Closed when the last handle is dropped.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens a store, or makes a new one, and loads the catalog. Blocks: call it while the house is being built.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: Options) -> Result<(Arc<Self>, Catalog), OpenError> {
        Err(OpenError::Io {
            path: options.path,
            detail: "not built yet".to_owned(),
        })
    }

    /// From now on, publishes each committed catalog to `live` before the change is answered. Publishes the present
    /// catalog at once if `live` holds another version.
    pub fn follow(&self, live: Arc<Live>) {
        drop(live);
    }

    /// The catalog as last committed.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::new(Catalog::empty(0))
    }

    /// Resolves a credential's reference, as the store does when it loads.
    #[must_use]
    pub fn resolve(&self, reference: &str) -> Option<Arc<str>> {
        let _ = reference;
        None
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
        drop((author, edit));
        Err(ChangeError::Unavailable("not built yet".to_owned()))
    }

    /// Reads the audit log, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditRow>, ReadError> {
        drop(query);
        Err(ReadError::Busy)
    }

    /// Walks the audit log's hash chain from its first row.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn verify_audit(&self) -> Result<Chain, ReadError> {
        Err(ReadError::Busy)
    }

    /// Whether the last write went through; what `GET /health` asks. After a failure the writer tries by itself every
    /// second.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn writable(&self) -> Result<(), String> {
        Ok(())
    }
}
