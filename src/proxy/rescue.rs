//! Every way a request can end badly, and what the client is told: the only place where an error becomes a status.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use pingora::http::ResponseHeader;

use super::rates;
use crate::limits::Scope;
use crate::llm::{self, BodyFault, Dialect};
use crate::mcp;
use crate::metering::Outcome;

/// Why a request did not get its answer. Carries what the client may know and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The head is not one we take: no Host, two framings, an odd path.
    BadRequest(&'static str),
    /// The head is larger than the limit.
    HeadTooLarge,
    /// No such route.
    NotFound,
    /// The route exists, the method does not; the methods that do.
    MethodNotAllowed(&'static str),
    /// No key, or one nobody has.
    InvalidKey,
    /// No key, or a wrong one, and too many of the kind from the client's address.
    TooManyFailures {
        /// When it may try again.
        retry_after: Duration,
    },
    /// Two credentials that differ.
    ConflictingCredentials,
    /// The key is switched off.
    KeyDisabled,
    /// The key's time is over.
    KeyExpired,
    /// The tenant is suspended.
    TenantSuspended,
    /// The body cannot be used.
    Body(BodyFault),
    /// The body is larger than the limit, in bytes.
    BodyTooLarge(u64),
    /// The body did not arrive in time.
    BodyTooSlow,
    /// All buffers are taken by other requests' bodies.
    BuffersFull,
    /// The key or its tenant may not use the model.
    ModelNotAllowed(String),
    /// No such model, or it is switched off.
    ModelNotFound(String),
    /// What an MCP client asks cannot be read, or may not be had.
    Mcp(mcp::Refusal),
    /// No such MCP server, it is switched off, or the tenant may not use it.
    McpServerNotFound,
    /// No such session of the caller's at the MCP server.
    SessionNotFound,
    /// A browser's page, or a name, from which the MCP server may not be used.
    OriginForbidden,
    /// The tenant listens to the MCP server as often as it may.
    TooManyStreams,
    /// Requests or tokens of this minute are used up.
    RateLimited {
        /// The least time after which the same request passes.
        retry_after: Duration,
        /// Which limit, in words fit for the client.
        scope: Scope,
    },
    /// The input alone is larger than a whole minute's quota.
    ExceedsQuota,
    /// A budget is used up.
    BudgetUsedUp {
        /// Until the budget's period ends; `None` is for ever.
        reset_after: Option<Duration>,
    },
    /// Too many requests wait already.
    QueueFull {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The request waited as long as it may.
    QueueTimeout {
        /// When a slot is likely to be free.
        retry_after: Duration,
    },
    /// The ledger cannot take the request, and nothing goes upstream uncounted.
    LedgerUnavailable,
    /// The client wants a kept answer or none, and there is none.
    NotCached,
    /// The gateway is going down.
    ShuttingDown,
    /// No endpoint of the model can be used; why, in words fit for a client.
    NoHealthyUpstream(String),
    /// No connection to any endpoint.
    UpstreamUnreachable,
    /// The endpoint died before its answer's head, redirected, or spoke no HTTP.
    UpstreamError(&'static str),
    /// The endpoint took too long to begin, or stopped, or went on too long.
    UpstreamTimeout,
    /// The endpoint died in the middle of its answer.
    UpstreamInterrupted,
    /// The client left. Nobody is told.
    ClientGone,
    /// A fault of the gateway's own.
    Internal,
}

/// What a fault is on the wire.
struct Shape {
    status: u16,
    kind: &'static str,
    code: &'static str,
    param: Option<String>,
    message: String,
}

impl Fault {
    /// The status the client sees; 499 (nginx's "client closed request") is only ever logged.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) | Self::ConflictingCredentials | Self::Mcp(mcp::Refusal::Unreadable(_)) => 400,
            Self::Mcp(mcp::Refusal::Rpc(error)) => error.status,
            Self::InvalidKey => 401,
            Self::KeyDisabled | Self::KeyExpired | Self::TenantSuspended | Self::ModelNotAllowed(_) | Self::OriginForbidden => 403,
            Self::NotFound | Self::ModelNotFound(_) | Self::McpServerNotFound | Self::SessionNotFound => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::BodyTooSlow => 408,
            Self::BodyTooLarge(_) => 413,
            Self::Body(fault) if fault.is_unsupported_media_type() => 415,
            Self::Body(_) => 400,
            Self::TooManyFailures { .. }
            | Self::RateLimited { .. }
            | Self::ExceedsQuota
            | Self::BudgetUsedUp { .. }
            | Self::TooManyStreams => 429,
            Self::HeadTooLarge => 431,
            Self::ClientGone => 499,
            Self::Internal => 500,
            Self::UpstreamUnreachable | Self::UpstreamError(_) | Self::UpstreamInterrupted => 502,
            Self::BuffersFull
            | Self::LedgerUnavailable
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::ShuttingDown
            | Self::NoHealthyUpstream(_) => 503,
            Self::UpstreamTimeout | Self::NotCached => 504,
        }
    }

    /// The error's code: the stable word for programs, also in the ledger.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::HeadTooLarge => "header_too_large",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::InvalidKey => "invalid_api_key",
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::ConflictingCredentials => "conflicting_credentials",
            Self::KeyDisabled => "key_disabled",
            Self::KeyExpired => "key_expired",
            Self::TenantSuspended => "tenant_suspended",
            Self::Body(fault) => fault.code(),
            Self::BodyTooLarge(_) => "request_too_large",
            Self::BodyTooSlow => "request_timeout",
            Self::BuffersFull | Self::QueueFull { .. } => "queue_full",
            Self::ModelNotAllowed(_) => "model_not_allowed",
            Self::ModelNotFound(_) => "model_not_found",
            Self::Mcp(mcp::Refusal::Unreadable(unreadable)) => unreadable.code,
            Self::Mcp(mcp::Refusal::Rpc(error)) => error.code,
            Self::McpServerNotFound => "mcp_server_not_found",
            Self::SessionNotFound => "session_not_found",
            Self::OriginForbidden => "origin_not_allowed",
            Self::TooManyStreams => "too_many_streams",
            Self::RateLimited { .. } => "rate_limit_exceeded",
            Self::ExceedsQuota => "request_exceeds_quota",
            Self::BudgetUsedUp { .. } => "insufficient_quota",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::NotCached => "not_cached",
            Self::NoHealthyUpstream(_) => "no_healthy_upstream",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamError(_) => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamInterrupted => "upstream_interrupted",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal_error",
        }
    }

    /// What it is in the ledger.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::ClientGone => Outcome::Cancelled,
            Self::UpstreamTimeout => Outcome::Timeout,
            Self::UpstreamInterrupted => Outcome::Interrupted,
            Self::NoHealthyUpstream(_) | Self::UpstreamUnreachable | Self::UpstreamError(_) | Self::Internal => Outcome::Error,
            Self::BadRequest(_)
            | Self::HeadTooLarge
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::InvalidKey
            | Self::TooManyFailures { .. }
            | Self::ConflictingCredentials
            | Self::KeyDisabled
            | Self::KeyExpired
            | Self::TenantSuspended
            | Self::Body(_)
            | Self::BodyTooLarge(_)
            | Self::BodyTooSlow
            | Self::BuffersFull
            | Self::ModelNotAllowed(_)
            | Self::ModelNotFound(_)
            | Self::Mcp(_)
            | Self::McpServerNotFound
            | Self::SessionNotFound
            | Self::OriginForbidden
            | Self::TooManyStreams
            | Self::RateLimited { .. }
            | Self::ExceedsQuota
            | Self::BudgetUsedUp { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::LedgerUnavailable
            | Self::NotCached
            | Self::ShuttingDown => Outcome::Rejected,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::KeyDisabled | Self::KeyExpired | Self::TenantSuspended | Self::ModelNotAllowed(_) | Self::OriginForbidden => {
                "permission_error"
            }
            Self::BuffersFull
            | Self::LedgerUnavailable
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::ShuttingDown
            | Self::NotCached
            | Self::NoHealthyUpstream(_)
            | Self::UpstreamUnreachable
            | Self::UpstreamError(_)
            | Self::UpstreamInterrupted => "service_unavailable_error",
            Self::TooManyFailures { .. } | Self::RateLimited { .. } | Self::ExceedsQuota | Self::TooManyStreams => "rate_limit_error",
            Self::BudgetUsedUp { .. } => "insufficient_quota",
            Self::UpstreamTimeout => "timeout_error",
            Self::Internal => "server_error",
            Self::BadRequest(_)
            | Self::HeadTooLarge
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::InvalidKey
            | Self::ConflictingCredentials
            | Self::Body(_)
            | Self::BodyTooLarge(_)
            | Self::BodyTooSlow
            | Self::ModelNotFound(_)
            | Self::Mcp(_)
            | Self::McpServerNotFound
            | Self::SessionNotFound
            | Self::ClientGone => "invalid_request_error",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::BadRequest(why) | Self::UpstreamError(why) => (*why).to_owned(),
            Self::HeadTooLarge => "The request's header is too large.".to_owned(),
            Self::NotFound => "There is no such route.".to_owned(),
            Self::MethodNotAllowed(allow) => format!("This route takes {allow} only."),
            Self::InvalidKey => "Incorrect or missing API key. Send it as \"Authorization: Bearer sk_...\".".to_owned(),
            Self::TooManyFailures { .. } => "Too many failed authentications from this address; try again later.".to_owned(),
            Self::ConflictingCredentials => "The request carries two different credentials; send one.".to_owned(),
            Self::KeyDisabled => "This API key is disabled.".to_owned(),
            Self::KeyExpired => "This API key has expired.".to_owned(),
            Self::TenantSuspended => "This tenant is suspended.".to_owned(),
            Self::Body(fault) => fault.message().to_owned(),
            Self::BodyTooLarge(limit) => format!("The request's body is larger than the limit of {limit} bytes."),
            Self::BodyTooSlow => "The request's body did not arrive in time.".to_owned(),
            Self::BuffersFull => "The gateway's request buffers are full; try again shortly.".to_owned(),
            Self::ModelNotAllowed(model) => format!("This API key may not use the model \"{model}\"."),
            Self::ModelNotFound(model) => format!("The model \"{model}\" does not exist."),
            Self::Mcp(mcp::Refusal::Unreadable(unreadable)) => unreadable.message.clone(),
            // Has a body of its own.
            Self::Mcp(mcp::Refusal::Rpc(_)) => String::new(),
            Self::McpServerNotFound => "There is no such MCP server.".to_owned(),
            Self::SessionNotFound => "There is no such session.".to_owned(),
            Self::OriginForbidden => "Requests from this origin or under this host name are not allowed.".to_owned(),
            Self::TooManyStreams => "Too many streams are open to this MCP server.".to_owned(),
            Self::RateLimited { retry_after, scope } => {
                format!("The {scope} limit is reached. Try again in {}.", rates::in_words(*retry_after))
            }
            Self::ExceedsQuota => "The input alone is larger than the tokens-per-minute limit; it can never pass.".to_owned(),
            Self::BudgetUsedUp { .. } => "The budget for this period is used up.".to_owned(),
            Self::QueueFull { .. } => "Too many requests are waiting; try again later.".to_owned(),
            Self::QueueTimeout { .. } => "The request waited too long for a free slot.".to_owned(),
            Self::LedgerUnavailable => "The gateway cannot account for requests at the moment; try again shortly.".to_owned(),
            Self::ShuttingDown => "The gateway is shutting down; try again.".to_owned(),
            Self::NotCached => "There is no cached answer, and only a cached one was asked for.".to_owned(),
            Self::NoHealthyUpstream(why) => format!("No upstream is available: {why}."),
            Self::UpstreamUnreachable => "The upstream cannot be reached.".to_owned(),
            Self::UpstreamTimeout => "The upstream took too long to answer.".to_owned(),
            Self::UpstreamInterrupted => "The upstream broke off its answer.".to_owned(),
            Self::ClientGone => "The client left.".to_owned(),
            Self::Internal => "The gateway failed to handle this request.".to_owned(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyFailures { retry_after }
            | Self::RateLimited { retry_after, .. }
            | Self::QueueFull { retry_after }
            | Self::QueueTimeout { retry_after } => Some(*retry_after),
            Self::BudgetUsedUp { reset_after } => *reset_after,
            Self::ShuttingDown | Self::BuffersFull | Self::LedgerUnavailable | Self::TooManyStreams => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            status: self.status(),
            kind: self.kind(),
            code: self.code(),
            param: match self {
                Self::Body(fault) => fault.param().map(str::to_owned),
                Self::ModelNotFound(_) | Self::ModelNotAllowed(_) => Some("model".to_owned()),
                _ => None,
            },
            message: self.message(),
        }
    }

    /// The body in the client's dialect.
    pub(super) fn body(&self, dialect: Dialect, request_id: &str) -> Bytes {
        if let Self::Mcp(mcp::Refusal::Rpc(error)) = self {
            return error.body.clone();
        }
        llm::error_body(dialect, &self.shape().as_error_body(request_id))
    }

    /// The event that ends a stream whose status has already been sent.
    pub(super) fn event(&self, dialect: Dialect, request_id: &str) -> Bytes {
        llm::error_event(dialect, &self.shape().as_error_body(request_id))
    }

    /// The head of the answer, for a body of `length` bytes; the caller adds the request's ids.
    pub(super) fn head(&self, length: usize) -> pingora::Result<ResponseHeader> {
        let mut head = ResponseHeader::build_no_case(self.status(), Some(8))?;
        head.insert_header(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
        head.insert_header(http::header::CONTENT_LENGTH, HeaderValue::from(length))?;
        match self {
            Self::InvalidKey => head.insert_header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))?,
            Self::MethodNotAllowed(allow) => head.insert_header(http::header::ALLOW, HeaderValue::from_static(allow))?,
            // The official clients repeat a 429 by themselves unless they are told not to.
            Self::ExceedsQuota | Self::BudgetUsedUp { .. } => head.insert_header("x-should-retry", HeaderValue::from_static("false"))?,
            _ => {}
        }
        if let Some(wait) = self.retry_after() {
            // Rounded up: a client that comes back when told must not be early.
            let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
            head.insert_header(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)))?;
            head.insert_header(
                "retry-after-ms",
                HeaderValue::from(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)),
            )?;
        }
        Ok(head)
    }
}

impl Shape {
    fn as_error_body<'a>(&'a self, request_id: &'a str) -> llm::ErrorBody<'a> {
        llm::ErrorBody {
            status: self.status,
            kind: self.kind,
            code: Some(self.code),
            param: self.param.as_deref(),
            message: &self.message,
            request_id,
        }
    }
}
