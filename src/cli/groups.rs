//! `obleth groups`: the upper level of fair sharing.

use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::noun::{ALL, Noun};
use super::remote::Remote;
use super::table::{Column, Output};

/// List, create, weigh and delete fair-share groups.
///
/// Slots are shared among groups by weight first, then among the tenants of each. OBLETH_ADMIN_TOKEN, or
/// OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all of them
    List,
    /// Make one
    Create {
        /// Its name
        name: String,
        /// Its share among groups that have work
        #[arg(long, value_name = "N", default_value_t = 100)]
        weight: u32,
    },
    /// Change the weight of one; the next scheduling decision uses it
    Set {
        /// Its name
        name: String,
        /// Its share among groups that have work
        #[arg(long, value_name = "N")]
        weight: u32,
    },
    /// Delete one that no tenant is in
    Delete {
        /// Its name
        name: String,
    },
}

const GROUPS: Noun = Noun {
    one: "group",
    command: "groups",
    path: &["fairshare", "groups"],
    name: "name",
    id: "name",
    columns: &[
        Column::text("NAME", |row| row.shown("name")),
        Column::number("WEIGHT", |row| row.shown("weight")),
        Column::number("TENANTS", |row| row.shown("tenants")),
        Column::text("FROM", |row| row.shown("managed_by")),
    ],
};

/// Does it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let (gateway, output) = (flags.remote.connect()?, flags.output);
    match &flags.action {
        Action::List => output.list(GROUPS.columns, &gateway.rows(GROUPS.path, &[], ALL)?),
        Action::Create { name, weight } => {
            let body = json!({ "name": name, "weight": weight });
            let made = gateway.send(Method::POST, GROUPS.path, Some(&body))?;
            GROUPS.changed("created", &made, output)
        }
        Action::Set { name, weight } => {
            GROUPS.find(&gateway, name)?;
            let route = ["fairshare", "groups", name, "weight"];
            let changed = gateway.send(Method::PATCH, &route, Some(&json!({ "weight": weight })))?;
            GROUPS.changed("changed", &changed, output)
        }
        Action::Delete { name } => {
            GROUPS.find(&gateway, name)?;
            let deleted = gateway.send(Method::DELETE, &GROUPS.at(name), Some(&Value::Object(Map::new())));
            deleted.context("`obleth tenants set NAME fairshare_group=default` moves a tenant")?;
            output.done(&format!("deleted group {name}"), "")
        }
    }
}
