//! What a change is made of: who makes it, what it returns, what goes into the audit log, how it can be repeated.

use std::fmt;
use std::sync::Arc;

use crate::catalog::{Catalog, words};

/// Where a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The management API.
    Api,
    /// The configuration file.
    File,
    /// The command line.
    Cli,
}

words! {
    Source { Api = "api", File = "file", Cli = "cli" }
}

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// A person or program, for the audit log; never a credential.
    pub actor: String,
    /// By which way.
    pub source: Source,
    /// The management request's id; empty where there is none.
    pub request_id: String,
    /// Makes a repetition harmless.
    pub idempotency: Option<Idempotency>,
}

/// A caller's promise that a key names one request: within 24 hours a repetition gets the first answer again.
#[derive(Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key, at most 255 bytes.
    pub key: String,
    /// SHA-256 over method, path and body: what makes a repetition one.
    pub digest: [u8; 32],
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").field("key", &self.key).finish_non_exhaustive()
    }
}

/// An answer kept for repetitions. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// The body, JSON.
    pub body: String,
}

/// Draws the answer to keep, from the catalog as it will be committed: versions and times are set by then.
pub type Render = Box<dyn FnOnce(&Catalog) -> StoredAnswer + Send>;

/// One row for the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// `create_tenant`, … as in the management API.
    pub action: &'static str,
    /// `tenant`, `key`, `model`, `group`, `mcp_server`, `capacity`, `config`.
    pub entity_type: &'static str,
    /// Its id; a group's name.
    pub entity_id: String,
    /// Before and after of the changed fields, never a secret.
    pub detail: serde_json::Value,
}

/// What an edit of the catalog returns.
///
/// The store compares the edited catalog with the one before. Each object that was put has its `provenance` completed:
/// `version` +1 (1 for a new one), `updated_at` now, `created_at` kept (now for a new one); what the edit wrote there does
/// not matter. `managed_by` and `overridden` are the edit's.
pub struct Change<T> {
    /// For the caller.
    pub value: T,
    /// For the audit log.
    pub audit: Vec<Entry>,
    /// For repetitions; asked only when the author has an idempotency key.
    pub answer: Option<Render>,
}

impl<T> Change<T> {
    /// A change without audit rows.
    pub const fn new(value: T) -> Self {
        Self {
            value,
            audit: Vec::new(),
            answer: None,
        }
    }

    /// Adds an audit row.
    #[must_use]
    pub fn audited(mut self, entry: Entry) -> Self {
        self.audit.push(entry);
        self
    }

    /// Adds the answer to keep for repetitions.
    #[must_use]
    pub fn answering(mut self, render: impl FnOnce(&Catalog) -> StoredAnswer + Send + 'static) -> Self {
        self.answer = Some(Box::new(render));
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("value", &self.value)
            .field("audit", &self.audit)
            .finish_non_exhaustive()
    }
}

/// How a change ended.
#[derive(Debug, Clone)]
pub enum Done<T> {
    /// It is durable and in force.
    Committed {
        /// What the edit returned.
        value: T,
        /// The catalog right after this change, with versions and times.
        catalog: Arc<Catalog>,
    },
    /// It had been made before, and was not made again: the answer of then.
    Replayed(StoredAnswer),
}

/// Why nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError<E> {
    /// The edit said no.
    #[error("the change was refused")]
    Refused(E),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// A credential's value was to be stored, and there is no key to seal it with.
    #[error("credentials can only be references (env: or file:) unless OBLETH_ENCRYPTION_KEY is set")]
    NoSealingKey,
    /// A number that a column cannot hold (above 2⁶³ − 1): the field's name.
    #[error("{0} is too large to be stored")]
    TooLarge(&'static str),
    /// The store cannot be written now; try again.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The edit panicked: a bug, logged.
    #[error("the change failed by a fault of the program")]
    Panicked,
}
