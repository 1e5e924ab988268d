//! MCP servers in the file (API.md A6). Address and credential are one field, `upstream_url`, for the reason models give.

use serde_json::{Value, json};
use url::Url;

use super::credential::{credential_shown, credential_taken};
use super::{Noun, SLOTS_MAX, WAIT_SECS_MAX, by_file};
use crate::catalog::{McpServer, Provenance};
use crate::config::field::{Field, Vault, field};
use crate::config::kind::Kind;
use crate::config::wire::Wire;
use crate::id::{McpServerId, TenantId};

const TOOLS: Kind = Kind::Set(&Kind::Line(1, 256), 1000);

static FIELDS: &[Field<McpServer>] = &[
    Field {
        name: "upstream_url",
        kind: Kind::Upstream,
        get: |server| json!({"url": server.upstream_url.as_str(), "auth_header": credential_shown(server.auth_header.as_ref())}),
        set: set_upstream,
    },
    field!("auth_header_name": Kind::HeaderName => auth_header_name),
    field!("enabled": Kind::Flag => enabled),
    field!("allowed_tools": TOOLS => allowed_tools),
    field!("denied_tools": TOOLS => denied_tools),
    Field {
        name: "allowed_tenants",
        // Names in the file; the merge turns them into ids.
        kind: Kind::Set(&Kind::Line(1, 128), 1000),
        get: |server| {
            let tenants = server.allowed_tenants.as_ref();
            tenants.map_or(Value::Null, |tenants| {
                tenants.iter().map(|id| Value::String(id.to_string())).collect()
            })
        },
        set: |server, value, _| {
            let ids = value
                .as_array()
                .map(|ids| ids.iter().filter_map(|id| id.as_str()?.parse::<TenantId>().ok()));
            server.allowed_tenants = ids.map(Iterator::collect);
        },
    },
    field!("allowed_origins": Kind::Set(&Kind::Origin, 100) => allowed_origins),
    field!("idle_timeout_secs": Kind::Whole(1, WAIT_SECS_MAX) => idle_timeout_secs),
    field!("max_in_flight": Kind::Whole(1, SLOTS_MAX) => max_in_flight),
];

fn set_upstream(server: &mut McpServer, value: &Value, vault: &Vault) {
    if let Some(url) = value.get("url").and_then(Url::take) {
        server.upstream_url = url;
        server.auth_header = value.get("auth_header").and_then(|value| credential_taken(value, vault));
    }
}

impl Noun for McpServer {
    const NOUN: &'static str = "mcp_server";
    const A_NOUN: &'static str = "an MCP server";
    const LIST: &'static str = "mcp_servers";
    const NAME: &'static str = "name";
    const NAME_KIND: Kind = Kind::Segment;
    const ACTIONS: [&'static str; 3] = ["create_mcp_server", "update_mcp_server", "delete_mcp_server"];

    fn fields() -> &'static [Field<Self>] {
        FIELDS
    }

    /// # Panics
    /// Never: the placeholder is a URL.
    fn blank(name: &str) -> Self {
        Self {
            id: McpServerId::mint(),
            name: name.to_owned(),
            // Every server in a file has its own: the field is required.
            upstream_url: Url::parse("http://invalid./").expect("a URL"),
            auth_header: None,
            auth_header_name: "Authorization".to_owned(),
            enabled: true,
            allowed_tools: None,
            denied_tools: Vec::new(),
            allowed_tenants: None,
            allowed_origins: Vec::new(),
            idle_timeout_secs: 300,
            max_in_flight: None,
            provenance: by_file(),
        }
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}
