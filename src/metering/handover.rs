//! The ledger's way to another process and back. Whoever hands it over goes on writing what its requests need beside it
//! (`left`); the store, and what lies in the spool, are the heir's.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::codec::{self, Record};
use super::left::{self, Left};
use super::mover::{BATCH_MAX, MOVE_EVERY, Mover, Open};
use super::{Meter, OpenError};

/// How long the last rows may take to reach the store, once the spool has moved.
const LAST_ROWS_WITHIN: Duration = Duration::from_secs(5);

/// Whether the ledger is handed over.
///
/// `Kept → Wanted → Moving → Done`; back to `Kept` from `Wanted` (it took too long), from `Moving` (it failed) and from `Done`
/// (nobody came for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Parting {
    #[default]
    Kept,
    Wanted,
    Moving,
    Done,
}

impl Meter {
    /// Hands the ledger over: every row so far is in the store when this returns, the spool is empty, and nothing of this
    /// process writes to the store any more. Requests go on as before; what they write, an heir reads. Blocks.
    ///
    /// # Errors
    /// Why not, in a sentence; then nothing has changed.
    pub fn hand_over(&self, within: Duration) -> Result<(), String> {
        let progress = &self.shared.progress;
        let deadline = Instant::now() + within;
        let mut parting = progress.parting.lock();
        *parting = Parting::Wanted;
        progress.wake();
        loop {
            let timed_out = progress.parted.wait_until(&mut parting, deadline).timed_out();
            match *parting {
                Parting::Done => return Ok(()),
                Parting::Kept => return Err("the last rows cannot be moved to the store".to_owned()),
                Parting::Wanted if timed_out => {
                    *parting = Parting::Kept;
                    return Err(format!("the ledger is behind by more than {within:?}"));
                }
                // It will not be long, and cannot be taken back.
                Parting::Moving if timed_out => progress.parted.wait(&mut parting),
                Parting::Wanted | Parting::Moving => {}
            }
        }
    }

    /// Takes the ledger back from where [`hand_over`](Self::hand_over) has left it; the store must be open again. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn take_back(&self) -> Result<(), OpenError> {
        let shared = &self.shared;
        let spool_error = |source| OpenError::Spool {
            path: self.settings.spool_dir.clone(),
            source,
        };
        let Some(own) = shared.own.lock().take() else { return Ok(()) };
        let next = own.next_segment;
        shared.spool.move_to(&self.settings.spool_dir, next).map_err(spool_error)?;
        let mut mover = Mover::new(Arc::clone(shared), Arc::clone(&self.sink), next, &self.settings);
        mover.left = Left::all(&self.settings.spool_dir)
            .map_err(spool_error)?
            .into_iter()
            .filter(|left| left.dir() != own.dir)
            .collect();
        mover.take_back(Left::at(own.dir).map_err(spool_error)?).map_err(spool_error)?;
        *shared.progress.parting.lock() = Parting::Kept;
        self.start(mover).map_err(spool_error)
    }

    /// Syncs what requests have written since the ledger was handed over. Returns whether none of it is in memory only, where it
    /// ends with the process.
    #[must_use]
    pub fn sync(&self) -> bool {
        self.shared.spool.sync();
        self.shared.waiting.lock().is_empty()
    }
}

impl Mover {
    /// Whether the ledger is handed over now; to be asked when everything so far is moved.
    pub(super) fn parts(&mut self) -> bool {
        {
            let mut parting = self.shared.progress.parting.lock();
            if *parting != Parting::Wanted {
                return false;
            }
            *parting = Parting::Moving;
        }
        let parted = self.part();
        if let Err(error) = &parted {
            self.cannot("the ledger cannot be handed over", error);
        }
        *self.shared.progress.parting.lock() = if parted.is_ok() { Parting::Done } else { Parting::Kept };
        self.shared.progress.parted.notify_all();
        parted.is_ok()
    }

    /// Lets this process's requests write elsewhere from now on, moves what was written before, and carries on what is open.
    fn part(&mut self) -> io::Result<()> {
        let mut own = left::Own::make(&self.dir, (self.clock)())?;
        let (tail, length) = self.shared.spool.move_to(&own.dir, left::FIRST)?;
        own.next_segment = tail + 1;
        self.until = Some((tail, length));
        let deadline = Instant::now() + LAST_ROWS_WITHIN;
        loop {
            let more = self.read_or_give_up();
            if self.store() && !more && self.unreadable == 0 {
                break;
            }
            if Instant::now() > deadline {
                self.shared.spool.move_to(&self.dir, own.next_segment)?;
                self.until = None;
                self.take_back(Left::at(own.dir)?)?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::park_timeout(MOVE_EVERY / 10);
        }
        for open in self.open.values() {
            // Where the disk is full the intent is missing; its row will come all the same.
            let _ = self
                .shared
                .spool
                .append(&codec::frame(&Record::Carried(&open.intent, open.delivered)));
        }
        self.shared.spool.sync();
        for segment in self.oldest..=tail {
            match self.shared.spool.remove(&self.dir, segment) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.cannot("a segment of the ledger's spool cannot be deleted", &error);
                }
                Ok(()) | Err(_) => {}
            }
        }
        *self.shared.own.lock() = Some(own);
        Ok(())
    }

    /// Goes on where this process has left the ledger: reads what it wrote meanwhile, and carries on what is open.
    fn take_back(&mut self, mut left: Left) -> io::Result<()> {
        let (rows, open) = (&mut self.rows, &mut self.open);
        left.read(true, |row| {
            open.remove(&row.request_id);
            (self.observer)(&row);
            rows.push(row);
        })?;
        for (intent, delivered) in left.still_open() {
            self.shared.spool.append(&codec::frame(&Record::Carried(&intent, delivered)))?;
            let segment = self.shared.spool.tail().0;
            self.open.insert(
                intent.request_id,
                Open {
                    intent,
                    delivered,
                    segment,
                },
            );
        }
        self.left.push(left);
        Ok(())
    }

    /// Takes over what earlier processes left: of those that are gone all of it at once, so that what was used is known.
    pub(super) fn inherit(&mut self) -> Result<(), OpenError> {
        self.left = Left::all(&self.dir).map_err(|source| OpenError::Spool {
            path: self.dir.clone(),
            source,
        })?;
        self.read_left();
        if !self.store() {
            return Err(OpenError::Store(
                "it does not take the rows that an earlier process left".to_owned(),
            ));
        }
        self.delete_left();
        Ok(())
    }

    /// Reads along what others left. Returns whether there is more.
    pub(super) fn read_left(&mut self) -> bool {
        let mut lefts = std::mem::take(&mut self.left);
        for left in lefts.iter_mut().filter(|left| !left.is_done()) {
            let orphaned = left.is_orphaned();
            let read = left.read(orphaned, |row| {
                (self.observer)(&row);
                self.rows.push(row);
            });
            match read {
                Ok(()) if orphaned => self.rows.extend(left.interrupted()),
                Ok(()) => {}
                Err(error) => self.cannot("what an earlier process left of the ledger cannot be read", &error),
            }
        }
        self.left = lefts;
        self.rows.len() >= BATCH_MAX
    }

    /// Deletes what has been moved whole of what others left.
    pub(super) fn delete_left(&mut self) {
        let mut lefts = std::mem::take(&mut self.left);
        lefts.retain(|left| {
            if !left.is_done() {
                return true;
            }
            if let Err(error) = left.delete() {
                // It is read again at the next start, and adds nothing.
                self.cannot("what an earlier process left of the ledger cannot be deleted", &error);
            }
            false
        });
        self.left = lefts;
    }
}
