//! The road of MCP requests through the phases: the same door, keys, limits and ledger as a model call, a queue of its own.
//!
//! | file | phase |
//! |---|---|
//! | [`arrive`] | `request_filter`: who, where from, to which server, asking what, at what cost, when |
//! | [`upward`] | `upstream_peer`, `upstream_request_filter`, and whether an attempt is repeated |
//! | [`downward`] | the answer's head and body |
//! | [`end`] | `logging`, and how a stream ends that breaks off |
//!
//! What passes changes only where it must: the credential, the session's id, tools that may not be seen.

pub(super) mod arrive;
mod call;
mod cors;
pub(super) mod downward;
pub(super) mod end;
mod lease;
mod listening;
mod mask;
mod named;
pub(super) mod upward;

use std::sync::Arc;

pub(super) use call::Call;
pub(super) use cors::allow;

use crate::admission::Admission;
use crate::mcp::Sealer;
use listening::Listening;
use named::Named;

/// The ledger's word for the route.
const ROUTE: &str = "mcp";

/// What MCP requests need beside what every request needs.
pub struct McpDoor {
    /// The slots of MCP servers.
    slots: Arc<Admission>,
    sealer: Sealer,
    listening: Arc<Listening>,
    named: Named,
    /// Whether the gateway listens on loopback only, where a browser on the same machine is the one to fear.
    loopback: bool,
}

impl McpDoor {
    /// `slots` hands out the servers' slots; `sealing_key` is the operator's, shared by gateways that serve the same
    /// sessions; `listening_max` is how many streams a tenant may hold open at one server.
    #[must_use]
    pub fn new(slots: Arc<Admission>, sealing_key: Option<&[u8; 32]>, listening_max: u32, loopback: bool) -> Self {
        Self {
            slots,
            sealer: Sealer::new(sealing_key),
            listening: Listening::new(listening_max),
            named: Named::default(),
            loopback,
        }
    }
}
