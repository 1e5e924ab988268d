//! Full disks, a store that refuses, a spool that is full.

use super::*;

fn disk_full(scratch: &Scratch, full: bool) {
    scratch.meter.shared.spool.disk_full.store(full, Ordering::SeqCst);
}

#[test]
fn a_full_disk_refuses_new_requests_and_running_ones_still_get_their_rows() {
    let scratch = Scratch::new();
    let (before, running, after) = (intent(), intent(), intent());
    scratch.meter.begin(before.clone()).unwrap().settle(settled(&before));
    let ticket = scratch.meter.begin(running.clone()).unwrap();
    disk_full(&scratch, true);
    assert_eq!(scratch.meter.begin(intent()).unwrap_err(), Unavailable);
    ticket.settle(settled(&running));
    disk_full(&scratch, false);
    scratch.meter.begin(after.clone()).unwrap().settle(settled(&after));
    scratch.flush();
    for intent in [&before, &running, &after] {
        assert_eq!(
            scratch.row(intent.request_id),
            Some(settled(intent)),
            "a torn write stands before no other record"
        );
    }
    let counters = scratch.meter.counters();
    assert_eq!(
        (counters.write_errors, counters.refused, counters.lost, counters.open),
        (2, 1, 0, 0)
    );
}

#[test]
fn told_to_serve_a_full_disk_counts_what_is_at_risk() {
    let scratch = Scratch::with(|settings| settings.when_full = WhenFull::Serve);
    disk_full(&scratch, true);
    let served = intent();
    let ticket = scratch.meter.begin(served.clone()).unwrap();
    ticket.settle(settled(&served));
    scratch.flush();
    assert!(
        scratch.row(served.request_id).is_some(),
        "the store had room where the spool had not"
    );
    assert_eq!(scratch.meter.counters().unspooled, 1);
}

#[test]
fn a_store_that_refuses_fills_the_spool_and_then_new_requests_are_refused_until_it_takes_them() {
    let scratch = Scratch::with(|settings| {
        settings.spool_bytes_max = 40_000;
        settings.segment_bytes = 8_000;
    });
    scratch.memory.broken.store(true, Ordering::SeqCst);
    let mut begun = Vec::new();
    let mut tickets = Vec::new();
    loop {
        let intent = intent();
        match scratch.meter.begin(intent.clone()) {
            Ok(ticket) if begun.len() % 2 == 0 => ticket.settle(settled(&intent)),
            Ok(ticket) => tickets.push((ticket, settled(&intent))),
            Err(Unavailable) => break,
        }
        begun.push(intent);
    }
    assert!(begun.len() > 20);
    for (ticket, row) in tickets {
        ticket.settle(row);
    }
    assert!(
        scratch.meter.counters().spool_bytes <= 40_000,
        "room for the end of open requests was kept"
    );
    scratch.memory.broken.store(false, Ordering::SeqCst);
    scratch.flush();
    assert_eq!(scratch.memory.rows.lock().len(), begun.len());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while scratch.meter.begin(intent()).is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn rows_that_neither_spool_nor_memory_can_hold_are_counted_as_lost() {
    let scratch = Scratch::new();
    scratch.memory.broken.store(true, Ordering::SeqCst);
    disk_full(&scratch, true);
    let row = settled(&intent());
    // The mover takes a batch out of the memory, meets the broken store, holds it, and takes no more.
    for _ in 0..10 * WAITING_MAX {
        scratch.meter.record(row.clone());
    }
    let counters = scratch.meter.counters();
    assert!(counters.lost > 0);
    assert_eq!(counters.waiting_rows, WAITING_MAX as u64);
}

#[test]
fn a_spool_that_cannot_be_read_back_is_counted() {
    let scratch = Scratch::new();
    let spool_dir = scratch.dir.path().join("spool");
    let segment = spool::segments(&spool_dir).unwrap()[0];
    std::fs::remove_file(spool::path(&spool_dir, segment)).unwrap();
    let intent = intent();
    scratch.meter.begin(intent.clone()).unwrap().settle(settled(&intent));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while scratch.meter.counters().read_errors == 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}
