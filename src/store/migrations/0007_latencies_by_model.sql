-- Latency histograms per model, so that the speed of models over three months is read from a row per model and day, however
-- many keys there are. Filled from the others by the program (ledger/rollup.rs), which knows how histograms add up.

CREATE TABLE model_latencies (
    level_ms   INTEGER NOT NULL,
    bucket_ms  INTEGER NOT NULL,
    model      TEXT NOT NULL,
    ttft_sum   INTEGER NOT NULL,
    gen_tokens INTEGER NOT NULL,
    gen_ms     INTEGER NOT NULL,
    ttft       BLOB NOT NULL,
    total      BLOB NOT NULL,
    queue      BLOB NOT NULL,
    PRIMARY KEY (level_ms, bucket_ms, model)
) STRICT, WITHOUT ROWID;
