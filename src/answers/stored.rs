//! An answer as it is kept: its head, its body as it was cut, and what it saves whoever gets it again.

use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};

use crate::units::PicoUsd;

/// What belongs to one sending of an answer and not to the answer.
const OF_THE_MOMENT: [HeaderName; 5] = [
    TRANSFER_ENCODING,
    DATE,
    RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("openai-processing-ms"),
];

/// The head of an answer: what the client was told of it, without what is written anew for each client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The fields, in their order.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Whether the body is an event stream.
    pub event_stream: bool,
}

impl Head {
    /// Takes a head's fields but those of the moment.
    pub fn new<'a>(status: u16, event_stream: bool, fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Self {
        let fields = fields.into_iter().filter(|(name, _)| !OF_THE_MOMENT.contains(name));
        Self {
            status,
            fields: fields.map(|(name, value)| (name.clone(), value.clone())).collect(),
            event_stream,
        }
    }

    fn field(&self, wanted: &HeaderName) -> Option<&HeaderValue> {
        self.fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }

    /// Whether a body of this length is what the head announced; true if it announced nothing.
    pub(super) fn fits(&self, length: u64) -> bool {
        self.field(&CONTENT_LENGTH)
            .is_none_or(|announced| announced.to_str().ok().and_then(|text| text.parse().ok()) == Some(length))
    }

    /// Whether the body is encoded, so that not every client could read it.
    pub(super) fn is_encoded(&self) -> bool {
        self.field(&http::header::CONTENT_ENCODING)
            .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    fn weight(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
    }
}

/// What somebody who gets an answer a second time did not have to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What the answer cost, at the prices under which it was made.
    pub cost: PicoUsd,
}

impl Saved {
    /// Both kinds of tokens.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// A kept answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its head.
    pub head: Head,
    /// What it saves.
    pub saved: Saved,
    /// When it was complete.
    pub born: Instant,
    body: Bytes,
    /// Where each piece of the body ends.
    ends: Box<[usize]>,
}

impl Stored {
    /// Joins the pieces of a body; where they were cut is remembered.
    pub(super) fn new(head: Head, pieces: &[Bytes], saved: Saved, born: Instant) -> Self {
        let mut body = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
        let mut ends = Vec::with_capacity(pieces.len());
        for piece in pieces {
            body.extend_from_slice(piece);
            ends.push(body.len());
        }
        Self {
            head,
            saved,
            born,
            body: body.into(),
            ends: ends.into(),
        }
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body's pieces as they came. Nothing is copied.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = Bytes> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |end| self.body.slice(std::mem::replace(&mut from, *end)..*end))
    }

    /// What it takes in memory, in bytes.
    pub(super) fn weight(&self) -> u64 {
        // An entry's own places in the shelf's tables are estimated.
        (size_of::<Self>() + 256 + self.body.len() + size_of_val(&*self.ends) + self.head.weight()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> Head {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Head::new(200, false, fields.iter().map(|(name, value)| (name, value)))
    }

    #[test]
    fn pieces_come_back_as_they_were_cut() {
        let pieces = ["data: a\n\n", "", "data: b\n\n"].map(|piece| Bytes::from_static(piece.as_bytes()));
        let stored = Stored::new(head(&[]), &pieces, Saved::default(), Instant::now());
        assert_eq!(stored.pieces().collect::<Vec<_>>(), pieces);
        assert_eq!(stored.body(), "data: a\n\ndata: b\n\n");
    }

    #[test]
    fn a_head_keeps_what_is_of_the_answer_and_knows_its_length() {
        let head = head(&[("content-type", "application/json"), ("date", "now"), ("content-length", "3")]);
        assert_eq!(head.fields.len(), 2);
        assert!(head.fits(3) && !head.fits(4) && !head.is_encoded());
    }
}
