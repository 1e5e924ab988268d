//! The audit log: what can be asked, what cannot be done, what shows.

use super::*;

async fn with_rows(count: usize) -> Scratch {
    let scratch = Scratch::new();
    for number in 1..=count {
        let author = Author {
            actor: if number.is_multiple_of(2) { "eve" } else { "adam" }.to_owned(),
            ..author()
        };
        create(&scratch.store, author, &format!("tenant {number}")).await.unwrap();
    }
    scratch
}

fn seqs(rows: &[AuditRow]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

#[tokio::test]
async fn rows_come_newest_first_filtered_and_in_pages() {
    let scratch = with_rows(7).await;
    let all = scratch.store.audit(audit_of_all()).await.unwrap();
    assert_eq!(seqs(&all), [7, 6, 5, 4, 3, 2, 1]);
    let newest = &all[0];
    assert_eq!(
        (&*newest.actor, &*newest.action, &*newest.entity_type),
        ("adam", "create_tenant", "tenant")
    );
    assert_eq!(
        (&*newest.entity_id, &*newest.request_id, newest.source),
        ("tenant 7", "req-1", Source::Api)
    );
    assert_eq!(newest.detail, serde_json::json!({"after": {"name": "tenant 7"}}));
    let page = AuditQuery {
        limit: 2,
        before: Some(6),
        ..AuditQuery::default()
    };
    assert_eq!(seqs(&scratch.store.audit(page.clone()).await.unwrap()), [5, 4]);
    let eves = AuditQuery {
        actor: Some("eve".to_owned()),
        ..page.clone()
    };
    assert_eq!(seqs(&scratch.store.audit(eves).await.unwrap()), [4, 2]);
    let one = AuditQuery {
        actor: Some("adam".to_owned()),
        action: Some("create_tenant".to_owned()),
        entity_type: Some("tenant".to_owned()),
        entity_id: Some("tenant 3".to_owned()),
        ..audit_of_all()
    };
    assert_eq!(seqs(&scratch.store.audit(one).await.unwrap()), [3]);
    let none = AuditQuery {
        entity_id: Some("' OR 1 = 1 --".to_owned()),
        ..audit_of_all()
    };
    assert_eq!(scratch.store.audit(none).await.unwrap(), []);
    let clamped = AuditQuery::default();
    assert_eq!(seqs(&scratch.store.audit(clamped).await.unwrap()), [7], "a limit of 0 is 1");
}

#[tokio::test]
async fn a_refused_change_leaves_no_row_and_an_ineffective_one_that_has_an_entry_does() {
    let scratch = with_rows(1).await;
    scratch.create("tenant 1").await.unwrap_err();
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: 1 }));
    let purge = scratch.store.change(author(), |_, _| {
        Ok::<_, ()>(Change::new(()).audited(entry("purge_model_cache", "m")))
    });
    purge.await.unwrap();
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: 2 }));
    assert_eq!(scratch.store.catalog().version(), 1);
}

#[tokio::test]
async fn rows_cannot_be_changed_deleted_or_replaced() {
    let scratch = with_rows(3).await;
    for attempt in [
        "UPDATE audit SET actor = 'nobody' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 2",
        "INSERT INTO audit SELECT seq + 2, randomblob(16), ts, actor, action, entity_type, entity_id, detail, source, request_id, hash
         FROM audit WHERE seq = 3",
    ] {
        let refused = write(&scratch.store, move |connection| connection.execute(attempt, []))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{attempt}: {refused}");
    }
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: 3 }));
}

#[tokio::test]
async fn the_chain_shows_what_was_done_around_the_triggers() {
    const UNLOCK: &str = "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_deleted; DROP TRIGGER audit_has_no_gaps;";
    for (tampering, first_broken) in [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 4", 4),
        ("UPDATE audit SET ts = ts + 1 WHERE seq = 1", 1),
        ("UPDATE audit SET detail = '{}' WHERE seq = 6", 6),
        ("UPDATE audit SET entity_id = entity_type, entity_type = entity_id WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 6", 6),
        ("DELETE FROM audit", 1),
        ("UPDATE state SET audit_rows = 5", 6),
        ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 5", 5),
        (
            "INSERT INTO audit SELECT 7, randomblob(16), ts, actor, action, entity_type, entity_id, detail, source, request_id, hash
             FROM audit WHERE seq = 6",
            7,
        ),
    ] {
        let (options, _dir) = with_rows(6).await.closed();
        let raw = Connection::open(&options.path).unwrap();
        raw.execute_batch(UNLOCK).unwrap();
        raw.execute_batch(tampering).unwrap();
        drop(raw);
        let (store, _) = Store::open(options).unwrap();
        assert_eq!(store.verify_audit().await, Ok(Chain::Broken { seq: first_broken }), "{tampering}");
    }
}

#[tokio::test]
async fn a_chain_longer_than_one_walk_is_walked_to_its_end() {
    let scratch = Scratch::new();
    for _ in 0..3 {
        let entries = (0..4_000).map(|number| entry("update_tenant", &number.to_string())).collect();
        let change = scratch.store.change(author(), |_, _| {
            Ok::<_, ()>(Change {
                value: (),
                audit: entries,
                answer: None,
            })
        });
        change.await.unwrap();
    }
    assert_eq!(scratch.store.verify_audit().await, Ok(Chain::Intact { rows: 12_000 }));
}
