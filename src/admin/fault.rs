//! What is wrong with a body: all of it at once, each with its path.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;

/// How many are reported: a body of a million unknown fields is answered in one screen.
const FAULTS_MAX: usize = 100;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Fault {
    /// Where: `weight`, `endpoints[0].url`, a query parameter or a header; empty for the whole body.
    #[schema(example = "weight")]
    pub(super) path: String,
    /// What.
    #[schema(example = "must be an integer from 1 to 1000000")]
    pub(super) message: String,
    /// In which file, line and column: faults of a configuration file only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "obleth.yaml:12:5")]
    pub(super) place: Option<String>,
    /// The problem's code when there is no other fault.
    #[serde(skip)]
    pub(super) code: Option<&'static str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Collects faults while a body is read.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.push(path, message.into(), None, None);
    }

    /// A fault that is in a file.
    pub(super) fn add_placed(&mut self, path: &str, place: String, message: impl Into<String>) {
        self.push(path, message.into(), Some(place), None);
    }

    /// A fault that has a code of its own.
    pub(super) fn add_coded(&mut self, path: &str, code: &'static str, message: impl Into<String>) {
        self.push(path, message.into(), None, Some(code));
    }

    /// Whether one of these fields, or something inside, has a fault already.
    pub(super) fn about(&self, fields: &[&str]) -> bool {
        let inside = |path: &str, field: &str| {
            path.strip_prefix(field)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0.iter().any(|fault| fields.iter().any(|field| inside(&fault.path, field)))
    }

    /// Refuses the request if there is a fault.
    pub(super) fn check(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    fn push(&mut self, path: &str, message: String, place: Option<String>, code: Option<&'static str>) {
        if self.0.len() < FAULTS_MAX {
            // A path can be an unknown field's name, as long as the body.
            let path = path.chars().take(256).collect();
            self.0.push(Fault {
                path,
                message,
                place,
                code,
            });
        }
    }
}
