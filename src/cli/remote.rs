//! A running gateway as the command line reaches it: its management API, with the token from the environment.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::header::LINK;
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::Value;

use super::row::Row;
use super::secrets::Secrets;

/// A merge of a large file takes a moment.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Rows that are asked for at a time: the most that the API gives.
const PAGE: usize = 1000;

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Where the management API listens
    #[arg(
        long,
        env = "OBLETH_ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9090",
        global = true
    )]
    admin_url: String,
}

impl Remote {
    /// Prepares to talk to it.
    ///
    /// # Errors
    /// There is no token, or the URL is none.
    pub(super) fn connect(&self) -> anyhow::Result<Gateway> {
        let token = Secrets::admin_token_from_environment()?;
        let base = format!("{}/api/v1/", self.admin_url.trim_end_matches('/'));
        let base = Url::parse(&base).with_context(|| format!("--admin-url {:?} is no URL", self.admin_url))?;
        // The token goes to the gateway and to nobody between.
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT);
        Ok(Gateway {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            client: client.build()?,
            base,
            token,
        })
    }

    /// Sends one request without a body to a path below `/api/v1`, and returns the body of the answer.
    ///
    /// # Errors
    /// There is no token, no gateway, or it refuses: with all it says.
    pub(super) fn ask(&self, method: Method, path: &str) -> anyhow::Result<String> {
        self.connect()?.send(method, &path.split('/').collect::<Vec<_>>(), None)
    }
}

/// A gateway to talk to.
pub(super) struct Gateway {
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Ends in `/api/v1/`.
    base: Url,
    token: String,
}

impl Gateway {
    /// Where it is.
    pub(super) fn url(&self) -> String {
        self.base.as_str().trim_end_matches("/api/v1/").to_owned()
    }

    /// Gets an object or a text. Segments of the path are escaped.
    ///
    /// # Errors
    /// There is no gateway, or it refuses: with all it says.
    pub(super) fn get(&self, path: &[&str]) -> anyhow::Result<String> {
        self.send(Method::GET, path, None)
    }

    /// Sends a request, and returns the body of the answer.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn send(&self, method: Method, path: &[&str], body: Option<&Value>) -> anyhow::Result<String> {
        let url = self.at(path)?;
        self.runtime.block_on(async {
            let answer = self.answer(method, &url, body).await?;
            answer.text().await.with_context(|| format!("the answer of {url} broke off"))
        })
    }

    /// Gets what may be refused with a status that is an answer too (`/health` while degraded).
    ///
    /// # Errors
    /// There is no gateway, or it wants another token.
    pub(super) fn look(&self, path: &[&str]) -> anyhow::Result<String> {
        let url = self.at(path)?;
        self.runtime.block_on(async {
            let answer = self.sent(Method::GET, &url, None).await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                return Err(refused(answer, &url).await);
            }
            answer.text().await.with_context(|| format!("the answer of {url} broke off"))
        })
    }

    /// All rows of a list, page by page; not more than `limit`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn rows(&self, path: &[&str], query: &[(&str, String)], limit: usize) -> anyhow::Result<Vec<Row>> {
        let mut url = self.at(path)?;
        url.query_pairs_mut()
            .extend_pairs(query)
            .append_pair("limit", &limit.clamp(1, PAGE).to_string());
        self.runtime.block_on(async {
            let mut rows: Vec<Row> = Vec::new();
            loop {
                let answer = self.answer(Method::GET, &url, None).await?;
                let next = answer.headers().get(LINK).and_then(|link| next_page(&url, link.to_str().ok()?));
                let page = answer.text().await.with_context(|| format!("the answer of {url} broke off"))?;
                let page: Vec<Row> = serde_json::from_str(&page).with_context(|| format!("{url} is no list that this program knows"))?;
                rows.extend(page);
                match next {
                    Some(next) if rows.len() < limit => url = next,
                    Some(_) | None => {
                        rows.truncate(limit);
                        return Ok(rows);
                    }
                }
            }
        })
    }

    fn at(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        let Ok(mut segments) = url.path_segments_mut() else {
            bail!("{} cannot have a path: --admin-url must be like http://127.0.0.1:9090", self.base)
        };
        // What is typed as a name must not climb out of the route it is meant for.
        segments.pop_if_empty().extend(path.iter().flat_map(|part| match *part {
            "." => vec!["%2E"],
            ".." => vec!["%2E%2E"],
            part => vec![part],
        }));
        drop(segments);
        Ok(url)
    }

    async fn answer(&self, method: Method, url: &Url, body: Option<&Value>) -> anyhow::Result<Response> {
        let answer = self.sent(method, url, body).await?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(refused(answer, url).await)
        }
    }

    async fn sent(&self, method: Method, url: &Url, body: Option<&Value>) -> anyhow::Result<Response> {
        let mut request = self.client.request(method, url.clone()).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("x-obleth-audit-actor", actor()).json(body);
        }
        let sent = request.send().await;
        sent.with_context(|| format!("cannot reach {url} (does `obleth serve` run there? --admin-url or OBLETH_ADMIN_URL say where)"))
    }
}

/// Who is written into the audit log: the account, as far as the environment knows it.
fn actor() -> String {
    let user = std::env::var("USER").unwrap_or_default();
    let fit = (1..=200).contains(&user.len()) && user.bytes().all(|byte| byte.is_ascii_graphic());
    if fit { format!("cli:{user}") } else { "cli".to_owned() }
}

/// The next page that a `Link` header names (RFC 8288), on the same gateway.
fn next_page(here: &Url, link: &str) -> Option<Url> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("rel=\"next\"") {
        return None;
    }
    here.join(target).ok().filter(|next| next.origin() == here.origin())
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

/// A refusal as an error: status, detail, then each fault on a line.
async fn refused(answer: Response, url: &Url) -> anyhow::Error {
    let status = answer.status();
    // A refusal that breaks off is told by its status.
    let body = answer.text().await.unwrap_or_default();
    let mut told = format!("{url} answers {status}{}", told(&body));
    if status == StatusCode::UNAUTHORIZED {
        told += " (OBLETH_ADMIN_TOKEN must be the token that `obleth serve` was started with)";
    }
    anyhow::Error::msg(told)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_page_is_followed_on_the_same_gateway_only() {
        let here = Url::parse("http://127.0.0.1:9090/api/v1/tenants?limit=2").unwrap();
        let next = next_page(&here, "</api/v1/tenants?limit=2&cursor=abc>; rel=\"next\"");
        assert_eq!(next.unwrap().query(), Some("limit=2&cursor=abc"));
        assert!(next_page(&here, "<http://10.0.0.1/api/v1/tenants>; rel=\"next\"").is_none());
        assert!(next_page(&here, "</api/v1/tenants>; rel=\"prev\"").is_none());
    }

    #[test]
    fn a_refusal_is_told_with_each_fault() {
        let body =
            r#"{"detail":"two faults","errors":[{"path":"weight","message":"too small"},{"place":"f:1","path":"","message":"bad"}]}"#;
        assert_eq!(told(body), ": two faults\nweight: too small\nf:1: bad");
        assert_eq!(told("<html>"), "");
    }
}
