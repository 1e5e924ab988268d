//! A strict reader of JSON (RFC 8259) that keeps places, not values.
//!
//! `serde_json` tells what a value is, not where; and a skipped value is bounded neither in depth nor weighed. Both are
//! needed here, in one pass, so the grammar is walked by hand. A property test holds it to accept exactly what `serde_json`
//! accepts. What it decodes (keys, the model's name) it gives to `serde_json`.

use std::borrow::Cow;

use memchr::memchr2;

use super::{BodyFault, Span};

/// The deepest nesting that is read; the outermost object is level 1. Engines' parsers recurse.
pub(super) const DEPTH_MAX: u32 = 64;

/// What the walk over a value adds up, in bytes of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weigh {
    /// Nothing.
    Nothing,
    /// Strings, each by its decoded length; media by estimate.
    Text,
    /// Strings, and numbers as the tokens they are.
    Tokens,
    /// Strings and keys, as in a schema that the engine prints into the prompt.
    Schema,
}

/// Bytes of text that stand for one token in every estimate.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// What an image, a recording or a file of so many encoded bytes is taken for: 85 tokens (OpenAI's small image) to 1600
/// (Anthropic's largest), one per 512 bytes between. Never its length as text, which would be wrong a hundredfold. Only an
/// estimate for admission: what is billed is what the engine reports.
pub(super) fn media_text_bytes(encoded: usize) -> u64 {
    (encoded as u64 / 512).clamp(85, 1600) * BYTES_PER_TOKEN
}

/// What a reference to media elsewhere is taken for: a mid-sized image.
const REMOTE_MEDIA_TEXT_BYTES: u64 = 765 * BYTES_PER_TOKEN;

/// Keys under which prompts carry media or opaque blobs instead of text.
const MEDIA_KEYS: [&[u8]; 13] = [
    b"url",
    b"data",
    b"image_url",
    b"image",
    b"video",
    b"video_url",
    b"audio",
    b"audio_url",
    b"file_data",
    b"file_url",
    b"b64_json",
    b"encrypted_content",
    b"signature",
];

/// Reads the values of one text, left to right.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Bytes of text weighed so far.
    pub(super) weight: u64,
}

