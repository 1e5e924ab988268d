//! Usage against sums made by hand from the rows.
use proptest::prelude::*;
use rusqlite::Connection;

use super::super::ledger::{ATTEMPTS_MAX, Attempt, AttemptOutcome, CacheStatus, Cursor, Outcome, Row, Saved, Sums};
use super::answers::{models, series, total, usage};
use super::log::requests;
use super::*;
use crate::store::ledger::tests::{row, scratch};
use crate::store::schema;
use crate::units::PicoUsd;

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

fn written(rows: &[Row]) -> Connection {
    let connection = scratch();
    for batch in rows.chunks(7) {
        super::super::ledger::append(&connection, batch, Cursor::default()).unwrap();
    }
    connection
}

fn matches(filter: &Filter, row: &Row) -> bool {
    row.at >= filter.since
        && row.at < filter.until
        && filter.tenant.is_none_or(|tenant| tenant == row.tenant)
        && filter.key.is_none_or(|key| key == row.key)
        && filter.model.as_ref().is_none_or(|model| **model == *row.model)
}

fn by_hand(rows: &[Row], filter: &Filter) -> Sums {
    let mut sums = Sums::default();
    for row in rows.iter().filter(|row| matches(filter, row)) {
        sums.add(&Sums::of(row));
    }
    sums
}

