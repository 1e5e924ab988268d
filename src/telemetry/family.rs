//! Every metric by its name, kind, help and labels. Labels are bounded: tenants by `metrics.max_tenants`, models and
//! endpoints by what is configured, all others by lists in the code; never a key, a request or a user.

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples end in `_total`.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Counts by size; its samples end in `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// A metric.
#[derive(Debug)]
pub struct Family {
    /// Without the endings that its kind adds.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// A sentence without its full stop.
    pub help: &'static str,
    /// The names of its labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
}

impl Family {
    /// The names of its samples, as they are served.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        let endings: &[&str] = match self.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        endings.iter().map(|ending| format!("{}{ending}", self.name)).collect()
    }
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                help: $help,
                labels: &[$($label),*],
            };
        )+

        /// Every metric, in the order in which they are served.
        pub const ALL: &[&Family] = &[$(&$constant),+];
    };
}

families! {
    BUILD_INFO: Gauge "obleth_build_info" ["version", "revision"] "The program that runs";
    READY: Gauge "obleth_ready" [] "Whether new requests are welcome (1) or the gateway starts, drains or cannot write its store (0)";

    REQUESTS: Counter "obleth_requests" ["tenant", "model", "outcome"] "Requests that have a ledger row, by how they ended";
    REQUEST_DURATION: Histogram "obleth_request_duration_seconds" ["model", "outcome"] "From a request's arrival to its end";
    TIME_TO_FIRST_TOKEN: Histogram "obleth_time_to_first_token_seconds" ["model"] "From a request's arrival to the first piece of its answer";
    TIME_PER_OUTPUT_TOKEN: Histogram "obleth_time_per_output_token_seconds" ["model"] "Mean time between the tokens of an answer, one observation per streamed answer";
    QUEUE_WAIT: Histogram "obleth_queue_wait_seconds" ["model", "outcome"] "Waiting for a slot, by its end: admitted, rejected, timeout, cancelled";
    TOKENS: Counter "obleth_tokens" ["tenant", "model", "type"] "Tokens used: input, cached_input (part of input), output, reasoning (part of output)";
    COST: Counter "obleth_cost_usd" ["tenant", "model"] "Cost of requests in US dollars";
    REJECTIONS: Counter "obleth_rejections" ["tenant", "reason"] "Authenticated requests that the gateway refused before dispatch, by error code";
    REFUSED: Counter "obleth_refused" ["reason"] "Requests refused without a ledger row (no such route, no such key, a malformed head), by error code";
    AUTH_FAILURES: Counter "obleth_auth_failures" ["listener", "reason"] "Failed authentications, by listener (data, management) and error code";

    ACTIVE: Gauge "obleth_active_requests" [] "Requests in the house, from their first byte to their last";
    IN_FLIGHT: Gauge "obleth_inflight" ["tenant"] "Requests upstream";
    QUEUE_DEPTH: Gauge "obleth_queue_depth" ["tenant"] "Requests that wait for a slot";
    OLDEST_WAIT: Gauge "obleth_queue_oldest_wait_seconds" ["tenant"] "How long the oldest request has waited";
    SLOTS_IN_USE: Gauge "obleth_slots_in_use" [] "Requests upstream, of all tenants";
    QUEUED: Gauge "obleth_queued_requests" [] "Requests that wait for a slot, of all tenants";
    CAPACITY: Gauge "obleth_capacity_slots" [] "How many requests may be upstream at once";
    MODEL_IN_FLIGHT: Gauge "obleth_model_inflight" ["model"] "Requests upstream";
    MODEL_QUEUE_DEPTH: Gauge "obleth_model_queue_depth" ["model"] "Requests that wait for a slot";
    ENTITLEMENT: Gauge "obleth_tenant_entitlement_ratio" ["tenant"] "The part of the slots that an active tenant is entitled to";
    SHARE: Gauge "obleth_tenant_share_ratio" ["tenant"] "The part of the slots that a tenant holds";
    FAIRNESS: Gauge "obleth_fairness_index" [] "Jain's index over what backlogged tenants got of their entitlement in the last 60 s; absent when fewer than two are";
    BUFFERED: Gauge "obleth_buffered_bytes" [] "Bytes of request bodies in memory";
    QUOTA_LIMIT: Gauge "obleth_quota_limit_tokens" ["tenant"] "Tokens per minute of a tenant that has a limit";
    QUOTA_REMAINING: Gauge "obleth_quota_remaining_tokens" ["tenant"] "Tokens that the tenant's bucket holds now";

    UPSTREAM_HEALTHY: Gauge "obleth_upstream_healthy" ["model", "endpoint"] "Whether requests are sent to an endpoint";
    UPSTREAM_IN_FLIGHT: Gauge "obleth_upstream_inflight" ["model", "endpoint"] "Requests at an endpoint";
    UPSTREAM_ATTEMPTS: Counter "obleth_upstream_attempts" ["model", "endpoint", "result"] "Attempts by how they ended, in the words of a request's attempt log; for MCP the model is the server";
    UPSTREAM_RETRIES: Counter "obleth_upstream_retries" ["model"] "Attempts that were made because the one before had failed";

    CACHE_REQUESTS: Counter "obleth_cache_requests" ["result"] "Requests by what the response cache did: hit, miss, coalesced, bypass";
    CACHE_TOKENS_SAVED: Counter "obleth_cache_saved_tokens" [] "Tokens that cached answers did not use";
    CACHE_COST_SAVED: Counter "obleth_cache_saved_usd" [] "What they did not cost, in US dollars";
    CACHE_ENTRIES: Gauge "obleth_cache_entries" [] "Answers that are kept";
    CACHE_BYTES: Gauge "obleth_cache_bytes" [] "Bytes they take";

    STORE_WRITABLE: Gauge "obleth_store_writable" [] "Whether the last write to the store went through";
    LEDGER_ROWS: Counter "obleth_ledger_rows" [] "Rows that reached the store";
    LEDGER_OPEN: Gauge "obleth_ledger_open_requests" [] "Requests that were dispatched and not settled";
    LEDGER_SPOOL: Gauge "obleth_ledger_spool_bytes" [] "Bytes of the spool's segments";
    LEDGER_WAITING: Gauge "obleth_ledger_waiting_rows" [] "Rows in memory that neither spool nor store has taken";
    LEDGER_ERRORS: Counter "obleth_ledger_errors" ["operation"] "Failures of the ledger: spool_write, spool_sync, spool_read, store_write";
    LEDGER_REFUSED: Counter "obleth_ledger_refused_requests" [] "Requests refused since the ledger could not take them";
    LEDGER_AT_RISK: Counter "obleth_ledger_unspooled_requests" [] "Requests served without an intent in the spool (ledger.when_full: serve)";
    LEDGER_DAMAGED: Counter "obleth_ledger_damaged_stretches" [] "Stretches of the spool that could not be read";
    LEDGER_SET_ASIDE: Gauge "obleth_ledger_set_aside_rows" [] "Rows that the store refuses for good, kept in a file";
    LEDGER_DROPPED: Counter "obleth_usage_ledger_dropped" [] "Ledger rows that are lost";

    CONFIG_GENERATION: Gauge "obleth_config_generation" [] "The catalog's version, one more with each change";
    CONFIG_RELOADS: Counter "obleth_config_reloads" ["result"] "Readings of the configuration file: applied, refused, unchanged";
    CONFIG_OK: Gauge "obleth_config_last_reload_successful" [] "Whether the configuration file was applied when it was last read";
    CONFIG_OK_AT: Gauge "obleth_config_last_reload_success_timestamp_seconds" [] "When the configuration file was last applied, in Unix time";
    CONFIG_RESTART: Gauge "obleth_config_restart_required" [] "Settings in the file that differ from those in force and need a restart";
    CERTIFICATE_OK: Gauge "obleth_certificate_last_reload_successful" ["listener"] "Whether a listener's TLS certificate could be used when its files were last read";
    CERTIFICATE_ENDS: Gauge "obleth_certificate_expiry_timestamp_seconds" ["listener"] "When the TLS certificate in force on a listener ends, in Unix time";

    REQUEST_LOG_DROPPED: Counter "obleth_request_log_dropped" [] "Lines of the request log that were left out, since it was not read fast enough";
    TRACES_EXPORTED: Counter "obleth_traces_exported" [] "Traced requests whose spans the collector took";
    TRACES_DROPPED: Counter "obleth_traces_dropped" ["reason"] "Traced requests whose spans are lost: queue_full, not_taken by the collector";
    PROCESS_CPU: Counter "process_cpu_seconds" [] "Processor time of the process";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" [] "Memory of the process";
    PROCESS_FDS: Gauge "process_open_fds" [] "File descriptors that are open";
    PROCESS_FDS_MAX: Gauge "process_max_fds" [] "File descriptors that may be open";
    PROCESS_START: Gauge "process_start_time_seconds" [] "When the process started, in Unix time";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_of_one_form_and_end_in_their_unit() {
        let mut seen = HashSet::new();
        for family in ALL {
            let name = family.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("obleth_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!name.ends_with("_total") && !name.ends_with("_ms"), "{name}");
            assert!(family.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!family.help.ends_with('.'), "{name}: the full stop is added");
            assert!(
                !family
                    .labels
                    .iter()
                    .any(|label| label.contains("key") || label.contains("request_id")),
                "{name}"
            );
        }
    }
}
