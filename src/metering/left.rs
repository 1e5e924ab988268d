//! What a process leaves beside the spool when it hands the ledger over: a folder of segments that it goes on writing to, for
//! the requests it keeps. Its heir reads along, and deletes the folder when the process has ended and all of it is moved.
//!
//! The folder's lock is held by who writes. Once somebody else can take it, nothing comes any more, and a request that is still
//! open was interrupted. Reading twice does no harm, as anywhere in the ledger.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::codec::{self, Found};
use super::ticket::{Delivered, Intent};
use super::{Row, recovery, spool};
use crate::id::RequestId;
use crate::store::ledger::Cursor;
use crate::units::UnixMs;

const PREFIX: &str = "left-";
const LOCK: &str = "lock";

/// The segment that a folder begins with.
pub(super) const FIRST: u64 = 1;

/// A folder that this process writes to, until it is dropped.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) dir: PathBuf,
    /// The segment to go on with where it was left.
    pub(super) next_segment: u64,
    _lock: File,
}

impl Own {
    /// Makes one.
    pub(super) fn make(spool_dir: &Path, now: UnixMs) -> io::Result<Self> {
        let dir = spool_dir.join(format!("{PREFIX}{}-{}", now.0, std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let lock = open_lock(&dir)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            dir,
            next_segment: 0,
            _lock: lock,
        })
    }
}

fn open_lock(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(dir.join(LOCK))
}

/// A folder that is read.
#[derive(Debug)]
pub(super) struct Left {
    dir: PathBuf,
    lock: File,
    at: Cursor,
    open: HashMap<RequestId, (Intent, Delivered)>,
    /// All of it has been read, and who wrote it is gone.
    done: bool,
}

impl Left {
    /// Those that lie beside the spool.
    pub(super) fn all(spool_dir: &Path) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in spool_dir.read_dir()? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                all.push(Self::at(entry.path())?);
            }
        }
        Ok(all)
    }

    /// The one that lies there.
    pub(super) fn at(dir: PathBuf) -> io::Result<Self> {
        let lock = open_lock(&dir)?;
        Ok(Self {
            dir,
            lock,
            at: Cursor { segment: FIRST, offset: 0 },
            open: HashMap::new(),
            done: false,
        })
    }

    /// Whether whoever wrote it is gone. Looked at before reading, so that what is read then is all.
    pub(super) fn is_orphaned(&self) -> bool {
        flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Reads what is new; rows come as they were settled. `whole` says that nothing more is written.
    pub(super) fn read(&mut self, whole: bool, mut settled: impl FnMut(Row)) -> io::Result<()> {
        loop {
            let path = spool::path(&self.dir, self.at.segment);
            // Looked for first: then this segment is complete.
            let is_last = !spool::path(&self.dir, self.at.segment + 1).exists();
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(self.at.offset))?;
            file.read_to_end(&mut bytes)?;
            let mut offset = 0;
            loop {
                let (record, next) = match codec::read(&bytes[offset..]) {
                    Found::Record(record, length) => (*record, offset + length),
                    // A write that failed is taken back by who made it; it is damage only if that cannot be any more.
                    Found::Part | Found::Damage if is_last && !whole => break,
                    Found::Part | Found::Damage => match recovery::next_record(&bytes, offset) {
                        Some((record, next, _)) => (record, next),
                        None => break,
                    },
                };
                offset = next;
                if let Some(row) = recovery::note(&mut self.open, record) {
                    settled(row);
                }
            }
            self.at.offset += offset as u64;
            if is_last {
                return Ok(());
            }
            self.at = Cursor {
                segment: self.at.segment + 1,
                offset: 0,
            };
        }
    }

    /// Nothing more will be read: the rows of those that nobody settled.
    pub(super) fn interrupted(&mut self) -> impl Iterator<Item = Row> {
        self.done = true;
        let open = std::mem::take(&mut self.open).into_values();
        open.map(|(intent, delivered)| intent.interrupted(delivered, Duration::ZERO))
    }

    /// Nothing more will be read: those that nobody settled yet.
    pub(super) fn still_open(&mut self) -> impl Iterator<Item = (Intent, Delivered)> {
        self.done = true;
        std::mem::take(&mut self.open).into_values()
    }

    /// Where it lies.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// Deletes it; its rows are in the store.
    pub(super) fn delete(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.dir)
    }
}
