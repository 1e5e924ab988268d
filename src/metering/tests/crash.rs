//! Real processes, really killed.
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::store::usage::Filter;
use crate::store::{Options, Store};

const DIR: &str = "OBLETH_TEST_CRASH_DIR";
const KILLS: u64 = 12;

/// The process that is killed: begins requests on several threads, notes each as dispatched once it has its ticket, and
/// settles two of three. Without its directory (in an ordinary run) it works for a moment and stops by itself.
#[test]
fn a_process_that_may_be_killed_at_any_time() {
    let own = tempfile::tempdir().unwrap();
    let given = std::env::var_os(DIR);
    let dir = given.as_ref().map_or(own.path(), Path::new);
    let (store, _) = Store::open(Options::new(dir.join("obleth.db"))).unwrap();
    let meter = Meter::open(&settings(&dir.join("spool")), store).unwrap();
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(dir.join("dispatched"))
        .unwrap();
    let rounds = if given.is_some() { u32::MAX } else { 50 };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..rounds {
                    let intent = intent();
                    let ticket = meter.begin(intent.clone()).unwrap();
                    (&log).write_all(format!("\n{}\n", intent.request_id).as_bytes()).unwrap();
                    if round % 3 < 2 {
                        ticket.settle(settled(&intent));
                        (&log).write_all(format!("\n{} settled\n", intent.request_id).as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(meter.counters().open, 0);
}

#[test]
fn no_dispatched_request_is_without_a_row_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let child = "metering::tests::crash::a_process_that_may_be_killed_at_any_time";
    for kill in 0..KILLS {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", child, "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let log = dir.path().join("dispatched");
        let size = || log.metadata().map_or(0, |meta| meta.len());
        let before = size();
        // Killed while it works, after more or less work.
        while size() < before + 1 + kill * 4_001 {
            assert!(
                process.try_wait().unwrap().is_none(),
                "it runs until it is killed: {}",
                std::fs::read_to_string(dir.path().join("stderr")).unwrap()
            );
            std::thread::yield_now();
        }
        process.kill().unwrap();
        assert_eq!(process.wait().unwrap().signal(), Some(9));
    }
    let (store, _) = Store::open(Options::new(dir.path().join("obleth.db"))).unwrap();
    let meter = Meter::open(&settings(&dir.path().join("spool")), Arc::clone(&store) as _).unwrap();
    let log = std::fs::read_to_string(dir.path().join("dispatched")).unwrap();
    let all = Filter {
        tenant: None,
        key: None,
        model: None,
        since: UnixMs(0),
        until: UnixMs(i64::MAX / 2),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let rows = runtime.block_on(store.requests(all.clone(), u32::MAX, None)).unwrap();
    let by_id: HashMap<String, Outcome> = rows.iter().map(|row| (row.request_id.to_string(), row.outcome)).collect();
    let mut settled = 0;
    for line in log.lines() {
        // A death may cut the line that was being written; the next one begins with a line end of its own.
        let Some(outcome) = by_id.get(line.get(..36).unwrap_or_default()) else {
            assert!(line.len() < 36, "{line} was dispatched and has no row");
            continue;
        };
        if line.ends_with("settled") {
            assert_eq!(*outcome, Outcome::Ok, "{line} and lost its end");
            settled += 1;
        }
    }
    assert!(settled > 0);
    let total = runtime.block_on(store.usage_total(all, UnixMs(i64::MAX / 4))).unwrap();
    assert_eq!(total.requests, rows.len() as u64, "sums over roll-ups are sums over rows");
    drop(meter);
}
