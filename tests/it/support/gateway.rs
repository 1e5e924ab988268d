//! The gateway as a child process with a store of its own, and an operator's hands on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually;
use super::process::Process;

const STORE: &str = "obleth.db";
const LOG: &str = "log";
pub(crate) const TOKEN: &str = "a-token-of-the-integration-tests";

/// The settings half of a file.
fn bootstrap(scratch: &TempDir, threads: u32) -> String {
    let store = scratch.path().join("obleth.db");
    format!(
        "server: {{ listen: \"127.0.0.1:0\", threads: {threads} }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\nstore: {{ path: \"{}\" }}\nlog: \
         {{ level: error }}\n",
        store.display()
    )
}

/// A running `obleth serve`.
pub(crate) struct Gateway {
    /// Where clients come in.
    pub(crate) data: SocketAddr,
    /// Where operators come in.
    pub(crate) management: SocketAddr,
    process: Process,
    client: Client,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    scratch: TempDir,
}

/// A key as it was made.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Gateway {
    /// Starts one with nothing configured.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// Starts one with further flags and environment.
    pub(crate) fn start_with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let scratch = TempDir::new().unwrap();
        let flags: Vec<String> = flags.iter().copied().map(str::to_owned).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = serve(&scratch, &flags, &env, Stdio::inherit());
        Self::running(process, scratch, flags, env)
    }

    /// Starts one with further flags whose log goes to a file.
    pub(crate) fn start_logged(flags: &[&str]) -> Self {
        Self::start_logged_with(flags, &[])
    }

    /// The same, with further environment.
    pub(crate) fn start_logged_with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let scratch = TempDir::new().unwrap();
        let flags: Vec<String> = flags.iter().copied().map(str::to_owned).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let log = std::fs::File::create(scratch.path().join(LOG)).unwrap();
        let process = serve(&scratch, &flags, &env, log.into());
        Self::running(process, scratch, flags, env)
    }

    /// Starts one by the name of a program, with further environment, whose log goes to a file.
    pub(crate) fn start_program(program: &Path, env: &[(&str, &str)]) -> Self {
        let scratch = TempDir::new().unwrap();
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let log = std::fs::File::create(scratch.path().join(LOG)).unwrap();
        let mut command = Command::new(program);
        let process = Process::start(serving(&mut command, &scratch, &[], &env).stderr(log));
        Self::running(process, scratch, Vec::new(), env)
    }

    /// The lines of its log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = self.log_text();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Its log so far, with what dying processes say in their own words.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join(LOG)).unwrap()
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.client.get(format!("http://{}/metrics", self.management)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    }

    /// Starts one that the system gives so many file descriptors.
    pub(crate) fn start_with_descriptors(descriptors: u32, flags: &[&str]) -> Self {
        let scratch = TempDir::new().unwrap();
        let flags: Vec<String> = flags.iter().copied().map(str::to_owned).collect();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_obleth"),
        ]);
        let process = Process::start(serving(&mut command, &scratch, &flags, &[]));
        Self::running(process, scratch, flags, Vec::new())
    }

    /// Starts one from a file that says what `resources` say, and that it is to listen on ports from the system.
    pub(crate) fn start_configured(resources: &str) -> Self {
        Self::start_configured_with(resources, &[])
    }

    /// The same, with further environment.
    pub(crate) fn start_configured_with(resources: &str, env: &[(&str, &str)]) -> Self {
        let scratch = TempDir::new().unwrap();
        let path = scratch.path().join("obleth.yaml");
        std::fs::write(&path, bootstrap(&scratch, 2) + resources).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
        command.args(["serve", "--config"]).arg(path).env("OBLETH_ADMIN_TOKEN", TOKEN);
        command.envs(env.iter().copied());
        Self::running(Process::start(&mut command), scratch, Vec::new(), Vec::new())
    }

    fn running(process: Process, scratch: TempDir, flags: Vec<String>, env: Vec<(String, String)>) -> Self {
        Self {
            data: process.address("data="),
            management: process.address("management="),
            process,
            client: Client::new(),
            flags,
            env,
            scratch,
        }
    }

    /// Its database file.
    pub(crate) fn store(&self) -> PathBuf {
        self.scratch.path().join(STORE)
    }

    /// The id of its process, for who is to end it while others use it.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        self.process.pid()
    }

    /// Ends it (`kill -9`, if it still runs) and starts another on the same store, at other addresses.
    pub(crate) fn restart(&mut self) {
        self.process.end();
        self.process = serve(&self.scratch, &self.flags, &self.env, Stdio::inherit());
        self.data = self.process.address("data=");
        self.management = self.process.address("management=");
        // Its connections lead to a process that is gone.
        self.client = Client::new();
    }

    /// Ends it as `kill -9` does; what it kept stays.
    pub(crate) fn end(&mut self) {
        self.process.end();
    }

    /// A request to the management API, to be sent by whom it pleases.
    pub(crate) fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/api/v1/{path}", self.management);
        self.client.request(method, url).bearer_auth(TOKEN)
    }

    /// All rows of a list, page by page.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut next = Some(format!("http://{}/api/v1/{path}", self.management));
        while let Some(url) = next {
            let page = self.client.get(&url).bearer_auth(TOKEN).send().await.unwrap();
            assert_eq!(page.status(), 200, "{url}");
            let link = page.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
            let Value::Array(more) = page.json().await.unwrap() else {
                panic!("{url} is no list")
            };
            rows.extend(more);
            next = link.map(|link| {
                let target = link.split(['<', '>']).nth(1).unwrap();
                reqwest::Url::parse(&url).unwrap().join(target).unwrap().into()
            });
        }
        rows
    }

    /// The file it was started from.
    pub(crate) fn file(&self) -> PathBuf {
        self.scratch.path().join("obleth.yaml")
    }

    /// Replaces the file at once, as a deployment does; the data plane's threads are a setting that needs a restart.
    pub(crate) fn configure(&self, threads: u32, resources: &str) {
        let new = self.scratch.path().join("obleth.yaml.new");
        std::fs::write(&new, bootstrap(&self.scratch, threads) + resources).unwrap();
        std::fs::rename(&new, self.file()).unwrap();
    }

    /// Asks it to read its file again.
    pub(crate) fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// The command line as an operator of this gateway has it.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
        command
            .args(arguments)
            .env("OBLETH_ADMIN_TOKEN", TOKEN)
            .env("OBLETH_ADMIN_URL", format!("http://{}", self.management));
        command
    }

    /// An operator's request without a body, as it is answered.
    pub(crate) async fn answer(&self, method: Method, path: &str) -> (u16, Value) {
        let url = format!("http://{}/api/v1/{path}", self.management);
        let response = self.client.request(method, url).bearer_auth(TOKEN).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    }

    /// Sends an operator's request and returns the body of the 2xx that must come.
    pub(crate) async fn manage(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self
            .client
            .request(method.clone(), format!("http://{}/api/v1/{path}", self.management))
            .bearer_auth(TOKEN);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{method} {path} {body:?}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        self.manage(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        self.manage(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        self.manage(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.manage(Method::GET, path, None).await
    }

    /// Makes a tenant; its id.
    pub(crate) async fn tenant(&self, body: Value) -> String {
        self.create("tenants", body).await["id"].as_str().unwrap().to_owned()
    }

    /// Makes a key of a tenant.
    pub(crate) async fn key_object(&self, tenant: &str, body: Value) -> Key {
        let made = self.create(&format!("tenants/{tenant}/keys"), body).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Key {
            id: text(&made["key"]["id"]),
            secret: text(&made["secret"]),
        }
    }

    /// Makes a key of a tenant; its secret.
    pub(crate) async fn key(&self, tenant: &str, body: Value) -> String {
        self.key_object(tenant, body).await.secret
    }

    /// Makes a tenant with a key; the key's secret.
    pub(crate) async fn tenant_key(&self, tenant: Value) -> String {
        let id = self.tenant(tenant).await;
        self.key(&id, json!({ "name": "k" })).await
    }

    /// A POST to the data plane.
    pub(crate) fn post(&self, path: &str, key: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}{path}", self.data)).bearer_auth(key).json(body)
    }

    /// `in_flight`, `queued`, `max_in_flight`.
    pub(crate) async fn stats(&self) -> Value {
        self.get("stats").await
    }

    /// Waits until nothing runs and nothing waits.
    pub(crate) async fn idle(&self) {
        eventually("in_flight = queued = 0", Duration::from_secs(10), || async {
            let stats = self.stats().await;
            stats["in_flight"] == 0 && stats["queued"] == 0
        })
        .await;
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.process.ended() {
                return status;
            }
            assert!(start.elapsed() < limit, "the gateway still runs after {limit:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Starts the process on the store in `scratch`.
fn serve(scratch: &TempDir, flags: &[String], env: &[(String, String)], log: Stdio) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
    Process::start(serving(&mut command, scratch, flags, env).stderr(log))
}

fn serving<'a>(command: &'a mut Command, scratch: &TempDir, flags: &[String], env: &[(String, String)]) -> &'a mut Command {
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--log-level",
            "warn",
        ])
        .args(["--threads", "2", "--store"])
        .arg(scratch.path().join(STORE))
        .args(flags)
        .env("OBLETH_ADMIN_TOKEN", TOKEN)
        .envs(env.iter().map(|(name, value)| (name, value)))
}
