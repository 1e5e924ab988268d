//! Logs and metrics: the names of both, once.
