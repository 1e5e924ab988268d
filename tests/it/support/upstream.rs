//! The simulated inference server as a child process.

use std::process::Command;

use serde_json::Value;

use super::process::Process;

/// A running `obleth sim-upstream`.
pub(crate) struct Upstream {
    process: Process,
    client: reqwest::Client,
}

impl Upstream {
    /// Starts one that answers at once, but for what `flags` change.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", flags)
    }

    /// Starts one on a known address: the second life of a server that died.
    pub(crate) fn start_at(address: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
        command.args(["sim-upstream", "--listen", address]);
        for (flag, default) in [("--ttft-ms", "0"), ("--ms-per-token", "0"), ("--slots", "64")] {
            if !flags.contains(&flag) {
                command.args([flag, default]);
            }
        }
        Self {
            process: Process::start(command.args(flags)),
            client: reqwest::Client::new(),
        }
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn end(&mut self) {
        self.process.end();
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.process.address(""))
    }

    /// What it counts: `requests`, `completed`, `aborted`, `running`, `max_running`, `tokens`.
    pub(crate) async fn stats(&self) -> Value {
        self.client
            .get(format!("{}/sim/stats", self.url()))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// Its latest requests, each with `id` (the `x-request-id` it came with) and `outcome`.
    pub(crate) async fn requests(&self) -> Value {
        self.client
            .get(format!("{}/sim/requests", self.url()))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}
