//! `obleth reload`: a running gateway reads its configuration file again.

use std::io::Write;

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::remote::Remote;

/// Let a running gateway read its configuration file again.
///
/// Prints what changed and what did not and why. A file with a fault changes nothing; each fault is named with its place.
/// OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    remote: Remote,
}

/// The parts of the report that are told.
#[derive(Deserialize)]
struct Report {
    changes: Vec<Change>,
    notices: Vec<String>,
    restart_required: Vec<String>,
}

#[derive(Deserialize)]
struct Change {
    summary: String,
}

/// Asks for it, and prints the report.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let answer = flags.remote.ask(Method::POST, "config/reload")?;
    let report: Report = serde_json::from_str(&answer).context("the answer is none that this program knows")?;
    let changes = report.changes.into_iter().map(|change| change.summary);
    let notices = report.notices.into_iter().map(|notice| format!("! {notice}"));
    let restart = report
        .restart_required
        .into_iter()
        .map(|setting| format!("! restart required: {setting}"));
    let mut stdout = std::io::stdout();
    for line in changes.chain(notices).chain(restart) {
        writeln!(stdout, "{line}")?;
    }
    Ok(())
}
