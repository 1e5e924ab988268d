//! The thread that moves rows from the spool to the store.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::aside::{self, Delivery};
use super::codec::{self, Found, PAYLOAD_MAX, Read, Record};
use super::handover::Parting;
use super::left::Left;
use super::ticket::{Delivered, Intent};
use super::trouble::Trouble;
use super::{Observer, Row, Settings, Shared, Sink, recovery, spool};
use crate::id::RequestId;
use crate::store::Clock;
use crate::store::ledger::Cursor;
use crate::units::UnixMs;

/// How long a row may lie in the spool before it is moved, and how many records make the mover come earlier. Larger batches
/// write each page of the tables less often (at 10 000 requests/s the store's thread takes 10 µs a request with these, 14
/// with 50 ms and 256 records); smaller ones keep changes of the configuration, which wait for the same thread, quick.
pub(super) const MOVE_EVERY: Duration = Duration::from_millis(100);
const MOVE_RECORDS: u64 = 1_024;

/// The most rows per transaction, when the mover is behind.
pub(super) const BATCH_MAX: usize = 4_096;

/// How much is read at once.
const CHUNK: usize = 1 << 20;
const _: () = assert!(CHUNK > PAYLOAD_MAX + codec::HEADER);

/// How long the mover waits after the store refused a batch.
const STORE_RETRY: Duration = Duration::from_millis(200);

/// How often a segment that cannot be read is tried before it is given up, 50 ms apart.
const READ_TRIES: u32 = 100;

/// How often old rows are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

const DAY_MS: i64 = 86_400_000;

/// How far the mover is; what others wait for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) mover: Mutex<Option<Thread>>,
    pub(super) rows: AtomicU64,
    pub(super) store_errors: Trouble,
    appended: AtomicU64,
    /// Of what was appended, how much is in the store or needs no row.
    moved: Mutex<u64>,
    changed: Condvar,
    stopping: AtomicBool,
    pub(super) parting: Mutex<Parting>,
    pub(super) parted: Condvar,
}

impl Progress {
    /// Something was appended.
    pub(super) fn appended(&self) {
        let count = self.appended.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(MOVE_RECORDS) {
            self.wake();
        }
    }

    /// Waits until what was appended so far is moved.
    pub(super) fn flush(&self, shared: &Shared, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        shared.spool.sync();
        let target = self.appended.load(Ordering::Relaxed);
        self.wake();
        let mut moved = self.moved.lock();
        while *moved < target {
            if self.changed.wait_until(&mut moved, deadline).timed_out() {
                return *moved >= target;
            }
        }
        true
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(mover) = &*self.mover.lock() {
            mover.unpark();
        }
    }
}

/// A request that was begun and not settled, and the segment that remembers it.
pub(super) struct Open {
    pub(super) intent: Intent,
    pub(super) delivered: Delivered,
    pub(super) segment: u64,
}

pub(super) struct Mover {
    pub(super) shared: Arc<Shared>,
    sink: Arc<dyn Sink>,
    pub(super) dir: PathBuf,
    pub(super) clock: Clock,
    pub(super) observer: Observer,
    retention_ms: i64,
    prune_at: Instant,
    /// Where it reads.
    pub(super) at: Cursor,
    /// Where the store knows it to be.
    stored: Cursor,
    /// Whether it is passing over damage.
    in_damage: bool,
    /// How often in a row it could not read.
    pub(super) unreadable: u32,
    file: Option<File>,
    /// Where reading ends for good; `None` is wherever the spool is.
    pub(super) until: Option<(u64, u64)>,
    /// What others left, and whom this process was before it took the ledger back.
    pub(super) left: Vec<Left>,
    /// The oldest segment that is not deleted.
    pub(super) oldest: u64,
    pub(super) open: HashMap<RequestId, Open>,
    /// Read, not yet in the store.
    pub(super) rows: Vec<Row>,
    /// How much of what was appended they and what lies before them are.
    consumed: u64,
}

impl Mover {
    pub(super) fn new(shared: Arc<Shared>, sink: Arc<dyn Sink>, segment: u64, settings: &Settings) -> Self {
        Self {
            shared,
            sink,
            dir: settings.spool_dir.clone(),
            clock: Arc::clone(&settings.clock),
            observer: Arc::clone(&settings.observer),
            retention_ms: i64::from(settings.retention_days) * DAY_MS,
            prune_at: Instant::now(),
            at: Cursor { segment, offset: 0 },
            stored: Cursor { segment, offset: 0 },
            in_damage: false,
            unreadable: 0,
            file: None,
            until: None,
            left: Vec::new(),
            oldest: segment,
            open: HashMap::new(),
            rows: Vec::new(),
            consumed: 0,
        }
    }

