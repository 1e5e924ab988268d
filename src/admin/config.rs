//! `/config`: how the configuration file stands, reading it again, and the whole configuration as a file.
//!
//! This room knows no file: whoever opens the doors brings a [`Configuration`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fault::Faults;
use super::problem::Problem;
use super::sent::Sent;
use super::shown::Time;
use super::{Room, answer, shown};
use crate::units::UnixMs;

/// The configuration that the gateway runs with, as the API asks for it.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// How the file stands.
    fn status(&self) -> ConfigStatus;

    /// Reads the file again and applies it, for `actor` in the request with this id. What has begun is finished even if the
    /// caller goes away.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    async fn reload(&self, actor: String, request_id: String) -> Result<ConfigStatus, ReloadError>;

    /// Everything that is configured, as a file in YAML without any secret in clear.
    fn export(&self) -> String;
}

/// How the last reading of the file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConfigOutcome {
    /// There is no file.
    #[default]
    NoFile,
    /// It is in force.
    Applied,
    /// It has faults, or could not be stored; what was in force before still is.
    Refused,
}

/// How the configuration file stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigStatus {
    /// The file as it was named at start.
    pub path: Option<String>,
    /// SHA-256 of the text last applied, in hexadecimal.
    pub digest: Option<String>,
    /// When it was last read.
    pub attempted_at: Option<UnixMs>,
    /// When it was last applied.
    pub applied_at: Option<UnixMs>,
    /// How the last reading ended.
    pub outcome: ConfigOutcome,
    /// Why it was refused.
    pub errors: Vec<ConfigFault>,
    /// Settings that differ from those the gateway started with.
    pub restart_required: Vec<String>,
    /// What the file says and was not done, and why, when it was last applied.
    pub notices: Vec<String>,
    /// What changed when it was last applied.
    pub changes: Vec<ConfigChange>,
}

/// A fault of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConfigFault {
    /// `file:line:column`; the file alone where the fault is the whole file's.
    #[schema(example = "obleth.yaml:12:5")]
    pub place: String,
    /// The field; empty for the whole file.
    #[schema(example = "tenants[0].weight")]
    pub path: String,
    /// What was expected.
    #[schema(example = "must be an integer from 1 to 1000000")]
    pub message: String,
}

/// A change to one object.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ConfigChange {
    /// As in the audit log.
    #[schema(example = "update_tenant")]
    pub action: &'static str,
    /// The noun.
    #[schema(example = "tenant")]
    pub entity_type: &'static str,
    /// The object.
    pub entity_id: String,
    /// What people call it.
    #[schema(example = "acme")]
    pub name: String,
    /// The change on one line, for people.
    #[schema(example = "~ tenant acme: weight 100 -> 500")]
    pub summary: String,
}

/// Why the file was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadError {
    /// The gateway runs without one.
    NoFile,
    /// It has these faults.
    Faulty(Vec<ConfigFault>),
    /// The store could not take it now; the sentence is for the log.
    Unavailable(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("the gateway runs without a configuration file"),
            Self::Faulty(faults) => write!(f, "the configuration file has {} fault(s)", faults.len()),
            Self::Unavailable(why) => write!(f, "the store is unavailable: {why}"),
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        match error {
            ReloadError::NoFile => Self::new(StatusCode::CONFLICT, "no_config_file", detail),
            ReloadError::Faulty(faults) => {
                let mut errors = Faults::default();
                for ConfigFault { place, path, message } in faults {
                    errors.add_placed(&path, place, message);
                }
                Self {
                    errors: errors.into_vec(),
                    ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", detail)
                }
            }
            ReloadError::Unavailable(_) => Self::unavailable("store_unavailable", "the store cannot be written now; nothing has changed"),
        }
    }
}

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(reload))
        .routes(routes!(export))
}

/// How the configuration file stands.
#[derive(Serialize, ToSchema)]
#[schema(as = ConfigStatus)]
struct Shown<'a> {
    /// The file as it was named at start; null without one.
    path: Option<&'a str>,
    /// SHA-256 of the text last applied, in hexadecimal.
    digest: Option<&'a str>,
    /// When it was last read.
    #[schema(value_type = Option<String>, format = DateTime)]
    attempted_at: Option<Time>,
    /// When it was last applied.
    #[schema(value_type = Option<String>, format = DateTime)]
    applied_at: Option<Time>,
    /// How the last reading ended: `applied`, `refused`, or `no_file`.
    #[schema(example = "applied")]
    outcome: &'static str,
    /// Why it was refused. What was in force before still is.
    errors: &'a [ConfigFault],
    /// Settings of the file that differ from those the gateway started with.
    #[schema(example = json!(["server.listen"]))]
    restart_required: &'a [String],
    /// What the file says and was not done, and why: fields that the API has changed since, for instance.
    notices: &'a [String],
    /// What changed when it was last applied.
    changes: &'a [ConfigChange],
}

/// Tells how the configuration file stands.
#[utoipa::path(get, path = "/config/status", operation_id = "get_config_status", tag = "config",
    responses((status = 200, description = "What was read when, and how it ended.", body = Shown)))]
async fn status(State(configuration): State<Arc<dyn Configuration>>) -> Response {
    told(&configuration.status())
}

/// Reads the configuration file again and applies it, all or nothing.
#[utoipa::path(post, path = "/config/reload", operation_id = "reload_config", tag = "config",
    responses((status = 200, description = "It is in force.", body = Shown)))]
async fn reload(State(configuration): State<Arc<dyn Configuration>>, sent: Sent) -> Result<Response, Problem> {
    let status = configuration.reload(sent.author.actor, sent.author.request_id).await?;
    Ok(told(&status))
}

/// Writes everything that is configured as a file.
///
/// Keys are digests, credentials of upstreams references or digests.
#[utoipa::path(get, path = "/config/export", operation_id = "export_config", tag = "config",
    responses((status = 200, description = "The file, a mapping.", body = serde_json::Value, content_type = "application/yaml")))]
async fn export(State(configuration): State<Arc<dyn Configuration>>) -> Response {
    const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
    ([(header::CONTENT_TYPE, YAML)], configuration.export()).into_response()
}

fn told(status: &ConfigStatus) -> Response {
    let shown = Shown {
        path: status.path.as_deref(),
        digest: status.digest.as_deref(),
        attempted_at: status.attempted_at.map(Time),
        applied_at: status.applied_at.map(Time),
        outcome: match status.outcome {
            ConfigOutcome::NoFile => "no_file",
            ConfigOutcome::Applied => "applied",
            ConfigOutcome::Refused => "refused",
        },
        errors: &status.errors,
        restart_required: &status.restart_required,
        notices: &status.notices,
        changes: &status.changes,
    };
    answer::json(shown::json(&shown)).into_response()
}
