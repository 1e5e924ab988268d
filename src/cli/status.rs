//! `obleth status`: whether a gateway is well, on one screen.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;

use super::models::{self, MODELS};
use super::noun::ALL;
use super::remote::Remote;
use super::row::Row;
use super::table::{Output, printable};

/// Show whether a gateway is well: its store, capacity, configuration file and endpoints.
///
/// Exits with 0 if it is, 1 if not: the store cannot be written, the last file was refused, an endpoint is unhealthy, or
/// nobody answers. OBLETH_ADMIN_TOKEN, or OBLETH_ADMIN_TOKEN_FILE, must be set.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Health {
    status: String,
    #[serde(default)]
    reasons: Vec<String>,
}

/// The parts of the file's state that are told.
#[derive(Deserialize)]
struct File {
    path: Option<String>,
    outcome: String,
    applied_at: Option<String>,
    #[serde(default)]
    errors: Vec<Fault>,
    #[serde(default)]
    restart_required: Vec<String>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    place: Option<String>,
    path: String,
    message: String,
}

/// Shows it.
pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let gateway = flags.remote.connect()?;
    let health = gateway.look(&["health"])?;
    let stats = gateway.get(&["stats"])?;
    let file = gateway.get(&["config", "status"])?;
    let models = gateway.rows(MODELS.path, &[], ALL)?;

    let unknown = "the answer is none that this program knows";
    let healthy: Health = serde_json::from_str(&health).context(unknown)?;
    let configured: File = serde_json::from_str(&file).context(unknown)?;
    let sick: Vec<(String, models::Endpoint)> = models.iter().flat_map(unhealthy).collect();
    let well = healthy.status == "ok" && configured.outcome != "refused" && sick.is_empty();

    let mut out = std::io::stdout().lock();
    if flags.output.is_json() {
        let models: Vec<&str> = models.iter().map(Row::json).collect();
        let models = models.join(",");
        writeln!(
            out,
            "{{\"ok\": {well}, \"health\": {health}, \"stats\": {stats}, \"config\": {file}, \"models\": [{models}]}}"
        )?;
        return Ok(code(well));
    }
    let stats: Row = serde_json::from_str(&stats).context(unknown)?;
    let mut lines = vec![
        format!("gateway    {}", gateway.url()),
        format!("store      {}", [vec![healthy.status], healthy.reasons].concat().join(": ")),
        format!(
            "requests   {} of {} in flight, {} queued",
            stats.shown("in_flight"),
            stats.shown("max_in_flight"),
            stats.shown("queued")
        ),
        format!("file       {}", told(&configured)),
    ];
    for Fault { place, path, message } in configured.errors {
        let parts = [place.unwrap_or_default(), path, message];
        lines.push(format!(
            "           {}",
            parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(": ")
        ));
    }
    let endpoints: usize = models.iter().map(|model| models::endpoints(model).len()).sum();
    lines.push(format!(
        "endpoints  {endpoints} of {} models, {} unhealthy",
        models.len(),
        sick.len()
    ));
    for (model, endpoint) in sick {
        let why = endpoint.last_error.unwrap_or_default();
        lines.push(format!("           {model} {}: {}: {why}", endpoint.url, endpoint.status));
    }
    for line in lines {
        writeln!(out, "{}", printable(&line))?;
    }
    Ok(code(well))
}

fn code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn unhealthy(model: &Row) -> Vec<(String, models::Endpoint)> {
    let sick = models::endpoints(model)
        .into_iter()
        .filter(|endpoint| endpoint.status == "unhealthy");
    sick.map(|endpoint| (model.shown("model_name"), endpoint)).collect()
}

fn told(file: &File) -> String {
    let Some(path) = &file.path else { return "none".to_owned() };
    let mut told = format!("{path}: {}", file.outcome);
    if let Some(at) = &file.applied_at {
        told += &format!(", in force since {at}");
    }
    if !file.restart_required.is_empty() {
        told += &format!(", restart required for {}", file.restart_required.join(", "));
    }
    told
}
