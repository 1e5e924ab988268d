//! Logs: structured, to standard error.

use std::io::stderr;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging.
pub(super) fn start(how: Log) {
    let filter = EnvFilter::new(directives(how.level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match how.format {
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
        LogFormat::Text => logs.with_ansi(super::terminal::colours(&stderr())).init(),
    }
}

/// Pingora tells at `info` what an operator of this gateway is told by it already, so a plain `info` does not mean Pingora.
const fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info,pingora=warn",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
