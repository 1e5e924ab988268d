//! A JSON text in canonical form, fed to a hash piece by piece: key order, white space, escapes and the spelling of
//! numbers do not matter; every value does.
//!
//! RFC 8785 would do, but it reads numbers as doubles, under which 9007199254740993 equals 9007199254740992. Here numbers
//! are compared as decimals, exactly.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Objects and arrays deeper than this have no canonical form: the recursion is bounded here and not by the caller.
const DEPTH_MAX: usize = 128;

/// Takes the pieces of a canonical form.
pub(super) trait Sink {
    /// The next bytes.
    fn put(&mut self, bytes: &[u8]);
}

/// Feeds the members of a top-level object to `sink`, but those that `skip` names. Returns whether the text is an object
/// within the bound of depth; if not, what was fed is worthless.
pub(super) fn object<S: Sink>(text: &[u8], skip: &[&str], sink: &mut S) -> bool {
    let Ok(Members(mut members)) = serde_json::from_slice::<Members<'_>>(text) else {
        return false;
    };
    members.retain(|(name, _)| !skip.contains(&&**name));
    put_members(members, 1, sink).is_some()
}

fn put_value<S: Sink>(raw: &str, depth: usize, sink: &mut S) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match raw.as_bytes().first()? {
        b'{' => put_members(serde_json::from_str::<Members<'_>>(raw).ok()?.0, depth, sink),
        b'[' => {
            sink.put(b"[");
            for element in serde_json::from_str::<Vec<&RawValue>>(raw).ok()? {
                put_value(element.get(), depth + 1, sink)?;
            }
            sink.put(b"]");
            Some(())
        }
        b'"' => {
            put_text(&serde_json::from_str::<Text<'_>>(raw).ok()?.0, sink);
            Some(())
        }
        b't' | b'f' | b'n' => {
            sink.put(raw.as_bytes());
            Some(())
        }
        _ => put_number(raw, sink),
    }
}

fn put_members<S: Sink>(mut members: Vec<(Cow<'_, str>, &RawValue)>, depth: usize, sink: &mut S) -> Option<()> {
    // Stable: of two members of one name the later wins in most readers, so their order is a value.
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    sink.put(b"{");
    for (name, value) in members {
        put_text(&name, sink);
        put_value(value.get(), depth + 1, sink)?;
    }
    sink.put(b"}");
    Some(())
}

/// A text with its length before it, so that no text can look like two.
fn put_text<S: Sink>(text: &str, sink: &mut S) {
    sink.put(b"\"");
    sink.put(&(text.len() as u64).to_le_bytes());
    sink.put(text.as_bytes());
}

/// A number as sign, significant digits and exponent: 1.50e3, 1500 and 15E2 are one, and minus zero is zero.
fn put_number<S: Sink>(raw: &str, sink: &mut S) -> Option<()> {
    let (negative, rest) = match raw.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, raw),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        // An exponent beyond an i64 is no number that any reader takes.
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let leading = digits().take_while(|digit| *digit == b'0').count();
    let trailing = fraction
        .bytes()
        .rev()
        .chain(whole.bytes().rev())
        .take_while(|digit| *digit == b'0')
        .count();
    let all = whole.len() + fraction.len();
    if leading == all {
        sink.put(b"0");
        return Some(());
    }
    let shift = i64::try_from(trailing).ok()? - i64::try_from(fraction.len()).ok()?;
    sink.put(if negative { b"-" } else { b"+" });
    for digit in digits().skip(leading).take(all - leading - trailing) {
        sink.put(&[digit]);
    }
    sink.put(b"e");
    sink.put(&exponent.checked_add(shift)?.to_le_bytes());
    Some(())
}

/// The members of an object in their order, values unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some((name, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(Members(members))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
                Err(serde::de::Error::custom("an array is no object"))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A string, borrowed unless it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}
