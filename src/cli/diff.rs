//! `obleth diff`: how a configuration file differs from what a running gateway is configured with.
//!
//! It asks the gateway for its export: the store is locked by whoever runs, and only that process knows its settings.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use reqwest::Method;

use super::check;
use super::remote::Remote;
use super::secrets::Secrets;
use crate::config::{self, Context, Environment};

/// Compare a configuration file with what a running gateway is configured with.
///
/// A line per difference: + only the file has it, - only the gateway has it, ~ both have it otherwise. A reload may do less:
/// what was made or changed through the API since stays. Exits with 0 if there is none, 1 if there are some, 2 if that
/// cannot be told. OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The configuration file
    #[arg(long, env = "OBLETH_CONFIG", value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    remote: Remote,
}

const DIFFERENT: u8 = 1;
const UNKNOWN: u8 = 2;

/// Compares them.
pub(super) fn run(flags: &Flags) -> ExitCode {
    match differences(flags).and_then(|lines| print(&lines).map(|()| lines.len())) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERENT),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
}

/// An export says everything itself.
struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn differences(flags: &Flags) -> anyhow::Result<Vec<String>> {
    let file = check::read(&flags.config)?.map_err(|faults| anyhow!("{}", super::lines(&faults)))?;
    let text = flags.remote.ask(Method::GET, "config/export")?;
    let hasher = Secrets::hasher_from_environment()?;
    let context = Context {
        environment: &Nothing,
        hasher: &hasher,
        flags: &[],
    };
    let running = config::parse(&text, Path::new("the gateway's export"), &context);
    let running = running.map_err(|faults| anyhow!("{}", super::lines(&faults)))?;
    Ok(config::compare(&running, &file))
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    Ok(())
}
