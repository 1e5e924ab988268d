//! The ledger from outside: every request a row, whatever fails.
mod codec;
mod crash;
mod faults;
mod handing_over;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::id::{KeyId, RequestId, TenantId};
use crate::store::ledger::{Cursor, WriteError};
use crate::units::{PicoUsd, UnixMs};

/// Rows in memory, behind a switch that refuses them.
#[derive(Default)]
struct Memory {
    rows: Mutex<HashMap<RequestId, Row>>,
    cursor: Mutex<Cursor>,
    broken: AtomicBool,
    /// The model whose rows it refuses for good.
    refuses: Mutex<Option<&'static str>>,
}

impl Sink for Memory {
    fn append(&self, rows: Arc<Vec<Row>>, cursor: Cursor) -> Result<usize, WriteError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(WriteError::Unavailable("broken".to_owned()));
        }
        if let Some(model) = *self.refuses.lock()
            && rows.iter().any(|row| &*row.model == model)
        {
            return Err(WriteError::Refused(format!("no {model} here")));
        }
        let mut all = self.rows.lock();
        let before = all.len();
        for row in &*rows {
            all.entry(row.request_id).or_insert_with(|| row.clone());
        }
        *self.cursor.lock() = cursor;
        Ok(all.len() - before)
    }

    fn cursor(&self) -> Result<Cursor, WriteError> {
        Ok(*self.cursor.lock())
    }

    fn prune(&self, _before: UnixMs) -> Result<bool, WriteError> {
        Ok(false)
    }
}

/// A meter over a memory in a directory of its own.
struct Scratch {
    meter: Arc<Meter>,
    memory: Arc<Memory>,
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(adjust: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(Memory::default());
        let mut settings = settings(&dir.path().join("spool"));
        adjust(&mut settings);
        let meter = Meter::open(&settings, Arc::clone(&memory) as _).unwrap();
        Self { meter, memory, dir }
    }

    fn flush(&self) {
        assert!(self.meter.flush(Duration::from_secs(20)));
    }

    fn row(&self, id: RequestId) -> Option<Row> {
        self.memory.rows.lock().get(&id).cloned()
    }

    /// What a process that is killed now would leave behind, read by a new one over the same memory.
    fn after_kill(&self) -> (Arc<Meter>, tempfile::TempDir) {
        let spool = self.dir.path().join("spool");
        let names = || crate::metering::spool::segments(&spool).unwrap();
        // A death is a moment, a copy takes time: again, if segments went meanwhile.
        let copy = loop {
            let copy = tempfile::tempdir().unwrap();
            let before = names();
            let path = crate::metering::spool::path;
            let copied = before
                .iter()
                .all(|segment| std::fs::copy(path(&spool, *segment), path(copy.path(), *segment)).is_ok());
            if copied && before == names() {
                break copy;
            }
        };
        let meter = Meter::open(&settings(copy.path()), Arc::clone(&self.memory) as _).unwrap();
        (meter, copy)
    }
}

fn settings(dir: &Path) -> Settings {
    Settings::new(dir.to_owned(), Arc::new(|| UnixMs(0)))
}

fn intent() -> Intent {
    Intent {
        request_id: RequestId::mint(),
        at: UnixMs(1_795_500_000_000),
        tenant: TenantId::mint(),
        key: KeyId::mint(),
        model: Arc::from("llama"),
        client_request_id: None,
        session_id: None,
        endpoint: Arc::from("http://127.0.0.1:8000"),
        route: "/v1/chat/completions".into(),
        cache: CacheStatus::Off,
        stream: true,
        input_tokens: 12,
        input_cost: PicoUsd(1_200),
    }
}

/// The row of a request that went well.
fn settled(intent: &Intent) -> Row {
    Row {
        outcome: Outcome::Ok,
        status: 200,
        error_code: None,
        usage_source: UsageSource::Reported,
        ..intent.clone().interrupted(Default::default(), Duration::from_millis(7))
    }
}

