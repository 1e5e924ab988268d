//! How many tokens of output an event or a body holds: an estimate, corrected by whatever is reported. Of an event it costs
//! two searches.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::{self, Finder};

use super::Route;

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"delta\""));
static BLOCK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"content_block\""));
static ITEM: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"item\""));
static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"text\""));

/// The longest text that is taken for one token, in bytes; a longer one holds several, of four bytes each. Servers send one
/// token per event, or several when they decode speculatively or are told to.
const TOKEN_MAX: usize = 16;

/// Members of a delta that are no output: names of things, and blobs.
const NO_OUTPUT: [&[u8]; 12] = [
    b"role",
    b"type",
    b"id",
    b"stop_reason",
    b"stop_sequence",
    b"signature",
    b"data",
    b"call_id",
    b"status",
    b"finish_reason",
    b"token", // of `logprobs`, which say the text again
    b"tokens",
];

/// The longest of them, in bytes.
const KEY_MAX: usize = 13;

/// The key that holds the output in a route's events.
pub(super) fn key(route: Route) -> Option<&'static Finder<'static>> {
    match route {
        Route::Completions => Some(&TEXT),
        Route::ChatCompletions | Route::Responses | Route::Messages | Route::AudioTranscriptions | Route::AudioTranslations => Some(&DELTA),
        Route::Embeddings
        | Route::Rerank
        | Route::Moderations
        | Route::ImagesGenerations
        | Route::ImagesEdits
        | Route::AudioSpeech
        | Route::CountTokens => None,
    }
}

/// Where a route's events open a call of a tool, whose name no delta repeats.
pub(super) fn opening(route: Route, event: &[u8]) -> Option<&'static Finder<'static>> {
    match route {
        Route::Messages => Some(&BLOCK),
        // Its end, `…done`, says everything again.
        Route::Responses if memmem::find(event, b"\"response.output_item.added\"").is_some() => Some(&ITEM),
        _ => None,
    }
}

/// The member of a route's bodies that holds the output.
pub(super) const fn member(route: Route) -> Option<&'static [u8]> {
    match route {
        Route::ChatCompletions | Route::Completions => Some(b"choices"),
        Route::Responses => Some(b"output"),
        Route::Messages => Some(b"content"),
        _ => None,
    }
}

/// What follows a key's colon.
pub(super) fn after_colon(after_key: &[u8]) -> Option<&[u8]> {
    Some(after_key.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

/// Estimates the tokens of output in an event.
pub(super) fn tokens(key: &Finder<'_>, event: &[u8]) -> u64 {
    let mut tokens = 0;
    let mut rest = event;
    while let Some(at) = key.find(rest) {
        rest = rest.get(at + key.needle().len()..).unwrap_or_default();
        let Some(value) = after_colon(rest) else { continue };
        let length;
        (length, rest) = match value.first() {
            Some(b'"') => string(value),
            Some(b'{') => strings(value),
            Some(_) | None => (0, value),
        };
        tokens += of_length(length);
    }
    tokens
}

fn of_length(bytes: usize) -> u64 {
    match bytes {
        0 => 0,
        1..=TOKEN_MAX => 1,
        more => more as u64 / 4,
    }
}

/// The length of a string as it is written, and what follows it.
fn string(quoted: &[u8]) -> (usize, &[u8]) {
    let mut at = 1;
    loop {
        let rest = quoted.get(at..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest) {
            Some(stop) if rest.get(stop) == Some(&b'\\') => at += stop + 2,
            Some(stop) => return (at + stop - 1, rest.get(stop + 1..).unwrap_or_default()),
            None => return (quoted.len().saturating_sub(1), b""),
        }
    }
}

/// The length of all strings in an object that are output, and what follows the object.
fn strings(object: &[u8]) -> (usize, &[u8]) {
    let mut length = 0;
    let mut depth = 0_u32;
    let mut counts = true;
    let mut rest = object;
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'"' => {
                let (inner, after) = string(rest);
                if after.first() == Some(&b':') || after.trim_ascii_start().first() == Some(&b':') {
                    counts = !NO_OUTPUT.contains(&rest.get(1..=inner).unwrap_or_default());
                } else if counts {
                    length += inner;
                }
                rest = after;
                continue;
            }
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return (length, after);
                }
            }
            _ => {}
        }
        rest = after;
    }
    (length, b"")
}

/// Counts the output in a body that arrives in pieces, for where nothing is reported.
#[derive(Debug)]
pub(super) struct Body {
    /// The top-level member that holds the output.
    member: &'static [u8],
    /// Whether it is open.
    entered: bool,
    depth: u32,
    text: Text,
    /// The length of the string that was read last, which may turn out to be a key.
    length: usize,
    /// Its beginning.
    begins: [u8; KEY_MAX],
    /// Whether strings are output where the reading stands.
    counts: bool,
    /// Bytes of output.
    bytes: usize,
}

/// Where the reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
    /// Behind a string: a colon makes it a key.
    Behind,
}

impl Body {
    pub(super) const fn new(member: &'static [u8]) -> Self {
        Self {
            member,
            entered: false,
            depth: 0,
            text: Text::Outside,
            length: 0,
            begins: [0; KEY_MAX],
            counts: true,
            bytes: 0,
        }
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while let Some((byte, rest)) = piece.split_first() {
            piece = match self.text {
                Text::Inside => self.inside(piece),
                Text::Escaped => {
                    self.put(&[*byte]);
                    self.text = Text::Inside;
                    rest
                }
                Text::Outside | Text::Behind => {
                    self.outside(*byte);
                    rest
                }
            };
        }
    }

    /// The output so far, in tokens.
    pub(super) fn tokens(&self) -> u64 {
        // What is unfinished may be a key, unless it is longer than one.
        let is_text = self.text != Text::Outside && self.entered && self.counts && self.length > TOKEN_MAX;
        of_length(self.bytes + if is_text { self.length } else { 0 })
    }

    fn inside<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let stop = memchr2(b'"', b'\\', piece).unwrap_or(piece.len());
        let (text, rest) = piece.split_at(stop);
        self.put(text);
        match rest.split_first() {
            Some((b'"', rest)) => {
                self.text = Text::Behind;
                rest
            }
            Some((escape, rest)) => {
                self.put(&[*escape]);
                self.text = Text::Escaped;
                rest
            }
            None => rest,
        }
    }

    fn put(&mut self, text: &[u8]) {
        for (place, byte) in self.begins.iter_mut().skip(self.length).zip(text) {
            *place = *byte;
        }
        self.length += text.len();
    }

    fn outside(&mut self, byte: u8) {
        if self.text == Text::Behind {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.text = Text::Outside;
            if byte == b':' {
                let key = self.begins.get(..self.length).unwrap_or_default();
                self.entered = if self.depth == 1 { key == self.member } else { self.entered };
                self.counts = !NO_OUTPUT.contains(&key);
            } else if self.entered && self.counts {
                self.bytes += self.length;
            }
        }
        match byte {
            b'"' => {
                self.text = Text::Inside;
                self.length = 0;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
