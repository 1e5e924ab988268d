//! Logs: structured, to standard error.

use std::io::stderr;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Starts logging. `level` is a level or a list of `target=level`.
///
/// # Errors
/// `level` cannot be read.
pub(super) fn start(level: &str, format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|wrong| super::BadSetUp(format!("--log-level {level}: {wrong}")))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        Format::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
        Format::Text => logs.with_ansi(super::terminal::colours(&stderr())).init(),
    }
    Ok(())
}

/// Pingora and what is under it write heads and bodies, and with them keys and prompts, and a line for each client that
/// leaves early. They are heard only when they are named.
fn directives(level: &str) -> String {
    if level.contains("pingora") {
        level.to_owned()
    } else {
        format!("{level},pingora=off,pingora_core=off,pingora_proxy=off,h2=warn,hyper=warn,hyper_util=warn")
    }
}
