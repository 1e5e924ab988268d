//! How MCP servers are shown and kept.

use std::sync::Arc;

use serde::Serialize;

use crate::admin::desk::{Desk, Noun};
use crate::admin::face::Face;
use crate::admin::models::address;
use crate::admin::provenance;
use crate::admin::shown::{self, text};
use crate::catalog::{Catalog, Conflict, McpServer, Provenance};
use crate::id::McpServerId;

#[derive(Serialize)]
struct Settings<'a> {
    name: &'a str,
    upstream_url: &'a str,
    auth_header_name: &'a str,
    enabled: bool,
    allowed_tools: Option<&'a [String]>,
    denied_tools: &'a [String],
    allowed_tenants: Option<Vec<String>>,
    allowed_origins: &'a [String],
    idle_timeout_secs: u32,
    max_in_flight: Option<u32>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(serialize_with = "text")]
    id: McpServerId,
    #[serde(flatten)]
    settings: Settings<'a>,
    auth_header_set: bool,
    #[serde(flatten)]
    provenance: provenance::Shown<'a>,
}

fn settings(server: &McpServer) -> Settings<'_> {
    let tenants = server.allowed_tenants.as_ref();
    Settings {
        name: &server.name,
        upstream_url: address(&server.upstream_url),
        auth_header_name: &server.auth_header_name,
        enabled: server.enabled,
        allowed_tools: server.allowed_tools.as_deref(),
        denied_tools: &server.denied_tools,
        allowed_tenants: tenants.map(|tenants| tenants.iter().map(ToString::to_string).collect()),
        allowed_origins: &server.allowed_origins,
        idle_timeout_secs: server.idle_timeout_secs,
        max_in_flight: server.max_in_flight,
    }
}

impl Noun for McpServer {
    type Id = McpServerId;
    const NAME: &'static str = "mcp_server";

    fn find<'a>(catalog: &'a Catalog, id: &McpServerId) -> Option<&'a Arc<Self>> {
        catalog.mcp_servers().get(id)
    }

    fn put(self, catalog: &mut Catalog) -> Result<(), Conflict> {
        catalog.put_mcp_server(self)
    }

    fn remove(catalog: &mut Catalog, id: &McpServerId) -> Result<(), Conflict> {
        catalog.remove_mcp_server(id);
        Ok(())
    }

    fn id(&self) -> McpServerId {
        self.id
    }

    fn read_id(text: &str) -> Option<McpServerId> {
        text.parse().ok()
    }

    fn label(&self) -> String {
        self.id.to_string()
    }

    fn path(&self) -> String {
        format!("/api/v1/mcp-servers/{}", self.id)
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }

    fn face(&self) -> Face {
        Face::of(&settings(self)).with_credentials("auth_header", &[self.auth_header.as_ref()])
    }

    fn json(&self, _: &Desk, _: &Catalog) -> String {
        let shown = Shown {
            id: self.id,
            settings: settings(self),
            auth_header_set: self.auth_header.is_some(),
            provenance: provenance::Shown::of(&self.provenance),
        };
        shown::json(&shown)
    }
}
