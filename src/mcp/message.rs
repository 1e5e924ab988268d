//! Reads what a client posts: the methods, the tools, the ids. The bytes themselves go on as they came.
//!
//! A server's reader may differ from ours: take the first of two equal members, or the last; match names without regard to
//! case, as Go's does, which folds `ſ` and the Kelvin sign too. So a body whose meaning depends on the reader, in the members
//! that decide what may be done, is refused.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::{RpcError, Unreadable};
use super::{Refusal, Tools, forbids_batches, is_modern};

/// The deepest nesting that is passed on; servers' parsers recurse.
const DEPTH_MAX: usize = 64;
/// The most messages in a batch.
const BATCH_MAX: usize = 64;
/// The most members of an object that is looked into.
const MEMBERS_MAX: usize = 1024;
/// The member of `_meta` that mirrors the revision.
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer.
    Request,
    /// Wants none.
    Notification,
    /// Answers a request of the server's.
    Response,
}

/// One message, as far as it matters here.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The request's id as it was written.
    pub id: Option<Box<RawValue>>,
    /// Empty for a response.
    pub method: String,
    /// What a `tools/call`, `prompts/get` or `resources/read` is about.
    pub name: Option<String>,
    /// The revision it says it speaks, if it says so itself.
    pub version: Option<String>,
}

impl Message {
    /// Whether it calls a tool.
    #[must_use]
    pub fn calls_tool(&self) -> bool {
        self.method == "tools/call"
    }

    /// Whether its answer is a stream without an end of its own.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.kind == Kind::Request && self.method == "subscriptions/listen"
    }

    /// The member of `params` that the `Mcp-Name` header mirrors.
    pub(super) fn mirrored_name(method: &str) -> Option<&'static str> {
        match method {
            "tools/call" | "prompts/get" => Some("name"),
            "resources/read" => Some("uri"),
            _ => None,
        }
    }
}

/// Everything in one body.
#[derive(Debug)]
pub struct Asked {
    /// At least one.
    pub messages: Vec<Message>,
    /// Whether they came as an array.
    pub batch: bool,
}

impl Asked {
    /// Whether one of them is work for the server, and so takes a slot: what wants an answer, and a call without an id, which
    /// some servers execute all the same.
    #[must_use]
    pub fn is_work(&self) -> bool {
        let works = |message: &Message| message.kind == Kind::Request || message.calls_tool();
        self.messages.iter().any(works)
    }

    /// Whether the answer lists tools.
    #[must_use]
    pub fn lists_tools(&self) -> bool {
        self.messages.iter().any(|message| message.method == "tools/list")
    }

    /// Whether the answer is a stream without an end of its own. Never a batch's, in which calls could hide.
    #[must_use]
    pub fn listens(&self) -> bool {
        !self.batch && self.messages.iter().any(Message::listens)
    }

    /// The tool that is called, if it is one.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        let [message] = &self.messages[..] else { return None };
        message.name.as_deref().filter(|_| message.calls_tool())
    }

    /// Whether the body is of the newer generation, with what the `MCP-Protocol-Version` header says.
    #[must_use]
    pub fn is_modern(&self, header: Option<&str>) -> bool {
        let says = |message: &Message| message.version.as_deref().is_some_and(is_modern);
        header.is_some_and(is_modern) || self.messages.iter().any(says)
    }

    /// Whether every tool that is called may be, and a batch is a batch of its time.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, tools: &Tools<'_>, version: Option<&str>) -> Result<(), Refusal> {
        if self.batch && version.is_some_and(forbids_batches) {
            let why = "This protocol version has no batches: the request's body must be one JSON-RPC message.";
            return Err(Refusal::Unreadable(Unreadable::invalid_request(why)));
        }
        let permitted = |message: &Message| !message.calls_tool() || tools.permit(message.name.as_deref());
        if self.messages.iter().all(permitted) {
            // One request of the quota, one slot and one row of the ledger are one call's.
            if self.messages.iter().filter(|message| message.calls_tool()).count() > 1 {
                let why = "A batch may call one tool: send each call as a request of its own.";
                return Err(Refusal::Unreadable(Unreadable::invalid_request(why)));
            }
            return Ok(());
        }
        Err(Refusal::Rpc(match &self.messages[..] {
            [message] if !self.batch => RpcError::denied(message),
            messages => RpcError::denied_batch(messages.iter().map(|message| (message, permitted(message)))),
        }))
    }
}

