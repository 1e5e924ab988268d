//! Finds the usage report in JSON that arrives in pieces, keeping nothing of it but the report.
//!
//! Follows strings, escapes and nesting, so that a text which talks of `"usage"` is only text; checks nothing else, for
//! what goes to the client is not judged here. Keys are compared as they are written: no server escapes letters.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::FinderRev;

/// The longest report that is kept, in bytes; the largest known (an image model's) has some 500.
const REPORT_MAX: usize = 16 * 1024;
/// The longest key that is compared, in bytes.
const KEY_MAX: usize = 16;
/// Bytes passed over at once while they hold no structure.
const STRIDE: usize = 32;

static LAST_USAGE: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(b"\"usage\""));

/// Finds the report of a body that is there as a whole, reading only from the last `"usage"` to the end. Returns whether that
/// was enough: if not, nothing is known, and the body must be followed from its beginning.
///
/// It was, where that member stands at the top: when just the last brace is left to close. A quote without a backslash
/// before it begins a string or ends one, and no string ends there, so what was found is no text.
pub(super) fn at_the_end(body: &[u8], found: impl FnOnce(&[u8])) -> bool {
    let Some(at) = LAST_USAGE.rfind(body) else { return false };
    let (before, rest) = body.split_at(at);
    let Some(rest) = rest.trim_ascii_end().strip_suffix(b"}") else {
        return false;
    };
    if before.ends_with(b"\\") {
        return false;
    }
    let mut scan = Scan {
        depth: 1,
        key_next: true,
        ..Scan::new(b"")
    };
    let mut report = None;
    scan.feed(rest, |place, raw| {
        if place == Place::Usage {
            report = Some(raw.to_vec());
        }
    });
    match report {
        Some(report) if scan.depth == 1 && scan.text == Text::Outside => {
            found(&report);
            true
        }
        _ => false,
    }
}

/// Where a report was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `usage`, at the top or one level down in the member that was asked for.
    Usage,
    /// `meta` at the top.
    Meta,
}

/// The state between two pieces.
#[derive(Debug)]
pub(super) struct Scan {
    /// The top-level member in which `usage` may be too: `response`, `message`.
    inside: &'static [u8],
    /// Open containers.
    depth: u32,
    /// Whether the outer object's interesting member is open.
    entered: bool,
    text: Text,
    /// Whether the next string at this level is a key.
    key_next: bool,
    /// The latest key, as far as it is compared.
    key: [u8; KEY_MAX],
    key_length: usize,
    /// What is being kept.
    keeping: Option<(Place, u32)>,
    kept: Vec<u8>,
}

/// Whether the scan stands in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl Scan {
    pub(super) const fn new(inside: &'static [u8]) -> Self {
        Self {
            inside,
            depth: 0,
            entered: false,
            text: Text::Outside,
            key_next: false,
            key: [0; KEY_MAX],
            key_length: 0,
            keeping: None,
            kept: Vec::new(),
        }
    }

    /// Whether nothing was read.
    pub(super) fn is_new(&self) -> bool {
        self.depth == 0 && self.text == Text::Outside
    }

    /// Takes the next piece; calls `found` with each report that is complete.
    pub(super) fn feed(&mut self, piece: &[u8], mut found: impl FnMut(Place, &[u8])) {
        let mut at = 0;
        while at < piece.len() {
            let from = at;
            at = match self.text {
                Text::Escaped => {
                    self.text = Text::Inside;
                    at + 1
                }
                Text::Inside => self.string(piece, at),
                Text::Outside => self.structure(piece, at),
            };
            self.keep(piece.get(from..at).unwrap_or_default());
            if let Some((place, depth)) = self.keeping
                && self.text == Text::Outside
                && self.depth == depth
            {
                found(place, &self.kept);
                self.keeping = None;
                self.kept.clear();
            }
        }
    }

    /// Passes over the inside of a string.
    fn string(&mut self, piece: &[u8], at: usize) -> usize {
        let rest = piece.get(at..).unwrap_or_default();
        let stop = memchr2(b'"', b'\\', rest);
        if self.key_next {
            let end = stop.unwrap_or(rest.len());
            for byte in rest.get(..end).unwrap_or_default() {
                // One over the end says that the key is too long to be of interest.
                if let Some(place) = self.key.get_mut(self.key_length) {
                    *place = *byte;
                }
                self.key_length = (self.key_length + 1).min(KEY_MAX + 1);
            }
        }
        match stop {
            None => piece.len(),
            Some(stop) => {
                self.text = if rest.get(stop) == Some(&b'"') {
                    Text::Outside
                } else {
                    // No key of interest has an escape in it.
                    self.key_length = if self.key_next { KEY_MAX + 1 } else { self.key_length };
                    Text::Escaped
                };
                at + stop + 1
            }
        }
    }

    /// Passes over what is outside of strings, up to and with the next byte of structure.
    fn structure(&mut self, piece: &[u8], at: usize) -> usize {
        let rest = piece.get(at..).unwrap_or_default();
        // Only at the levels where keys are compared do colons and commas matter.
        let looking = self.is_looking();
        let Some(stop) = next_structure(rest, looking) else {
            return piece.len();
        };
        match rest.get(stop) {
            Some(b'"') => {
                self.text = Text::Inside;
                if self.key_next {
                    self.key_length = 0;
                }
            }
            Some(b'{') => self.open(true),
            Some(b'[') => self.open(false),
            Some(b'}' | b']') => self.close(),
            Some(b':') => self.key_next = false,
            Some(b',') => self.key_next = looking,
            Some(_) | None => {}
        }
        at + stop + 1
    }

    /// Whether keys are compared where the scan stands.
    fn is_looking(&self) -> bool {
        self.keeping.is_none() && (self.depth == 1 || self.depth == 2 && self.entered)
    }

    fn open(&mut self, object: bool) {
        let key = self.key.get(..self.key_length).unwrap_or_default();
        if object && self.is_looking() {
            let place = match key {
                b"usage" => Some(Place::Usage),
                b"meta" if self.depth == 1 => Some(Place::Meta),
                _ => None,
            };
            if let Some(place) = place {
                self.keeping = Some((place, self.depth));
            } else if self.depth == 1 {
                self.entered = key == self.inside;
            }
        }
        self.depth += 1;
        self.key_next = object && self.is_looking();
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.entered &= self.depth >= 2;
        self.key_next = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keeping.is_none() {
            return;
        }
        if self.kept.len() + bytes.len() > REPORT_MAX {
            self.keeping = None;
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// The next quote, brace or bracket, or, if `all`, also colon or comma.
fn next_structure(bytes: &[u8], all: bool) -> Option<usize> {
    // Setting bit 5 makes a bracket the brace of its side and leaves the quote alone.
    let is_structure = |byte: u8| matches!(byte | 0x20, b'"' | b'{' | b'}') || all && matches!(byte, b':' | b',');
    let mut at = 0;
    if !all {
        // Lists of numbers (embeddings) are the bulk of what stands outside of strings: vector code, no early exit.
        for stride in bytes.chunks_exact(STRIDE) {
            if stride.iter().fold(false, |found, byte| {
                found | (byte | 0x20 == b'"') | (byte | 0x20 == b'{') | (byte | 0x20 == b'}')
            }) {
                break;
            }
            at += STRIDE;
        }
    }
    bytes.get(at..)?.iter().position(|byte| is_structure(*byte)).map(|found| at + found)
}

#[cfg(test)]
mod tests;
