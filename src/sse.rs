//! Event streams (WHATWG HTML, 9.2) as bytes: cut into events that pass whole, are taken out or are replaced.
//!
//! What comes in goes out in whole events only: the start of an event is held until its end is there. So an event can be taken
//! out of the stream, and a stream that breaks off can be ended with an error that is not glued to half an event. Lines end in
//! LF, CRLF or CR; a comment outside of an event passes as soon as its line is whole, for it keeps connections alive.
//!
//! Invariant: the bytes that come out, and the events seen, do not depend on where the stream was cut.

use bytes::Bytes;
use memchr::memchr2;

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it came.
    Pass,
    /// It is taken out of the stream.
    TakeOut,
    /// These bytes, its blank line included, go on in its place.
    Replace(Vec<u8>),
}

/// What the cutter's owner makes of events.
pub trait Reader {
    /// A whole event, its blank line included.
    fn event(&mut self, event: &[u8]) -> Verdict;
    /// The next piece of an event too large to be held.
    fn piece(&mut self, piece: &[u8]);
    /// The end of that event.
    fn large_end(&mut self);
}

/// The state between two pieces of the stream.
#[derive(Debug)]
pub struct Events {
    /// The most of an event that is held, in bytes.
    hold_max: usize,
    lines: Lines,
    /// The event begun in earlier pieces.
    held: Vec<u8>,
    /// Whether the present event was too large and is on its way already.
    passing: bool,
    /// Whether the last event was taken out.
    taken: bool,
}

impl Events {
    /// A cutter that holds at most `hold_max` bytes of an event. A larger one passes in pieces as it comes.
    #[must_use]
    pub fn new(hold_max: usize) -> Self {
        Self {
            hold_max,
            lines: Lines::default(),
            held: Vec::new(),
            passing: false,
            taken: false,
        }
    }

    /// Takes a piece, gives back what may go on. `end` says that none follows.
    pub fn feed(&mut self, mut chunk: Bytes, end: bool, reader: &mut impl Reader) -> Bytes {
        if self.taken && self.held.is_empty() && self.lines.after_cr && chunk.first() == Some(&b'\n') {
            // The second half of a CRLF of which the first was taken out.
            self.lines.after_cr = false;
            chunk = chunk.slice(1..);
        }
        let mut out = Out::default();
        let mut start = 0;
        while let Some(stop) = self.lines.next(&chunk, start) {
            self.complete(&chunk, start..stop, &mut out, reader);
            start = stop;
        }
        let rest = chunk.get(start..).unwrap_or_default();
        if end {
            if !rest.is_empty() || !self.held.is_empty() || self.passing {
                self.complete(&chunk, start..chunk.len(), &mut out, reader);
            }
        } else if self.passing {
            reader.piece(rest);
            out.add(start..chunk.len());
        } else if self.held.len() + rest.len() > self.hold_max {
            reader.piece(&self.held);
            reader.piece(rest);
            out.lead(std::mem::take(&mut self.held));
            out.add(start..chunk.len());
            self.passing = true;
        } else {
            self.held.extend_from_slice(rest);
        }
        out.finish(chunk)
    }

    /// Whether what has come out ends within an event.
    #[must_use]
    pub const fn is_mid_event(&self) -> bool {
        self.passing
    }

    /// Deals with an event whose last piece lies at `place`.
    fn complete(&mut self, chunk: &Bytes, place: std::ops::Range<usize>, out: &mut Out, reader: &mut impl Reader) {
        self.taken = false;
        let piece = chunk.get(place.clone()).unwrap_or_default();
        if self.passing {
            reader.piece(piece);
            reader.large_end();
            self.passing = false;
            out.add(place);
            return;
        }
        let held = !self.held.is_empty();
        if held {
            self.held.extend_from_slice(piece);
        }
        match reader.event(if held { &self.held } else { piece }) {
            Verdict::Pass if held => out.lead(std::mem::take(&mut self.held)),
            Verdict::Pass => out.add(place),
            Verdict::TakeOut => self.taken = true,
            Verdict::Replace(bytes) => out.put(chunk, &bytes),
        }
        self.held.clear();
    }
}

