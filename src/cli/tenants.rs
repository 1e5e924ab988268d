//! `obleth tenants`: who is billed, and the unit of fairness.

use clap::Args;

use super::noun::{Action, Noun};
use super::remote::Remote;
use super::table::{Column, Output};

/// List, show, create, change and delete tenants.
///
/// For instance `obleth tenants create acme weight=500 tokens_per_minute=100000`, or `obleth tenants set acme
/// status=suspended`. A change is live for the next request. OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

pub(super) const TENANTS: Noun = Noun {
    one: "tenant",
    command: "tenants",
    path: &["tenants"],
    name: "name",
    id: "id",
    columns: &[
        Column::text("NAME", |row| row.shown("name")),
        Column::text("GROUP", |row| row.shown("fairshare_group")),
        Column::number("WEIGHT", |row| row.shown("weight")),
        Column::number("TOKENS/MIN", |row| row.limit("tokens_per_minute")),
        Column::number("REQUESTS/MIN", |row| row.limit("requests_per_minute")),
        Column::number("IN FLIGHT", |row| row.shown("max_in_flight")),
        Column::text("STATUS", |row| row.shown("status")),
        Column::text("FROM", |row| row.shown("managed_by")),
        Column::text("ID", |row| row.shown("id")),
    ],
};

/// Does it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    TENANTS.act(&flags.action, &flags.remote.connect()?, flags.output)
}
