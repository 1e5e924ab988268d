//! A ledger that goes to another process, and one that comes back.

use super::*;

/// What the other process has read along; it looks ten times a second.
fn comes(scratch: &Scratch, id: RequestId) -> Row {
    let began = std::time::Instant::now();
    loop {
        if let Some(row) = scratch.row(id) {
            return row;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no row");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn folders(scratch: &Scratch) -> usize {
    let entries = std::fs::read_dir(scratch.dir.path().join("spool")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

fn heir(scratch: &Scratch) -> Arc<Meter> {
    Meter::open(&settings(&scratch.dir.path().join("spool")), Arc::clone(&scratch.memory) as _).unwrap()
}

#[test]
fn whatever_a_request_does_after_the_handover_it_has_one_row_and_a_true_one() {
    let scratch = Scratch::new();
    let [before, across, after, killed] = [(); 4].map(|()| intent());
    scratch.meter.begin(before.clone()).unwrap().settle(settled(&before));
    let ticket = scratch.meter.begin(across.clone()).unwrap();
    let mut open = scratch.meter.begin(killed.clone()).unwrap();
    open.progress(300, PicoUsd(900));
    scratch.meter.hand_over(Duration::from_secs(60)).unwrap();
    assert!(scratch.row(before.request_id).is_some(), "before it, everything is moved");
    assert_eq!(folders(&scratch), 1);

    let heir = heir(&scratch);
    assert_eq!(heir.counters().damaged, 0);
    scratch.meter.begin(after.clone()).unwrap().settle(settled(&after));
    ticket.settle(settled(&across));
    let own = intent();
    heir.begin(own.clone()).unwrap().settle(settled(&own));
    for intent in [&after, &across, &own] {
        assert_eq!(comes(&scratch, intent.request_id), settled(intent));
    }
    assert!(scratch.row(killed.request_id).is_none(), "it may still run");

    // Its process dies.
    *scratch.meter.shared.own.lock() = None;
    let row = comes(&scratch, killed.request_id);
    assert_eq!((row.outcome, row.tokens.output), (Outcome::Interrupted, 300));
    assert_eq!(scratch.memory.rows.lock().len(), 5);
    drop(heir);
    assert_eq!(folders(&scratch), 0);
    drop(open);
}

#[test]
fn a_start_after_both_have_died_finds_what_was_left() {
    let scratch = Scratch::new();
    let [open, done] = [(); 2].map(|()| intent());
    let ticket = scratch.meter.begin(open.clone()).unwrap();
    scratch.meter.hand_over(Duration::from_secs(60)).unwrap();
    scratch.meter.begin(done.clone()).unwrap().settle(settled(&done));
    *scratch.meter.shared.own.lock() = None;
    let heir = heir(&scratch);
    assert_eq!(
        scratch.row(open.request_id).unwrap().outcome,
        Outcome::Interrupted,
        "known when it is open"
    );
    assert_eq!(scratch.row(done.request_id), Some(settled(&done)));
    assert_eq!(folders(&scratch), 0);
    drop((heir, ticket));
}

#[test]
fn a_ledger_that_nobody_came_for_goes_on() {
    let scratch = Scratch::new();
    let [across, meanwhile, later] = [(); 3].map(|()| intent());
    let ticket = scratch.meter.begin(across.clone()).unwrap();
    for _ in 0..2 {
        scratch.meter.hand_over(Duration::from_secs(60)).unwrap();
        scratch.meter.take_back().unwrap();
        scratch.flush();
    }
    scratch.meter.hand_over(Duration::from_secs(60)).unwrap();
    scratch.meter.begin(meanwhile.clone()).unwrap().settle(settled(&meanwhile));
    assert!(scratch.row(meanwhile.request_id).is_none(), "nothing is moved meanwhile");
    scratch.meter.take_back().unwrap();
    scratch.meter.begin(later.clone()).unwrap().settle(settled(&later));
    scratch.flush();
    assert_eq!(scratch.memory.rows.lock().len(), 2);
    ticket.settle(settled(&across));
    scratch.flush();
    for intent in [&across, &meanwhile, &later] {
        assert_eq!(scratch.row(intent.request_id), Some(settled(intent)));
    }
    let Scratch { meter, dir, .. } = scratch;
    drop(meter);
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0, "a clean end");
}

#[test]
fn a_ledger_whose_store_is_away_is_not_handed_over() {
    let scratch = Scratch::new();
    let intent = intent();
    scratch.memory.broken.store(true, Ordering::SeqCst);
    scratch.meter.begin(intent.clone()).unwrap().settle(settled(&intent));
    assert!(scratch.meter.hand_over(Duration::from_millis(300)).is_err());
    scratch.memory.broken.store(false, Ordering::SeqCst);
    scratch.flush();
    assert_eq!(scratch.row(intent.request_id), Some(settled(&intent)));
}