#[test]
fn a_settled_request_has_its_row_within_two_seconds_and_a_dropped_ticket_an_interrupted_one() {
    let scratch = Scratch::new();
    let (good, dropped) = (intent(), intent());
    scratch.meter.begin(good.clone()).unwrap().settle(settled(&good));
    let mut ticket = scratch.meter.begin(dropped.clone()).unwrap();
    ticket.progress(3, PicoUsd(9));
    drop(ticket);
    assert!(scratch.meter.flush(Duration::from_secs(2)));
    assert_eq!(scratch.row(good.request_id), Some(settled(&good)));
    let row = scratch.row(dropped.request_id).unwrap();
    assert_eq!((row.outcome, row.usage_source), (Outcome::Interrupted, UsageSource::Estimated));
    assert_eq!((row.tokens.input, row.tokens.output), (12, 3));
    assert_eq!(row.charge.total(), PicoUsd(1_209));
    assert_eq!(scratch.meter.counters().open, 0);
    assert_eq!(scratch.meter.counters().rows, 2);
}

#[test]
fn a_killed_process_leaves_an_interrupted_row_for_each_open_request_and_what_it_delivered() {
    let scratch = Scratch::new();
    let (open, done) = (intent(), intent());
    let mut ticket = scratch.meter.begin(open.clone()).unwrap();
    ticket.progress(300, PicoUsd(900));
    ticket.progress(310, PicoUsd(930));
    scratch.meter.begin(done.clone()).unwrap().settle(settled(&done));
    scratch.flush();
    assert_eq!(scratch.row(open.request_id), None);
    let (revived, _dir) = scratch.after_kill();
    let row = scratch.row(open.request_id).unwrap();
    assert_eq!(
        (row.outcome, row.tokens.output),
        (Outcome::Interrupted, 300),
        "a crash forgets fewer than 256 tokens"
    );
    assert_eq!(scratch.memory.rows.lock().len(), 2);
    assert_eq!(revived.counters().open, 0);
    drop(ticket);
}

#[test]
fn replaying_twice_is_replaying_once() {
    let scratch = Scratch::new();
    scratch.memory.broken.store(true, Ordering::SeqCst);
    let intents: Vec<Intent> = (0..50).map(|_| intent()).collect();
    for intent in &intents {
        scratch.meter.begin(intent.clone()).unwrap().settle(settled(intent));
    }
    scratch.memory.broken.store(false, Ordering::SeqCst);
    drop(scratch.after_kill());
    let first = scratch.memory.rows.lock().clone();
    *scratch.memory.cursor.lock() = Cursor::default();
    drop(scratch.after_kill());
    assert_eq!(*scratch.memory.rows.lock(), first);
    assert_eq!(first.len(), 50);
}

#[test]
fn segments_go_when_their_rows_are_moved_and_an_open_request_survives_them() {
    let scratch = Scratch::with(|settings| settings.segment_bytes = 2_000);
    let long = intent();
    let ticket = scratch.meter.begin(long.clone()).unwrap();
    for _ in 0..300 {
        let intent = intent();
        scratch.meter.begin(intent.clone()).unwrap().settle(settled(&intent));
    }
    scratch.flush();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while scratch.meter.counters().spool_bytes > 10_000 {
        assert!(std::time::Instant::now() < deadline, "{:?}", scratch.meter.counters());
        std::thread::yield_now();
    }
    let (revived, _dir) = scratch.after_kill();
    assert_eq!(scratch.row(long.request_id).unwrap().outcome, Outcome::Interrupted);
    assert_eq!(scratch.memory.rows.lock().len(), 301);
    drop(revived);
    drop(ticket);
}

#[test]
fn a_clean_stop_leaves_no_segment() {
    let Scratch { meter, memory, dir } = Scratch::new();
    let done = intent();
    meter.begin(done.clone()).unwrap().settle(settled(&done));
    meter.record(settled(&intent()));
    drop(meter);
    assert_eq!(memory.rows.lock().len(), 2);
    assert_eq!(dir.path().join("spool").read_dir().unwrap().count(), 0);
}

#[test]
fn threads_lose_nothing() {
    let scratch = Scratch::with(|settings| settings.segment_bytes = 50_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for at in 0..500 {
                    let intent = intent();
                    let mut ticket = scratch.meter.begin(intent.clone()).unwrap();
                    match at % 3 {
                        0 => ticket.settle(settled(&intent)),
                        1 => ticket.progress(1_000, PicoUsd(1)),
                        _ => drop(ticket),
                    }
                }
            });
        }
    });
    scratch.flush();
    assert_eq!(scratch.memory.rows.lock().len(), 2_000);
    assert_eq!(scratch.meter.counters().open, 0);
    assert_eq!(scratch.meter.counters().lost, 0);
}
