//! Logs: structured, to standard error.

use std::io::stderr;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};
use crate::telemetry::RequestLog;

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

/// Pingora and what is under it write heads and bodies, and with them keys and prompts, and a line for each client that
/// leaves early. They are silent at every level. Lines of requests, if they are wanted, are written at every level.
fn directives(level: LogLevel) -> String {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let requests = RequestLog::TARGET;
    format!("{level},{requests}=info,pingora=off,pingora_core=off,pingora_proxy=off,h2=warn,hyper=warn,hyper_util=warn")
}