/// What goes on of one chunk: in the ordinary case all of it, or one run of it, without copying.
#[derive(Default)]
struct Out {
    /// Bytes that go before the run.
    before: Option<Vec<u8>>,
    run: std::ops::Range<usize>,
    /// Runs before the last one.
    runs: Vec<std::ops::Range<usize>>,
}

impl Out {
    /// Bytes of earlier chunks; only ever first.
    fn lead(&mut self, bytes: Vec<u8>) {
        self.before = Some(bytes);
    }

    fn add(&mut self, place: std::ops::Range<usize>) {
        if self.run.end == place.start && !self.run.is_empty() {
            self.run.end = place.end;
        } else {
            let earlier = std::mem::replace(&mut self.run, place);
            if !earlier.is_empty() {
                self.runs.push(earlier);
            }
        }
    }

    /// Bytes that are not the chunk's, after all that was added so far.
    fn put(&mut self, chunk: &Bytes, bytes: &[u8]) {
        let mut joined = std::mem::take(self).join(chunk);
        joined.extend_from_slice(bytes);
        self.before = Some(joined);
    }

    fn finish(self, chunk: Bytes) -> Bytes {
        if self.before.is_none() && self.runs.is_empty() {
            let run = self.run;
            return if run.len() == chunk.len() { chunk } else { chunk.slice(run) };
        }
        self.join(&chunk).into()
    }

    fn join(self, chunk: &Bytes) -> Vec<u8> {
        let mut joined = self.before.unwrap_or_default();
        for run in self.runs.into_iter().chain([self.run]) {
            joined.extend_from_slice(chunk.get(run).unwrap_or_default());
        }
        joined
    }
}

/// Finds where lines, and so events, end.
#[derive(Debug, Default)]
struct Lines {
    /// How the present line began in an earlier chunk; `None` at its beginning.
    begun: Option<u8>,
    /// Whether the event has lines other than comments.
    fields: bool,
    /// Whether the last byte was a CR, whose LF may follow.
    after_cr: bool,
}

impl Lines {
    /// Where the present event, or a comment outside of any, ends in the chunk after `from`.
    fn next(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        if self.after_cr && at < chunk.len() {
            self.after_cr = false;
            if chunk.get(at) == Some(&b'\n') {
                at += 1;
                if self.begun.is_none() && !self.fields {
                    return Some(at);
                }
            }
        }
        loop {
            let rest = chunk.get(at..).unwrap_or_default();
            let first = self.begun.or_else(|| rest.first().copied())?;
            let Some(length) = memchr2(b'\n', b'\r', rest) else {
                self.begun = Some(first);
                return None;
            };
            let blank = self.begun.is_none() && length == 0;
            self.begun = None;
            at += length + 1;
            if rest.get(length) == Some(&b'\r') {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if blank || first == b':' && !self.fields {
                self.fields = false;
                return Some(at);
            }
            self.fields = true;
        }
    }
}

/// The data of an event: the one line's as it stands, or the lines' joined. Empty if it has none.
#[must_use]
pub fn data(event: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let mut joined = std::borrow::Cow::Borrowed(&[][..]);
    // The first of a stream may begin with a byte order mark, which readers skip.
    let mut rest = event.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(event);
    let mut found = false;
    while !rest.is_empty() {
        let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = rest.get(..length).unwrap_or_default();
        rest = rest.get(length + 1..).unwrap_or_default();
        let Some(value) = line
            .strip_prefix(b"data")
            .and_then(|value| if value.is_empty() { Some(value) } else { value.strip_prefix(b":") })
        else {
            continue;
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if found {
            joined.to_mut().push(b'\n');
            joined.to_mut().extend_from_slice(value);
        } else {
            joined = std::borrow::Cow::Borrowed(value);
            found = true;
        }
    }
    joined
}
