//! Takes tools out of answers as they come: one body, or the events of a stream.

use bytes::Bytes;
use memchr::memmem;

use super::Tools;
use super::listing::{NotJson, filtered};
use crate::sse::{self, Events, Verdict};

/// The most of an answer, or of one event of it, that is held to be filtered, in bytes. A larger list is not passed on.
const HOLD_MAX: usize = 4 << 20;

/// An answer that may hold tools which must not be shown, and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be read, and so not filtered")]
pub struct Unfilterable;

/// The state between two pieces of an answer.
#[derive(Debug)]
pub struct Filter {
    rule: Rule,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Events(Box<Events>),
    /// What came so far of one body.
    Body(Vec<u8>),
}

#[derive(Debug)]
struct Rule {
    allowed: Option<Vec<String>>,
    denied: Vec<String>,
    failed: bool,
}

impl Filter {
    /// Filters an event stream, or one JSON body.
    #[must_use]
    pub fn new(tools: &Tools<'_>, event_stream: bool) -> Self {
        Self {
            rule: Rule {
                allowed: tools.allowed.map(<[String]>::to_vec),
                denied: tools.denied.to_vec(),
                failed: false,
            },
            form: if event_stream {
                Form::Events(Box::new(Events::new(HOLD_MAX)))
            } else {
                Form::Body(Vec::new())
            },
        }
    }

    /// Takes the next piece and gives back what may go on. `end` says that none follows.
    ///
    /// # Errors
    /// [`Unfilterable`]; the answer must not go on then.
    pub fn feed(&mut self, piece: Bytes, end: bool) -> Result<Bytes, Unfilterable> {
        match &mut self.form {
            Form::Events(events) => {
                let out = events.feed(piece, end, &mut self.rule);
                if self.rule.failed { Err(Unfilterable) } else { Ok(out) }
            }
            Form::Body(held) => {
                if held.len() + piece.len() > HOLD_MAX {
                    return Err(Unfilterable);
                }
                held.extend_from_slice(&piece);
                if !end {
                    return Ok(Bytes::new());
                }
                let held = std::mem::take(held);
                let changed = self.rule.apply(&held).map_err(|NotJson| Unfilterable)?;
                Ok(Bytes::from(changed.unwrap_or(held)))
            }
        }
    }
}

impl Rule {
    fn apply(&self, body: &[u8]) -> Result<Option<Vec<u8>>, NotJson> {
        if body.trim_ascii().is_empty() {
            return Ok(None);
        }
        let tools = Tools {
            allowed: self.allowed.as_deref(),
            denied: &self.denied,
        };
        filtered(std::str::from_utf8(body).map_err(|_| NotJson)?, &tools)
    }
}

impl sse::Reader for Rule {
    fn event(&mut self, event: &[u8]) -> Verdict {
        let data = sse::data(event);
        match self.apply(&data) {
            Ok(None) => Verdict::Pass,
            Ok(Some(changed)) => Verdict::Replace(with_data(event, &changed)),
            // Some servers send words that are no messages; those hold no tools.
            Err(NotJson) if memmem::find(&data, b"tools").is_none() => Verdict::Pass,
            Err(NotJson) => {
                self.failed = true;
                Verdict::TakeOut
            }
        }
    }

    fn piece(&mut self, _piece: &[u8]) {
        self.failed = true;
    }

    fn large_end(&mut self) {}
}

/// The event with other data in the place of its first data line; its other lines as they are.
fn with_data(event: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.len());
    let mut rest = event;
    let mut put = false;
    while !rest.is_empty() {
        let length =
            memchr::memchr2(b'\n', b'\r', rest).map_or(rest.len(), |at| at + if rest.get(at..at + 2) == Some(b"\r\n") { 2 } else { 1 });
        let (line, after) = rest.split_at(length);
        rest = after;
        let end = line.len() - line.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let (text, line_end) = line.split_at(end);
        if text != b"data" && !text.starts_with(b"data:") {
            out.extend_from_slice(line);
        } else if !put {
            put = true;
            for part in data.split(|byte| *byte == b'\n') {
                out.extend_from_slice(b"data: ");
                // A carriage return is white space in JSON, and would end the line.
                out.extend(part.iter().filter(|byte| **byte != b'\r'));
                out.extend_from_slice(if line_end.is_empty() { b"\n" } else { line_end });
            }
        }
    }
    out
}
