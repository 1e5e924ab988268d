-- The ledger as it is cheapest to write, by measure: rows in the order in which they come, so that a batch fills pages one
-- after the other instead of touching one for each row, and two indexes instead of four trees.
--
-- A request's time is noted once, when it arrives, and is in its intent and in its row: time and id are as unique as the
-- id. What is of a tenant is found by its keys (usage/log.rs). Checks compare with OR: for IN, SQLite builds and fills a
-- table of the words for each row, which was two thirds of the work of writing one.

CREATE TABLE ledger_by_arrival (
    request_id          BLOB NOT NULL CHECK (length(request_id) = 16),
    ts_ms               INTEGER NOT NULL,
    tenant_id           BLOB NOT NULL CHECK (length(tenant_id) = 16),
    key_id              BLOB NOT NULL CHECK (length(key_id) = 16),
    model               TEXT NOT NULL,
    client_request_id   TEXT,
    session_id          TEXT,
    endpoint            TEXT NOT NULL,
    route               TEXT NOT NULL,
    outcome             TEXT NOT NULL CHECK (outcome = 'ok' OR outcome = 'rejected' OR outcome = 'error'
                                             OR outcome = 'cancelled' OR outcome = 'timeout' OR outcome = 'interrupted'),
    status              INTEGER NOT NULL,
    error_code          TEXT,
    attempts            INTEGER NOT NULL CHECK (attempts >= 0),
    input_tokens        INTEGER NOT NULL CHECK (input_tokens >= 0),
    cached_input_tokens INTEGER NOT NULL CHECK (cached_input_tokens >= 0),
    output_tokens       INTEGER NOT NULL CHECK (output_tokens >= 0),
    reasoning_tokens    INTEGER NOT NULL CHECK (reasoning_tokens >= 0),
    usage_source        TEXT NOT NULL CHECK (usage_source = 'reported' OR usage_source = 'estimated' OR usage_source = 'none'),
    input_pico          INTEGER NOT NULL CHECK (input_pico >= 0),
    output_pico         INTEGER NOT NULL CHECK (output_pico >= 0),
    request_pico        INTEGER NOT NULL CHECK (request_pico >= 0),
    cache               TEXT NOT NULL CHECK (cache = 'off' OR cache = 'miss' OR cache = 'hit' OR cache = 'coalesced'
                                             OR cache = 'bypass'),
    saved_tokens        INTEGER NOT NULL CHECK (saved_tokens >= 0),
    saved_pico          INTEGER NOT NULL CHECK (saved_pico >= 0),
    queue_ms            INTEGER NOT NULL CHECK (queue_ms >= 0),
    ttft_ms             INTEGER CHECK (ttft_ms >= 0),
    total_ms            INTEGER NOT NULL CHECK (total_ms >= 0),
    stream              INTEGER NOT NULL CHECK (stream = 0 OR stream = 1),
    attempt_log         TEXT CHECK (json_valid(attempt_log)),
    UNIQUE (ts_ms, request_id)
) STRICT;
INSERT INTO ledger_by_arrival SELECT * FROM ledger ORDER BY ts_ms, request_id;
DROP TABLE ledger;
ALTER TABLE ledger_by_arrival RENAME TO ledger;
CREATE INDEX ledger_by_key ON ledger (key_id, ts_ms, request_id);