    /// Moves until it is stopped, and then what is left.
    pub(super) fn run(mut self) {
        loop {
            let stopping = self.shared.progress.stopping.load(Ordering::Relaxed);
            // Told before the tail is: whatever is counted here lies before it, or waits in memory.
            let appended = self.shared.progress.appended.load(Ordering::Relaxed);
            let more_spooled = self.read_or_give_up();
            let more_left = self.read_left();
            let behind = self.take_waiting() || more_spooled || more_left;
            if !behind && self.unreadable == 0 {
                // Records that were lost to damage are never counted.
                self.consumed = self.consumed.max(appended);
            }
            let stored = self.store();
            if stored {
                self.retire();
                self.delete_left();
            }
            if stored && !behind && self.parts() {
                break;
            }
            if stopping && (!stored || !behind) {
                break self.leave();
            }
            if !stored {
                thread::park_timeout(STORE_RETRY);
            } else if !self.prune() && !behind {
                thread::park_timeout(MOVE_EVERY);
            }
        }
    }

    /// Reads what was appended; what cannot be read is given up after a while. Returns whether there is more.
    pub(super) fn read_or_give_up(&mut self) -> bool {
        let Err(error) = self.read() else {
            self.unreadable = 0;
            return self.rows.len() >= BATCH_MAX;
        };
        self.file = None;
        self.unreadable += 1;
        self.cannot("the ledger's spool cannot be read back", &error);
        if error.kind() == io::ErrorKind::NotFound || self.unreadable >= READ_TRIES {
            self.unreadable = 0;
            self.give_up();
            return true;
        }
        false
    }

