//! The spool: numbered segments that records are appended to.
//!
//! One lock guards the active segment and is held for one `write(2)`. A write that fails or is cut short is taken back by
//! truncating, so that no later record stands behind a torn one; if even that fails, the segment is left and a new one is
//! begun. Syncing is done by another thread, on handles of its own, without the lock.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, warn};

use super::trouble::Trouble;

/// How long what was written may be unsynced.
const SYNC_EVERY: Duration = Duration::from_millis(50);

/// Room kept for the end of each open request: a row and some progress.
const SETTLE_BYTES: u64 = 1_024;

/// The version of the records' layout is in the names of segments: what reads one reads no other.
pub const EXTENSION: &str = "spool1";

#[derive(Debug)]
pub(super) struct Spool {
    segment_bytes: u64,
    bytes_max: u64,
    active: Mutex<Active>,
    /// Of all segments.
    bytes: AtomicU64,
    pub(super) write_errors: Trouble,
    pub(super) sync_errors: Trouble,
    /// Makes every write fail, as a full disk does. A switch of this spool, since named fail points are the process's.
    #[cfg(test)]
    pub(super) disk_full: AtomicBool,
}

#[derive(Debug)]
struct Active {
    dir: PathBuf,
    file: Arc<File>,
    segment: u64,
    length: u64,
    /// What must be synced; the active file among them when it was written to.
    unsynced: Vec<Arc<File>>,
    dirty: bool,
    /// Could not be truncated after a failed write.
    torn: bool,
    closed: bool,
}

/// The file of a segment.
pub(super) fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:020}.{EXTENSION}"))
}

/// Makes the directory if there is none.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The segments in a directory, ascending.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut all = Vec::new();
    for entry in dir.read_dir()? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), Some(true)) = (number, path.extension().map(|extension| extension == EXTENSION)) {
            all.push(number);
        }
    }
    all.sort_unstable();
    Ok(all)
}

impl Spool {
    /// Begins a new segment.
    pub(super) fn open(dir: &Path, segment: u64, segment_bytes: u64, bytes_max: u64) -> io::Result<Self> {
        let file = Arc::new(create(dir, segment)?);
        File::open(dir)?.sync_all()?;
        Ok(Self {
            segment_bytes,
            bytes_max,
            active: Mutex::new(Active {
                dir: dir.to_owned(),
                file,
                segment,
                length: 0,
                unsynced: Vec::new(),
                dirty: false,
                torn: false,
                closed: false,
            }),
            bytes: AtomicU64::new(0),
            write_errors: Trouble::default(),
            sync_errors: Trouble::default(),
            #[cfg(test)]
            disk_full: AtomicBool::new(false),
        })
    }

    /// Whether there is room for one more request, with what the open ones still need.
    pub(super) fn has_room(&self, open: u64) -> bool {
        self.bytes() + (open + 1) * SETTLE_BYTES <= self.bytes_max
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Appends a frame: all of it, or nothing that anybody would read.
    pub(super) fn append(&self, frame: &[u8]) -> io::Result<()> {
        let size = frame.len() as u64;
        let mut active = self.active.lock();
        let written = self.write(&mut active, frame);
        match &written {
            Ok(()) => {
                active.length += size;
                active.dirty = true;
                self.bytes.fetch_add(size, Ordering::Relaxed);
            }
            Err(error) => {
                active.torn = active.file.set_len(active.length).is_err();
                // A log line may wait for who reads it; the others must not.
                drop(active);
                if let Some(left_out) = self.write_errors.again() {
                    warn!(%error, left_out, "the ledger's spool cannot be written");
                }
            }
        }
        written
    }

    fn write(&self, active: &mut Active, frame: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.disk_full.load(Ordering::Relaxed) {
            // Torn in the middle, as a disk that fills up does it.
            (&*active.file).write_all(&frame[..frame.len() / 2])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if active.torn || (active.length > 0 && active.length + frame.len() as u64 > self.segment_bytes) {
            let next = active.segment + 1;
            let file = Arc::new(create(&active.dir, next)?);
            let before = std::mem::replace(&mut active.file, file);
            active.unsynced.push(before);
            // The new name must survive a power failure, too.
            active.unsynced.push(Arc::new(File::open(&active.dir)?));
            active.segment = next;
            active.length = 0;
            active.torn = false;
        }
        (&*active.file).write_all(frame)
    }

    /// The active segment and how long it is: whoever reads stops there.
    pub(super) fn tail(&self) -> (u64, u64) {
        let active = self.active.lock();
        (active.segment, active.length)
    }

    /// Lets the next record begin a new segment, if this one is the active one: what is in it is damaged.
    pub(super) fn abandon(&self, segment: u64) {
        let mut active = self.active.lock();
        active.torn |= active.segment == segment;
    }

    /// Goes on in another folder, with that segment. Returns where the records in the one before end.
    pub(super) fn move_to(&self, dir: &Path, segment: u64) -> io::Result<(u64, u64)> {
        let file = Arc::new(create(dir, segment)?);
        File::open(dir)?.sync_all()?;
        let mut active = self.active.lock();
        let tail = (active.segment, active.length);
        let before = std::mem::replace(&mut active.file, file);
        active.unsynced.push(before);
        dir.clone_into(&mut active.dir);
        active.segment = segment;
        active.length = 0;
        active.torn = false;
        Ok(tail)
    }

    /// Deletes a segment that nobody needs.
    pub(super) fn remove(&self, dir: &Path, segment: u64) -> io::Result<()> {
        let path = path(dir, segment);
        let size = path.metadata()?.len();
        std::fs::remove_file(path)?;
        // A torn end was never counted.
        let _ = self
            .bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_sub(size)));
        Ok(())
    }

    /// Syncs what was written since the last time.
    pub(super) fn sync(&self) {
        let files = {
            let mut active = self.active.lock();
            let mut files = std::mem::take(&mut active.unsynced);
            if std::mem::take(&mut active.dirty) {
                files.push(Arc::clone(&active.file));
            }
            files
        };
        for file in files {
            if let Err(error) = file.sync_data()
                && let Some(left_out) = self.sync_errors.again()
            {
                error!(%error, left_out, "the ledger's spool cannot be synced: a power failure now would lose rows");
            }
        }
    }

    /// Syncs in time, until the spool is closed.
    pub(super) fn sync_until_closed(&self) {
        while !self.active.lock().closed {
            thread::park_timeout(SYNC_EVERY);
            self.sync();
        }
    }

    /// Ends the syncing.
    pub(super) fn close(&self) {
        self.active.lock().closed = true;
    }
}

fn create(dir: &Path, segment: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path(dir, segment))
}
