//! `obleth audit`: who changed what, and whether the log of it is whole.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::audit_verify;
use super::remote::Remote;
use super::row::Row;
use super::table::{Column, Output};

/// Show who changed what, or check that nobody has altered the log of it.
///
/// To list, OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List changes, newest first
    List(List),
    Verify(audit_verify::Flags),
}

#[derive(Debug, Args)]
struct List {
    /// Only what this person did
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this action, like update_weight
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only changes of this noun, like tenant
    #[arg(long, value_name = "NOUN")]
    entity_type: Option<String>,
    /// Only changes of this object
    #[arg(long, value_name = "ID")]
    entity_id: Option<String>,
    /// How many lines
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

const COLUMNS: &[Column] = &[
    Column::text("TIME", |row| row.shown("ts")),
    Column::text("ACTOR", |row| row.shown("actor")),
    Column::text("SOURCE", |row| row.shown("source")),
    Column::text("ACTION", |row| row.shown("action")),
    Column::text("WHAT", |row| format!("{} {}", row.shown("entity_type"), row.shown("entity_id"))),
    Column::text("DETAIL", |row| shortened(row.raw("detail"))),
];

/// Characters of a detail that a line has room for; `-o json` has it whole.
const DETAIL_CHARS: usize = 120;

fn shortened(detail: &str) -> String {
    let mut letters = detail.chars();
    let start: String = letters.by_ref().take(DETAIL_CHARS).collect();
    if letters.next().is_some() { start + "…" } else { start }
}

/// Does it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    match &flags.action {
        Action::List(list) => list.run().map(|()| ExitCode::SUCCESS),
        Action::Verify(flags) => Ok(audit_verify::run(flags)),
    }
}

impl List {
    fn run(&self) -> anyhow::Result<()> {
        let asked = [
            ("actor", &self.actor),
            ("action", &self.action),
            ("entity_type", &self.entity_type),
            ("entity_id", &self.entity_id),
        ];
        let query: Vec<_> = asked.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        let rows: Vec<Row> = self.remote.connect()?.rows(&["audit"], &query, self.limit)?;
        self.output.list(COLUMNS, &rows)
    }
}