/// Two tenants with two keys each, three models, some days.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let tenants = [TenantId::mint(), TenantId::mint()];
    let keys = [KeyId::mint(), KeyId::mint(), KeyId::mint(), KeyId::mint()];
    let one =
        (0..DAY * 3, 0usize..4, 0usize..3, 0usize..6, 0usize..5, 0u64..500).prop_map(move |(at, key, model, outcome, cache, tokens)| {
            let mut row = row(at, tenants[key / 2], keys[key], ["llama", "qwen", ""][model]);
            row.outcome = Outcome::ALL[outcome];
            row.cache = CacheStatus::ALL[cache];
            row.tokens.input = tokens;
            row.tokens.output = tokens / 3;
            row.charge.output = PicoUsd(u128::from(tokens) * 7);
            row.saved = Saved { tokens, cost: PicoUsd(3) };
            row.timing.ttft_ms = Some(tokens);
            row.attempt_log = AttemptOutcome::ALL[..cache * 3]
                .iter()
                .map(|outcome| Attempt {
                    endpoint: "gpu \"1\":8000".into(),
                    outcome: *outcome,
                    status: (key > 1).then_some(503),
                    start_ms: u32::MAX,
                    duration_ms: 0,
                })
                .take(ATTEMPTS_MAX)
                .collect();
            row
        });
    prop::collection::vec(one, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Sums over roll-ups are sums over rows, for every filter, grouping and bucket, to the millisecond at both ends.
    #[test]
    fn every_answer_is_the_sum_of_its_rows(
        rows in rows(), from in -DAY..DAY * 3, length in 0..DAY * 5, about in 0usize..80, which in 0u8..8, bucket in prop::sample::select(vec![10_000i64, 30_000, MINUTE, 5 * MINUTE, 60 * MINUTE, DAY, 90_000]),
    ) {
        let connection = written(&rows);
        let about = &rows[about % rows.len()];
        let filter = Filter {
            tenant: (which & 1 != 0).then_some(about.tenant),
            key: (which & 2 != 0).then_some(about.key),
            model: (which & 4 != 0).then(|| about.model.to_string()),
            since: UnixMs(from),
            until: UnixMs(from + length),
        };
        let now = UnixMs(DAY * 10);
        // Nothing was pruned, but what lies before the first row is cut by whole minutes: the same sums.
        let expected = by_hand(&rows, &filter);
        prop_assert_eq!(total(&connection, &filter, now).unwrap(), expected);
        for by in [GroupBy::Tenant, GroupBy::Key, GroupBy::Model] {
            let mut sums = Sums::default();
            for group in usage(&connection, &filter, by, now).unwrap() {
                let narrowed = Filter {
                    tenant: group.tenant.or(filter.tenant),
                    key: group.key.or(filter.key),
                    model: group.model.or_else(|| filter.model.clone()),
                    ..filter.clone()
                };
                prop_assert_eq!(group.sums, by_hand(&rows, &narrowed));
                sums.add(&group.sums);
            }
            prop_assert_eq!(sums, expected);
        }
        for by_tenant in [false, true] {
            let mut sums = Sums::default();
            for point in series(&connection, &filter, bucket, by_tenant, now).unwrap().unwrap() {
                let narrowed = Filter {
                    tenant: point.tenant.or(filter.tenant),
                    since: point.bucket.max(filter.since),
                    until: UnixMs(point.bucket.0 + bucket).min(filter.until),
                    ..filter.clone()
                };
                prop_assert_eq!(point.sums, by_hand(&rows, &narrowed));
                sums.add(&point.sums);
            }
            prop_assert_eq!(sums, expected);
        }
        for model in models(&connection, &filter, now).unwrap() {
            let narrowed = Filter { model: Some(model.model), ..filter.clone() };
            prop_assert_eq!(model.sums, by_hand(&rows, &narrowed));
            let answered: Vec<&Row> = rows.iter().filter(|row| matches(&narrowed, row) && row.outcome == Outcome::Ok && !matches!(row.cache, CacheStatus::Hit | CacheStatus::Coalesced)).collect();
            let slowest = answered.iter().filter_map(|row| row.timing.ttft_ms).max();
            prop_assert_eq!(model.ttft_ms_p95.is_some(), slowest.is_some());
            prop_assert!(model.ttft_ms_p95.unwrap_or(0) <= slowest.unwrap_or(0) * 17 / 16);
        }
    }

    /// After retention, stretches of whole hours are told as before, in every grouping, bucket and histogram.
    #[test]
    fn what_was_pruned_is_still_in_every_sum(rows in rows(), before in 0..DAY * 4, from in 0i64..72, length in 0i64..80, which in 0u8..8, bucket in prop::sample::select(vec![10_000i64, 5 * MINUTE, DAY])) {
        let connection = written(&rows);
        let (about, hour) = (&rows[0], 60 * MINUTE);
        let filter = Filter {
            tenant: (which & 1 != 0).then_some(about.tenant),
            key: (which & 2 != 0).then_some(about.key),
            model: (which & 4 != 0).then(|| about.model.to_string()),
            since: UnixMs(from * hour),
            until: UnixMs((from + length) * hour),
        };
        let now = UnixMs(DAY * 10);
        let told = || (
            total(&connection, &filter, now).unwrap(),
            usage(&connection, &filter, GroupBy::Key, now).unwrap(),
            models(&connection, &filter, now).unwrap(),
            series(&connection, &filter, bucket, true, now).unwrap().unwrap().iter().fold(Sums::default(), |mut sums, point| { sums.add(&point.sums); sums }),
            series(&connection, &filter, hour, false, now).unwrap().unwrap(),
        );
        let whole = told();
        prop_assert_eq!(whole.0, by_hand(&rows, &filter));
        while crate::store::ledger::tests::prune_step(&connection, UnixMs(before)) {
            prop_assert_eq!(told(), whole.clone());
        }
        prop_assert_eq!(told(), whole);
    }

    #[test]
    fn pages_of_the_log_show_every_row_once_newest_first(mut rows in rows(), page in 1u32..20, same in any::<bool>(), which in 0u8..8, from in 0..DAY, length in 0..DAY * 4) {
        if same {
            for row in &mut rows {
                row.at = UnixMs(from + 5);
            }
        }
        let connection = written(&rows);
        let about = &rows[0];
        let filter = Filter {
            tenant: (which & 1 != 0).then_some(about.tenant),
            key: (which & 2 != 0).then_some(about.key),
            model: (which & 4 != 0).then(|| about.model.to_string()),
            since: UnixMs(from),
            until: UnixMs(from + length),
        };
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let found = requests(&connection, &filter, page, before).unwrap();
            let Some(last) = found.last() else { break };
            before = Some(LogPosition { at: last.at, request_id: last.request_id });
            seen.extend(found);
        }
        let mut expected: Vec<Row> = rows.into_iter().filter(|row| matches(&filter, row)).collect();
        expected.sort_by_key(|row| std::cmp::Reverse((row.at, row.request_id)));
        prop_assert_eq!(seen, expected);
    }
}

