//! `obleth models`: what clients ask for, and the inference servers behind it.

use clap::Args;
use serde::Deserialize;

use super::noun::{Action, Noun};
use super::remote::Remote;
use super::row::Row;
use super::table::{Column, Output};

/// List, show, create, change and delete models.
///
/// For instance `obleth models create llama api_base=http://127.0.0.1:8000 engine=vllm`, or `obleth models set llama
/// max_in_flight=auto`. A credential of the upstream is best a reference: api_key=env:NAME or api_key=file:PATH.
/// OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

pub(super) const MODELS: Noun = Noun {
    one: "model",
    command: "models",
    path: &["models"],
    name: "model_name",
    id: "id",
    columns: &[
        Column::text("NAME", |row| row.shown("model_name")),
        Column::text("TYPE", |row| row.shown("model_type")),
        Column::text("ENGINE", |row| row.shown("engine")),
        Column::text("ENDPOINTS", healthy),
        Column::number("IN FLIGHT", |row| {
            endpoints(row).iter().map(|endpoint| endpoint.in_flight).sum::<u64>().to_string()
        }),
        Column::number("CAP", |row| row.shown("max_in_flight")),
        Column::text("ENABLED", |row| row.shown("enabled")),
        Column::text("CACHE", |row| {
            if row.raw("cache_enabled") == "true" {
                row.shown("cache_scope")
            } else {
                "-".to_owned()
            }
        }),
        Column::text("FROM", |row| row.shown("managed_by")),
        Column::text("ID", |row| row.shown("id")),
    ],
};

/// The parts of an endpoint's health that are shown.
#[derive(Deserialize)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) in_flight: u64,
    #[serde(default)]
    pub(super) last_error: Option<String>,
}

/// The health of a model's endpoints.
pub(super) fn endpoints(row: &Row) -> Vec<Endpoint> {
    row.get("health").unwrap_or_default()
}

fn healthy(row: &Row) -> String {
    let endpoints = endpoints(row);
    let of = |status: &str| endpoints.iter().filter(|endpoint| endpoint.status == status).count();
    match (of("healthy"), of("unknown")) {
        (healthy, 0) => format!("{healthy}/{} healthy", endpoints.len()),
        (healthy, unknown) => format!("{healthy}/{} healthy, {unknown} unknown", endpoints.len()),
    }
}

/// Does it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    MODELS.act(&flags.action, &flags.remote.connect()?, flags.output)
}
