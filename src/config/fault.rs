//! What is wrong with a configuration file: each fault with its place and what was expected, never with a value.

use std::fmt;
use std::path::{Path, PathBuf};

use super::tree::{self, Place};

/// Faults that are located and listed; the rest is counted.
const LISTED_MAX: usize = 100;
/// Locating a fault reads the file anew. Of a file of many megabytes fewer faults are listed, but always some.
const BYTES_MAX: usize = 32 * 1024 * 1024;
const LISTED_MIN: usize = 10;

/// One fault. `Display` is `file:line:column: path: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file as it was named; `environment` or `command line` for values that came from there.
    pub file: PathBuf,
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    /// From 1; 0 for the file as a whole.
    pub column: usize,
    /// The field, like `tenants[0].keys[1].secret`; empty for the file as a whole.
    pub path: String,
    /// What was expected. Never shows a value: it may have come out of `${env:…}` or `${file:…}`.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}

/// Where a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The file as a whole.
    File,
    /// A node of it.
    Node(usize),
    /// An environment variable, whose name is the path.
    Environment,
    /// A flag, whose setting is the path.
    Flag,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(At, String, String)>);

impl Faults {
    pub(super) fn add(&mut self, at: At, path: &str, message: impl Into<String>) {
        self.0.push((at, path.to_owned(), message.into()));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the lines, and puts the faults in the file's order.
    pub(super) fn locate(self, file: &Path, text: &str) -> Vec<Fault> {
        let affordable = (BYTES_MAX / text.len().max(1)).clamp(LISTED_MIN, LISTED_MAX);
        let more = self.0.len().saturating_sub(affordable);
        let listed = self.0.into_iter().take(affordable);
        let mut faults: Vec<Fault> = listed
            .map(|(at, path, message)| {
                let (file, place) = match at {
                    At::File => (file, Place::default()),
                    At::Node(at) => (file, tree::locate(text, at).unwrap_or_default()),
                    At::Environment => (Path::new("environment"), Place::default()),
                    At::Flag => (Path::new("command line"), Place::default()),
                };
                Fault {
                    file: file.to_owned(),
                    line: place.line,
                    column: place.column,
                    path,
                    message,
                }
            })
            .collect();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        if more > 0 {
            faults.push(whole(file, format!("and {more} more")));
        }
        faults
    }
}

/// A fault of the file as a whole.
pub(super) fn whole(file: &Path, message: impl Into<String>) -> Fault {
    Fault {
        file: file.to_owned(),
        line: 0,
        column: 0,
        path: String::new(),
        message: message.into(),
    }
}
