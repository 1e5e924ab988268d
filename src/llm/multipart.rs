//! Reads `multipart/form-data` (RFC 7578 over RFC 2046) for the one field that matters, strictly: a body that another
//! reader could split in another way is refused, or a model could be named that was never checked.

use httparse::Header;
use memchr::memmem;

use super::json::media_text_bytes;
use super::request::{Edits, Members, checked_model};
use super::{BodyFault, Parsed, Span};

/// The most parts in a body.
const PARTS_MAX: usize = 256;
/// The most header fields of a part.
const PART_FIELDS_MAX: usize = 16;
/// The longest header of a part, in bytes.
const PART_HEAD_MAX: usize = 8 * 1024;
/// The longest boundary, in bytes (RFC 2046, 5.1.1).
const BOUNDARY_MAX: usize = 70;

/// Reads a multipart body.
///
/// # Errors
/// 415 where the media type is not `multipart/form-data` with one good boundary, else 400.
pub(super) fn read(content_type: &str, body: &[u8]) -> Result<Parsed, BodyFault> {
    let boundary = boundary(content_type)?;
    let mut form = Form::default();
    for part in split(body, &boundary)? {
        form.take(body, &part)?;
    }
    form.finish()
}

/// A part: its name, whether it is a file, and where its content lies.
struct Part {
    name: String,
    file: bool,
    encoded: bool,
    content: Span,
}

#[derive(Default)]
struct Form {
    model: Option<(Span, String)>,
    n: u64,
    stream: bool,
    text_bytes: u64,
    user: Option<Span>,
    prompt: Option<Span>,
}

impl Form {
    fn take(&mut self, body: &[u8], part: &Part) -> Result<(), BodyFault> {
        let content = body.get(part.content.clone()).unwrap_or_default();
        if part.file && part.name != "model" {
            self.text_bytes += media_text_bytes(content.len());
            return Ok(());
        }
        let text = std::str::from_utf8(content);
        match part.name.as_str() {
            "model" => {
                if self.model.is_some() {
                    return Err(BodyFault::duplicate_key("model"));
                }
                if part.file || part.encoded {
                    return Err(BodyFault::invalid_value("model", "a plain form field"));
                }
                let name = checked_model(text.map_err(|_| BodyFault::missing_model())?)?;
                self.model = Some((part.content.clone(), name));
            }
            "n" => {
                let count = text.ok().and_then(|text| text.trim().parse().ok());
                self.n = count.ok_or_else(|| BodyFault::invalid_value("n", "a positive integer"))?;
            }
            // Form readers take these words for true, in any case.
            "stream" => {
                self.stream = text.is_ok_and(|text| ["true", "1", "on", "yes"].contains(&text.trim().to_ascii_lowercase().as_str()))
            }
            "user" => self.user = Some(part.content.clone()),
            "prompt" => {
                self.text_bytes += content.len() as u64;
                self.prompt = Some(part.content.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Parsed, BodyFault> {
        let (place, model) = self.model.ok_or_else(BodyFault::missing_model)?;
        Ok(Parsed {
            model,
            max_tokens: None,
            choices: self.n.max(1),
            stream: self.stream,
            text_bytes: self.text_bytes,
            members: Members {
                user: self.user,
                prompt: self.prompt,
                ..Members::default()
            },
            edits: Edits {
                model: place,
                ..Edits::default()
            },
        })
    }
}

/// The boundary in a media type, its quotes undone.
fn boundary(content_type: &str) -> Result<Vec<u8>, BodyFault> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(BodyFault::unsupported_media_type("This route takes multipart/form-data."));
    }
    let unfit = || BodyFault::unsupported_media_type("The Content-Type needs one boundary of 1 to 70 characters.");
    let mut found = None;
    for (name, value) in parameters_of(parameters.as_bytes()).ok_or_else(unfit)? {
        if name.eq_ignore_ascii_case(b"boundary") && found.replace(value).is_some() {
            return Err(unfit());
        }
    }
    found
        .filter(|boundary| {
            (1..=BOUNDARY_MAX).contains(&boundary.len()) && boundary.iter().all(|byte| is_boundary(*byte)) && !boundary.ends_with(b" ")
        })
        .ok_or_else(unfit)
}

/// `bchars` of RFC 2046.
fn is_boundary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte)
}

