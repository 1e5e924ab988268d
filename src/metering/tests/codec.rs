//! Records as bytes and back; damage and torn ends.
use proptest::prelude::*;

use super::super::codec::{Found, HEADER, PAYLOAD_MAX, Read, Record, frame, read};
use super::super::recovery::next_record;
use super::super::ticket::Delivered;
use super::*;

fn some_row() -> impl Strategy<Value = Row> {
    (
        any::<(u64, u64, u64, u64, Option<u64>, u16, u32, i64)>(),
        "\\PC{0,40}",
        proptest::option::of("\\PC{0,20}"),
        (0usize..6, 0usize..3, 0usize..5, any::<bool>()),
        0u128..1 << 100,
        some_log(),
    )
        .prop_map(|(numbers, text, maybe, words, money, log)| {
            let (a, b, c, d, ttft, status, attempts, at) = numbers;
            let mut row = settled(&intent());
            row.at = UnixMs(at);
            row.model = Arc::from(text.as_str());
            row.client_request_id = maybe.as_deref().map(Box::from);
            row.session_id = Some(text.into());
            row.error_code = maybe.map(Into::into);
            row.status = status;
            row.attempts = attempts;
            row.attempt_log = log;
            row.outcome = Outcome::ALL[words.0];
            row.usage_source = UsageSource::ALL[words.1];
            row.cache = CacheStatus::ALL[words.2];
            row.stream = words.3;
            row.tokens = Tokens {
                input: a,
                cached_input: b,
                output: c,
                reasoning: d,
            };
            row.charge.output = PicoUsd(money);
            row.saved = Saved {
                tokens: b,
                cost: PicoUsd(money / 2),
            };
            row.timing = Timing {
                queue_ms: c,
                ttft_ms: ttft,
                total_ms: d,
            };
            row
        })
}

fn some_log() -> impl Strategy<Value = Box<[Attempt]>> {
    let attempt = (
        "\\PC{0,40}",
        prop::sample::select(AttemptOutcome::ALL),
        proptest::option::of(1u16..),
        any::<(u32, u32)>(),
    );
    let attempt = attempt.prop_map(|(endpoint, outcome, status, (start_ms, duration_ms))| Attempt {
        endpoint: endpoint.into(),
        outcome,
        status,
        start_ms,
        duration_ms,
    });
    prop::collection::vec(attempt, 0..=ATTEMPTS_MAX).prop_map(Into::into)
}

fn one(bytes: &[u8]) -> Option<Read> {
    match read(bytes) {
        Found::Record(record, length) => {
            assert_eq!(length, bytes.len());
            Some(*record)
        }
        Found::Part | Found::Damage => None,
    }
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(row in some_row(), tokens in any::<u64>(), cost in 0u128..1 << 120) {
        let intent = intent();
        let delivered = Delivered { tokens, cost: PicoUsd(cost) };
        prop_assert_eq!(one(&frame(&Record::Settle(&row))), Some(Read::Settle(row.clone())));
        prop_assert_eq!(one(&frame(&Record::Intent(&intent))), Some(Read::Intent(intent.clone())));
        prop_assert_eq!(one(&frame(&Record::Progress(row.request_id, delivered))), Some(Read::Progress(row.request_id, delivered)));
        prop_assert_eq!(one(&frame(&Record::Carried(&intent, delivered))), Some(Read::Carried(intent.clone(), delivered)));
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_a_record(row in some_row(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = frame(&Record::Settle(&row));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(one(&bytes), None);
    }

    /// Cut anywhere, a segment gives every record before the cut; with a hole in it, every record around the hole.
    #[test]
    fn a_torn_end_costs_only_the_record_it_tore(rows in prop::collection::vec(some_row(), 1..8), cut in any::<prop::sample::Index>(), hole in any::<prop::sample::Index>()) {
        let frames: Vec<Vec<u8>> = rows.iter().map(|row| frame(&Record::Settle(row))).collect();
        let all = frames.concat();
        let found = |bytes: &[u8]| {
            let (mut rows, mut offset) = (Vec::new(), 0);
            while let Some((record, next, _)) = next_record(bytes, offset) {
                offset = next;
                rows.push(record);
            }
            rows
        };
        let cut = cut.index(all.len());
        let mut end = 0;
        let whole = frames.iter().take_while(|frame| { end += frame.len(); end <= cut }).count();
        prop_assert_eq!(found(&all[..cut]).len(), whole);

        let mut damaged = all.clone();
        damaged[hole.index(all.len())] ^= 0x55;
        let left = found(&damaged);
        prop_assert_eq!(left.len(), rows.len() - 1);
        prop_assert!(left.iter().all(|record| matches!(record, Read::Settle(row) if rows.contains(row))));
    }
}

/// A row without a log is written as before there were logs, and one from then is read.
#[test]
fn a_log_of_attempts_has_a_record_of_its_own_kind() {
    let mut row = settled(&intent());
    let bytes = frame(&Record::Settle(&row));
    assert_eq!(bytes[HEADER], 3);
    let attempt = Attempt {
        endpoint: "gpu:8000".into(),
        outcome: AttemptOutcome::Status,
        status: Some(503),
        start_ms: 4,
        duration_ms: 70_000,
    };
    row.attempt_log = vec![attempt; 1].into();
    let logged = frame(&Record::Settle(&row));
    assert_eq!(logged[HEADER], 5);
    assert_eq!(
        logged[HEADER + 1..][..bytes.len() - HEADER - 1],
        bytes[HEADER + 1..],
        "the row itself is the same"
    );
}

#[test]
fn the_longest_row_there_can_be_fits_a_frame() {
    let long: String = "x".repeat(100_000);
    let mut row = settled(&intent());
    let attempt = Attempt {
        endpoint: long.as_str().into(),
        outcome: AttemptOutcome::Abandoned,
        status: Some(u16::MAX),
        start_ms: u32::MAX,
        duration_ms: u32::MAX,
    };
    row.attempt_log = vec![attempt; 300].into();
    (row.model, row.endpoint, row.route) = (long.as_str().into(), long.as_str().into(), long.clone().into());
    (row.client_request_id, row.session_id) = (Some(long.as_str().into()), Some(long.as_str().into()));
    row.error_code = Some(long.into());
    (row.attempts, row.status) = (u32::MAX, u16::MAX);
    row.tokens = Tokens {
        input: u64::MAX,
        cached_input: u64::MAX,
        output: u64::MAX,
        reasoning: u64::MAX,
    };
    row.charge = Charge {
        input: PicoUsd(u128::MAX),
        output: PicoUsd(u128::MAX),
        request: PicoUsd(u128::MAX),
    };
    row.saved = Saved {
        tokens: u64::MAX,
        cost: PicoUsd(u128::MAX),
    };
    row.timing = Timing {
        queue_ms: u64::MAX,
        ttft_ms: Some(u64::MAX),
        total_ms: u64::MAX,
    };
    let bytes = frame(&Record::Settle(&row));
    assert!(bytes.len() <= HEADER + PAYLOAD_MAX, "{}", bytes.len());
    let Some(Read::Settle(read)) = one(&bytes) else {
        panic!("not read")
    };
    assert_eq!(read.attempt_log.len(), ATTEMPTS_MAX);
    assert!(read.attempt_log.iter().all(|attempt| attempt.endpoint.len() == 264));
}