    /// Reads what was appended, up to a batch.
    fn read(&mut self) -> io::Result<()> {
        let (tail, tail_length) = self.tail();
        let mut chunk = Vec::new();
        while self.rows.len() < BATCH_MAX {
            let last = self.at.segment == tail;
            if last && self.at.offset >= tail_length {
                return Ok(());
            }
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(File::open(spool::path(&self.dir, self.at.segment))?),
            };
            let wanted = if last { tail_length - self.at.offset } else { CHUNK as u64 };
            let wanted = usize::try_from(wanted).map_or(CHUNK, |wanted| wanted.min(CHUNK));
            chunk.resize(wanted, 0);
            let length = read_at_most(file, &mut chunk, self.at.offset)?;
            if self.consume(&chunk[..length]) > 0 {
                continue;
            }
            // Up to the tail there are whole records, and a whole segment is read to its end: what cannot be read is damage, or
            // what a failed write left at its end.
            if let Some((record, next, _)) = recovery::next_record(&chunk[..length], 0) {
                self.in_damage = true;
                self.at.offset += next as u64;
                self.note(record);
            } else if length == CHUNK {
                self.in_damage = true;
                // A record may begin near the end of what was read.
                self.at.offset += (CHUNK - PAYLOAD_MAX - codec::HEADER) as u64;
            } else if last {
                // Only what was looked at: whole records may have come after it meanwhile. The next begins a new segment.
                self.in_damage = true;
                self.shared.spool.abandon(tail);
                self.at.offset = tail_length;
                self.leave_damage();
                return Ok(());
            } else {
                self.next_segment();
            }
        }
        Ok(())
    }

    /// Where reading ends now.
    fn tail(&self) -> (u64, u64) {
        self.until.unwrap_or_else(|| self.shared.spool.tail())
    }

    /// Leaves the rest of a segment whose file cannot be read.
    fn give_up(&mut self) {
        self.in_damage = true;
        let (tail, tail_length) = self.tail();
        if self.at.segment < tail {
            self.next_segment();
            return;
        }
        // Records written after it could be as unreadable.
        self.shared.spool.abandon(tail);
        self.at.offset = tail_length;
        self.leave_damage();
    }

    fn next_segment(&mut self) {
        self.leave_damage();
        self.at = Cursor {
            segment: self.at.segment + 1,
            offset: 0,
        };
        self.file = None;
    }

    fn leave_damage(&mut self) {
        if std::mem::take(&mut self.in_damage) {
            self.shared.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment = self.at.segment, "a part of the ledger's spool is damaged and passed over");
        }
    }

    /// Takes in the whole records at the beginning of `bytes`; returns how long they are.
    fn consume(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while self.rows.len() < BATCH_MAX
            && let Found::Record(record, length) = codec::read(&bytes[used..])
        {
            used += length;
            self.at.offset += length as u64;
            self.note(*record);
        }
        used
    }

    fn note(&mut self, record: Read) {
        self.leave_damage();
        match record {
            Read::Intent(intent) => {
                let open = Open {
                    intent,
                    delivered: Delivered::default(),
                    segment: self.at.segment,
                };
                self.open.insert(open.intent.request_id, open);
            }
            Read::Progress(id, delivered) => {
                if let Some(open) = self.open.get_mut(&id) {
                    open.delivered = delivered;
                }
            }
            Read::Settle(row) => {
                self.open.remove(&row.request_id);
                (self.observer)(&row);
                self.rows.push(row);
            }
            // Written by `retire`, which knows.
            Read::Carried(..) => return,
        }
        self.consumed += 1;
    }

    /// Takes rows from the memory, as many as the batch has room for. Returns whether there are more.
    fn take_waiting(&mut self) -> bool {
        let mut waiting = self.shared.waiting.lock();
        let room = BATCH_MAX.saturating_sub(self.rows.len()).min(waiting.len());
        for row in waiting.drain(..room) {
            self.open.remove(&row.request_id);
            (self.observer)(&row);
            self.consumed += 1;
            self.rows.push(row);
        }
        !waiting.is_empty()
    }

    /// Moves what was read to the store. Returns whether nothing is left.
    pub(super) fn store(&mut self) -> bool {
        let progress = &self.shared.progress;
        if !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            match aside::deliver(&*self.sink, &self.shared.aside, rows, (self.stored, self.at)) {
                Delivery::Done(new) => {
                    progress.rows.fetch_add(new as u64, Ordering::Relaxed);
                    self.stored = self.at;
                }
                Delivery::Later(rows, why) => {
                    if let Some(left_out) = progress.store_errors.again() {
                        warn!(
                            why,
                            left_out,
                            rows = rows.len(),
                            "the store does not take the ledger's rows; they wait in the spool"
                        );
                    }
                    self.rows = rows;
                    return false;
                }
            }
        }
        *progress.moved.lock() = self.consumed;
        progress.changed.notify_all();
        true
    }

    /// Deletes segments whose rows are all in the store. What is still open in them is carried into the newest first.
    fn retire(&mut self) {
        while self.oldest < self.at.segment {
            let mut carried = false;
            for open in self.open.values_mut().filter(|open| open.segment == self.oldest) {
                let record = Record::Carried(&open.intent, open.delivered);
                if self.shared.spool.append(&codec::frame(&record)).is_err() {
                    return; // Which has been said.
                }
                open.segment = self.shared.spool.tail().0;
                carried = true;
            }
            if carried {
                self.shared.spool.sync();
            }
            match self.shared.spool.remove(&self.dir, self.oldest) {
                Ok(()) => self.oldest += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.oldest += 1,
                Err(error) => return self.cannot("a segment of the ledger's spool cannot be deleted", &error),
            }
        }
    }

    pub(super) fn cannot(&self, what: &str, error: &io::Error) {
        if let Some(left_out) = self.shared.read_errors.again() {
            warn!(%error, left_out, "{what}");
        }
    }

    /// Deletes a few old rows when it is time. Returns whether there may be more.
    fn prune(&mut self) -> bool {
        if Instant::now() < self.prune_at {
            return false;
        }
        let before = UnixMs((self.clock)().0.saturating_sub(self.retention_ms));
        let more = self.sink.prune(before).unwrap_or_else(|why| {
            warn!(%why, "old rows of the ledger cannot be deleted");
            false
        });
        if !more {
            self.prune_at = Instant::now() + PRUNE_EVERY;
        }
        more
    }

    /// After a clean stop nothing is left to recover.
    fn leave(mut self) {
        let (tail, length) = self.shared.spool.tail();
        let all_moved = self.rows.is_empty()
            && self.open.is_empty()
            && self.at
                == Cursor {
                    segment: tail,
                    offset: length,
                };
        if all_moved {
            self.file = None;
            // What cannot be deleted is read again at the next start, and adds nothing.
            let _ = self.shared.spool.remove(&self.dir, tail);
        } else if !self.rows.is_empty() {
            self.shared.spool.sync();
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
