//! What bodies say of MCP servers.

use url::Url;

use crate::admin::credential::WriteOnly;
use crate::admin::draft::draft;
use crate::admin::ranges::{SLOTS_MAX, WAIT_SECS_MAX};
use crate::admin::value::{Address, Flag, Form, Formed, IdOf, Line, Maybe, SetOf, Whole};
use crate::id::TenantId;

draft! {
    #[derive(Clone)]
    McpServerDraft, "an MCP server", read_only: [
        "id", "auth_header_set", "managed_by", "overridden", "version", "created_at", "updated_at",
    ],
    /// Unique: the segment of the path `/mcp/{name}`.
    name: Formed<Segment>;
    /// Where it is.
    upstream_url: Address;
    /// The whole value of the authentication header: a value, `env:NAME` or `file:/PATH`; `""` for none. Null or left out keeps it.
    auth_header: WriteOnly = null;
    /// The name of that header.
    auth_header_name: Formed<HeaderName> = "Authorization";
    /// Whether it is offered.
    enabled: Flag = true;
    /// Tools that may be called; null is all.
    allowed_tools: Maybe<SetOf<Line<1, 256>, 1000>> = null;
    /// Tools that may not be called.
    denied_tools: SetOf<Line<1, 256>, 1000> = [];
    /// Ids of the tenants that may use it; null is all.
    allowed_tenants: Maybe<SetOf<IdOf<TenantId>, 1000>> = null;
    /// Browser origins that may use it.
    allowed_origins: SetOf<Formed<Origin>, 100> = [];
    /// How long a stream may be silent.
    idle_timeout_secs: Whole<u32, 1, WAIT_SECS_MAX> = 300;
    /// How many calls it takes at once; null is no cap.
    max_in_flight: Maybe<Whole<u32, 1, SLOTS_MAX>> = null;
}

/// A path segment.
pub(super) enum Segment {}

impl Form for Segment {
    const MUST_BE: &'static str = "1 to 40 of a-z, 0-9 and -";
    const PATTERN: &'static str = "^[a-z0-9-]{1,40}$";

    fn fits(text: &str) -> bool {
        (1..=40).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    }
}

/// The name of a header that may carry a credential: one that says how the message is framed or routed may not.
pub(super) enum HeaderName {}

impl Form for HeaderName {
    const MUST_BE: &'static str = "the name of a header that can carry a credential, like Authorization or X-Api-Key";
    const PATTERN: &'static str = "^[A-Za-z][A-Za-z0-9-]{0,63}$";

    fn fits(text: &str) -> bool {
        let lower = text.to_ascii_lowercase();
        let framing = matches!(&*lower, "host" | "connection" | "te" | "expect")
            || ["content-", "tra", "upg", "keep-", "mcp-"]
                .iter()
                .any(|prefix| lower.starts_with(prefix));
        let mut bytes = text.bytes();
        let head = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
        head && text.len() <= 64 && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !framing
    }
}

/// A browser's origin (RFC 6454).
pub(super) enum Origin {}

impl Form for Origin {
    const MUST_BE: &'static str = "an origin like https://chat.example.com, in lower case and without a path";
    const PATTERN: &'static str = "^https?://[a-z0-9.:\\[\\]-]+$";

    fn fits(text: &str) -> bool {
        let origin = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // Default ports are left out of an origin, so one that spells them would never match.
        origin.is_some_and(|url| url.origin().ascii_serialization() == text)
    }
}
