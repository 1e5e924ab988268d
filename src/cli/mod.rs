//! The command line: one file per verb.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage (clap's), 78 (`EX_CONFIG` of sysexits.h) a set-up that must be corrected first.
//! `check`, `diff`, `status` and `audit verify` are questions, and say no with 1; `diff` and `audit verify` say with 2 that they
//! cannot tell.

mod audit;
mod audit_verify;
mod check;
mod completions;
mod demo;
mod diff;
mod export;
mod fields;
mod groups;
mod keys;
mod log;
mod mcp;
mod models;
mod noun;
mod reload;
mod remote;
mod row;
mod screen;
mod secrets;
mod serve;
mod signal;
mod sim_upstream;
mod span;
mod status;
mod table;
mod tenants;
mod terminal;
mod top;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Fault;

/// A reverse proxy that shares inference servers among many tenants by weighted fair queueing.
#[derive(Debug, Parser)]
#[command(name = "obleth", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(Box<serve::Flags>),
    Check(check::Flags),
    Diff(diff::Flags),
    Reload(reload::Flags),
    Export(export::Flags),
    Tenants(tenants::Flags),
    Keys(keys::Flags),
    Models(models::Flags),
    Groups(groups::Flags),
    Mcp(mcp::Flags),
    Usage(usage::UsageFlags),
    Costs(usage::CostFlags),
    Audit(audit::Flags),
    Status(status::Flags),
    Top(top::Flags),
    Demo(demo::Flags),
    SimUpstream(sim_upstream::Flags),
    Completions(completions::Flags),
}

/// A set-up that must be corrected before the program can run; `Display` says how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadSetUp(String);

/// A configuration file, or what stands above it, with every fault on a line of its own: `file:line:column: path: what`.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
struct FaultyFile(Vec<Fault>);

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

const EX_CONFIG: u8 = 78;

/// Reads the arguments, does what they say, and returns the process's exit code.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Serve(flags) => serve::run(&flags),
        Verb::Check(flags) => match check::run(&flags) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Verb::Diff(flags) => return diff::run(&flags),
        Verb::Reload(flags) => reload::run(&flags),
        Verb::Export(flags) => export::run(&flags),
        Verb::Tenants(flags) => tenants::run(&flags),
        Verb::Keys(flags) => keys::run(&flags),
        Verb::Models(flags) => models::run(&flags),
        Verb::Groups(flags) => groups::run(&flags),
        Verb::Mcp(flags) => mcp::run(&flags),
        Verb::Usage(flags) => usage::run(&flags),
        Verb::Costs(flags) => usage::costs(&flags),
        Verb::Audit(flags) => match audit::run(&flags) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Verb::Status(flags) => match status::run(&flags) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Verb::Top(flags) => top::run(&flags),
        Verb::Demo(flags) => demo::run(&flags),
        Verb::SimUpstream(flags) => sim_upstream::run(&flags),
        Verb::Completions(flags) => completions::run(&flags),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    if error.is::<FaultyFile>() {
        // As compilers say it, so that editors find the place.
        eprintln!("{error}");
        return ExitCode::from(EX_CONFIG);
    }
    // On one line: the chain of causes, outermost first.
    eprintln!("obleth: {error:#}");
    if error.is::<BadSetUp>() {
        ExitCode::from(EX_CONFIG)
    } else {
        ExitCode::FAILURE
    }
}
