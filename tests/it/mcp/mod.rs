//! MCP servers behind the gate: each abuse is tried on the wire, and what the server got, byte for byte, is the witness.

mod passing;
mod sessions;
mod sharing;
mod tools;

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::Gateway;
use crate::support::mcp_server::{McpServer, Seen, Step, answer, chunk, json_answer, last_chunk, stream_head};

/// The credential that the server wants.
const CREDENTIAL: &str = "Bearer the-servers-own-credential";

/// A gateway, a server behind it, and a key that may use it.
struct House {
    gateway: Arc<Gateway>,
    server: McpServer,
    id: String,
    key: String,
    tenant: String,
    client: Client,
}

impl House {
    /// With `settings` for the server, which answers as [`plain`] does.
    async fn new(settings: Value) -> Self {
        Self::with(settings, plain).await
    }

    async fn with(settings: Value, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let server = McpServer::start(script).await;
        let gateway = Arc::new(Gateway::start_with(&[], &[("MCP_CREDENTIAL", CREDENTIAL)]));
        let id = register(&gateway, "files", &server, settings).await;
        let tenant = gateway.tenant(json!({ "name": "acme" })).await;
        let key = gateway.key(&tenant, json!({ "name": "k" })).await;
        Self {
            gateway,
            server,
            id,
            key,
            tenant,
            client: Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/mcp/files", self.gateway.data)
    }

    fn ask(&self, method: Method) -> RequestBuilder {
        let request = self.client.request(method, self.url()).bearer_auth(&self.key);
        request.header("accept", "application/json, text/event-stream")
    }

    fn raw(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.ask(Method::POST).header("content-type", "application/json").body(body)
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        self.raw(body.to_string())
    }

    fn call(&self, tool: &str) -> RequestBuilder {
        self.post(&call(tool))
    }

    /// The rows of the ledger, oldest first, once there are so many.
    async fn rows(&self, count: usize) -> Vec<Value> {
        crate::support::eventually("rows", std::time::Duration::from_secs(10), || async {
            self.gateway.list("usage/requests").await.len() >= count
        })
        .await;
        let mut rows = self.gateway.list("usage/requests").await;
        rows.reverse();
        rows
    }
}

async fn register(gateway: &Gateway, name: &str, server: &McpServer, settings: Value) -> String {
    let mut body = json!({ "name": name, "upstream_url": server.url(), "auth_header": "env:MCP_CREDENTIAL" });
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    gateway.create("mcp-servers", body).await["id"].as_str().unwrap().to_owned()
}

fn call(tool: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
}

fn list() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })
}

/// Opens sessions, lists `read` and `delete`, calls anything.
fn plain(seen: &Seen) -> Vec<Step> {
    if seen.line().starts_with("DELETE") {
        return answer(200, &[], "");
    }
    if seen.line().starts_with("GET") {
        return vec![stream_head(&[]), chunk(": open\n\n"), Step::UntilGone];
    }
    let body = seen.json();
    let id = &body["id"];
    match body["method"].as_str() {
        Some("initialize") => {
            let result = json!({ "jsonrpc": "2.0", "id": id, "result": { "protocolVersion": "2025-11-25" } });
            vec![
                stream_head(&[("mcp-session-id", "raw-session-1")]),
                chunk("id: 1\ndata:\nretry: 100\n\n"),
                chunk(&format!("id: 2\nevent: message\ndata: {result}\n\n")),
                last_chunk(),
            ]
        }
        Some("tools/list") => json_answer(&json!({ "jsonrpc": "2.0", "id": id, "result": {
            "tools": [{ "name": "read" }, { "name": "delete" }], "cacheScope": "public", "ttlMs": 9000 } })),
        Some("tools/call") => json_answer(&json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } })),
        Some(_) if !id.is_null() => json_answer(&json!({ "jsonrpc": "2.0", "id": id, "result": {} })),
        Some(_) | None => answer(202, &[], ""),
    }
}
