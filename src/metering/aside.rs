//! Rows that the store refuses for good: set aside, so that they hold up nobody else's.
//!
//! A batch that is refused is cut in halves until the row is alone that is to blame. It goes to a file of its own beside the
//! segments, in their format, is logged, and is tried again at each start: another version may take it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::codec::{self, Read, Record};
use super::{Row, Sink, recovery};
use crate::store::ledger::{Cursor, WriteError};

/// The file's name; no segment's, since those are numbers.
const NAME: &str = "refused.spool1";

/// How large it grows. What is beyond is lost, and counted.
const BYTES_MAX: u64 = 16 << 20;

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    bytes: AtomicU64,
    /// Rows in the file.
    pub(super) rows: AtomicU64,
    /// Rows that neither the store nor the file took.
    pub(super) lost: AtomicU64,
}

impl Aside {
    /// Tries again what an earlier process set aside; what is still refused stays.
    pub(super) fn open(dir: &Path, sink: &dyn Sink, cursor: Cursor) -> io::Result<Self> {
        let aside = Self {
            path: dir.join(NAME),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        let before = match std::fs::read(&aside.path) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(aside),
            Err(error) => return Err(error),
        };
        let (mut left, mut count, mut offset) = (Vec::new(), 0, 0);
        while let Some((record, next, _)) = recovery::next_record(&before, offset) {
            offset = next;
            let Read::Settle(row) = record else { continue };
            if sink.append(Arc::new(vec![row.clone()]), cursor).is_err() {
                left.extend_from_slice(&codec::frame(&Record::Settle(&row)));
                count += 1;
            }
        }
        if count == 0 {
            std::fs::remove_file(&aside.path)?;
        } else if left.len() < before.len() {
            let new = aside.path.with_extension("new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&left)?;
            file.sync_data()?;
            std::fs::rename(&new, &aside.path)?;
        }
        if count > 0 {
            tracing::error!(rows = count, path = %aside.path.display(), "the ledger still refuses rows that were set aside");
        }
        aside.bytes.store(left.len() as u64, Ordering::Relaxed);
        aside.rows.store(count, Ordering::Relaxed);
        Ok(aside)
    }

    /// # Errors
    /// Says why the file cannot be written, which may pass. A row that it has no room for is lost.
    fn put(&self, row: &Row, why: &str) -> io::Result<()> {
        let frame = codec::frame(&Record::Settle(row));
        let size = frame.len() as u64;
        if self.bytes.load(Ordering::Relaxed) + size > BYTES_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(request_id = %row.request_id, reason = why, "the ledger refuses a row, which is lost: too many are set aside");
            return Ok(());
        }
        self.append(&frame)?;
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.rows.fetch_add(1, Ordering::Relaxed);
        tracing::error!(request_id = %row.request_id, reason = why, "the ledger refuses a row, which is set aside");
        Ok(())
    }

    fn append(&self, frame: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(frame)?;
        file.sync_data()
    }
}

/// How rows were delivered.
pub(super) enum Delivery {
    /// All are in the store, so many of them new, or set aside; the cursor has moved.
    Done(usize),
    /// The store is not there. These are still to be delivered; some may be in it already, which does no harm.
    Later(Vec<Row>, String),
}

/// Delivers rows and moves the cursor from `from` to `to`.
pub(super) fn deliver(sink: &dyn Sink, aside: &Aside, rows: Vec<Row>, (from, to): (Cursor, Cursor)) -> Delivery {
    let rows = Arc::new(rows);
    match sink.append(Arc::clone(&rows), to) {
        Ok(new) => return Delivery::Done(new),
        Err(WriteError::Unavailable(why)) => return Delivery::Later(Arc::unwrap_or_clone(rows), why),
        Err(WriteError::Refused(_)) => {}
    }
    let mut rows = Arc::unwrap_or_clone(rows);
    let mut refused = Vec::new();
    let outcome = search(sink, aside, &rows, from, &mut refused).and_then(|new| {
        sink.append(Arc::new(Vec::new()), to)
            .map(|_| new)
            .map_err(|error| error.to_string())
    });
    match outcome {
        Ok(new) => Delivery::Done(new),
        Err(why) => {
            rows.retain(|row| !refused.contains(&row.request_id));
            Delivery::Later(rows, why)
        }
    }
}

/// Delivers what can be delivered of rows that were refused together, and sets the others aside.
fn search(sink: &dyn Sink, aside: &Aside, rows: &[Row], cursor: Cursor, refused: &mut Vec<crate::id::RequestId>) -> Result<usize, String> {
    if rows.is_empty() {
        return Ok(0);
    }
    match sink.append(Arc::new(rows.to_vec()), cursor) {
        Ok(new) => Ok(new),
        Err(WriteError::Unavailable(why)) => Err(why),
        Err(WriteError::Refused(why)) => {
            if let [row] = rows {
                aside.put(row, &why).map_err(|error| error.to_string())?;
                refused.push(row.request_id);
                return Ok(0);
            }
            let (head, tail) = rows.split_at(rows.len() / 2);
            Ok(search(sink, aside, head, cursor, refused)? + search(sink, aside, tail, cursor, refused)?)
        }
    }
}
