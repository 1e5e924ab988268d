//! Tells the telemetry of each row of the ledger: what requests add up to, and the request log.

use std::sync::Arc;

use crate::catalog::Live;
use crate::metering::{AttemptOutcome, Observer, Outcome, Row, attempts_json};
use crate::telemetry::{self, Line, Request, RequestLog, Requests};

/// Who hears of rows, on the thread that moves them.
pub(super) fn rows(requests: Arc<Requests>, log: RequestLog, live: Arc<Live>) -> Observer {
    Arc::new(move |row| {
        requests.count(&request(row), attempts(row));
        log.tell(row.status < 400 && !row.outcome.is_error(), || line(row, &live));
    })
}

fn request(row: &Row) -> Request<'_> {
    let tokens = row.tokens;
    Request {
        tenant: row.tenant,
        model: &row.model,
        outcome: row.outcome.as_str(),
        error_code: row.error_code.as_deref(),
        attempts: row.attempts,
        tokens: [tokens.input, tokens.cached_input, tokens.output, tokens.reasoning],
        cost: row.charge.total(),
        queue_ms: row.timing.queue_ms,
        ttft_ms: row.timing.ttft_ms,
        total_ms: row.timing.total_ms,
        stream: row.stream,
    }
}

/// Each attempt's endpoint and how it ended.
fn attempts(row: &Row) -> impl Iterator<Item = (&str, &'static str)> {
    let logged = row.attempt_log.iter().map(|attempt| (&*attempt.endpoint, attempt.outcome.as_str()));
    // Without a log there was one that went well, or nobody was left to tell.
    let only = (row.attempt_log.is_empty() && row.attempts > 0).then(|| {
        let outcome = match row.outcome {
            Outcome::Interrupted => AttemptOutcome::Abandoned,
            _ => AttemptOutcome::Ok,
        };
        (&*row.endpoint, outcome.as_str())
    });
    logged.chain(only)
}

/// The names are those of now: who was deleted since has none.
fn line(row: &Row, live: &Live) -> Line {
    let catalog = live.load();
    Line {
        request_id: row.request_id.to_string(),
        client_request_id: row.client_request_id.as_deref().unwrap_or_default().to_owned(),
        ts_ms: row.at.0,
        tenant: catalog
            .tenants()
            .get(&row.tenant)
            .map(|tenant| tenant.name.clone())
            .unwrap_or_default(),
        key_prefix: catalog.keys().get(&row.key).map(|key| key.prefix.to_string()).unwrap_or_default(),
        model: row.model.to_string(),
        route: row.route.to_string(),
        endpoint: row.endpoint.to_string(),
        outcome: row.outcome.as_str(),
        status: row.status,
        error_code: row.error_code.as_deref().unwrap_or_default().to_owned(),
        attempts: row.attempts,
        attempt_log: attempts_json(&row.attempt_log).unwrap_or_default(),
        stream: row.stream,
        cache: row.cache.as_str(),
        input_tokens: row.tokens.input,
        cached_input_tokens: row.tokens.cached_input,
        output_tokens: row.tokens.output,
        cost_usd: telemetry::dollars(row.charge.total()),
        queue_ms: row.timing.queue_ms,
        ttft_ms: row.timing.ttft_ms,
        total_ms: row.timing.total_ms,
    }
}