/// Splits `name=value; name="value"` (RFC 9110, 5.6.6), quoted pairs undone. `None` where it is not written so.
fn parameters_of(mut rest: &[u8]) -> Option<Vec<(&[u8], Vec<u8>)>> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if let Some(more) = rest.strip_prefix(b";") {
            rest = more;
            continue;
        }
        if rest.is_empty() {
            return Some(found);
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let (name, after) = (rest.get(..equals)?.trim_ascii(), rest.get(equals + 1..)?.trim_ascii_start());
        let (value, after) = match after.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.iter().position(|byte| *byte == b';').unwrap_or(after.len());
                let token = after.get(..end)?.trim_ascii();
                if token.contains(&b'"') {
                    return None;
                }
                (token.to_vec(), after.get(end..)?)
            }
        };
        if name.is_empty() || name.contains(&b'"') {
            return None;
        }
        found.push((name, value));
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            return None;
        }
    }
}

/// What stands before the closing quote, and what follows it.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match quoted.get(at)? {
            b'"' => return Some((value, quoted.get(at + 1..)?)),
            b'\\' => {
                value.push(*quoted.get(at + 1)?);
                at += 2;
            }
            plain => {
                value.push(*plain);
                at += 1;
            }
        }
    }
}

/// Splits the body at its boundary lines. Line ends are CRLF; before the first line there may be CRLFs only; what follows
/// the closing line is nobody's.
fn split(body: &[u8], boundary: &[u8]) -> Result<Vec<Part>, BodyFault> {
    let delimiter = [b"\r\n--", boundary].concat();
    let finder = memmem::Finder::new(&delimiter);
    let mut at = 0;
    while body.get(at..at + 2) == Some(b"\r\n") {
        at += 2;
    }
    let opening = delimiter.get(2..).unwrap_or_default();
    if !body.get(at..).is_some_and(|rest| rest.starts_with(opening)) {
        return Err(BodyFault::invalid_multipart("it does not begin with the boundary"));
    }
    at += opening.len();
    let mut parts = Vec::new();
    loop {
        if body.get(at..).is_some_and(|rest| rest.starts_with(b"--")) {
            return Ok(parts);
        }
        // Transport padding.
        while let Some(b' ' | b'\t') = body.get(at) {
            at += 1;
        }
        if body.get(at..at + 2) != Some(b"\r\n") {
            return Err(BodyFault::invalid_multipart("a boundary line has something after it"));
        }
        if parts.len() == PARTS_MAX {
            return Err(BodyFault::invalid_multipart("it has too many parts"));
        }
        let start = at + 2;
        let head = head_length(body.get(start..).unwrap_or_default())?;
        let content = start + head;
        let end = finder.find(body.get(content..).unwrap_or_default()).map(|found| content + found);
        let end = end.ok_or_else(|| BodyFault::invalid_multipart("its closing boundary is missing"))?;
        parts.push(part(body.get(start..content).unwrap_or_default(), content..end)?);
        at = end + delimiter.len();
    }
}

/// The length of a part's header, the empty line included.
fn head_length(part: &[u8]) -> Result<usize, BodyFault> {
    let window = part.get(..PART_HEAD_MAX).unwrap_or(part);
    let end = memmem::find(window, b"\r\n\r\n").map(|end| end + 4);
    end.ok_or_else(|| BodyFault::invalid_multipart("a part's header does not end, or is too long"))
}

fn part(head: &[u8], content: Span) -> Result<Part, BodyFault> {
    let unfit = || BodyFault::invalid_multipart("a part's header is not form-data with one name");
    let mut fields = [httparse::EMPTY_HEADER; PART_FIELDS_MAX];
    let fields = match httparse::parse_headers(head, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length == head.len() => fields,
        Ok(_) | Err(_) => return Err(unfit()),
    };
    let disposition = only(fields, "content-disposition").ok_or_else(unfit)?;
    let semicolon = disposition.iter().position(|byte| *byte == b';').ok_or_else(unfit)?;
    let (kind, parameters) = disposition.split_at(semicolon);
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(unfit());
    }
    let mut name = None;
    let mut file = false;
    for (parameter, value) in parameters_of(parameters).ok_or_else(unfit)? {
        if parameter.eq_ignore_ascii_case(b"name") {
            if name.replace(value).is_some() {
                return Err(unfit());
            }
        } else if parameter.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"name*")) {
            // RFC 2231's extended and continued names, which some form readers take for the name.
            return Err(unfit());
        } else {
            file |= parameter.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"filename"));
        }
    }
    let name = String::from_utf8(name.ok_or_else(unfit)?).map_err(|_| unfit())?;
    let encoding = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("content-transfer-encoding"));
    let encoded = encoding.map(|field| field.value.trim_ascii()).any(|coding| {
        ![&b"7bit"[..], b"8bit", b"binary"]
            .iter()
            .any(|plain| coding.eq_ignore_ascii_case(plain))
    });
    Ok(Part {
        name,
        file,
        encoded,
        content,
    })
}

/// The value of a field that is there once.
fn only<'a>(fields: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests;
