//! What a change promises its caller.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use super::*;
use crate::catalog::Group;
use crate::store::idempotency::RECORDS_MAX;
use crate::store::writer::QUEUE;

/// Keeps the writer busy until the sender is dropped.
async fn occupy(store: &Store) -> mpsc::Sender<()> {
    let (busy, started) = oneshot::channel();
    let (release, released) = mpsc::channel::<()>();
    let work = move |_: &Connection| {
        let _ = busy.send(());
        let _ = released.recv();
        Ok(())
    };
    drop(store.write(work).unwrap());
    started.await.unwrap();
    release
}

#[tokio::test]
async fn versions_and_times_are_the_stores_business() {
    let clock = Stopped::at(1_000);
    let scratch = Scratch::with(|options| options.clock = clock.clock());
    let tenant = Tenant {
        provenance: Provenance {
            version: 99,
            created_at: UnixMs(5),
            updated_at: UnixMs(6),
            ..Provenance::default()
        },
        ..tenant("acme")
    };
    let id = tenant.id;
    let catalog = edit(&scratch.store, |catalog| catalog.put_tenant(tenant).unwrap()).await;
    let made = Tenant::clone(catalog.tenants().get(&id).unwrap());
    assert_eq!((made.provenance.version, catalog.version()), (1, 1));
    assert_eq!(
        (made.provenance.created_at, made.provenance.updated_at),
        (UnixMs(1_000), UnixMs(1_000))
    );
    clock.set(2_000);
    let catalog = edit(&scratch.store, |catalog| catalog.put_tenant(made).unwrap()).await;
    let altered = catalog.tenants().get(&id).unwrap();
    assert_eq!((altered.provenance.version, catalog.version()), (2, 2));
    assert_eq!(
        (altered.provenance.created_at, altered.provenance.updated_at),
        (UnixMs(1_000), UnixMs(2_000))
    );
    let default = catalog.groups().get(DEFAULT_GROUP).unwrap();
    assert_eq!(
        (default.provenance.version, default.provenance.updated_at),
        (1, UnixMs(1_000)),
        "untouched"
    );
}

#[tokio::test]
async fn an_edit_without_effect_changes_no_version() {
    let scratch = Scratch::new();
    let before = scratch.store.catalog();
    let slots = before.max_in_flight();
    let after = edit(&scratch.store, move |catalog| {
        catalog.put_group(Group::new("fleeting"));
        catalog.remove_group("fleeting").unwrap();
        catalog.set_max_in_flight(slots);
    })
    .await;
    assert!(Arc::ptr_eq(&before, &after));
}

#[tokio::test]
async fn capacity_is_kept_across_a_reopening() {
    let scratch = Scratch::with(|options| options.max_in_flight = 17);
    assert_eq!(scratch.store.catalog().max_in_flight(), 17);
    edit(&scratch.store, |catalog| catalog.set_max_in_flight(3)).await;
    let scratch = scratch.reopened();
    assert_eq!((scratch.store.catalog().max_in_flight(), scratch.store.catalog().version()), (3, 1));
}

#[tokio::test]
async fn the_file_last_applied_is_remembered_with_the_change_that_applied_it() {
    let scratch = Scratch::new();
    assert_eq!(scratch.store.applied_file().await, Ok(None));
    let slots = |count| {
        move |catalog: &mut Catalog, _| {
            catalog.set_max_in_flight(count);
            if count < 5 { Ok(Change::new(())) } else { Err("too many") }
        }
    };
    scratch.store.apply_file(author(), "one".to_owned(), slots(1)).await.unwrap();
    scratch.store.apply_file(author(), "same".to_owned(), slots(1)).await.unwrap();
    scratch.store.apply_file(author(), "bad".to_owned(), slots(9)).await.unwrap_err();
    edit(&scratch.store, |catalog| catalog.set_max_in_flight(2)).await;
    let scratch = scratch.reopened();
    assert_eq!(scratch.store.applied_file().await, Ok(Some("same".to_owned())));
    assert_eq!((scratch.store.catalog().max_in_flight(), scratch.store.catalog().version()), (2, 2));
}

#[tokio::test]
async fn a_refused_edit_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let change = scratch.store.change(author(), |catalog, _| {
        catalog.put_group(Group::new("half"));
        Err::<Change<()>, _>("no")
    });
    assert_eq!(change.await.unwrap_err(), ChangeError::Refused("no"));
    assert!(scratch.store.catalog().groups().get("half").is_none());
    assert!(scratch.reopened().store.catalog().groups().get("half").is_none());
}

