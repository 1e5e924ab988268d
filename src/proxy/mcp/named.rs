//! What an MCP request is called in the ledger, in the place of a model: `mcp:files/read_file`, or `mcp:files` for what calls
//! no tool. Sums are kept by that name for ever, and clients choose what they call tools; so a server has so many names, and
//! what goes beyond is `mcp:files/*`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::McpServer;
use crate::id::McpServerId;
use crate::mcp::LEDGER_PREFIX;

/// How many tools of a server are told apart.
const TOOLS_MAX: usize = 512;
/// The longest name that is written down, in bytes (the protocol's own recommendation).
const NAME_MAX: usize = 128;
/// Servers whose names are remembered; more than there are.
const SERVERS_MAX: usize = 10_000;

/// The tools called so far.
#[derive(Debug, Default)]
pub(super) struct Named(Mutex<HashMap<McpServerId, HashSet<Box<str>>>>);

impl Named {
    /// The name for a request to `server` that calls no tool.
    pub(super) fn server(server: &McpServer) -> Arc<str> {
        format!("{LEDGER_PREFIX}{}", server.name).into()
    }

    /// The name for a call of `tool`. Only one that `may_learn` adds to the names: what was refused for its rate costs nothing,
    /// and would use them up.
    pub(super) fn call(&self, server: &McpServer, tool: &str, may_learn: bool) -> Arc<str> {
        let tool = if self.knows(server, tool, may_learn) { tool } else { "*" };
        format!("{LEDGER_PREFIX}{}/{tool}", server.name).into()
    }

    fn knows(&self, server: &McpServer, tool: &str, may_learn: bool) -> bool {
        let fit = (1..=NAME_MAX).contains(&tool.len())
            && tool
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b':'));
        if !fit {
            return false;
        }
        if server
            .allowed_tools
            .as_ref()
            .is_some_and(|allowed| allowed.iter().any(|name| name == tool))
        {
            return true;
        }
        let mut servers = self.0.lock();
        if servers.len() >= SERVERS_MAX && !servers.contains_key(&server.id) {
            servers.clear();
        }
        let tools = servers.entry(server.id).or_default();
        tools.contains(tool) || may_learn && tools.len() < TOOLS_MAX && tools.insert(tool.into())
    }
}