impl<'a> Reader<'a> {
    /// Starts at the given place. The text must be UTF-8; whoever made the reader checked it.
    pub(super) const fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at, weight: 0 }
    }

    /// The next byte that is not white space, without taking it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at).copied() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Where the reader stands.
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// Takes one byte of punctuation after white space.
    pub(super) fn expect(&mut self, punctuation: u8) -> Result<(), BodyFault> {
        if self.peek() == Some(punctuation) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// Takes the next key of an object, its colon included; `None` is the object's end, which is taken too. `first` says
    /// that the opening brace is what was taken last.
    pub(super) fn key(&mut self, first: bool) -> Result<Option<Span>, BodyFault> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.peek();
            }
            Some(b'"') if first => {}
            Some(_) | None => return Err(self.unexpected()),
        }
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return Err(self.unexpected());
        }
        self.string()?;
        let key = start..self.at;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Takes one value and returns where it lies. `depth` counts the containers it stands in.
    pub(super) fn value(&mut self, depth: u32, weigh: Weigh) -> Result<Span, BodyFault> {
        self.peek();
        let start = self.at;
        self.walk(depth, weigh, false)?;
        Ok(start..self.at)
    }

    /// Asks that nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), BodyFault> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// `media` says that the innermost key is one of [`MEDIA_KEYS`].
    fn walk(&mut self, depth: u32, weigh: Weigh, media: bool) -> Result<(), BodyFault> {
        match self.peek() {
            Some(b'"') => {
                let start = self.at + 1;
                let length = self.string()?;
                if weigh != Weigh::Nothing {
                    let inner = self.text.get(start..self.at.saturating_sub(1)).unwrap_or_default();
                    self.weight += if media { weigh_media(inner, length) } else { length };
                }
                Ok(())
            }
            Some(b'{') => self.object(depth, weigh),
            Some(b'[') => self.array(depth, weigh, media),
            Some(b'-' | b'0'..=b'9') => {
                if weigh == Weigh::Tokens {
                    self.weight += BYTES_PER_TOKEN;
                }
                self.number()
            }
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) | None => Err(self.unexpected()),
        }
    }

    fn object(&mut self, depth: u32, weigh: Weigh) -> Result<(), BodyFault> {
        if depth >= DEPTH_MAX {
            return Err(BodyFault::too_deep(DEPTH_MAX));
        }
        self.at += 1;
        let mut first = true;
        while let Some(key) = self.key(first)? {
            first = false;
            let name = self.text.get(key.start + 1..key.end - 1).unwrap_or_default();
            if weigh == Weigh::Schema {
                self.weight += name.len() as u64;
            }
            let media = weigh != Weigh::Nothing && MEDIA_KEYS.contains(&name);
            self.walk(depth + 1, weigh, media)?;
        }
        Ok(())
    }

    fn array(&mut self, depth: u32, weigh: Weigh, media: bool) -> Result<(), BodyFault> {
        if depth >= DEPTH_MAX {
            return Err(BodyFault::too_deep(DEPTH_MAX));
        }
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.walk(depth + 1, weigh, media)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) | None => return Err(self.unexpected()),
            }
        }
    }

    /// Takes a string, of which the opening quote is next, and returns its decoded length in bytes of UTF-8.
    fn string(&mut self) -> Result<u64, BodyFault> {
        self.at += 1;
        let mut length = 0;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = memchr2(b'"', b'\\', rest).ok_or_else(|| BodyFault::invalid_json(self.text.len(), "a string does not end"))?;
            let run = rest.get(..plain).unwrap_or_default();
            // A fold without an early exit: the compiler makes vector code of it.
            if run.iter().fold(false, |found, byte| found | (*byte < b' ')) {
                let bad = run.iter().position(|byte| *byte < b' ').unwrap_or_default();
                return Err(BodyFault::invalid_json(self.at + bad, "an unescaped control character"));
            }
            length += plain as u64;
            self.at += plain + 1;
            if rest.get(plain) == Some(&b'"') {
                return Ok(length);
            }
            length += self.escape()?;
        }
    }

    /// Takes what follows a backslash and returns the decoded length.
    fn escape(&mut self) -> Result<u64, BodyFault> {
        let kind = self.text.get(self.at).copied();
        match kind {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(1)
            }
            Some(b'u') => {
                let digits = self
                    .text
                    .get(self.at + 1..self.at + 5)
                    .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let digits = digits.ok_or_else(|| BodyFault::invalid_json(self.at, "an escape without four hexadecimal digits"))?;
                self.at += 5;
                Ok(match digits {
                    [b'0', b'0', b'0'..=b'7', _] => 1,
                    [b'0', b'0'..=b'7', ..] => 2,
                    // Half of a surrogate pair; the pair is four bytes.
                    [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..] => 2,
                    _ => 3,
                })
            }
            Some(_) | None => Err(BodyFault::invalid_json(self.at, "an unknown escape")),
        }
    }

    fn number(&mut self) -> Result<(), BodyFault> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Takes one digit or more.
    fn digits(&mut self) -> Result<(), BodyFault> {
        let count = self
            .text
            .get(self.at..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if count == 0 {
            return Err(self.unexpected());
        }
        self.at += count;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), BodyFault> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn unexpected(&self) -> BodyFault {
        let what = if self.at < self.text.len() {
            "something unexpected"
        } else {
            "an unexpected end"
        };
        BodyFault::invalid_json(self.at, what)
    }
}

/// Decodes a string by its place, quotes included. `None` where it is no string, or escapes half a surrogate pair.
pub(super) fn decode<'a>(text: &'a [u8], place: &Span) -> Option<Cow<'a, str>> {
    let quoted = text.get(place.clone())?;
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        serde_json::from_slice(quoted).ok().map(Cow::Owned)
    } else {
        std::str::from_utf8(inner).ok().map(Cow::Borrowed)
    }
}

/// A string under one of [`MEDIA_KEYS`]: a data URL, an address, base64; or text after all, as in Anthropic's plain-text
/// documents.
fn weigh_media(inner: &[u8], length: u64) -> u64 {
    let head = inner.get(..64).unwrap_or(inner);
    if head.starts_with(b"http:") || head.starts_with(b"https:") {
        REMOTE_MEDIA_TEXT_BYTES
    } else if head.starts_with(b"data:") || head.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte)) {
        media_text_bytes(inner.len()).min(length)
    } else {
        length
    }
}
