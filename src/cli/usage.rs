//! `obleth usage` and `obleth costs`: what was used, by whom, and what it cost.

use clap::{Args, ValueEnum};

use super::keys;
use super::noun::ALL;
use super::remote::{Gateway, Remote};
use super::row::Row;
use super::span::Span;
use super::table::{Column, Output};
use super::tenants::TENANTS;

/// Rows of the request log that are shown unless asked otherwise.
const LOG_ROWS: usize = 50;

/// What is asked for.
#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    span: Span,
    /// Only this tenant's: its name or id
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only with this key: its id, prefix, or TENANT/NAME
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only to this model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Tenant,
    Key,
    Model,
}

/// Show what was used: requests, tokens and cost, by tenant, key or model, or request by request.
///
/// OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct UsageFlags {
    /// What a line is
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = By::Tenant, conflicts_with = "requests")]
    by: By,
    /// The request log instead, newest first
    #[arg(long)]
    requests: bool,
    /// How many lines of the request log
    #[arg(long, value_name = "N", default_value_t = LOG_ROWS, requires = "requests")]
    limit: usize,
    #[command(flatten)]
    asked: Asked,
}

/// Show what it cost, at the prices that were in force when each request ran.
///
/// OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct CostFlags {
    /// What a line is
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = By::Model)]
    by: By,
    #[command(flatten)]
    asked: Asked,
}

const COUNTS: [Column; 7] = [
    Column::number("REQUESTS", |row| row.shown("requests")),
    Column::number("ERRORS", |row| row.shown("errors")),
    Column::number("INPUT", |row| row.shown("input_tokens")),
    Column::number("CACHED", |row| row.shown("cached_input_tokens")),
    Column::number("OUTPUT", |row| row.shown("output_tokens")),
    Column::number("TOKENS", |row| row.shown("total_tokens")),
    Column::number("USD", |row| row.shown("cost_usd")),
];

const PACE: [Column; 4] = [
    Column::number("TTFT P50 MS", |row| row.shown("p50_ttft_ms")),
    Column::number("P95", |row| row.shown("p95_ttft_ms")),
    Column::number("QUEUE P95 MS", |row| row.shown("p95_queue_ms")),
    Column::number("TOKENS/S", |row| format!("{:.1}", row.number("gen_tokens_per_sec"))),
];

const COSTS: [Column; 8] = [
    Column::number("REQUESTS", |row| row.shown("requests")),
    Column::number("INPUT", |row| row.shown("input_tokens")),
    Column::number("CACHED", |row| row.shown("cached_input_tokens")),
    Column::number("OUTPUT", |row| row.shown("output_tokens")),
    Column::number("INPUT USD", |row| row.shown("input_cost")),
    Column::number("OUTPUT USD", |row| row.shown("output_cost")),
    Column::number("REQUEST USD", |row| row.shown("request_cost")),
    Column::number("TOTAL USD", |row| row.shown("total_cost")),
];

const LOG: [Column; 11] = [
    Column::text("TIME", time),
    Column::text("TENANT", |row| row.shown("owner")),
    Column::text("MODEL", |row| row.shown("model")),
    Column::text("OUTCOME", |row| row.shown("outcome")),
    Column::number("STATUS", |row| row.shown("status")),
    Column::number("INPUT", |row| row.shown("input_tokens")),
    Column::number("OUTPUT", |row| row.shown("output_tokens")),
    Column::number("QUEUE MS", |row| row.shown("queue_ms")),
    Column::number("TTFT MS", |row| row.shown("ttft_ms")),
    Column::number("TOTAL MS", |row| row.shown("total_ms")),
    Column::text("REQUEST", |row| row.shown("request_id")),
];

fn time(row: &Row) -> String {
    let time = row.get("ts_ms").and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}

/// Shows usage.
pub(super) fn run(flags: &UsageFlags) -> anyhow::Result<()> {
    let gateway = flags.asked.remote.connect()?;
    let query = flags.asked.query(&gateway)?;
    let output = flags.asked.output;
    if flags.requests {
        let rows = gateway.rows(&["usage", "requests"], &query, flags.limit)?;
        return output.list(&LOG, &named(&gateway, rows, output)?);
    }
    let (route, columns): (&[&str], Vec<Column>) = match flags.by {
        By::Tenant => (&["usage"], [&[owner("TENANT")], &COUNTS[..]].concat()),
        By::Key => (&["usage", "keys"], [&[owner("TENANT"), KEY], &COUNTS[..]].concat()),
        By::Model => (&["usage", "models"], [&[MODEL], &COUNTS[..], &PACE].concat()),
    };
    let rows = gateway.rows(route, &query, ALL)?;
    output.list(&columns, &named(&gateway, rows, output)?)
}

/// Shows costs.
pub(super) fn costs(flags: &CostFlags) -> anyhow::Result<()> {
    let gateway = flags.asked.remote.connect()?;
    let mut query = flags.asked.query(&gateway)?;
    let (by, columns): (&str, &[Column]) = match flags.by {
        By::Tenant => ("tenant", &[owner("TENANT")]),
        By::Key => ("key", &[owner("TENANT"), Column::text("KEY", |row| row.shown("key_id"))]),
        By::Model => ("model", &[MODEL]),
    };
    query.push(("group_by", by.to_owned()));
    let rows = gateway.rows(&["costs"], &query, ALL)?;
    let output = flags.asked.output;
    output.list(&[columns, &COSTS].concat(), &named(&gateway, rows, output)?)
}

const fn owner(title: &'static str) -> Column {
    Column::text(title, |row| row.shown("owner"))
}

const KEY: Column = Column::text("KEY", |row| match row.shown("key_prefix").as_str() {
    "-" => row.shown("key_id"),
    prefix => prefix.to_owned(),
});

const MODEL: Column = Column::text("MODEL", |row| row.shown("model"));

impl Asked {
    fn query(&self, gateway: &Gateway) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut query = self.span.query();
        if let Some(tenant) = &self.tenant {
            query.push(("tenant_id", TENANTS.find(gateway, tenant)?.shown("id")));
        }
        if let Some(key) = &self.key {
            query.push(("key_id", keys::find(gateway, key)?.shown("id")));
        }
        if let Some(model) = &self.model {
            query.push(("model", model.clone()));
        }
        Ok(query)
    }
}

/// Gives tenants their names, for people; a deleted one keeps its id.
fn named(gateway: &Gateway, mut rows: Vec<Row>, output: Output) -> anyhow::Result<Vec<Row>> {
    if output.is_json() {
        return Ok(rows);
    }
    let tenants = gateway.rows(TENANTS.path, &[], ALL)?;
    for row in &mut rows {
        let name = keys::tenant_name(&tenants, &row.shown("tenant_id"));
        row.add("owner", &name)?;
    }
    Ok(rows)
}
