//! What a field accepts, and the sentence that says so. Ranges are the management API's.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

use super::access::is_reference;
use super::settings::Ratio;
use super::wire::Wire;
use crate::pricing;
use crate::units::UnixMs;

/// What a field accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// An integer from the first to the second number.
    Whole(u64, u64),
    /// `true` or `false`.
    Flag,
    /// One line of so many characters.
    Line(usize, usize),
    /// Text of at most so many characters.
    Prose(usize),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Dollars.
    Money,
    /// A part of a whole, from 0 to 1.
    Ratio,
    /// Where a secret stands, never the secret.
    Reference,
    /// A point of time.
    Moment,
    /// An address to listen on.
    Listen,
    /// A path of the file system.
    Path,
    /// The address of an upstream.
    Url,
    /// A path segment.
    Segment,
    /// The name of an HTTP header.
    HeaderName,
    /// The origin of a web page.
    Origin,
    /// An integer from 1 or `auto`.
    Slots(u64),
    /// A list of different values: what they are, and how many.
    Set(&'static Self, usize),
    /// Short texts by free names.
    Labels,
    /// What an upstream is shown: a value or a reference.
    Credential,
    /// A model's addresses: `api_base` and `api_key`, or `endpoints`.
    Endpoints,
    /// An MCP server's address: `upstream_url` and `auth_header`.
    Upstream,
    /// A key's secret: `secret`, or `secret_hash` and `key_prefix`.
    Secret,
}

/// A single value, expanded.
pub(super) enum Scalar {
    Null,
    Flag(bool),
    Whole(u64),
    Number(String),
    Text(String),
    /// A text that came out of `${…}` or the environment: it may also stand for a number or a flag.
    Loose(String),
    /// A list, a mapping, something tagged.
    Other,
}

impl Kind {
    /// The canonical form of a value.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn judge(self, scalar: &Scalar) -> Result<Value, String> {
        if let (Self::Money, Some(number)) = (self, scalar.number()) {
            let amount = pricing::parse(&number).map_err(|error| error.to_string())?;
            return Ok(amount.show());
        }
        if let (Self::Ratio, Some(number)) = (self, scalar.number())
            && let Some(ratio) = Ratio::parse(&number)
        {
            return Ok(ratio.show());
        }
        self.canonical(scalar).ok_or_else(|| format!("must be {}", self.must_be()))
    }

    fn canonical(self, scalar: &Scalar) -> Option<Value> {
        let text = scalar.text();
        match self {
            Self::Whole(min, max) => scalar
                .whole()
                .filter(|number| (min..=max).contains(number))
                .map(|number| json!(number)),
            Self::Flag => scalar.flag().map(Value::Bool),
            Self::Line(min, max) => text.filter(|text| is_line(text, min, max)).map(|text| json!(text)),
            Self::Prose(max) => text.filter(|text| text.chars().count() <= max).map(|text| json!(text)),
            Self::Word(words) => text.filter(|text| words.contains(text)).map(|text| json!(text)),
            Self::Moment => {
                let time: Timestamp = text?.parse().ok()?;
                Some(UnixMs(time.as_millisecond()).show())
            }
            Self::Listen => text?.parse::<SocketAddr>().ok().map(|address| address.show()),
            Self::Path => text.filter(|text| is_line(text, 1, 4096)).map(|text| json!(text)),
            Self::Url => {
                let url = Url::parse(text.filter(|text| text.len() <= 2048)?).ok()?;
                url.has_host().then(|| url.show())
            }
            Self::Segment => {
                let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                text.filter(|text| (1..=40).contains(&text.len()) && text.bytes().all(fits))
                    .map(|text| json!(text))
            }
            Self::HeaderName => text.filter(|text| is_header_name(text)).map(|text| json!(text)),
            Self::Origin => text.filter(|text| is_origin(text)).map(|text| json!(text)),
            Self::Slots(max) if text == Some("auto") => Some(json!("auto")).filter(|_| max > 0),
            Self::Slots(max) => scalar
                .whole()
                .filter(|number| (1..=max).contains(number))
                .map(|number| json!(number)),
            Self::Reference => text.filter(|text| is_reference(text)).map(|text| json!(text)),
            Self::Ratio
            | Self::Money
            | Self::Set(..)
            | Self::Labels
            | Self::Credential
            | Self::Endpoints
            | Self::Upstream
            | Self::Secret => None,
        }
    }

    /// Ends the sentence "must be …".
    pub(super) fn must_be(self) -> String {
        match self {
            Self::Whole(min, max) => format!("an integer from {min} to {max}"),
            Self::Flag => "true or false".to_owned(),
            Self::Line(min, max) => format!("text of {min} to {max} characters, none of them a control character"),
            Self::Prose(max) => format!("text of at most {max} characters"),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Money => "an amount of dollars, not negative, as a number or decimal text of at most 12 decimals".to_owned(),
            Self::Ratio => "a number from 0 to 1 of at most 6 decimals".to_owned(),
            Self::Reference => "env:NAME (not the gateway's own) or file:/PATH; the secret itself does not belong here".to_owned(),
            Self::Moment => "a time as in RFC 3339, in quotes, like \"2027-01-31T12:00:00Z\"".to_owned(),
            Self::Listen => "an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Url | Self::Upstream => "an absolute http or https URL of at most 2048 bytes".to_owned(),
            Self::Segment => "1 to 40 lowercase letters, digits and hyphens".to_owned(),
            Self::HeaderName => "the name of a header that can carry a credential, like Authorization or X-Api-Key".to_owned(),
            Self::Origin => "an origin, like \"https://app.example.com\"".to_owned(),
            Self::Slots(max) => format!("an integer from 1 to {max}, or auto"),
            Self::Set(_, max) => format!("a list of 0 to {max} entries"),
            Self::Labels => "a mapping of at most 64 names to texts".to_owned(),
            Self::Credential => {
                "a value of up to 4096 visible ASCII characters, env:NAME (not the gateway's own), file:/PATH, or stored:DIGEST as \
                 `obleth export` writes it"
                    .to_owned()
            }
            Self::Endpoints => "a list of 1 to 256 entries".to_owned(),
            Self::Secret => "sk_ and 64 lowercase hexadecimal digits".to_owned(),
        }
    }
}

impl Scalar {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Loose(text) => Some(text),
            _ => None,
        }
    }

    fn whole(&self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(*number),
            Self::Loose(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Loose(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A number, or a text that may be one.
    fn number(&self) -> Option<String> {
        match self {
            Self::Whole(number) => Some(number.to_string()),
            Self::Number(text) | Self::Text(text) | Self::Loose(text) => Some(text.clone()),
            Self::Null | Self::Flag(_) | Self::Other => None,
        }
    }
}

/// Whether a text has so many characters and none that controls a terminal or ends a line.
pub(super) fn is_line(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// A header that may carry a credential: one that says how the message is framed or routed may not.
fn is_header_name(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let framing = matches!(&*lower, "host" | "connection" | "te" | "expect")
        || ["content-", "tra", "upg", "keep-", "mcp-"]
            .iter()
            .any(|prefix| lower.starts_with(prefix));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.len() <= 64 && text.bytes().all(fits) && !framing
}

/// The serialization of an origin as in RFC 6454, §6.2, as a browser sends it.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text)
}
