//! Rows, roll-ups, replays, retention.
use std::sync::Arc;

use proptest::prelude::*;

use super::rollup::{DAY_MS, HOUR_MS, MINUTE_MS};
use super::*;
use crate::id::{KeyId, RequestId, TenantId};
use crate::units::UnixMs;

/// Tables in memory.
pub(in crate::store) fn scratch() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../migrations/0002_ledger.sql")).unwrap();
    connection
}

pub(in crate::store) fn row(at: i64, tenant: TenantId, key: KeyId, model: &str) -> Row {
    Row {
        request_id: RequestId::mint(),
        at: UnixMs(at),
        tenant,
        key,
        model: Arc::from(model),
        client_request_id: Some("theirs".into()),
        session_id: None,
        endpoint: Arc::from("http://127.0.0.1:8000"),
        route: "/v1/chat/completions".into(),
        outcome: Outcome::Ok,
        status: 200,
        error_code: None,
        attempts: 1,
        tokens: Tokens {
            input: 10,
            cached_input: 2,
            output: 30,
            reasoning: 1,
        },
        usage_source: UsageSource::Reported,
        charge: Charge {
            input: PicoUsd(100),
            output: PicoUsd(900),
            request: PicoUsd(5),
        },
        cache: CacheStatus::Off,
        saved: Saved::default(),
        timing: Timing {
            queue_ms: 3,
            ttft_ms: Some(20),
            total_ms: 320,
        },
        stream: true,
    }
}

#[test]
fn a_row_that_comes_twice_is_there_once_in_rows_and_in_every_roll_up() {
    let connection = scratch();
    let rows = vec![row(DAY_MS, TenantId::mint(), KeyId::mint(), "llama"); 2];
    let cursor = Cursor { segment: 3, offset: 77 };
    assert_eq!(append(&connection, &rows, cursor).unwrap(), 1);
    assert_eq!(append(&connection, &rows, cursor).unwrap(), 0);
    assert_eq!(super::cursor(&connection).unwrap(), cursor);
    let counts: (i64, i64, i64) = connection
        .query_row("SELECT count(*), min(requests), max(requests) FROM rollups", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(counts, (15, 1, 1), "five grains at three levels");
    let latencies: i64 = connection
        .query_row("SELECT count(*) FROM latencies", [], |row| row.get(0))
        .unwrap();
    assert_eq!(latencies, 3);
}

#[test]
fn pruning_takes_old_rows_in_steps_and_leaves_the_roll_ups() {
    let connection = scratch();
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    let rows: Vec<Row> = (0..1_100).map(|at| row(at, tenant, key, "llama")).collect();
    append(&connection, &rows, Cursor::default()).unwrap();
    assert!(prune::prune(&connection, UnixMs(1_050)).unwrap());
    assert!(prune::prune(&connection, UnixMs(1_050)).unwrap());
    assert!(!prune::prune(&connection, UnixMs(1_050)).unwrap());
    let left: i64 = connection.query_row("SELECT count(*) FROM ledger", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 50);
    let all: i64 = connection
        .query_row("SELECT requests FROM rollups WHERE grain = 0 AND level_ms = 60000", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(all, 1_100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What a restart is told is every request once, whatever the time of day.
    #[test]
    fn what_is_remembered_is_every_request_once(now in DAY_MS * 40..DAY_MS * 41, ages in prop::collection::vec(0..DAY_MS * 35, 1..60)) {
        let connection = scratch();
        let (tenant, key) = (TenantId::mint(), KeyId::mint());
        let recent = ages.iter().map(|age| age % (5 * MINUTE_MS)).chain(ages.iter().map(|age| age % HOUR_MS));
        let mut rows: Vec<Row> = ages.iter().copied().chain(recent).map(|age| row(now - age, tenant, key, "llama")).collect();
        rows[0].outcome = Outcome::Rejected;
        rows[0].tokens = Tokens::default();
        append(&connection, &rows, Cursor::default()).unwrap();
        let remembered = remember::remembered(&connection, UnixMs(now)).unwrap();
        let sum = |of: fn(&Remembered) -> u64| remembered.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|entry| entry.requests), rows.len() as u64 - 1);
        prop_assert_eq!(sum(|entry| entry.tokens), 40 * (rows.len() as u64 - 1));
        prop_assert!(remembered.is_sorted_by_key(|entry| entry.at));
        let single = rows.iter().filter(|row| row.at.0 >= now - 2 * MINUTE_MS).count();
        prop_assert!(remembered.iter().filter(|entry| entry.at.0 >= now - 2 * MINUTE_MS).count() >= single);
    }
}
