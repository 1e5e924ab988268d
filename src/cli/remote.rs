//! A running gateway as the command line reaches it: its management API, with the token from the environment.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Client, Method, redirect};
use serde::Deserialize;

use super::secrets::Secrets;

/// A merge of a large file takes a moment.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Where the management API listens
    #[arg(long, env = "OBLETH_ADMIN_URL", value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin_url: String,
}

/// The parts of a problem that are told.
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    place: Option<String>,
    path: String,
    message: String,
}

impl Remote {
    /// Sends a request without a body to a path below `/api/v1`, and returns the body of the answer.
    ///
    /// # Errors
    /// There is no token, no gateway, or it refuses: with all it says.
    pub(super) fn ask(&self, method: Method, path: &str) -> anyhow::Result<String> {
        let token = Secrets::admin_token_from_environment()?;
        let url = format!("{}/api/v1/{path}", self.admin_url.trim_end_matches('/'));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            // The token goes to the gateway and to nobody between.
            let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT);
            let request = client.build()?.request(method, &url).bearer_auth(token);
            let answer = request.send().await.with_context(|| format!("cannot reach {url}"))?;
            let status = answer.status();
            let body = answer.text().await.with_context(|| format!("the answer of {url} broke off"))?;
            if !status.is_success() {
                bail!("{url} answers {status}{}", told(&body));
            }
            Ok(body)
        })
    }
}

/// A refusal: its detail, then each fault on a line.
fn told(body: &str) -> String {
    let problem: Problem = serde_json::from_str(body).unwrap_or_default();
    let mut told = String::new();
    if !problem.detail.is_empty() {
        told = format!(": {}", problem.detail);
    }
    for Fault { place, path, message } in problem.errors {
        let parts = [place.unwrap_or_default(), path, message];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        // Writing to a string does not fail.
        let _ = write!(told, "\n{}", parts.join(": "));
    }
    told
}