#[tokio::test]
async fn a_panicking_edit_is_an_error_and_not_the_writers_end() {
    let scratch = Scratch::new();
    let change = scratch.store.change(author(), |catalog, _| -> Result<Change<()>, ()> {
        catalog.put_group(Group::new("half"));
        panic!("an edit's bug");
    });
    assert_eq!(change.await.unwrap_err(), ChangeError::Panicked);
    let panics = write(&scratch.store, |connection| -> rusqlite::Result<()> {
        connection.execute(HALF_A_GROUP, [])?;
        panic!("a job's bug");
    });
    assert!(panics.await.is_err());
    scratch.create("acme").await.unwrap();
    let catalog = scratch.reopened().store.catalog();
    assert!(catalog.tenant_named("acme").is_some());
    assert!(catalog.groups().get("half").is_none());
}

/// What a job writes before it fails.
const HALF_A_GROUP: &str = "INSERT INTO groups VALUES ('half', 1, 'api', '[]', 1, 0, 0)";

#[tokio::test]
async fn a_job_that_fails_leaves_the_others_of_its_batch_alone() {
    let scratch = Scratch::new();
    let busy = occupy(&scratch.store).await;
    let fails = write(&scratch.store, |connection| {
        connection.execute(HALF_A_GROUP, [])?;
        connection.execute("UPDATE tenants SET name = NULL", [])
    });
    let (before, failed, after, ()) = tokio::join!(scratch.create("before"), fails, scratch.create("after"), async { drop(busy) });
    before.unwrap();
    failed.unwrap_err();
    after.unwrap();
    let catalog = scratch.reopened().store.catalog();
    assert_eq!((catalog.tenants().len(), catalog.groups().len()), (2, 1));
}

/// A key without its tenant passes until the transaction ends: foreign keys are checked at commit.
#[tokio::test]
async fn a_batch_that_cannot_be_committed_has_not_happened_for_any_of_its_jobs() {
    let scratch = Scratch::new();
    scratch.create("long ago").await.unwrap();
    let busy = occupy(&scratch.store).await;
    let orphan = write(&scratch.store, |connection| {
        connection.execute(
            "INSERT INTO keys (id, tenant_id, name, description, prefix, digest, disabled, tokens_per_minute, requests_per_minute,
             budget_period, managed_by, overridden, version, created_at, updated_at)
             VALUES (zeroblob(16), zeroblob(16), '', '', '', zeroblob(32), 0, 0, 0, 'month', 'api', '[]', 1, 0, 0)",
            [],
        )
    });
    let (first, orphan, second, same, ()) = tokio::join!(
        scratch.create("first"),
        orphan,
        create(&scratch.store, repeatable("a", 1), "second"),
        scratch.create("first"),
        async { drop(busy) }
    );
    orphan.unwrap_err();
    for lost in [first, second, same] {
        let lost = lost.unwrap_err();
        assert!(matches!(lost, ChangeError::Unavailable(_)), "{lost:?}");
    }
    scratch.store.writable().unwrap_err();
    assert_eq!(scratch.store.catalog().tenants().len(), 1);
    create(&scratch.store, repeatable("a", 1), "second").await.unwrap();
    assert_eq!(scratch.store.writable(), Ok(()));
    let scratch = scratch.reopened();
    assert_eq!(scratch.store.catalog().tenants().len(), 2);
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: 2 }));
}

