//! An MCP server's row.

use rusqlite::types::Value;

use crate::catalog::{McpServer, Provenance};
use crate::id::{McpServerId, TenantId};
use crate::store::columns::{Decoder, Encoder, Stored, Unreadable, Unstorable};
use crate::store::vault::{Place, Safe};

impl Stored for McpServer {
    const TABLE: &'static str = "mcp_servers";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "name",
        "upstream_url",
        "auth_header",
        "auth_header_name",
        "enabled",
        "allowed_tools",
        "denied_tools",
        "allowed_tenants",
        "allowed_origins",
        "idle_timeout_secs",
        "max_in_flight",
        "managed_by",
        "overridden",
        "version",
        "created_at",
        "updated_at",
    ];

    fn primary_key(&self) -> Value {
        Value::Blob(self.id.as_bytes().to_vec())
    }

    fn encode(&self, out: &mut Encoder<'_>) -> Result<(), Unstorable> {
        let auth_header = self.auth_header.as_ref();
        let auth_header = auth_header
            .map(|credential| out.vault.lock(credential, place(&self.id, &self.name)))
            .transpose()?;
        let tenants = self.allowed_tenants.as_ref();
        let tenants = tenants.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        out.put(self.primary_key());
        out.put_text(&self.name);
        out.put_text(self.upstream_url.as_str());
        out.put_optional_json(auth_header.as_ref());
        out.put_text(&self.auth_header_name);
        out.put(self.enabled);
        out.put_optional_json(self.allowed_tools.as_ref());
        out.put_json(&self.denied_tools);
        out.put_optional_json(tenants.as_ref());
        out.put_json(&self.allowed_origins);
        out.put(self.idle_timeout_secs);
        out.put(self.max_in_flight);
        out.put_provenance(&self.provenance)
    }

    fn decode(row: &mut Decoder<'_>) -> Result<Self, Unreadable> {
        let id = McpServerId::from_bytes(row.bytes()?);
        let name = row.string()?;
        Ok(Self {
            id,
            upstream_url: row.text()?.parse().map_err(|_| row.bad())?,
            auth_header: row
                .optional(Decoder::json::<Safe>)?
                .map(|safe| row.vault.open(&safe, place(&id, &name)))
                .transpose()
                .map_err(Unreadable::Sealed)?,
            name,
            auth_header_name: row.string()?,
            enabled: row.flag()?,
            allowed_tools: row.optional(Decoder::list)?,
            denied_tools: row.list()?,
            allowed_tenants: row.optional(tenants)?,
            allowed_origins: row.list()?,
            idle_timeout_secs: row.number()?,
            max_in_flight: row.optional(Decoder::number)?,
            provenance: row.provenance()?,
        })
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}

/// Where the header is sealed for.
fn place<'a>(id: &'a McpServerId, owner: &'a str) -> Place<'a> {
    Place {
        noun: "mcp_server",
        id: id.as_bytes(),
        field: "auth_header",
        index: 0,
        owner,
    }
}

fn tenants(row: &mut Decoder<'_>) -> Result<Vec<TenantId>, Unreadable> {
    let ids = row.list()?;
    ids.iter().map(|id| id.parse().map_err(|_| row.bad())).collect()
}
