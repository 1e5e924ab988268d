//! Crashes, full disks, locks held by others.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A crash can leave any prefix of the WAL on disk: each must open as the state after some change, with its audit rows.
#[tokio::test]
async fn a_wal_cut_anywhere_opens_as_the_state_after_one_of_the_changes() {
    let scratch = Scratch::new();
    for number in 0..20 {
        scratch.create(&format!("tenant {number}")).await.unwrap();
    }
    let seed = 11;
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let copies = tempfile::tempdir().unwrap();
        let copy = copy_of(&scratch.options.path, copies.path());
        let wal = std::fs::OpenOptions::new().write(true).open(sibling(&copy, "-wal")).unwrap();
        let cut = random.random_range(0..=wal.metadata().unwrap().len());
        wal.set_len(cut).unwrap();
        drop(wal);
        let (store, catalog) = Store::open(Options::new(copy)).unwrap();
        let rows = catalog.tenants().len() as u64;
        assert_eq!(catalog.version(), rows, "seed {seed}, cut at {cut}");
        assert_eq!(store.verify_audit().await, Ok(Chain::Intact { rows }), "seed {seed}, cut at {cut}");
        seen.insert(rows);
    }
    assert!(seen.len() > 5, "the cuts fell between the changes: {seen:?}");
}

#[tokio::test]
async fn what_was_answered_is_in_a_copy_that_is_taken_while_others_write() {
    let scratch = Scratch::new();
    let store = Arc::clone(&scratch.store);
    let (answered, mut count) = tokio::sync::watch::channel(0);
    let writes = tokio::spawn(async move {
        for number in 1..=150 {
            create(&store, author(), &format!("tenant {number}")).await.unwrap();
            answered.send_replace(number);
        }
    });
    for least in [1, 40, 80] {
        count.wait_for(|count| *count >= least).await.unwrap();
        let answered = *count.borrow();
        let copies = tempfile::tempdir().unwrap();
        let copy = copy_of(&scratch.options.path, copies.path());
        let (store, catalog) = Store::open(Options::new(copy)).unwrap();
        let rows = catalog.tenants().len() as u64;
        assert!(rows >= answered, "{answered} were answered, {rows} are there");
        assert_eq!(store.verify_audit().await, Ok(Chain::Intact { rows }));
    }
    writes.await.unwrap();
}

#[tokio::test]
async fn a_database_locked_by_another_process_is_unavailable_and_recovers_by_itself() {
    let scratch = Scratch::new();
    scratch.create("before").await.unwrap();
    let other = Connection::open(&scratch.options.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = scratch.create("during").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Unavailable(_)), "{refused:?}");
    scratch.store.writable().unwrap_err();
    assert_eq!(scratch.store.audit(audit_of_all()).await.unwrap().len(), 1, "reading goes on");
    assert!(scratch.store.catalog().tenant_named("during").is_none());
    other.execute_batch("ROLLBACK").unwrap();
    in_order_again(&scratch.store).await;
    scratch.create("during").await.unwrap();
    assert_eq!(scratch.reopened().store.catalog().tenants().len(), 2);
}

#[tokio::test]
async fn a_full_disk_refuses_whole_changes_until_there_is_room() {
    let scratch = Scratch::new();
    scratch.create("before").await.unwrap();
    let pages = |count: u32| {
        move |connection: &Connection| connection.pragma_update_and_check(None, "max_page_count", count, |row| row.get::<_, i64>(0))
    };
    // Cannot be less than what there is.
    write(&scratch.store, pages(1)).await.unwrap();
    let mut made = 1;
    let refused = loop {
        let large = Tenant {
            description: "x".repeat(3_000),
            ..tenant(&format!("tenant {made}"))
        };
        let change = scratch.store.change(author(), |catalog, _| {
            let entry = entry("create_tenant", &large.name);
            catalog.put_tenant(large).map(|()| Change::new(()).audited(entry))
        });
        match change.await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 100, "the disk is never full");
    };
    assert_eq!(refused, ChangeError::Unavailable("database or disk is full".to_owned()));
    scratch.store.writable().unwrap_err();
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: made }));
    write(&scratch.store, pages(1_000_000)).await.unwrap();
    scratch.create("after").await.unwrap();
    assert_eq!(scratch.store.writable(), Ok(()));
    let scratch = scratch.reopened();
    assert_eq!(scratch.store.catalog().tenants().len() as u64, made + 1);
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: made + 1 }));
}

#[tokio::test]
async fn the_write_ahead_log_is_brought_home_while_the_store_is_open() {
    let scratch = Scratch::new();
    for round in 0..40 {
        let large = Tenant {
            description: "x".repeat(400_000),
            ..tenant(&format!("tenant {round}"))
        };
        edit(&scratch.store, |catalog| catalog.put_tenant(large).unwrap()).await;
    }
    let length = |suffix| sibling(&scratch.options.path, suffix).metadata().unwrap().len();
    assert!(length("-wal") < 8 << 20, "{} bytes of 16 MB are in the log", length("-wal"));
    assert!(length("") > 8 << 20, "{} bytes of 16 MB are at home", length(""));
}

/// After a failed `fsync` nobody knows what is on disk; a later one that succeeds says nothing about it.
#[tokio::test]
async fn a_failed_sync_ends_writing_until_the_store_is_opened_anew() {
    let scratch = Scratch::new();
    scratch.create("before").await.unwrap();
    let failed = write(&scratch.store, |_| -> rusqlite::Result<()> {
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        Err(rusqlite::Error::SqliteFailure(failure, None))
    });
    failed.await.unwrap_err();
    let refused = scratch.create("after").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Unavailable(_)), "{refused:?}");
    scratch.store.writable().unwrap_err();
    let scratch = scratch.reopened();
    scratch.create("after").await.unwrap();
    assert_eq!(scratch.store.catalog().tenants().len(), 2);
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended_and_the_reader_goes_on() {
    let scratch = Scratch::new();
    let endless = || {
        scratch.store.read(Duration::from_millis(50), |connection| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
            connection.query_row(sql, [], |row| row.get::<_, i64>(0))
        })
    };
    let (one, two, three) = tokio::join!(endless(), endless(), endless());
    assert_eq!([one, two, three], [const { Err(ReadError::TimedOut) }; 3]);
    let panics = scratch
        .store
        .read(Duration::from_secs(5), |_| -> rusqlite::Result<()> { panic!("a query's bug") });
    assert!(matches!(panics.await, Err(ReadError::Failed(_))));
    for _ in 0..4 {
        assert_eq!(scratch.store.audit(audit_of_all()).await, Ok(Vec::new()));
    }
    let writes = scratch.store.read(Duration::from_secs(5), |connection| {
        connection.execute("UPDATE state SET audit_rows = 1", [])
    });
    assert!(matches!(writes.await, Err(ReadError::Failed(_))), "readers only read");
}