/// A store as it was before rows lay in the order of arrival, brought up to date.
fn migrated(rows: &[Row]) -> (Connection, tempfile::TempDir) {
    let (new, dir) = (written(rows), tempfile::tempdir().unwrap());
    let before = 4;
    let mut old = Connection::open(dir.path().join("old.db")).unwrap();
    for migration in &schema::MIGRATIONS[..before] {
        old.execute_batch(migration).unwrap();
    }
    new.execute("ATTACH ?1 AS old", [dir.path().join("old.db").to_str().unwrap()])
        .unwrap();
    new.execute_batch(
        "INSERT INTO old.ledger SELECT * FROM main.ledger; INSERT INTO old.latencies SELECT * FROM main.latencies;
         INSERT INTO old.rollups SELECT * FROM main.rollups WHERE level_ms <> 300000;",
    )
    .unwrap();
    old.pragma_update(None, "user_version", i64::try_from(before).unwrap()).unwrap();
    schema::migrate(&mut old, schema::MIGRATIONS, &schema::Seed { max_in_flight: 1, now: 0 }).unwrap();
    (old, dir)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn an_older_store_answers_as_one_that_was_always_new(rows in rows(), bucket in prop::sample::select(vec![10_000i64, 5 * MINUTE, DAY])) {
        let (old, _dir) = migrated(&rows);
        let new = written(&rows);
        let filter = Filter { tenant: None, key: None, model: None, since: UnixMs(0), until: UnixMs(DAY * 4) };
        let of_key = Filter { key: Some(rows[0].key), model: Some(rows[0].model.to_string()), ..filter.clone() };
        let now = UnixMs(DAY * 10);
        for filter in [filter, of_key] {
            prop_assert_eq!(models(&old, &filter, now).unwrap(), models(&new, &filter, now).unwrap());
            prop_assert_eq!(series(&old, &filter, bucket, true, now).unwrap(), series(&new, &filter, bucket, true, now).unwrap());
            prop_assert_eq!(requests(&old, &filter, 100, None).unwrap(), requests(&new, &filter, 100, None).unwrap());
        }
        prop_assert_eq!(super::super::ledger::append(&old, &rows, Cursor::default()).unwrap(), 0, "each is known");
    }
}

#[test]
fn a_series_that_would_add_up_too_much_is_none_and_one_of_coarser_sums_is_told() {
    let connection = scratch();
    let minutes = i64::try_from(CELLS_MAX).unwrap() + 1;
    for level in [MINUTE, 5 * MINUTE] {
        connection
            .execute(
                "WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?2 * 60000 / ?1)
                 INSERT INTO rollups SELECT ?1, 0, n * ?1, x'', x'', '', 1, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM number",
                [level, minutes],
            )
            .unwrap();
    }
    let filter = Filter {
        tenant: None,
        key: None,
        model: None,
        since: UnixMs(0),
        until: UnixMs(minutes * MINUTE),
    };
    let points = |until: i64, width: i64| {
        let filter = Filter {
            until: UnixMs(until),
            ..filter.clone()
        };
        let points = series(&connection, &filter, width, false, UnixMs(i64::MAX)).unwrap();
        points.map(|points| points.len())
    };
    assert_eq!(points(minutes * MINUTE, 7 * MINUTE), None);
    assert_eq!(points((minutes - 1) * MINUTE, 7 * MINUTE), Some(21_429));
    assert_eq!(points((minutes - 1) * MINUTE, 5 * MINUTE), Some(30_000));
}

#[test]
fn an_end_that_is_not_past_takes_the_whole_minute_from_the_roll_up() {
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    let connection = written(&[row(MINUTE + 30_000, tenant, key, "llama"), row(MINUTE + 100, tenant, key, "llama")]);
    let until = |until| Filter {
        tenant: None,
        key: None,
        model: None,
        since: UnixMs(0),
        until: UnixMs(until),
    };
    let now = UnixMs(MINUTE + 20_000);
    assert_eq!(
        total(&connection, &until(now.0), now).unwrap().requests,
        1,
        "exact where it is asked for the past"
    );
    assert_eq!(total(&connection, &until(now.0 + 1), now).unwrap().requests, 2);
}

#[test]
fn where_rows_were_pruned_a_remainder_is_its_whole_minute() {
    let (tenant, key) = (TenantId::mint(), KeyId::mint());
    let connection = written(&[row(30_000, tenant, key, "llama"), row(10 * MINUTE, tenant, key, "llama")]);
    connection.execute("DELETE FROM ledger WHERE ts_ms < 60000", []).unwrap();
    let filter = Filter {
        tenant: None,
        key: None,
        model: None,
        since: UnixMs(40_000),
        until: UnixMs(DAY),
    };
    assert_eq!(total(&connection, &filter, UnixMs(DAY * 2)).unwrap().requests, 2);
}
