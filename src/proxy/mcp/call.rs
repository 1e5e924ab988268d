//! One MCP request's memory, beside what every request has.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method};

use super::super::attempts::Present;
use super::super::coding::Decoder;
use super::lease::CallLease;
use super::mask::Mask;
use crate::catalog::{McpServer, Principal};
use crate::mcp::{Filter, Holder, Opened, Tools};
use crate::upstreams::EndpointId;

/// A request to an MCP server.
pub(in crate::proxy) struct Call {
    pub(super) server: Arc<McpServer>,
    /// `POST`, `GET` or `DELETE`.
    pub(super) method: Method,
    /// What follows the server's name in the path; it was checked to be plain segments.
    pub(super) rest: String,
    pub(super) body_len: usize,
    /// Whether it is of the generation without sessions.
    pub(super) modern: bool,
    /// The session it belongs to: as the client names it, and as the server does.
    pub(super) session: Option<(HeaderValue, Opened)>,
    /// Whether the answer may show tools that must not be seen.
    pub(super) filters: bool,
    /// Whether the answer is a stream without an end of its own.
    pub(super) listens: bool,
    pub(in crate::proxy) lease: CallLease,
    pub(super) answer: Answer,
}

/// What has come back so far.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) attempts: u8,
    pub(super) attempt_at: Option<Instant>,
    pub(super) tried: Vec<EndpointId>,
    /// The server's status.
    pub(super) status: Option<u16>,
    /// When the first piece of the body came.
    pub(super) first_byte_at: Option<Instant>,
    pub(super) event_stream: bool,
    pub(super) decoder: Option<Decoder>,
    pub(super) mask: Option<Mask>,
    pub(super) filter: Option<Filter>,
}

impl Call {
    /// The present attempt.
    pub(in crate::proxy) fn attempt(&self) -> Present<'_> {
        Present {
            number: self.answer.attempts,
            chosen: self.lease.chosen(),
            began: self.answer.attempt_at,
            status: self.answer.status,
            error_event: false,
        }
    }

    /// The server's rule about tools.
    pub(super) fn tools(&self) -> Tools<'_> {
        tools(&self.server)
    }
}

pub(super) fn tools(server: &McpServer) -> Tools<'_> {
    Tools {
        allowed: server.allowed_tools.as_deref(),
        denied: &server.denied_tools,
    }
}

/// Whose a session at `server` is.
pub(super) fn holder<'a>(server: &'a McpServer, principal: &'a Principal) -> Holder<'a> {
    Holder {
        server: &server.name,
        tenant: &principal.tenant.name,
        key: &principal.key.digest,
    }
}
