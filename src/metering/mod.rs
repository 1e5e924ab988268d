//! The ledger: every request's use, counted once.