#[tokio::test]
async fn of_a_hundred_parallel_creates_of_one_name_one_succeeds() {
    let scratch = Scratch::new();
    let creates: Vec<_> = (0..100)
        .map(|_| {
            let store = Arc::clone(&scratch.store);
            tokio::spawn(async move { create(&store, author(), "acme").await })
        })
        .collect();
    let mut made = 0;
    for create in creates {
        match create.await.unwrap() {
            Ok(_) => made += 1,
            Err(ChangeError::Refused(Conflict::NameTaken { .. })) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(scratch.store.audit(audit_of_all()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn each_change_of_a_batch_sees_the_ones_before_and_answers_with_its_own_catalog() {
    let scratch = Scratch::new();
    let busy = occupy(&scratch.store).await;
    let store = &scratch.store;
    let changes = (0..50).map(async |number| {
        if number % 10 == 9 {
            let refused = store.change(author(), |_, _| Err::<Change<()>, _>(())).await;
            assert_eq!(refused.unwrap_err(), ChangeError::Refused(()));
            return;
        }
        let Done::Committed { value, catalog } = create(store, author(), &format!("tenant {number}")).await.unwrap() else {
            panic!("no key was given")
        };
        assert_eq!(catalog.tenants().get(&value).unwrap().provenance.version, 1);
        assert_eq!(catalog.version(), catalog.tenants().len() as u64);
    });
    // All are in the queue before the writer gets to the first.
    tokio::join!(futures_util::future::join_all(changes), async { drop(busy) });
    let scratch = scratch.reopened();
    assert_eq!(scratch.store.catalog().tenants().len(), 45);
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: 45 }));
}

#[tokio::test]
async fn a_change_is_in_force_when_it_is_answered() {
    let scratch = Scratch::new();
    scratch.create("before").await.unwrap();
    let live = Arc::new(Live::new(Arc::new(Catalog::empty(1))));
    scratch.store.follow(Arc::clone(&live));
    assert!(
        live.load().tenant_named("before").is_some(),
        "a follower that comes late is told at once"
    );
    scratch.create("after").await.unwrap();
    assert!(live.load().tenant_named("after").is_some());
}

#[tokio::test]
async fn an_engine_that_panics_over_a_catalog_ends_nothing_and_is_asked_again() {
    let scratch = Scratch::new();
    let faulty = Arc::new(AtomicBool::new(false));
    let mut live = Live::new(Arc::new(Catalog::empty(1)));
    let fault = Arc::clone(&faulty);
    live.subscribe(move |_| assert!(!fault.load(Ordering::SeqCst), "an engine's bug"));
    let live = Arc::new(live);
    scratch.store.follow(Arc::clone(&live));
    faulty.store(true, Ordering::SeqCst);
    scratch.create("acme").await.unwrap();
    scratch.store.writable().unwrap_err();
    assert!(live.load().tenant_named("acme").is_none());
    faulty.store(false, Ordering::SeqCst);
    in_order_again(&scratch.store).await;
    assert!(live.load().tenant_named("acme").is_some());
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_a_waiting_change_back() {
    let scratch = Scratch::new();
    let busy = occupy(&scratch.store).await;
    {
        let mut waiting = std::pin::pin!(scratch.create("acme"));
        let polled = futures_util::poll!(&mut waiting);
        assert!(polled.is_pending());
    }
    drop(busy);
    edit(&scratch.store, |_| ()).await;
    assert!(scratch.store.catalog().tenants().is_empty());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let scratch = Scratch::new();
    let busy = occupy(&scratch.store).await;
    let waiting: Vec<_> = (0..QUEUE).map(|_| scratch.store.write(|_| Ok(())).unwrap()).collect();
    let refused = scratch.create("acme").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Unavailable(_)), "{refused:?}");
    drop(busy);
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    scratch.create("acme").await.unwrap();
}

fn repeatable(key: &str, body: u8) -> Author {
    Author {
        idempotency: Some(Idempotency {
            key: key.to_owned(),
            digest: [body; 32],
        }),
        ..author()
    }
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer_and_another_body_is_told_so() {
    let clock = Stopped::at(0);
    let scratch = Scratch::with(|options| options.clock = clock.clock());
    let Done::Committed { value: id, .. } = create(&scratch.store, repeatable("a", 1), "acme").await.unwrap() else {
        panic!("the first is no repetition")
    };
    let scratch = scratch.reopened();
    let Done::Replayed(answer) = create(&scratch.store, repeatable("a", 1), "acme").await.unwrap() else {
        panic!("the second is one")
    };
    let first = StoredAnswer {
        status: 201,
        location: Some(format!("/api/v1/tenants/{id}")),
        body: "version 1".to_owned(),
    };
    assert_eq!(answer, first);
    let other = create(&scratch.store, repeatable("a", 2), "acme").await.unwrap_err();
    assert_eq!(other, ChangeError::IdempotencyMismatch);
    assert_eq!(scratch.store.catalog().tenants().len(), 1);
    clock.set(24 * 60 * 60 * 1000);
    let again = create(&scratch.store, repeatable("a", 2), "next day").await.unwrap();
    assert!(matches!(again, Done::Committed { .. }), "the key is free again after a day");
}

#[tokio::test]
async fn of_two_concurrent_repetitions_one_runs() {
    let scratch = Scratch::new();
    let busy = occupy(&scratch.store).await;
    let both = async {
        tokio::join!(
            create(&scratch.store, repeatable("a", 1), "acme"),
            create(&scratch.store, repeatable("a", 1), "acme"),
            async { drop(busy) },
        )
    };
    let (first, second, ()) = both.await;
    assert!(matches!(first.unwrap(), Done::Committed { .. }));
    assert!(matches!(second.unwrap(), Done::Replayed(_)));
}

#[tokio::test]
async fn a_refused_change_does_not_use_its_key_up() {
    let scratch = Scratch::new();
    scratch.create("acme").await.unwrap();
    let refused = create(&scratch.store, repeatable("a", 1), "acme").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused(Conflict::NameTaken { .. })));
    let done = create(&scratch.store, repeatable("a", 1), "other").await.unwrap();
    assert!(matches!(done, Done::Committed { .. }));
}

#[tokio::test]
async fn kept_answers_are_bounded_and_the_oldest_go_first() {
    let scratch = Scratch::new();
    let kept = write(&scratch.store, |connection| {
        let answer = StoredAnswer {
            status: 201,
            location: None,
            body: String::new(),
        };
        for number in 0..RECORDS_MAX + 10 {
            let Some(idempotency) = repeatable(&number.to_string(), 0).idempotency else {
                panic!("it has one")
            };
            super::super::idempotency::keep(connection, &idempotency, &answer, UnixMs(number))?;
        }
        connection.query_row("SELECT count(*), min(created_at) FROM idempotency", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    });
    assert_eq!(kept.await, Ok((RECORDS_MAX, 10_i64)));
}
