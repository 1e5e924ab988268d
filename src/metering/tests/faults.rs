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
fn a_row_that_the_store_refuses_for_good_is_set_aside_and_holds_up_no_other() {
    let scratch = Scratch::new();
    *scratch.memory.refuses.lock() = Some("poison");
    let intents: Vec<Intent> = (0..1_000)
        .map(|number| Intent {
            model: Arc::from(if number % 300 == 7 { "poison" } else { "llama" }),
            ..intent()
        })
        .collect();
    for intent in &intents {
        scratch.meter.begin(intent.clone()).unwrap().settle(settled(intent));
    }
    scratch.flush();
    assert_eq!(scratch.memory.rows.lock().len(), 996);
    let counters = scratch.meter.counters();
    assert_eq!((counters.set_aside, counters.lost, counters.rows), (4, 0, 996));

    // The next start tries them again, and only those that are taken leave the file.
    let Scratch { meter, memory, dir } = scratch;
    let restart = |meter| {
        drop(meter);
        Meter::open(&settings(&dir.path().join("spool")), Arc::clone(&memory) as _).unwrap()
    };
    let meter = restart(meter);
    assert_eq!(meter.counters().set_aside, 4);
    *memory.refuses.lock() = None;
    let meter = restart(meter);
    assert_eq!(meter.counters().set_aside, 0);
    assert_eq!(memory.rows.lock().len(), 1_000);
    drop(meter);
    assert_eq!(dir.path().join("spool").read_dir().unwrap().count(), 0);
}

#[test]
fn a_start_sets_aside_what_the_store_refuses() {
    let scratch = Scratch::new();
    scratch.memory.broken.store(true, Ordering::SeqCst);
    let poison = Intent {
        model: Arc::from("poison"),
        ..intent()
    };
    for intent in [&intent(), &poison, &intent()] {
        scratch.meter.begin(intent.clone()).unwrap().settle(settled(intent));
    }
    scratch.memory.broken.store(false, Ordering::SeqCst);
    *scratch.memory.refuses.lock() = Some("poison");
    let (revived, _dir) = scratch.after_kill();
    assert_eq!(revived.counters().set_aside, 1);
    assert_eq!(scratch.memory.rows.lock().len(), 2);
}

#[test]
fn damage_in_the_active_segment_costs_what_it_hit_and_nothing_after() {
    let scratch = Scratch::new();
    let mut rows = 0;
    let mut record = |count: usize| {
        for _ in 0..count {
            scratch.meter.record(settled(&intent()));
        }
        rows += count;
        scratch.flush();
        assert_eq!(scratch.memory.rows.lock().len(), rows);
    };
    let damage = |bytes: &[u8]| scratch.meter.shared.spool.append(bytes).unwrap();
    record(5);
    // Between records, at the end where nothing follows, and more than is read at once.
    damage(&[0x11; 100]);
    record(5);
    damage(&[0; 37]);
    scratch.flush();
    record(5);
    let large = vec![0; 3 << 20];
    damage(&large);
    record(300);
    assert!(
        (2..=3).contains(&scratch.meter.counters().damaged),
        "{:?}",
        scratch.meter.counters()
    );
    assert_eq!(scratch.meter.counters().lost, 0);
}

#[test]
fn a_segment_that_is_taken_away_costs_its_rows_and_no_later_ones() {
    let scratch = Scratch::new();
    std::fs::remove_file(spool::path(&scratch.dir.path().join("spool"), 1)).unwrap();
    scratch.meter.record(settled(&intent()));
    scratch.flush();
    assert_eq!(scratch.meter.counters().damaged, 1);
    let later = intent();
    scratch.meter.begin(later.clone()).unwrap().settle(settled(&later));
    scratch.flush();
    assert_eq!(scratch.row(later.request_id), Some(settled(&later)));
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
