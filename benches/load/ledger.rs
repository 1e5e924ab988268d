//! Rows as the mover brings them to the store under load: batches of 500, in the order in which requests ended, by 20 tenants
//! to 5 models, 10 000 a second.
#![expect(clippy::unwrap_used, reason = "a bench has no client to disappoint")]

use std::sync::Arc;

use obleth::id::{KeyId, RequestId, TenantId};
use obleth::store::ledger::{CacheStatus, Charge, Cursor, Outcome, Row, Saved, Timing, Tokens, UsageSource};
use obleth::store::{Options, Store};
use obleth::units::{PicoUsd, UnixMs};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const T0_MS: i64 = 1_795_500_000_000;
const BATCH: usize = 500;

/// Appends so many rows to a new store.
pub(crate) fn append(rows: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(dir.path().join("obleth.db"))).unwrap();
    let mut random = StdRng::seed_from_u64(11);
    let people: Vec<(TenantId, KeyId)> = (0..20).map(|_| (TenantId::mint(), KeyId::mint())).collect();
    let models: Vec<Arc<str>> = (0..5).map(|number| Arc::from(format!("model-{number}"))).collect();
    let endpoint: Arc<str> = Arc::from("http://127.0.0.1:8000");
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..rows {
        let (tenant, key) = people[random.random_range(0..people.len())];
        let total_ms = random.random_range(200..4_000);
        let at = T0_MS + i64::try_from(number / 10).unwrap() - i64::try_from(total_ms).unwrap();
        batch.push(Row {
            request_id: minted_at(at),
            at: UnixMs(at),
            tenant,
            key,
            model: Arc::clone(&models[random.random_range(0..models.len())]),
            client_request_id: Some("req-0123456789abcdef".into()),
            session_id: None,
            endpoint: Arc::clone(&endpoint),
            route: "/v1/chat/completions".into(),
            outcome: Outcome::Ok,
            status: 200,
            error_code: None,
            attempts: 1,
            attempt_log: Box::default(),
            tokens: Tokens {
                input: random.random_range(10..2_000),
                cached_input: 0,
                output: random.random_range(10..800),
                reasoning: 0,
            },
            usage_source: UsageSource::Reported,
            charge: Charge {
                input: PicoUsd(240_000),
                output: PicoUsd(360_000),
                request: PicoUsd(0),
            },
            cache: CacheStatus::Off,
            saved: Saved::default(),
            timing: Timing {
                queue_ms: random.random_range(0..50),
                ttft_ms: Some(random.random_range(50..200)),
                total_ms,
            },
            stream: true,
        });
        if batch.len() == BATCH || number + 1 == rows {
            store.append(Arc::new(std::mem::take(&mut batch)), Cursor::default()).unwrap();
        }
    }
}

/// As the gateway would have minted it then.
fn minted_at(ms: i64) -> RequestId {
    let ms = ms.unsigned_abs();
    let nanoseconds = u32::try_from(ms % 1_000).unwrap() * 1_000_000;
    let time = uuid::Timestamp::from_unix(uuid::NoContext, ms / 1_000, nanoseconds);
    RequestId::from_bytes(uuid::Uuid::new_v7(time).into_bytes())
}
