//! The verbs that nouns of the configuration share: list, show, create, set, delete, over the management API.

use anyhow::{Context, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value};

use super::fields::{self, Field};
use super::remote::Gateway;
use super::row::Row;
use super::table::{Column, Output};

/// A kind of object, and how people see it.
pub(super) struct Noun {
    /// One of them, in a sentence.
    pub(super) one: &'static str,
    /// The command that is about them.
    pub(super) command: &'static str,
    /// Their list below `/api/v1`.
    pub(super) path: &'static [&'static str],
    /// The field that people know them by.
    pub(super) name: &'static str,
    /// The field that routes know them by.
    pub(super) id: &'static str,
    /// What a list shows.
    pub(super) columns: &'static [Column],
}

/// What can be done with tenants, models and MCP servers.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List all of them
    List,
    /// Show one with all its fields
    Show {
        /// Its name or id
        which: String,
    },
    /// Make one
    Create {
        /// Its name
        name: String,
        /// Further fields, by the API's names: weight=200, allowed_models=a,b, api_key=@FILE
        #[arg(value_name = "FIELD=VALUE", value_parser = Field::parse)]
        fields: Vec<Field>,
    },
    /// Change fields of one; the others stay
    Set {
        /// Its name or id
        which: String,
        /// What changes, by the API's names: weight=200, max_in_flight=null, api_key=@FILE
        #[arg(value_name = "FIELD=VALUE", value_parser = Field::parse, required = true)]
        fields: Vec<Field>,
    },
    /// Delete one
    Delete {
        /// Its name or id
        which: String,
    },
}

/// All rows of a list are wanted.
pub(super) const ALL: usize = usize::MAX;

impl Noun {
    /// Does it.
    pub(super) fn act(&self, action: &Action, gateway: &Gateway, output: Output) -> anyhow::Result<()> {
        match action {
            Action::List => output.list(self.columns, &gateway.rows(self.path, &[], ALL)?),
            Action::Show { which } => self.show(&self.find(gateway, which)?, output),
            Action::Create { name, fields } => {
                let mut body = fields::object(fields)?;
                if body.insert(self.name.to_owned(), Value::String(name.clone())).is_some() {
                    bail!("the name is given twice: {name:?}, and as {}=", self.name);
                }
                let made = gateway.send(Method::POST, self.path, Some(&Value::Object(body)))?;
                self.changed("created", &made, output)
            }
            Action::Set { which, fields } => {
                let found = self.find(gateway, which)?;
                let body = Value::Object(fields::object(fields)?);
                let changed = gateway.send(Method::PUT, &self.at(&found.shown(self.id)), Some(&body))?;
                self.changed("changed", &changed, output)
            }
            Action::Delete { which } => {
                let found = self.find(gateway, which)?;
                gateway.send(Method::DELETE, &self.at(&found.shown(self.id)), Some(&Value::Object(Map::new())))?;
                output.done(&format!("deleted {} {}", self.one, found.shown(self.name)), "")
            }
        }
    }

    /// The object that is meant: by its id, or by the name that people know it by.
    ///
    /// # Errors
    /// There is none, with where to look; or the gateway cannot be asked.
    pub(super) fn find(&self, gateway: &Gateway, which: &str) -> anyhow::Result<Row> {
        let rows = gateway.rows(self.path, &[], ALL)?;
        let by = |field: &str| rows.iter().find(|row| row.get::<String>(field).as_deref() == Some(which));
        match by(self.id).or_else(|| by(self.name)) {
            Some(row) => Ok(row.clone()),
            None => bail!(
                "there is no {} {which:?}; `obleth {} list` shows which there are",
                self.one,
                self.command
            ),
        }
    }

    /// The route of one of them.
    pub(super) fn at<'a>(&'a self, id: &'a str) -> Vec<&'a str> {
        self.path.iter().copied().chain([id]).collect()
    }

    /// Prints one.
    pub(super) fn show(&self, row: &Row, output: Output) -> anyhow::Result<()> {
        let mut fields = vec![self.name];
        fields.extend(row.fields().filter(|field| *field != self.name));
        output.object(row, &fields)
    }

    /// Says what became of one.
    pub(super) fn changed(&self, how: &str, object: &str, output: Output) -> anyhow::Result<()> {
        let row: Row = serde_json::from_str(object).context("the answer is none that this program knows")?;
        let mut sentence = format!("{how} {} {}", self.one, row.shown(self.name));
        if self.id != self.name {
            sentence += &format!(" ({})", row.shown(self.id));
        }
        output.done(&sentence, object)
    }
}
