//! Spans of a request that has ended.

use std::borrow::Cow;
use std::sync::Arc;

use super::context::{Context, SpanId};

/// On which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neither: a step inside the gateway.
    Internal,
    /// The called one's.
    Server,
    /// The caller's.
    Client,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Value {
    Text(Cow<'static, str>),
    Shared(Arc<str>),
    Whole(u64),
    Number(f64),
    Flag(bool),
}

/// A stretch of a request's time. Must hold no prompt, no secret, and no text whose number clients could make unbounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its id.
    pub id: SpanId,
    /// The span it is part of.
    pub parent: Option<SpanId>,
    /// What it is called.
    pub name: Cow<'static, str>,
    /// On which side of a call it is.
    pub kind: Kind,
    /// Its begin, in nanoseconds of Unix time.
    pub from: u64,
    /// Its end, the same; not before its begin.
    pub to: u64,
    /// What is known of it, by name.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed.
    pub failed: bool,
}

impl Span {
    /// Says a text.
    pub fn text(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.attributes.push((name, Value::Text(value.into())));
    }

    /// Says a text that others have too.
    pub fn shared(&mut self, name: &'static str, value: &Arc<str>) {
        self.attributes.push((name, Value::Shared(Arc::clone(value))));
    }

    /// Says a number.
    pub fn whole(&mut self, name: &'static str, value: u64) {
        self.attributes.push((name, Value::Whole(value)));
    }
}

/// A request that has ended, and was sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The trace it belongs to.
    pub context: Context,
    /// Its spans; those whose parent is `context.parent` are the request itself.
    pub spans: Vec<Span>,
}
