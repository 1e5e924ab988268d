-- The ledger: one row per request, and its roll-ups.
--
-- Money is whole pico-dollars as INTEGER: a row, and a bucket of a roll-up, stop at 9.2 million dollars. Sums over several
-- are made in the program, 128 bits wide. Rows come nearly in the order of their ids (UUIDv7), so inserts append.

CREATE TABLE ledger (
    request_id          BLOB PRIMARY KEY CHECK (length(request_id) = 16),
    ts_ms               INTEGER NOT NULL,
    tenant_id           BLOB NOT NULL CHECK (length(tenant_id) = 16),
    key_id              BLOB NOT NULL CHECK (length(key_id) = 16),
    model               TEXT NOT NULL,
    client_request_id   TEXT,
    session_id          TEXT,
    endpoint            TEXT NOT NULL,
    route               TEXT NOT NULL,
    outcome             TEXT NOT NULL CHECK (outcome IN ('ok', 'rejected', 'error', 'timeout', 'cancelled', 'interrupted')),
    status              INTEGER NOT NULL,
    error_code          TEXT,
    attempts            INTEGER NOT NULL CHECK (attempts >= 0),
    input_tokens        INTEGER NOT NULL CHECK (input_tokens >= 0),
    cached_input_tokens INTEGER NOT NULL CHECK (cached_input_tokens >= 0),
    output_tokens       INTEGER NOT NULL CHECK (output_tokens >= 0),
    reasoning_tokens    INTEGER NOT NULL CHECK (reasoning_tokens >= 0),
    usage_source        TEXT NOT NULL CHECK (usage_source IN ('reported', 'estimated', 'none')),
    input_pico          INTEGER NOT NULL CHECK (input_pico >= 0),
    output_pico         INTEGER NOT NULL CHECK (output_pico >= 0),
    request_pico        INTEGER NOT NULL CHECK (request_pico >= 0),
    cache               TEXT NOT NULL CHECK (cache IN ('off', 'miss', 'hit', 'coalesced', 'bypass')),
    saved_tokens        INTEGER NOT NULL CHECK (saved_tokens >= 0),
    saved_pico          INTEGER NOT NULL CHECK (saved_pico >= 0),
    queue_ms            INTEGER NOT NULL CHECK (queue_ms >= 0),
    ttft_ms             INTEGER CHECK (ttft_ms >= 0),
    total_ms            INTEGER NOT NULL CHECK (total_ms >= 0),
    stream              INTEGER NOT NULL CHECK (stream IN (0, 1))
) STRICT, WITHOUT ROWID;
-- Each ends in request_id by itself, so pages have an order.
CREATE INDEX ledger_by_time ON ledger (ts_ms);
CREATE INDEX ledger_by_tenant ON ledger (tenant_id, ts_ms);
CREATE INDEX ledger_by_key ON ledger (key_id, ts_ms);

-- Sums over one minute, hour or day (level_ms), for one grain: 0 everything, 1 per tenant, 2 per tenant and key, 3 per
-- model, 4 per tenant, key and model. What a grain does not tell apart is empty.
CREATE TABLE rollups (
    level_ms            INTEGER NOT NULL,
    grain               INTEGER NOT NULL,
    bucket_ms           INTEGER NOT NULL,
    tenant_id           BLOB NOT NULL,
    key_id              BLOB NOT NULL,
    model               TEXT NOT NULL,
    requests            INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    dispatched          INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    input_pico          INTEGER NOT NULL,
    output_pico         INTEGER NOT NULL,
    request_pico        INTEGER NOT NULL,
    hits                INTEGER NOT NULL,
    misses              INTEGER NOT NULL,
    bypasses            INTEGER NOT NULL,
    coalesced           INTEGER NOT NULL,
    saved_tokens        INTEGER NOT NULL,
    saved_pico          INTEGER NOT NULL,
    PRIMARY KEY (level_ms, grain, bucket_ms, tenant_id, key_id, model)
) STRICT, WITHOUT ROWID;
-- One tenant's, key's or model's line through time.
CREATE INDEX rollups_by_owner ON rollups (level_ms, grain, key_id, tenant_id, model, bucket_ms);

-- Latency histograms of grain 4 (histogram.rs has their bytes), and what the generation rate is made of.
CREATE TABLE latencies (
    level_ms   INTEGER NOT NULL,
    bucket_ms  INTEGER NOT NULL,
    tenant_id  BLOB NOT NULL,
    key_id     BLOB NOT NULL,
    model      TEXT NOT NULL,
    ttft_sum   INTEGER NOT NULL,
    gen_tokens INTEGER NOT NULL,
    gen_ms     INTEGER NOT NULL,
    ttft       BLOB NOT NULL,
    total      BLOB NOT NULL,
    queue      BLOB NOT NULL,
    PRIMARY KEY (level_ms, bucket_ms, tenant_id, key_id, model)
) STRICT, WITHOUT ROWID;

-- How far the spool has been moved here; advanced in the transaction that writes the rows.
CREATE TABLE spool_cursor (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL,
    offset  INTEGER NOT NULL
) STRICT;
INSERT INTO spool_cursor (one, segment, offset) VALUES (1, 0, 0);
