-- How each attempt of a request ended (ledger/attempt.rs has its members); NULL where the only one went well.

ALTER TABLE ledger ADD COLUMN attempt_log TEXT CHECK (json_valid(attempt_log));
