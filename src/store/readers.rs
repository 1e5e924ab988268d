//! The readers: a few threads with read-only connections, so that a long query holds up neither the writer nor the
//! runtime. Every query has a deadline, its wait for a thread included.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::{OpenError, ReadError, open};

/// How many queries run at once.
const READERS: usize = 2;

/// How many may wait; more are refused.
const QUEUE: usize = 256;

/// How many steps of SQLite's machine lie between two looks at the clock (some ten microseconds).
const STEPS: std::ffi::c_int = 1_000;

type Query = Box<dyn FnOnce(&mut Connection) + Send>;

/// The threads and their queue.
#[derive(Debug)]
pub(super) struct Readers {
    /// `None` while they are being ended.
    queue: Option<SyncSender<Query>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let (queue, queries) = sync_channel::<Query>(QUEUE);
        let queries = Arc::new(Mutex::new(queries));
        let mut readers = Self {
            queue: Some(queue),
            threads: Vec::with_capacity(READERS),
        };
        for _ in 0..READERS {
            let connection = open::connect_reader(path)?;
            let queries = Arc::clone(&queries);
            let thread = std::thread::Builder::new().name("store-read".to_owned());
            let thread = thread.spawn(move || run(connection, &queries)).map_err(|error| OpenError::Io {
                path: path.to_owned(),
                detail: error.to_string(),
            })?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs `query` on a reader, for `budget` at most, and answers by what it returns; a reader that has ended drops it.
    pub(super) fn ask<T, F>(&self, budget: Duration, query: F) -> Result<oneshot::Receiver<Result<T, ReadError>>, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let deadline = Instant::now() + budget;
        let (reply, answer) = oneshot::channel();
        let job: Query = Box::new(move |connection| {
            if !reply.is_closed() {
                let _ = reply.send(run_until(deadline, connection, query));
            }
        });
        let queue = self.queue.as_ref().ok_or_else(closing)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => ReadError::Busy,
            TrySendError::Disconnected(_) => closing(),
        })?;
        Ok(answer)
    }

    /// Waits for the queries under way and closes the connections.
    pub(super) fn end(&mut self) {
        self.queue = None;
        self.threads.drain(..).for_each(super::join);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end();
    }
}

fn closing() -> ReadError {
    ReadError::Failed("the store is closing".to_owned())
}

fn run(mut connection: Connection, queries: &Mutex<Receiver<Query>>) {
    loop {
        // One waits for the next query, the others wait for it to get one: the lock is held while nothing is to be done.
        let query = queries.lock().recv();
        let Ok(query) = query else { break };
        query(&mut connection);
    }
}

fn run_until<T>(
    deadline: Instant,
    connection: &mut Connection,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, ReadError> {
    if Instant::now() >= deadline {
        return Err(ReadError::TimedOut);
    }
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => ReadError::TimedOut,
        Some(_) | None => ReadError::Failed(error.to_string()),
    };
    connection
        .progress_handler(STEPS, Some(move || Instant::now() >= deadline))
        .map_err(failed)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| query(connection)));
    outcome
        .map_err(|_| ReadError::Failed("the query panicked".to_owned()))?
        .map_err(failed)
}
