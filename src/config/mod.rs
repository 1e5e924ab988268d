//! The configuration file: read with every fault at its place, merged with the store field by field, written, watched.
//!
//! The file has two halves. *Settings* ([`Settings`]) are read once, at start. *Resources* (capacity, groups, tenants and
//! their keys, models, MCP servers) are merged into the catalog at start and at each reload, three ways: the file as last
//! applied ([`Applied`]), the file now ([`File`]), the store (`Catalog`). [`merge`] makes a [`Plan`] and changes nothing;
//! the plan is applied to a catalog, reported and audited by whoever asked for it.
//!
//! # Who wins
//!
//! - A field that the file states, or no longer states (it is then at its default), otherwise than when it was last applied
//!   is applied, whatever the API has done in between.
//! - A field that only the API changed stays and is listed in `overridden`; the list is made anew by each merge.
//! - An object that the file made and no longer names is deleted, unless it is a group that still has tenants.
//! - An object that the file made and the API deleted stays deleted until the file changes it.
//! - An object that the API made is never touched; that the file names it too is reported ([`Notice::MadeByApi`]) when they
//!   differ. Operators who want the file to take over say so ([`Adoption::Named`]).
//! - The default group belongs to neither side: its fields are merged, and nobody deletes it. So is the capacity.
//! - Objects are known by name, keys by tenant and name. A file's object that the API renamed is still the file's: `name`
//!   is listed as overridden. A key with the same secret is the same key, whatever it is called.
//!
//! Pure but for reading files; the watcher has a thread of its own. The only room that knows YAML.

mod access;
mod applied;
mod compare;
mod environment;
mod export;
mod fault;
mod field;
mod file;
mod kind;
mod merge;
mod noun;
mod plan;
mod reading;
mod reference;
mod settings;
mod tree;
mod watch;
mod wire;

pub use applied::{Applied, Unreadable};
pub use compare::compare;
pub use environment::{Environment, Process, resolve};
pub use export::export;
pub use fault::Fault;
pub use file::{File, load, parse, without_file};
pub use merge::{Adoption, merge};
pub use plan::{Change, FieldChange, Notice, Plan};
pub use reference::{Entry, reference};
pub use settings::{
    Admin, Ledger, Limits, ListenerTls, Log, LogFormat, LogLevel, MAX_IN_FLIGHT_DEFAULT, Metrics, Ratio, RequestLog, Scheduler, Server,
    Settings, Store, TenantLabel, Traces, WhenFull,
};
pub use watch::{Pace, Watch, watch};

use crate::credential::KeyHasher;

/// What reading a file needs beside its text.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where references look.
    pub environment: &'a dyn Environment,
    /// Hashes the secrets of keys.
    pub hasher: &'a KeyHasher,
    /// Settings that flags give, like `("server.listen", "0.0.0.0:8080")`: they win over the environment and the file. So
    /// does `capacity.max_in_flight`.
    pub flags: &'a [(&'static str, String)],
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("hasher", self.hasher).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
