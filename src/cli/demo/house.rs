//! The demo's gateway and upstream, and the operator's hands on it: the management API over HTTP, as anybody would use it.

use anyhow::{Context, ensure};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::child::{Running, Scratch};

/// What the upstream serves.
pub(super) const MODEL: &str = "llama";

/// Everything that runs.
pub(super) struct House {
    pub(super) gateway: Running,
    pub(super) upstream: Running,
    pub(super) scratch: Scratch,
    /// The data plane's base URL.
    pub(super) data: String,
    /// The management API's base URL.
    pub(super) management: String,
    pub(super) token: String,
    client: Client,
}

/// The part of `/api/v1/fairshare/live` that is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Live {
    pub(super) max_in_flight: u32,
    pub(super) tenants: Vec<LiveTenant>,
}

/// One tenant of it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LiveTenant {
    pub(super) name: String,
    pub(super) in_flight: u32,
    pub(super) queued: u32,
    pub(super) expected_slots: f64,
}

impl House {
    /// Starts both programs; `slots` is what the upstream can do at once, and what the gateway may send it.
    pub(super) fn start(slots: u32) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let slots = slots.to_string();
        // About 65 tokens per second and slot.
        let pace = [
            "sim-upstream",
            "--model",
            MODEL,
            "--slots",
            &slots,
            "--ttft-ms",
            "40",
            "--ms-per-token",
            "15",
        ];
        let upstream = Running::start(&scratch, "upstream", &pace, &[])?;
        let mut token = [0u8; 24];
        rand::fill(&mut token);
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let store = scratch.path().join("obleth.db");
        let gateway = Running::start(
            &scratch,
            "gateway",
            &[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--max-in-flight",
                &slots,
                "--log-level",
                "warn",
            ],
            &[("OBLETH_ADMIN_TOKEN", &token), ("OBLETH_STORE_PATH", &store.to_string_lossy())],
        )?;
        Ok(Self {
            data: gateway.url("data=")?,
            management: gateway.url("management=")?,
            gateway,
            upstream,
            scratch,
            token,
            client: Client::new(),
        })
    }

    /// Registers the model.
    pub(super) async fn add_model(&self) -> anyhow::Result<()> {
        let api_base = self.upstream.url("")?;
        self.manage(
            Method::POST,
            "models",
            json!({ "model_name": MODEL, "api_base": api_base, "engine": "vllm" }),
        )
        .await?;
        Ok(())
    }

    /// Makes a group of `weight` with one tenant in it, and the tenant's key.
    pub(super) async fn add_tenant(&self, name: &str, weight: u32) -> anyhow::Result<String> {
        self.manage(Method::POST, "fairshare/groups", json!({ "name": name, "weight": weight }))
            .await?;
        let tenant = self
            .manage(Method::POST, "tenants", json!({ "name": name, "fairshare_group": name }))
            .await?;
        let id = tenant["id"].as_str().context("a tenant without an id")?;
        let key = self
            .manage(Method::POST, &format!("tenants/{id}/keys"), json!({ "name": "demo" }))
            .await?;
        Ok(key["secret"].as_str().context("a key without its secret")?.to_owned())
    }

    /// What the scheduler says now.
    pub(super) async fn live(&self) -> anyhow::Result<Live> {
        let live = self.manage(Method::GET, "fairshare/live", Value::Null).await?;
        serde_json::from_value(live).context("cannot read /api/v1/fairshare/live")
    }

    async fn manage(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{path}", self.management);
        let mut request = self.client.request(method.clone(), &url).bearer_auth(&self.token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("{method} {url}: {}", self.gateway.last_words()))?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{method} {url}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}
