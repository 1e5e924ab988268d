//! `obleth check`: whether a configuration file is good, without anything running.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::secrets::Secrets;
use crate::catalog::Catalog;
use crate::config::{self, Adoption, Context, Fault, File, MAX_IN_FLIGHT_DEFAULT, Process};
use crate::server::unsupported;

/// Check a configuration file, without a gateway or a store.
///
/// Variables and files that it refers to must be there. Exits with 0 if it is good and 1 if not, each fault on a line:
/// file:line:column: field: what was expected. Names that may exist in a store (groups, tenants) are only warned of.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The configuration file
    #[arg(long, env = "OBLETH_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

/// Checks it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let file = match read(&flags.config)? {
        Ok(file) => file,
        Err(faults) => {
            eprintln!("{}", super::lines(&faults));
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Err(faults) = config::merge(None, &file, &Catalog::empty(MAX_IN_FLIGHT_DEFAULT), Adoption::Never) {
        for fault in faults {
            eprintln!("{fault}, unless the store has it");
        }
    }
    writeln!(std::io::stdout(), "{} is good", flags.config.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a file as the gateway would at start; the inner error are the file's faults.
pub(super) fn read(path: &Path) -> anyhow::Result<Result<File, Vec<Fault>>> {
    let hasher = Secrets::hasher_from_environment()?;
    let context = Context {
        environment: &Process,
        hasher: &hasher,
        flags: &[],
    };
    Ok(config::load(path, &context).and_then(|file| {
        let faults = unsupported(&file);
        if faults.is_empty() { Ok(file) } else { Err(faults) }
    }))
}
