//! Watches the file, whichever way it changes: written in place, replaced by rename, or behind a swapped symbolic link as a
//! Kubernetes ConfigMap is.
//!
//! The *directory* is watched, since a watch on the file goes deaf when the file is replaced. An event only says that it is
//! time to look: what counts is the digest of the text, once it has stayed the same for a while. A slow poll looks too,
//! because not every file system tells (and a link may lead to another directory).

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};

use super::file::text_of;

/// How a [`Watch`] takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long the text must stay the same before it counts.
    pub settle: Duration,
    /// How often to look without having been told.
    pub poll: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(250),
            poll: Duration::from_secs(5),
        }
    }
}

/// After this many times the settling time an unchanged text counts although events go on: other files of the directory
/// may be busy.
const PATIENCE: u32 = 20;

/// Watches until it is dropped; dropping it waits for a callback that runs.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<Told>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Told {
    Changed,
    Stop,
}

/// Calls `changed`, on a thread of its own, each time the file's text has become another. `known` is the digest of the text
/// that the caller has ([`File::digest`](super::File::digest)), so that a change between loading and watching is not lost.
/// A file that cannot be read counts as changed once: the caller's reload then reports why.
///
/// Where the operating system offers no watching, polling alone does the work.
///
/// # Errors
/// When no thread can be started.
pub fn watch(path: &Path, known: [u8; 32], pace: Pace, changed: impl FnMut() + Send + 'static) -> std::io::Result<Watch> {
    let (stop, told) = mpsc::channel();
    let events = stop.clone();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let watcher = watcher(&directory, events);
    let looker = Looker {
        path: path.to_owned(),
        known: Some(known),
        pace,
    };
    let thread = thread::Builder::new().name("config-watch".to_owned()).spawn(move || {
        // Events end with the watcher.
        let _watcher = watcher;
        looker.run(&told, changed);
    })?;
    Ok(Watch {
        stop: Some(stop),
        thread: Some(thread),
    })
}

fn watcher(directory: &Path, events: Sender<Told>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too, and would go on for ever.
        let only_read = event.is_ok_and(|event| event.kind.is_access());
        if !only_read {
            // Nobody listens once the watch has been dropped.
            let _ = events.send(Told::Changed);
        }
    };
    let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .map_err(|error| tracing::warn!(%error, directory = %directory.display(), "configuration is polled, not watched"))
        .ok()
}

/// The thread's state: what it looks at and what it last saw. `None` is a file that cannot be read.
struct Looker {
    path: PathBuf,
    known: Option<[u8; 32]>,
    pace: Pace,
}

impl Looker {
    fn run(mut self, told: &Receiver<Told>, mut changed: impl FnMut()) {
        loop {
            if self.look() != self.known {
                let Some(settled) = self.settled(told) else { return };
                if settled != self.known {
                    self.known = settled;
                    changed();
                    continue;
                }
            }
            match told.recv_timeout(self.pace.poll) {
                Ok(Told::Changed) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&self) -> Option<[u8; 32]> {
        text_of(&self.path).ok().map(|text| Sha256::digest(text).into())
    }

    /// Waits until the text is the same after the settling time as before, and nothing was told meanwhile. `None` is the end.
    #[expect(clippy::option_option, reason = "the end, an unreadable file, a text")]
    fn settled(&self, told: &Receiver<Told>) -> Option<Option<[u8; 32]>> {
        let patience = Instant::now() + self.pace.settle * PATIENCE;
        let mut before = self.look();
        loop {
            let quiet = quiet_for(self.pace.settle, told)?;
            let now = self.look();
            if now == before && (quiet || Instant::now() >= patience) {
                return Some(now);
            }
            before = now;
        }
    }
}

/// Waits the time out; says whether nothing was told. `None` is the end.
fn quiet_for(time: Duration, told: &Receiver<Told>) -> Option<bool> {
    let until = Instant::now() + time;
    let mut quiet = true;
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Told::Changed) => quiet = false,
            Err(RecvTimeoutError::Timeout) => return Some(quiet),
            Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended by itself.
            let _ = stop.send(Told::Stop);
        }
        if let Some(thread) = self.thread.take() {
            // A callback that panicked has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
