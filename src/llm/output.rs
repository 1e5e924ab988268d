//! How many tokens of output an event holds: an estimate that costs two searches, corrected by whatever is reported.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use super::Route;

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"delta\""));
static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"text\""));

/// The longest text that is taken for one token, in bytes; a longer one holds several, of four bytes each. Servers send one
/// token per event, or several when they decode speculatively or are told to.
const TOKEN_MAX: usize = 16;

/// Members of a delta that are no output: names of things, and blobs.
const NO_OUTPUT: [&[u8]; 8] = [
    b"role",
    b"type",
    b"id",
    b"stop_reason",
    b"stop_sequence",
    b"signature",
    b"data",
    b"call_id",
];

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
        tokens += match length {
            0 => 0,
            1..=TOKEN_MAX => 1,
            more => more as u64 / 4,
        };
    }
    tokens
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
