//! `obleth export`: everything a running gateway is configured with, as a file.

use std::io::Write;

use clap::Args;
use reqwest::Method;

use super::remote::Remote;

/// Print what a running gateway is configured with, as a configuration file.
///
/// Keys are digests, credentials of upstreams references or digests. OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be
/// set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    remote: Remote,
}

/// Prints it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let file = flags.remote.ask(Method::GET, "config/export")?;
    std::io::stdout().write_all(file.as_bytes())?;
    Ok(())
}
