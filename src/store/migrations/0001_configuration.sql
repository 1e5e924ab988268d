-- Configuration, audit log, idempotency records.
--
-- Ids are the sixteen bytes of a UUIDv7. Times are Unix milliseconds. Money is the decimal digits of whole pico-dollars as
-- TEXT: it is 128 bits wide in the program, an INTEGER would stop at 9.2 million dollars, and no query adds it up.
-- Lists and maps are JSON text. Foreign keys are checked at commit: a change rewrites rows in any order.

CREATE TABLE state (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    catalog_version INTEGER NOT NULL CHECK (catalog_version >= 0),
    max_in_flight   INTEGER NOT NULL CHECK (max_in_flight >= 0),
    audit_rows      INTEGER NOT NULL CHECK (audit_rows >= 0)
) STRICT;

CREATE TABLE groups (
    name       TEXT PRIMARY KEY,
    weight     INTEGER NOT NULL CHECK (weight BETWEEN 1 AND 1000000),
    managed_by TEXT NOT NULL CHECK (managed_by IN ('api', 'file')),
    overridden TEXT NOT NULL CHECK (json_valid(overridden)),
    version    INTEGER NOT NULL CHECK (version >= 1),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    id                  BLOB PRIMARY KEY CHECK (length(id) = 16),
    name                TEXT NOT NULL UNIQUE,
    description         TEXT NOT NULL,
    group_name          TEXT NOT NULL REFERENCES groups (name) DEFERRABLE INITIALLY DEFERRED,
    weight              INTEGER NOT NULL CHECK (weight BETWEEN 1 AND 1000000),
    tokens_per_minute   INTEGER NOT NULL CHECK (tokens_per_minute >= 0),
    requests_per_minute INTEGER NOT NULL CHECK (requests_per_minute >= 0),
    max_in_flight       INTEGER CHECK (max_in_flight >= 0),
    max_queued          INTEGER CHECK (max_queued >= 0),
    status              TEXT NOT NULL CHECK (status IN ('active', 'suspended')),
    allowed_models      TEXT CHECK (json_valid(allowed_models)),
    budget_cost_pico    TEXT CHECK (budget_cost_pico NOT GLOB '*[^0-9]*'),
    budget_tokens       INTEGER CHECK (budget_tokens >= 0),
    budget_period       TEXT NOT NULL CHECK (budget_period IN ('day', 'month', 'lifetime')),
    metadata            TEXT NOT NULL CHECK (json_valid(metadata)),
    managed_by          TEXT NOT NULL CHECK (managed_by IN ('api', 'file')),
    overridden          TEXT NOT NULL CHECK (json_valid(overridden)),
    version             INTEGER NOT NULL CHECK (version >= 1),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tenants_by_group ON tenants (group_name);

CREATE TABLE keys (
    id                  BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant_id           BLOB NOT NULL REFERENCES tenants (id) DEFERRABLE INITIALLY DEFERRED,
    name                TEXT NOT NULL,
    description         TEXT NOT NULL,
    prefix              TEXT NOT NULL,
    digest              BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    retired_digest      BLOB UNIQUE CHECK (length(retired_digest) = 32),
    retired_until       INTEGER,
    disabled            INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    expires_at          INTEGER,
    allowed_models      TEXT CHECK (json_valid(allowed_models)),
    tokens_per_minute   INTEGER NOT NULL CHECK (tokens_per_minute >= 0),
    requests_per_minute INTEGER NOT NULL CHECK (requests_per_minute >= 0),
    max_in_flight       INTEGER CHECK (max_in_flight >= 0),
    budget_cost_pico    TEXT CHECK (budget_cost_pico NOT GLOB '*[^0-9]*'),
    budget_tokens       INTEGER CHECK (budget_tokens >= 0),
    budget_period       TEXT NOT NULL CHECK (budget_period IN ('day', 'month', 'lifetime')),
    managed_by          TEXT NOT NULL CHECK (managed_by IN ('api', 'file')),
    overridden          TEXT NOT NULL CHECK (json_valid(overridden)),
    version             INTEGER NOT NULL CHECK (version >= 1),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    CHECK ((retired_digest IS NULL) = (retired_until IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_tenant ON keys (tenant_id);

CREATE TABLE models (
    id                        BLOB PRIMARY KEY CHECK (length(id) = 16),
    name                      TEXT NOT NULL UNIQUE,
    aliases                   TEXT NOT NULL CHECK (json_valid(aliases)),
    description               TEXT NOT NULL,
    upstream_model            TEXT NOT NULL,
    endpoints                 TEXT NOT NULL CHECK (json_valid(endpoints)),
    single                    INTEGER NOT NULL CHECK (single IN (0, 1)),
    engine                    TEXT NOT NULL,
    protocol                  TEXT NOT NULL,
    model_type                TEXT NOT NULL,
    input_pico                TEXT NOT NULL CHECK (input_pico NOT GLOB '*[^0-9]*'),
    output_pico               TEXT NOT NULL CHECK (output_pico NOT GLOB '*[^0-9]*'),
    cached_input_pico         TEXT CHECK (cached_input_pico NOT GLOB '*[^0-9]*'),
    request_pico              TEXT NOT NULL CHECK (request_pico NOT GLOB '*[^0-9]*'),
    context_window            INTEGER NOT NULL CHECK (context_window >= 0),
    admission_weight          INTEGER NOT NULL CHECK (admission_weight >= 0),
    max_in_flight             TEXT CHECK (max_in_flight = 'auto' OR max_in_flight NOT GLOB '*[^0-9]*'),
    load_balancing            TEXT NOT NULL,
    connect_timeout_ms        INTEGER NOT NULL,
    first_byte_timeout_secs   INTEGER NOT NULL,
    idle_timeout_secs         INTEGER NOT NULL,
    total_timeout_secs        INTEGER NOT NULL,
    max_retries               INTEGER NOT NULL,
    retry_after_dispatch      INTEGER NOT NULL CHECK (retry_after_dispatch IN (0, 1)),
    engine_priority           INTEGER NOT NULL CHECK (engine_priority IN (0, 1)),
    http2                     INTEGER NOT NULL CHECK (http2 IN (0, 1)),
    tls_ca_file               TEXT,
    tls_server_name           TEXT,
    tls_client_cert_file      TEXT,
    tls_client_key_file       TEXT,
    supports_function_calling INTEGER NOT NULL CHECK (supports_function_calling IN (0, 1)),
    supports_system_messages  INTEGER NOT NULL CHECK (supports_system_messages IN (0, 1)),
    supports_response_schema  INTEGER NOT NULL CHECK (supports_response_schema IN (0, 1)),
    supports_tool_choice      INTEGER NOT NULL CHECK (supports_tool_choice IN (0, 1)),
    supports_vision           INTEGER NOT NULL CHECK (supports_vision IN (0, 1)),
    tags                      TEXT NOT NULL CHECK (json_valid(tags)),
    enabled                   INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    cache_enabled             INTEGER NOT NULL CHECK (cache_enabled IN (0, 1)),
    cache_ttl_secs            INTEGER NOT NULL,
    cache_scope               TEXT NOT NULL,
    cache_max_entry_bytes     INTEGER NOT NULL,
    cache_mode                TEXT NOT NULL,
    managed_by                TEXT NOT NULL CHECK (managed_by IN ('api', 'file')),
    overridden                TEXT NOT NULL CHECK (json_valid(overridden)),
    version                   INTEGER NOT NULL CHECK (version >= 1),
    created_at                INTEGER NOT NULL,
    updated_at                INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mcp_servers (
    id                BLOB PRIMARY KEY CHECK (length(id) = 16),
    name              TEXT NOT NULL UNIQUE,
    upstream_url      TEXT NOT NULL,
    auth_header       TEXT CHECK (json_valid(auth_header)),
    auth_header_name  TEXT NOT NULL,
    enabled           INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    allowed_tools     TEXT CHECK (json_valid(allowed_tools)),
    denied_tools      TEXT NOT NULL CHECK (json_valid(denied_tools)),
    allowed_tenants   TEXT CHECK (json_valid(allowed_tenants)),
    allowed_origins   TEXT NOT NULL CHECK (json_valid(allowed_origins)),
    idle_timeout_secs INTEGER NOT NULL,
    max_in_flight     INTEGER CHECK (max_in_flight >= 0),
    managed_by        TEXT NOT NULL CHECK (managed_by IN ('api', 'file')),
    overridden        TEXT NOT NULL CHECK (json_valid(overridden)),
    version           INTEGER NOT NULL CHECK (version >= 1),
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The configuration file as it was last applied, as the program understood it: one side of the next three-way merge.
CREATE TABLE applied_file (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    document   TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

-- Append-only: the triggers stop a slip of this program, the hash chain shows what was done around them.
CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,
    id          BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    ts          INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id   TEXT NOT NULL,
    detail      TEXT NOT NULL CHECK (json_valid(detail)),
    source      TEXT NOT NULL CHECK (source IN ('api', 'file', 'cli')),
    request_id  TEXT NOT NULL,
    hash        BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
-- Each ends in seq by itself (the rowid), which is the order they are read in.
CREATE INDEX audit_by_actor ON audit (actor);
CREATE INDEX audit_by_action ON audit (action);
CREATE INDEX audit_by_entity_type ON audit (entity_type);
CREATE INDEX audit_by_entity_id ON audit (entity_id);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- Also stops INSERT OR REPLACE, which deletes without asking the trigger above.
CREATE TRIGGER audit_has_no_gaps BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- Answers kept for repetitions. `id` counts up, so the table is bounded without counting its rows.
CREATE TABLE idempotency (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT NOT NULL UNIQUE,
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    status     INTEGER NOT NULL,
    location   TEXT,
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_by_age ON idempotency (created_at);
