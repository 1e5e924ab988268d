//! `obleth keys`: what clients authenticate with.

use std::io::Write;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::fields::{self, Field};
use super::noun::{ALL, Noun};
use super::remote::{Gateway, Remote};
use super::row::Row;
use super::table::{Column, Output};
use super::tenants::TENANTS;

/// List, show, create, change, rotate and delete API keys.
///
/// A key is meant by its id, by its prefix as lists show it, or by TENANT/NAME. Its secret is printed once, when it is made or
/// rotated. OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
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
    List {
        /// Of this tenant only: its name or id
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// Show one with all its fields
    Show {
        /// Its id, prefix, or TENANT/NAME
        which: String,
    },
    /// Make one; prints its secret, once
    Create {
        /// Its tenant's name or id
        tenant: String,
        /// Its name
        name: String,
        /// Further fields, by the API's names: allowed_models=a,b expires_at=2027-01-31T12:00:00Z
        #[arg(value_name = "FIELD=VALUE", value_parser = Field::parse)]
        fields: Vec<Field>,
    },
    /// Change fields of one; the others stay
    Set {
        /// Its id, prefix, or TENANT/NAME
        which: String,
        /// What changes, by the API's names: disabled=true, tokens_per_minute=1000
        #[arg(value_name = "FIELD=VALUE", value_parser = Field::parse, required = true)]
        fields: Vec<Field>,
    },
    /// Give one a new secret; prints it, once
    Rotate {
        /// Its id, prefix, or TENANT/NAME
        which: String,
        /// How long the old secret stays good
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        grace_secs: u64,
    },
    /// Delete one; it is refused from the next request on
    Delete {
        /// Its id, prefix, or TENANT/NAME
        which: String,
    },
}

const KEYS: Noun = Noun {
    one: "key",
    command: "keys",
    path: &["keys"],
    name: "name",
    id: "id",
    columns: &[],
};

/// What a creation and a rotation answer.
#[derive(Deserialize)]
struct WithSecret {
    key: Box<RawValue>,
    secret: String,
}

/// Does it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let (gateway, output) = (flags.remote.connect()?, flags.output);
    match &flags.action {
        Action::List { tenant } => list(&gateway, tenant.as_deref(), output),
        Action::Show { which } => KEYS.show(&find(&gateway, which)?, output),
        Action::Create { tenant, name, fields } => {
            let tenant = TENANTS.find(&gateway, tenant)?.shown("id");
            let mut body = fields::object(fields)?;
            body.insert("name".to_owned(), Value::String(name.clone()));
            let made = gateway.send(Method::POST, &["tenants", &tenant, "keys"], Some(&Value::Object(body)))?;
            tell_secret("created", &made, output)
        }
        Action::Set { which, fields } => {
            let id = find(&gateway, which)?.shown("id");
            let body = Value::Object(fields::object(fields)?);
            KEYS.changed("changed", &gateway.send(Method::PUT, &["keys", &id], Some(&body))?, output)
        }
        Action::Rotate { which, grace_secs } => {
            let id = find(&gateway, which)?.shown("id");
            let body = json!({ "grace_secs": grace_secs });
            let rotated = gateway.send(Method::POST, &["keys", &id, "rotate"], Some(&body))?;
            tell_secret("rotated", &rotated, output)
        }
        Action::Delete { which } => {
            let key = find(&gateway, which)?;
            let body = Value::Object(Map::new());
            gateway.send(Method::DELETE, &["keys", &key.shown("id")], Some(&body))?;
            output.done(&format!("deleted key {} ({})", key.shown("name"), key.shown("key_prefix")), "")
        }
    }
}

/// The name of a tenant by its id, among these.
pub(super) fn tenant_name(tenants: &[Row], id: &str) -> String {
    let named = tenants.iter().find(|tenant| tenant.get::<String>("id").as_deref() == Some(id));
    named.map_or_else(|| id.to_owned(), |tenant| tenant.shown("name"))
}

fn list(gateway: &Gateway, tenant: Option<&str>, output: Output) -> anyhow::Result<()> {
    let mut query = Vec::new();
    if let Some(tenant) = tenant {
        query.push(("tenant_id", TENANTS.find(gateway, tenant)?.shown("id")));
    }
    let mut rows = gateway.rows(&["keys"], &query, ALL)?;
    if output.is_json() {
        return output.list(&[], &rows);
    }
    let tenants = gateway.rows(&["tenants"], &[], ALL)?;
    for row in &mut rows {
        let name = tenant_name(&tenants, &row.shown("tenant_id"));
        row.add("tenant", &name)?;
    }
    let columns = [
        Column::text("TENANT", |row| row.shown("tenant")),
        Column::text("NAME", |row| row.shown("name")),
        Column::text("PREFIX", |row| row.shown("key_prefix")),
        Column::text("STATE", |row| {
            if row.raw("disabled") == "true" { "disabled" } else { "active" }.to_owned()
        }),
        Column::text("EXPIRES", |row| row.shown("expires_at")),
        Column::text("LAST USED", |row| row.shown("last_used_at")),
        Column::text("ID", |row| row.shown("id")),
    ];
    output.list(&columns, &rows)
}

/// The key that is meant.
pub(super) fn find(gateway: &Gateway, which: &str) -> anyhow::Result<Row> {
    let mut query = Vec::new();
    let mut name = None;
    if let Some((tenant, key)) = which.rsplit_once('/') {
        query.push(("tenant_id", TENANTS.find(gateway, tenant)?.shown("id")));
        name = Some(key);
    }
    let rows = gateway.rows(&["keys"], &query, ALL)?;
    let is = |row: &Row, field: &str, value: &str| row.get::<String>(field).as_deref() == Some(value);
    let mut meant = rows.into_iter().filter(|row| match name {
        Some(name) => is(row, "name", name),
        None => is(row, "id", which) || is(row, "key_prefix", which),
    });
    match (meant.next(), meant.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => bail!("{which:?} means several keys: say which by its id, as `obleth keys list` shows it"),
        (None, _) => bail!("there is no key {which:?}; `obleth keys list` shows which there are"),
    }
}

/// People get the secret alone on standard output, so that `$(…)` has it; the sentence goes beside it.
fn tell_secret(how: &str, answer: &str, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.done("", answer);
    }
    let WithSecret { key, secret } = serde_json::from_str(answer).context("the answer is none that this program knows")?;
    let key: Row = serde_json::from_str(key.get()).context("the answer is none that this program knows")?;
    eprintln!("{how} key {} ({}); its secret, shown only now:", key.shown("name"), key.shown("id"));
    writeln!(std::io::stdout(), "{secret}")?;
    Ok(())
}
