//! `obleth audit verify`: whether the audit log is as it was written. It reads the store's file, so that it needs neither a
//! gateway nor to believe one.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use super::check;
use crate::config::Settings;
use crate::store::{self, Chain, Head, Verdict};

/// Check the audit log's hash chain in a store file, also while a gateway runs on it.
///
/// Only reads. Prints how many rows there are and the chain's head, `row:hash`. A head that was noted down elsewhere
/// (--noted) also shows whether somebody wrote the log anew up to there, hashes and all. Exits with 0 if every row is as it
/// was written, 1 if not, naming the first that is not, and 2 if that cannot be told.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The store's file; by default the one that the configuration names
    #[arg(long, env = "OBLETH_STORE_PATH", value_name = "FILE")]
    store: Option<PathBuf>,
    /// The configuration file
    #[arg(long, env = "OBLETH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A head that an earlier run printed
    #[arg(long, value_name = "ROW:HASH")]
    noted: Option<Head>,
}

const NOT_AS_WRITTEN: u8 = 1;
const UNKNOWN: u8 = 2;

/// Checks it.
pub(super) fn run(flags: &Flags) -> ExitCode {
    match verify(flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_AS_WRITTEN),
        Err(error) => {
            eprintln!("obleth: {error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
}

fn verify(flags: &Flags) -> anyhow::Result<bool> {
    let path = match (&flags.store, &flags.config) {
        (Some(path), _) => path.clone(),
        (None, Some(config)) => {
            let file = check::read(config)?.map_err(|faults| anyhow!("{}", super::lines(&faults)))?;
            file.settings().store.path.clone()
        }
        (None, None) => Settings::default().store.path,
    };
    let mut stderr = io::stderr();
    let watched = stderr.is_terminal();
    let Verdict { chain, head, as_noted } = store::verify_file(&path, flags.noted, |rows| {
        if watched {
            // Who does not see it come along does not need it.
            let _ = write!(stderr, "\r{rows} rows");
        }
    })?;
    if watched {
        let _ = write!(stderr, "\r");
    }
    match chain {
        Chain::Broken { seq } => eprintln!(
            "obleth: the audit log of {} is broken at row {seq}: it is missing or not as it was written; the last row that is: {head}",
            path.display()
        ),
        Chain::Intact { rows } => writeln!(io::stdout(), "{rows} rows, each as it was written; head {head}")?,
    }
    if as_noted == Some(false)
        && let Some(noted) = flags.noted
    {
        eprintln!(
            "obleth: the audit log of {} was written anew: row {} is not the one that was noted",
            path.display(),
            noted.seq
        );
    }
    Ok(matches!(chain, Chain::Intact { .. }) && as_noted != Some(false))
}
