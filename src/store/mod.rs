//! The embedded SQLite store: configuration, audit, ledger.
