//! `obleth mcp`: the tool servers that clients reach under `/mcp/…`.

use clap::Args;

use super::noun::{Action, Noun};
use super::remote::Remote;
use super::table::{Column, Output};

/// List, show, create, change and delete MCP servers.
///
/// For instance `obleth mcp create files upstream_url=http://127.0.0.1:7000/mcp denied_tools=delete_file`. A credential is best
/// a reference: auth_header=env:NAME. OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

const MCP_SERVERS: Noun = Noun {
    one: "MCP server",
    command: "mcp",
    path: &["mcp-servers"],
    name: "name",
    id: "id",
    columns: &[
        Column::text("NAME", |row| row.shown("name")),
        Column::text("UPSTREAM", |row| row.shown("upstream_url")),
        Column::text("ENABLED", |row| row.shown("enabled")),
        Column::text("ALLOWED TOOLS", |row| row.shown("allowed_tools")),
        Column::text("DENIED TOOLS", |row| row.shown("denied_tools")),
        Column::number("CAP", |row| row.shown("max_in_flight")),
        Column::text("FROM", |row| row.shown("managed_by")),
        Column::text("ID", |row| row.shown("id")),
    ],
};

/// Does it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    MCP_SERVERS.act(&flags.action, &flags.remote.connect()?, flags.output)
}
