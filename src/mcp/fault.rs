//! What a client is told that asks for what it may not have, in the words of JSON-RPC or of the gateway.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Message;

/// JSON-RPC's "invalid params", by which the protocol says that there is no such tool.
const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC's "invalid request".
const INVALID_REQUEST: i32 = -32600;
/// The protocol's "a header differs from the body" (2026-07-28).
const HEADER_MISMATCH: i32 = -32020;

/// Why a request is not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing can be said of what it asks.
    Unreadable(Unreadable),
    /// It asks for what it may not have, or contradicts itself.
    Rpc(RpcError),
}

/// A body that two readers might read in two ways, or that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// The stable word for programs.
    pub code: &'static str,
    /// The sentence for people.
    pub message: String,
}

impl Unreadable {
    pub(super) fn invalid_json(what: &str) -> Self {
        Self {
            code: "invalid_json",
            message: format!("The request's body is not valid JSON: {what}."),
        }
    }

    pub(super) fn duplicate_key(key: &str) -> Self {
        Self {
            code: "duplicate_key",
            message: format!("The request's body has \"{key}\" more than once."),
        }
    }

    pub(super) fn ambiguous_key(known: &str) -> Self {
        Self {
            code: "ambiguous_key",
            message: format!("The request's body has a member that some readers take for \"{known}\"."),
        }
    }

    pub(super) fn invalid_request(message: &str) -> Self {
        Self {
            code: "invalid_request",
            message: message.to_owned(),
        }
    }
}

/// A refusal as JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The HTTP status that goes with it.
    pub status: u16,
    /// The stable word for the ledger.
    pub code: &'static str,
    /// The answer's body.
    pub body: Bytes,
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: Error,
}

#[derive(Serialize)]
struct Error {
    code: i32,
    message: String,
}

impl RpcError {
    /// A call of a tool that may not be called. To the client it does not exist.
    pub(super) fn denied(message: &Message) -> Self {
        Self {
            status: 200,
            code: "tool_denied",
            body: text(&unknown_tool(message)),
        }
    }

    /// A batch with such a call in it: none of it is passed on, and every request of it is answered.
    pub(super) fn denied_batch<'a>(messages: impl Iterator<Item = (&'a Message, bool)>) -> Self {
        let answers: Vec<Answer<'_>> = messages
            .filter(|(message, _)| message.id.is_some())
            .map(|(message, permitted)| {
                if permitted {
                    let why = "Not executed: another call of the batch was refused".to_owned();
                    answer(message, INVALID_REQUEST, why)
                } else {
                    unknown_tool(message)
                }
            })
            .collect();
        Self {
            status: 200,
            code: "tool_denied",
            body: text(&answers),
        }
    }

    /// A header that differs from the body it mirrors.
    pub(super) fn mismatch(message: &Message, header: &str, why: &str) -> Self {
        Self {
            status: 400,
            code: "header_mismatch",
            body: text(&answer(message, HEADER_MISMATCH, format!("The {header} header {why}"))),
        }
    }
}

fn unknown_tool(message: &Message) -> Answer<'_> {
    answer(
        message,
        INVALID_PARAMS,
        format!("Unknown tool: {}", message.name.as_deref().unwrap_or_default()),
    )
}

fn answer(message: &Message, code: i32, why: String) -> Answer<'_> {
    Answer {
        jsonrpc: "2.0",
        id: message.id.as_deref(),
        error: Error { code, message: why },
    }
}

/// What consists of texts and numbers can always be written.
fn text(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer).unwrap_or_default().into()
}
