-- What each tenant and each key has used in its life, for budgets that never start anew: read at start, where adding up all
-- days would take longer every day. Written in the transaction that writes the rows.

CREATE TABLE lifetimes (
    owner  BLOB PRIMARY KEY CHECK (length(owner) = 16), -- a tenant's id or a key's
    tokens INTEGER NOT NULL CHECK (tokens >= 0),
    -- Whole dollars and the pico-dollars beyond them: a life may cost more than an INTEGER of pico-dollars holds.
    usd    INTEGER NOT NULL CHECK (usd >= 0),
    pico   INTEGER NOT NULL CHECK (pico BETWEEN 0 AND 999999999999)
) STRICT, WITHOUT ROWID;

INSERT INTO lifetimes
SELECT owner, tokens, usd + pico / 1000000000000, pico % 1000000000000
FROM (
    SELECT iif(grain = 1, tenant_id, key_id) AS owner,
           CAST(min(total(input_tokens) + total(output_tokens), 9e18) AS INTEGER) AS tokens,
           sum(input_pico / 1000000000000 + output_pico / 1000000000000 + request_pico / 1000000000000) AS usd,
           sum(input_pico % 1000000000000 + output_pico % 1000000000000 + request_pico % 1000000000000) AS pico
    FROM rollups
    WHERE level_ms = 86400000 AND grain IN (1, 2)
    GROUP BY grain, owner
);