/// Reads a body.
///
/// # Errors
/// [`Unreadable`].
pub fn read(body: &[u8]) -> Result<Asked, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::invalid_json("it is not UTF-8"))?;
    if is_too_deep(body) {
        return Err(Unreadable::invalid_json(&format!("it is nested more than {DEPTH_MAX} levels deep")));
    }
    let batch = text.trim_ascii_start().starts_with('[');
    let messages = if batch {
        let raw: Vec<&RawValue> = parse(text)?;
        if raw.is_empty() || raw.len() > BATCH_MAX {
            let why = format!("A batch must have 1 to {BATCH_MAX} messages.");
            return Err(Unreadable::invalid_request(&why));
        }
        raw.into_iter().map(|raw| message(raw.get())).collect::<Result<_, _>>()?
    } else {
        vec![message(text)?]
    };
    Ok(Asked { messages, batch })
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => format!("a JSON-RPC message must be an object of at most {MEMBERS_MAX} members"),
            _ => format!("line {}, column {}", error.line(), error.column()),
        };
        Unreadable::invalid_json(&what)
    })
}

fn message(text: &str) -> Result<Message, Unreadable> {
    const TOP: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
    let members: Members<'_> = parse(text)?;
    members.check(TOP)?;
    let method = members.get("method").map(|raw| raw.get());
    let method = method
        .map(|raw| serde_json::from_str::<String>(raw).map_err(|_| Unreadable::invalid_request("\"method\" must be a string.")))
        .transpose()?;
    if method.as_ref().is_some_and(|method| method.contains('\0')) {
        return Err(Unreadable::invalid_request("\"method\" must not hold a NUL."));
    }
    let id = members.get("id").map(ToOwned::to_owned);
    if id.as_ref().is_some_and(|id| id.get().starts_with(['{', '['])) {
        return Err(Unreadable::invalid_request("\"id\" must be a string or a number."));
    }
    let kind = match (&method, &id) {
        (Some(_), Some(_)) => Kind::Request,
        (Some(_), None) => Kind::Notification,
        (None, _) => Kind::Response,
    };
    let method = method.unwrap_or_default();
    let (name, version) = match members.get("params") {
        Some(params) if params.get().starts_with('{') => params_of(&method, params.get())?,
        Some(_) | None => (None, None),
    };
    Ok(Message {
        kind,
        id,
        method,
        name,
        version,
    })
}

/// The mirrored name, and the revision.
fn params_of(method: &str, text: &str) -> Result<(Option<String>, Option<String>), Unreadable> {
    let params: Members<'_> = parse(text)?;
    let mirrored = Message::mirrored_name(method);
    // Of other methods only what is read here is judged: their members are their own.
    match mirrored {
        Some(name) => params.check(&["_meta", name, "arguments"])?,
        None => params.unique("_meta")?,
    }
    let string = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    let name = mirrored.and_then(|name| params.get(name)).and_then(string);
    if name.as_ref().is_some_and(|name| name.contains('\0')) {
        return Err(Unreadable::invalid_request("A name must not hold a NUL."));
    }
    let version = match params.get("_meta") {
        Some(meta) if meta.get().starts_with('{') => {
            let meta: Members<'_> = parse(meta.get())?;
            meta.unique(VERSION)?;
            meta.get(VERSION).and_then(string)
        }
        Some(_) | None => None,
    };
    Ok((name, version))
}

/// An object's members as they stand, equal names included.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// Whether each of the names is there at most once, in one spelling.
    fn check(&self, names: &[&str]) -> Result<(), Unreadable> {
        names.iter().try_for_each(|name| {
            self.unique(name)?;
            // Some readers' strings end at a NUL.
            let as_read = |key: &str| fold(key.split('\0').next().unwrap_or_default()).eq(fold(name));
            if self.0.iter().any(|(key, _)| key != name && as_read(key)) {
                return Err(Unreadable::ambiguous_key(name));
            }
            Ok(())
        })
    }

    fn unique(&self, name: &str) -> Result<(), Unreadable> {
        if self.0.iter().filter(|(key, _)| key == name).count() > 1 {
            return Err(Unreadable::duplicate_key(name));
        }
        Ok(())
    }
}

/// Letters without their case, as widely as any reader known folds them.
fn fold(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase).map(|letter| match letter {
        'ſ' => 's',
        letter => letter,
    })
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    members.push((key.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// A member's name: borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

/// Whether brackets outside of strings nest too deep. Says nothing about whether they match.
fn is_too_deep(text: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
