//! Rows, roll-ups, replays, retention.
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Options, Store};
use super::rollup::{DAY_MS, FIVE_MS, HOUR_MS, MINUTE_MS};
use super::*;
use crate::id::{KeyId, RequestId, TenantId};
use crate::units::UnixMs;

/// Tables in memory.
pub(in crate::store) fn scratch() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    for migration in super::super::schema::MIGRATIONS {
        connection.execute_batch(migration).unwrap();
    }
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
        attempt_log: Box::default(),
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

pub(in crate::store) fn prune_step(connection: &Connection, before: UnixMs) -> bool {
    prune::prune(connection, before).unwrap()
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
    assert_eq!(counts, (20, 1, 1), "five grains at four levels");
    let latencies: i64 = connection
        .query_row("SELECT count(*) FROM latencies", [], |row| row.get(0))
        .unwrap();
    assert_eq!(latencies, 3);
}

#[test]
fn pruning_takes_old_rows_and_minutes_in_steps_and_leaves_hours_and_days() {
    let connection = scratch();
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    let rows: Vec<Row> = (0..1_200).map(|at| row(at * 10_000, tenant, key, "llama")).collect();
    append(&connection, &rows, Cursor::default()).unwrap();
    // Three hours and twenty minutes of rows; what lies before the third hour goes, whatever minute is asked for.
    let mut steps = 0;
    while prune::prune(&connection, UnixMs(2 * HOUR_MS + 59 * MINUTE_MS)).unwrap() {
        steps += 1;
    }
    assert!(steps > 3, "{steps} steps");
    let count = |question: &str| -> i64 { connection.query_row(question, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM ledger"), 480);
    assert_eq!(count("SELECT min(ts_ms) FROM ledger"), 2 * HOUR_MS);
    for grain in 0..5 {
        let sum = |level: i64| {
            count(&format!(
                "SELECT sum(requests) FROM rollups WHERE grain = {grain} AND level_ms = {level}"
            ))
        };
        assert_eq!((sum(MINUTE_MS), sum(FIVE_MS)), (480, 480), "grain {grain}");
        assert_eq!((sum(HOUR_MS), sum(DAY_MS)), (1_200, 1_200), "grain {grain}");
    }
    assert_eq!(count("SELECT min(bucket_ms) FROM latencies WHERE level_ms = 60000"), 2 * HOUR_MS);
    assert_eq!(count("SELECT count(*) FROM latencies WHERE level_ms = 3600000"), 4);
    assert_eq!(
        count("SELECT min(bucket_ms) FROM model_latencies WHERE level_ms = 60000"),
        2 * HOUR_MS
    );
    assert_eq!(count("SELECT count(*) FROM model_latencies WHERE level_ms = 3600000"), 4);
}

fn make_owners(connection: &Connection, tenant: TenantId, key: KeyId) {
    connection
        .execute_batch("PRAGMA defer_foreign_keys = on; PRAGMA ignore_check_constraints = on")
        .unwrap();
    for (table, id) in [("tenants", *tenant.as_bytes()), ("keys", *key.as_bytes())] {
        let mut columns = connection
            .prepare(&format!(
                "SELECT name FROM pragma_table_info('{table}') WHERE \"notnull\" AND name <> 'id'"
            ))
            .unwrap();
        let names: Vec<String> = columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        // Only its id is asked for.
        let values = names.iter().map(|name| {
            let kind: String = connection
                .query_row("SELECT type FROM pragma_table_info(?1) WHERE name = ?2", (table, name), |row| {
                    row.get(0)
                })
                .unwrap();
            match kind.as_str() {
                "TEXT" => "''",
                "BLOB" => "x''",
                _ => "0",
            }
        });
        let question = format!(
            "INSERT INTO {table} (id, {}) VALUES (?1, {})",
            names.join(", "),
            values.collect::<Vec<_>>().join(", ")
        );
        connection.execute_batch("PRAGMA foreign_keys = off").unwrap();
        connection.execute(&question, [id]).unwrap();
    }
}

#[test]
fn a_life_may_cost_more_than_sixty_four_bits_of_pico_dollars_and_is_known_without_its_days() {
    let connection = scratch();
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    make_owners(&connection, tenant, key);
    let mut dear = row(DAY_MS, tenant, key, "llama");
    dear.charge.input = PicoUsd(9_000_000 * 1_000_000_000_000 + 999_999_999_999);
    dear.charge.output = PicoUsd(1);
    dear.charge.request = PicoUsd(5);
    for day in 0..4 {
        dear.request_id = RequestId::mint();
        dear.at = UnixMs(day * DAY_MS);
        append(&connection, std::slice::from_ref(&dear), Cursor::default()).unwrap();
    }
    let past = remember::remembered(&connection, UnixMs(400 * DAY_MS)).unwrap();
    assert!(past.periods.is_empty() && past.recent.is_empty());
    let whole = |owner| Lifetime {
        owner,
        tokens: 160,
        cost: PicoUsd(4 * (9_000_001 * 1_000_000_000_000 + 5)),
    };
    assert_eq!(past.lifetimes, [whole(Owner::Tenant(tenant)), whole(Owner::Key(key))]);
}

#[test]
fn lives_are_made_up_for_a_store_that_is_older_than_they() {
    let connection = scratch();
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    make_owners(&connection, tenant, key);
    let mut rows: Vec<Row> = (0..50).map(|day| row(day * DAY_MS, tenant, key, "llama")).collect();
    rows[7].charge.input = PicoUsd(3_999_999_999_999);
    append(&connection, &rows, Cursor::default()).unwrap();
    let written = remember::remembered(&connection, UnixMs(0)).unwrap().lifetimes;
    connection.execute_batch("DROP TABLE lifetimes").unwrap();
    connection.execute_batch(include_str!("../migrations/0003_lifetimes.sql")).unwrap();
    assert_eq!(remember::remembered(&connection, UnixMs(0)).unwrap().lifetimes, written);
}

#[test]
fn a_row_that_breaks_a_rule_is_refused_with_its_batch_and_one_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(dir.path().join("obleth.db"))).unwrap();
    let other = Connection::open(dir.path().join("obleth.db")).unwrap();
    other
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON ledger WHEN new.model = 'poison' BEGIN SELECT raise(ABORT, 'no'); END")
        .unwrap();
    let fine = row(0, TenantId::mint(), KeyId::mint(), "llama");
    let poison = row(0, fine.tenant, fine.key, "poison");
    let append = |rows: &[&Row]| store.append(Arc::new(rows.iter().map(|row| (*row).clone()).collect()), Cursor::default());
    let outcome = append(&[&fine, &poison]);
    assert!(matches!(outcome, Err(WriteError::Refused(_))), "{outcome:?}");
    assert_eq!(append(&[&fine]), Ok(1), "nothing of the batch was kept");
    assert_eq!(append(&[&fine]), Ok(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What a restart is told is every request of the month once, whatever the time of day, also those from a time to come.
    #[test]
    fn what_is_remembered_is_every_request_once(now in DAY_MS * 40..DAY_MS * 41, ages in prop::collection::vec(-DAY_MS * 3..DAY_MS * 35, 1..60)) {
        let connection = scratch();
        let (tenant, key) = (TenantId::mint(), KeyId::mint());
        let recent = ages.iter().map(|age| age % (5 * MINUTE_MS)).chain(ages.iter().map(|age| age % HOUR_MS));
        let mut rows: Vec<Row> = ages.iter().copied().chain(recent).map(|age| row(now - age, tenant, key, "llama")).collect();
        rows[0].outcome = Outcome::Rejected;
        rows[0].tokens = Tokens::default();
        append(&connection, &rows, Cursor::default()).unwrap();
        let past = remember::remembered(&connection, UnixMs(now)).unwrap();
        // February 1970.
        let of_month: Vec<&Row> = rows.iter().filter(|row| (31 * DAY_MS..59 * DAY_MS).contains(&row.at.0)).collect();
        let all = || past.periods.iter().chain(&past.recent);
        prop_assert_eq!(all().map(|entry| entry.tokens).sum::<u64>(), of_month.iter().map(|row| row.tokens.input + row.tokens.output).sum::<u64>());
        let dispatched = of_month.iter().filter(|row| row.outcome == Outcome::Ok).count() as u64;
        prop_assert_eq!(all().map(|entry| entry.requests).sum::<u64>(), dispatched);
        for day in 31..59 {
            let on = |at: UnixMs| at.0.div_euclid(DAY_MS) == day;
            let told: u64 = all().filter(|entry| on(entry.at)).map(|entry| entry.tokens).sum();
            prop_assert_eq!(told, of_month.iter().filter(|row| on(row.at)).map(|row| row.tokens.input + row.tokens.output).sum::<u64>());
        }
        prop_assert!(past.recent.is_sorted_by_key(|entry| entry.at));
        prop_assert!(past.recent.iter().all(|entry| entry.at.0 >= now - 3 * MINUTE_MS && entry.at.0 < now + MINUTE_MS));
        prop_assert!(past.periods.iter().all(|entry| entry.at.0 < now - 2 * MINUTE_MS || entry.at.0 > now));
    }
}

#[test]
fn rows_from_before_logs_of_attempts_have_none_and_a_log_that_cannot_be_read_hides_no_row() {
    let connection = Connection::open_in_memory().unwrap();
    let (before, after) = super::super::schema::MIGRATIONS.split_at(3);
    for migration in before {
        connection.execute_batch(migration).unwrap();
    }
    let old = RequestId::mint();
    let insert = "INSERT INTO ledger VALUES (?1, 5, ?2, ?3, 'llama', NULL, NULL, 'gpu:1', '/v1/chat/completions', 'ok', 200, NULL, 2,
                  1, 0, 1, 0, 'reported', 1, 1, 1, 'off', 0, 0, 1, 1, 1, 0)";
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    connection
        .execute(insert, (old.as_bytes(), tenant.as_bytes(), key.as_bytes()))
        .unwrap();
    for migration in after {
        connection.execute_batch(migration).unwrap();
    }
    let mut new = row(6, tenant, key, "llama");
    new.attempt_log = Box::new([Attempt {
        endpoint: "gpu:1".into(),
        outcome: AttemptOutcome::DeadConnection,
        status: None,
        start_ms: 3,
        duration_ms: 9,
    }]);
    append(&connection, std::slice::from_ref(&new), Cursor::default()).unwrap();
    let log = |id: RequestId| -> Option<String> {
        let question = "SELECT attempt_log FROM ledger WHERE request_id = ?1";
        connection.query_row(question, [id.as_bytes()], |row| row.get(0)).unwrap()
    };
    assert_eq!(log(old), None);
    let json = log(new.request_id).unwrap();
    assert_eq!(
        json,
        r#"[{"endpoint":"gpu:1","outcome":"dead_connection","start_ms":3,"duration_ms":9}]"#
    );
    assert_eq!(read_attempts(&json), new.attempt_log);
    for odd in [
        "{}",
        "[1]",
        r#"[{"endpoint":"a","outcome":"of a later version","start_ms":1,"duration_ms":1}]"#,
    ] {
        assert!(read_attempts(odd).is_empty(), "{odd}");
    }
}
